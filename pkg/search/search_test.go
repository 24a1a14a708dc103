package search

import (
	"strings"
	"testing"
)

func TestParseQuestion(t *testing.T) {
	for question, want := range map[string]string{
		"what changed on the bridge?":          "chang bridg",
		`port "vnet0 up" on ovsbr0`:            "vnet0 port ovsbr|vnet0 up,ovsbr0",
		"who is it":                            "",
		"10.0.1.1 AND NOT (x OR y*) ^z":        "|10.0.1.1",
		`" " "" ?? --`:                         "",
		"":                                     "",
		`unbalanced "quote here`:               "unbalanc quot",
		"restart of ssh.service":               "restart ssh servic|ssh.service",
		"52:54:00:AB:cd:17":                    "|52:54:00:ab:cd:17",
		"exit code 137":                        "exit code||137",
		"who changed org.freedesktop.systemd1": "chang org freedesktop systemd1|org.freedesktop.systemd1",
		"6f1c2d3e-4b5a-4c6d-8e7f-90a1b2c3d4e5 in the log": "log|6f1c2d3e-4b5a-4c6d-8e7f-90a1b2c3d4e5",
	} {
		q := ParseQuestion(question)
		got := strings.TrimRight(strings.Join(q.Stems, " ")+"|"+strings.Join(q.Values, ",")+"|"+strings.Join(q.Numbers, ","), "|")
		if got != want {
			t.Errorf("%q: %q, want %q", question, got, want)
		}
	}
	if q := ParseQuestion(strings.Repeat("word xyz1 \"quoted\" 5 ", 10000)); len(q.Stems) > maxTerms || len(q.Values) > maxTerms || len(q.Numbers) > maxTerms {
		t.Errorf("%+v", q)
	}
}

// A question is data: whatever it holds, it is parsed in time that its length
// bounds, and the parts are in lower case.
func FuzzParseQuestion(f *testing.F) {
	f.Add(`port "vnet0 up" on ovsbr0 at 10.0.0.1 'x' `)
	f.Add("in the last \xff hour <num> \"")
	f.Fuzz(func(t *testing.T, s string) {
		rest, _ := When(s, testNow)
		q := ParseQuestion(rest)
		for _, v := range append(q.Values, q.Numbers...) {
			if v == "" || v != strings.ToLower(v) {
				t.Fatalf("%q: value %q", s, v)
			}
		}
	})
}
