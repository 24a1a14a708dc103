package template

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	for _, c := range []struct{ line, want, params string }{
		{"", "", ""},
		{"  Started  nginx.service.\n", "Started nginx.service.", ""},
		{"Failed password for root from 203.0.113.77 port 4022 ssh2", "Failed password for root from <ip> port <num> ssh2", "203.0.113.77 4022"},
		{"SRC=10.0.0.1 DST=10.0.0.2:80", "SRC=<ip> DST=<ip>:<num>", "10.0.0.1 10.0.0.2 80"},
		{"route 10.0.0.0/8 via fe80::1, 2001:db8::/32", "route <ip> via <ip>, <ip>", "10.0.0.0/8 fe80::1 2001:db8::/32"},
		{"DHCPACK(vnet7) 10.0.1.77 52:54:00:ab:cd:17 web-04", "DHCPACK(vnet<num>) <ip> <mac> web-<num>", "vnet7 10.0.1.77 52:54:00:ab:cd:17 web-04"},
		{"uuid=6f1c2d3e-4b5a-4c6d-8e7f-90a1b2c3d4e5 is", "uuid=<uuid> is", "6f1c2d3e-4b5a-4c6d-8e7f-90a1b2c3d4e5"},
		{`open "/etc/pass wd" it's 'exit-code'`, `open "<str>" it's '<str>'`, "/etc/pass wd exit-code"},
		{"at 2026-03-01T10:11:12.5Z, 10:11:12", "at <time>, <time>", "2026-03-01T10:11:12.5Z 10:11:12"},
		{"EXT4-fs (sda1): mounted", "EXT4-fs (sda<num>): mounted", "sda1"},
		{"segfault at 7f3a10 ip 00007f3a10bc error 4 0xdead", "segfault at <num>f<num>a<num> ip <hex> error <num> <hex>", "7f3a10 00007f3a10bc 4 0xdead"},
		{"igb 0000:af:00.1 eth0: up", "igb <num>:af:<num> eth<num>: up", "0000:af:00.1 eth0"},
		{"Got https://a.example/x?y=1 from ./a/b", "Got <path>?y=<num> from <path>", "https://a.example/x 1 ./a/b"},
		{"took 3.25s (12%)", "took <num>.<num>s (<num>%)", "3.25s 12%"},
		{"version 1.2.3 of 6.1.0-47-amd64", "version <num> of <num>-<num>-amd64", "1.2.3 6.1.0-47-amd64"},
		{"\x1b[31mred\x00", "[<num>mred", "31mred"},
		{"Bob's cat's 'unclosed", "Bob's cat's 'unclosed", ""},
	} {
		got, params := Mask(nil, nil, c.line)
		var values []string
		for _, p := range params {
			values = append(values, p.Value)
		}
		if string(got) != c.want || strings.Join(values, " ") != c.params {
			t.Errorf("%q\n  is   %q %q\n  want %q %q", c.line, got, values, c.want, c.params)
		}
	}
}

// A masked line masks to itself in what counts: the same line whose values
// were replaced by others of their kind gives the same masked line.
func TestMaskIgnoresValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		line := func() string {
			return fmt.Sprintf("conn %d from 10.%d.%d.%d at %02x:%02x:%02x:%02x:%02x:%02x took %dms path /v/%d", r.IntN(1e6), r.IntN(256), r.IntN(256), r.IntN(256),
				r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(1e4), r.IntN(100))
		}
		a, _ := Mask(nil, nil, line())
		b, _ := Mask(nil, nil, line())
		if string(a) != string(b) {
			t.Fatalf("%q and %q", a, b)
		}
	}
}

// Values are pieces of the line, the result is bounded, and masking has no
// memory.
func FuzzMaskIsPure(f *testing.F) {
	f.Add(`a 1.2.3.4 "q" fe80::1 2026-01-01T00:00:00Z`)
	f.Add("'\\")
	f.Add("::")
	f.Fuzz(func(t *testing.T, line string) {
		a, params := Mask(nil, nil, line)
		b, _ := Mask([]byte("x"), params, line)
		if string(b) != "x"+string(a) {
			t.Fatalf("%q and %q", a, b)
		}
		for _, p := range params {
			if !strings.Contains(line, p.Value) {
				t.Fatalf("%q is not in %q", p.Value, line)
			}
		}
		if len(a) > 8*len(line)+8 {
			t.Fatalf("%d bytes became %d", len(line), len(a))
		}
	})
}

func TestDrainGroups(t *testing.T) {
	var d Drain
	a, changed := d.Add("s", "Started nginx.service and all its sockets.")
	if !changed || a.ID != 0 {
		t.Errorf("%v %v", a, changed)
	}
	if b, changed := d.Add("s", "Started cron.service and all its sockets."); b.ID == a.ID || !changed {
		// The second word tells leaves apart while it has no value in it.
		t.Errorf("%v %v", b, changed)
	}
	c, _ := d.Add("s", "port vnet<num> added to bridge ovsbr0")
	e, changed := d.Add("s", "port tap<num> added to bridge ovsbr0")
	if c.ID != e.ID || !changed || e.Template() != "port <*> added to bridge ovsbr0" {
		t.Errorf("%v %v", c, e)
	}
	if g, changed := d.Add("s", "port eth<num> added to bridge ovsbr0"); g.ID != c.ID || changed {
		t.Errorf("%v %v", g, changed)
	}
	if g, _ := d.Add("other", "port eth<num> added to bridge ovsbr0"); g.ID == c.ID {
		t.Error("lines of another origin are grouped")
	}
	if g, _ := d.Add("s", ""); g.Template() != "" {
		t.Errorf("%v", g)
	}
}

// A state that is kept and restored anywhere on the way leads to the same
// groups, also where a branch overflows.
func TestDrainState(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var lines []string
	for range 3000 {
		words := make([]string, 1+r.IntN(5))
		for i := range words {
			words[i] = fmt.Sprintf("w%c%c", 'a'+r.IntN(26), 'a'+r.IntN(10))
			if r.IntN(6) == 0 {
				words[i] = "<num>"
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	var whole Drain
	for _, l := range lines {
		whole.Add("k", l)
	}
	for _, cut := range []int{0, 1, 500, 1700, 2999} {
		var first, second Drain
		for _, l := range lines[:cut] {
			first.Add("k", l)
		}
		state, err := first.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := second.UnmarshalText(state); err != nil {
			t.Fatal(err)
		}
		for _, l := range lines[cut:] {
			second.Add("k", l)
		}
		if !reflect.DeepEqual(whole.Groups(), second.Groups()) {
			t.Errorf("cut at %d: other groups", cut)
		}
	}
	var d Drain
	if err := d.UnmarshalText([]byte(`[{"id":1}]`)); err == nil {
		t.Error("a state with a gap was taken")
	}
}

func BenchmarkMask(b *testing.B) {
	line := "Failed password for invalid user admin from 203.0.113.77 port 40221 ssh2: session 0x7f3a10bc of /var/lib/x"
	b.SetBytes(int64(len(line)))
	var dst []byte
	var params []Param
	for range b.N {
		dst, params = Mask(dst[:0], params[:0], line)
	}
}
