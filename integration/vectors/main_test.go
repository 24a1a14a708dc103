package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
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

// A few entries in WordNet's format (wndb(5)): what comes of them is what the
// relations say, for stems that the vectors know.
func TestSynonyms(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"data.noun":  "  1 licence\n00000010 04 n 02 failure 0 breakdown 0 001 + 00000020 v 0101 | a thing that fails\n",
		"data.verb":  "00000020 30 v 02 fail 0 break_down 0 001 + 00000010 n 0101 01 + 01 00 | to stop working\n",
		"data.adj":   "00000030 00 a 01 broken(p) 0 000 | out of order\n",
		"data.adv":   "",
		"index.noun": "failure n 1 1 + 1 1 00000010\nbreakdown n 1 0 1 0 00000010\n",
		"index.verb": "fail v 1 1 + 1 1 00000020\nbreak_down v 1 0 1 0 00000020\n",
		"index.adj":  "broken a 1 0 1 0 00000030\n",
		"index.adv":  "", "noun.exc": "", "adj.exc": "", "adv.exc": "", "verb.exc": "fell fall\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, pairs, err := synonyms(dir, embed.LoadLocal())
	if err != nil {
		t.Fatal(err)
	}
	// failure and fail by derivation, breakdown and failure as one meaning, fell
	// and fall as forms; as far as manuals know the second.
	if pairs < 4 || !bytes.Contains(data, []byte("failur")) || !bytes.Contains(data, []byte("\x04fell")) || bytes.Contains(data, []byte("break_down")) {
		t.Errorf("%d pairs: %q", pairs, data[len(embed.SynonymMagic):])
	}
	if err := os.WriteFile(filepath.Join(dir, "data.noun"), []byte("00000010 04 n 01 failure 0 001 + 99999999 v 0101 |\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := synonyms(dir, embed.LoadLocal()); err == nil {
		t.Error("a link to nowhere is taken")
	}
}
