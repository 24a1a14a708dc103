package search

import (
	"strings"
	"testing"
)

func TestTerms(t *testing.T) {
	for question, want := range map[string]string{
		"what changed on the bridge?":   "changed|bridge?",
		`port "vnet0 up" on ovsbr0`:     `port|vnet0 up|ovsbr0`,
		"who is it":                     "who|is|it",
		"10.0.1.1 AND NOT (x OR y*) ^z": "10.0.1.1|NOT|(x|y*)|^z",
		`" "" ?? --`:                    "",
		"":                              "",
		`unbalanced "quote here`:        "unbalanced|quote here",
	} {
		var got []string
		for _, term := range Terms(question) {
			got = append(got, term.Text)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %q, want %q", question, got, want)
		}
	}
	if n := len(Terms(strings.Repeat("word ", 10000))); n != maxTerms {
		t.Errorf("%d terms", n)
	}
}
