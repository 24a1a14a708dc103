package main

import (
	"bytes"
	"strings"
	"testing"
)

func report1(lines ...string) (string, *report) {
	var b bytes.Buffer
	r := newReport(&b)
	if err := r.read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		return err.Error(), r
	}
	return b.String(), r
}

func TestReport(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"TestA"}`
	const skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:3: needs root\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}`
	const long = `{"Action":"output","Package":"p","Test":"TestC","Output":"    a_test.go:3: takes minutes; runs with GB_TORTURE=1\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestC"}`
	const fail = `{"Action":"output","Package":"p","Test":"TestD","Output":"boom\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestD"}` + "\n" + `{"Action":"fail","Package":"p"}`
	const panics = `{"Action":"output","Package":"p","Output":"panic: x\n"}` + "\n" + `{"Action":"fail","Package":"p"}`
	const build = `{"Action":"build-fail","ImportPath":"p"}`
	for _, c := range []struct {
		name        string
		lines       []string
		ok, strict  bool
		totals, has string
	}{
		{"pass", []string{pass}, true, true, "1 passed, 0 failed, 0 skipped", ""},
		{"skip", []string{pass, skip}, true, false, "1 passed, 0 failed, 1 skipped", "needs root"},
		{"long", []string{pass, long}, true, true, "1 passed, 0 failed, 0 skipped", "make torture"},
		{"fail", []string{pass, fail}, false, false, "1 passed, 1 failed, 0 skipped", "boom"},
		{"panic", []string{pass, panics}, false, false, "1 passed, 1 failed, 0 skipped", "panic: x"},
		{"build", []string{build}, false, false, "0 passed, 1 failed, 0 skipped", "see above"},
	} {
		for strict, want := range map[bool]bool{false: c.ok, true: c.strict} {
			_, r := report1(c.lines...)
			if got := r.close(strict); got != want {
				t.Errorf("%s, strict %v: %v", c.name, strict, got)
			}
			text := r.w.(*bytes.Buffer).String()
			if !strings.HasSuffix(text, c.totals+"\n") || !strings.Contains(text, c.has) {
				t.Errorf("%s: %s", c.name, text)
			}
		}
	}
}
