package embed

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/words"
)

//go:embed thesaurus.txt
var thesaurusText string

// Thesaurus returns the rows of the thesaurus: entries that mean the same, each
// the stems of its words, stop words left out.
func Thesaurus() [][][]string {
	var rows [][][]string
	for line := range strings.Lines(thesaurusText) {
		if line[0] == '#' {
			continue
		}
		var row [][]string
		for entry := range strings.SplitSeq(line, ",") {
			if terms := words.Terms(entry); len(terms) > 0 {
				row = append(row, terms)
			}
		}
		if len(row) > 1 {
			rows = append(rows, row)
		}
	}
	return rows
}

// A thesaurus finds rows by what they contain.
type thesaurus struct {
	rows    [][][]string
	byFirst map[string][][2]int // row and entry, by the entry's first stem
}

var loadThesaurus = sync.OnceValue(func() *thesaurus {
	t := &thesaurus{rows: Thesaurus(), byFirst: make(map[string][][2]int)}
	for r, row := range t.rows {
		for e, entry := range row {
			t.byFirst[entry[0]] = append(t.byFirst[entry[0]], [2]int{r, e})
		}
	}
	return t
})

// A synonym is a stem that stands for one of the question's.
type synonym struct {
	stem string
	of   int     // position in the question
	gain float64 // 0 to 1
}

// expand returns what other stems stand for those of a question. A row that
// matches by a phrase of several words says more than one by a single word, and
// the words of a phrase say less each than a word that is an entry.
func (t *thesaurus) expand(stems []string) []synonym {
	var list []synonym
	for i := range stems {
		for _, at := range t.byFirst[stems[i]] {
			entry := t.rows[at[0]][at[1]]
			if !hasPrefix(stems[i:], entry) {
				continue
			}
			for e, other := range t.rows[at[0]] {
				if e == at[1] {
					continue
				}
				gain := 1.0
				if len(other) > 1 {
					gain = 0.6
				}
				if len(entry) > 1 {
					gain *= 1.2
				}
				for _, s := range other {
					list = append(list, synonym{s, i, gain})
				}
			}
		}
	}
	return list
}

func hasPrefix(list, prefix []string) bool {
	if len(list) < len(prefix) {
		return false
	}
	for i, p := range prefix {
		if list[i] != p {
			return false
		}
	}
	return true
}
