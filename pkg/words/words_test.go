package words

import (
	"slices"
	"strings"
	"testing"
)

// The examples of Porter's paper, and words of logs.
func TestStem(t *testing.T) {
	for _, pair := range strings.Fields(`caresses:caress ponies:poni ties:ti caress:caress cats:cat feed:feed agreed:agre plastered:plaster bled:bled motoring:motor
		sing:sing conflated:conflat troubled:troubl sized:size hopping:hop tanned:tan falling:fall hissing:hiss fizzed:fizz failing:fail filing:file
		happy:happi sky:sky relational:relat conditional:condit rational:ration valenci:valenc digitizer:digit operator:oper feudalism:feudal
		decisiveness:decis hopefulness:hope callousness:callous formaliti:formal sensitiviti:sensit triplicate:triplic formative:form formalize:formal
		electrical:electr goodness:good revival:reviv allowance:allow inference:infer airliner:airlin adjustable:adjust defensible:defens irritant:irrit
		replacement:replac adjustment:adjust dependent:depend adoption:adopt communism:commun activate:activ effective:effect rate:rate cease:ceas
		controll:control roll:roll failed:fail failure:failur connections:connect connected:connect ext4:ext4 an:an über:über`) {
		in, want, _ := strings.Cut(pair, ":")
		if got := Stem(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{
		"ActiveState of eth<num> <*> changed":   "active state activestate of eth changed",
		"Can't open <path>: don't 12 EXT4-fs":   "can't open don't ext4 fs",
		"a<b and 3com it's the bridge's, ×ö":    "a b and it the bridge ö",
		strings.Repeat("x", 50) + " NAT66/tcp6": "nat66 tcp6",
	} {
		if got := strings.Join(Split(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Terms("What changed on the bridges before it failed?"); !slices.Equal(got, []string{"chang", "bridg", "fail"}) {
		t.Errorf("%q", got)
	}
}

func FuzzTermsNoPanic(f *testing.F) {
	f.Add("aB'tC <x")
	f.Fuzz(func(t *testing.T, text string) {
		for _, w := range Terms(text) {
			if w == "" || len(w) > maxWord {
				t.Fatalf("term %q", w)
			}
		}
	})
}
