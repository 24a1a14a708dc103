package search

import (
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/template"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// maxTerms bounds the work that a question can ask for.
const maxTerms = 64

// A Question is what is looked for.
type Question struct {
	// Stems of its words, without those that every question has.
	Stems []string `json:"words,omitempty"`
	// Values that an event must hold, in lower case: identifiers, addresses,
	// paths, quoted text.
	Values []string `json:"values,omitempty"`
	// Numbers are short numbers: an event that holds them is meant if there is
	// one, else they count for nothing.
	Numbers []string `json:"numbers,omitempty"`

	text string // as it was asked
}

// unitSuffixes end names of units and files that are identifiers though they
// have no digit.
var unitSuffixes = []string{".service", ".socket", ".timer", ".mount", ".target", ".path", ".slice", ".scope", ".device", ".swap", ".conf", ".log", ".qcow2", ".img", ".db"}

// ParseQuestion takes a question apart. Nothing in it is an operator.
func ParseQuestion(text string) Question {
	q := Question{text: text}
	value := func(v string) {
		v = strings.ToLower(strings.TrimSpace(v))
		if v != "" && len(q.Values) < maxTerms && !slices.Contains(q.Values, v) {
			q.Values = append(q.Values, v)
		}
	}
	var plain strings.Builder
	parts := strings.Split(text, `"`)
	for i, part := range parts {
		if i%2 == 1 && i < len(parts)-1 {
			if strings.ContainsFunc(part, func(r rune) bool { return r > ' ' }) {
				value(strings.Join(strings.Fields(part), " "))
				// Its words help to rank what holds it.
				q.add(part)
			}
			continue
		}
		plain.WriteString(part)
		plain.WriteByte(' ')
	}
	// Quotes are done with; what else looks like one is an apostrophe.
	masked, params := template.Mask(nil, nil, strings.NewReplacer("'", "’", "`", " ").Replace(plain.String()))
	for _, p := range params {
		switch {
		case p.Kind == template.Number && len(p.Value) < 4, p.Kind == template.Time:
			if v := strings.ToLower(p.Value); !slices.Contains(q.Numbers, v) && len(q.Numbers) < maxTerms {
				q.Numbers = append(q.Numbers, v)
			}
		case p.Kind == template.Hex && len(p.Value) < 3:
		default:
			value(p.Value)
		}
	}
	for _, w := range strings.Fields(string(masked)) {
		w = strings.Trim(w, `.,;:!?()[]{}'’`)
		if strings.Contains(w, "<") {
			continue
		}
		if dotted(w) {
			value(w)
		}
	}
	q.add(strings.ReplaceAll(string(masked), "’", "'"))
	return q
}

func (q *Question) add(text string) {
	for _, s := range words.Terms(text) {
		if len(q.Stems) < maxTerms && !slices.Contains(q.Stems, s) {
			q.Stems = append(q.Stems, s)
		}
	}
}

// dotted says whether w is a name with dots in it that is looked for as it
// stands: of a unit, a file, a host, a bus name.
func dotted(w string) bool {
	low := strings.ToLower(w)
	for _, s := range unitSuffixes {
		if strings.HasSuffix(low, s) && len(low) > len(s) {
			return true
		}
	}
	parts := strings.Split(w, ".")
	if len(parts) < 3 {
		return false
	}
	for _, p := range parts {
		if len(p) < 2 && p != "a" {
			return false
		}
	}
	return true
}

// Empty says that there is nothing to look for.
func (q *Question) Empty() bool { return len(q.Stems)+len(q.Values)+len(q.Numbers) == 0 }
