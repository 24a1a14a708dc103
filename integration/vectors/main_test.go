package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// The same texts give the same file.
func TestTrainIsDeterministic(t *testing.T) {
	var texts []string
	for i := range 60 {
		var b strings.Builder
		for j := range 40 {
			fmt.Fprintf(&b, "word%c stands near word%c and word%c\n", 'a'+(i+j)%23, 'a'+(i*j)%19, 'a'+(i+3*j)%17)
		}
		texts = append(texts, b.String()+"\n\nmemory swap disk")
	}
	thesaurus := [][][]string{{{"memori"}, {"swap"}}}
	a, err := train(texts, thesaurus)
	if err != nil {
		t.Fatal(err)
	}
	b, err := train(texts, thesaurus)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two files of the same texts differ")
	}
}

func TestRoff(t *testing.T) {
	page := `.\" comment
.TH X 8
.SH NAME
x \- does \fBbold\fR things
.TP
.B \-\-flag
An option.`
	if got, want := strings.Join(strings.Fields(roff(page)), " "), "NAME x - does bold things --flag An option."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
