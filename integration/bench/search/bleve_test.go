package main

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// bleve answers over the same corpus: what it finds passes the filters, and it
// finds identifiers as SQLite's BM25 does.
func TestBleve(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bleveask")
	if out, err := exec.Command("go", "build", "-C", "../peers", "-o", program, "./bleveask").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, err := build(22_000)
	if err != nil {
		t.Fatal(err)
	}
	questions, err := loadQuestions("questions.txt", c)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBleve(program, t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	filtered, identifiers, first := 0, 0, 0.0
	for i := range questions {
		q := &questions[i]
		whole := q.whole()
		ids, took, err := b.hits(q, 10)
		if err != nil || took <= 0 {
			t.Fatalf("%q: %v, %v", q.text, took, err)
		}
		for _, id := range ids {
			if n, err := strconv.Atoi(id); err != nil || !passes(&whole, c.events[n]) {
				t.Errorf("%q: the filter does not let event %s through", q.text, id)
			}
			if q.stratum == "constrained" {
				filtered++
			}
		}
		if q.stratum == "identifier" {
			labels, err := b.ask(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			identifiers++
			first += q.judge(labels).first
		}
	}
	if filtered == 0 || identifiers == 0 || first < 0.9*float64(identifiers) {
		t.Errorf("%d hits of constrained questions; %.0f of %d identifiers come first", filtered, first, identifiers)
	}
}

// A program that is none, or that fails, is an error and no answer.
func TestBleveFails(t *testing.T) {
	c := &corpus{}
	for _, program := range []string{"/does/not/exist", "/bin/false", "/bin/echo"} {
		if _, err := newBleve(program, t.TempDir(), c); err == nil {
			t.Errorf("%s was taken for bleve", program)
		}
	}
}
