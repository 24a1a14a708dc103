package search

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// String says for a person why a hit is one.
func (w *Why) String() string {
	var list []string
	for _, m := range w.Matched {
		if m.As == m.Word {
			list = append(list, fmt.Sprintf("%s %.2f", m.Word, m.Weight))
		} else {
			list = append(list, fmt.Sprintf("%s by %s %.2f", m.Word, m.As, m.Weight))
		}
	}
	for _, v := range w.Values {
		list = append(list, "holds "+v)
	}
	switch w.Route {
	case "words", "like":
		list = append(list, fmt.Sprintf("meaning %.2f", w.Dense), fmt.Sprintf("covers %.0f %%", 100*w.Coverage))
	case "newest", "around":
		list = append(list, w.Route)
	}
	return strings.Join(list, ", ")
}

// Mark puts on and off around the words of text by which a hit matched.
func (w *Why) Mark(text, on, off string) string {
	stems := make(map[string]bool)
	for _, m := range w.Matched {
		stems[m.As] = true
	}
	var spans [][2]int
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if !unicode.IsLetter(r) {
			i += n
			continue
		}
		start := i
		for i < len(text) {
			if r, n = utf8.DecodeRuneInString(text[i:]); !unicode.IsLetter(r) && !unicode.IsDigit(r) {
				break
			}
			i += n
		}
		if slices.ContainsFunc(words.Terms(text[start:i]), func(s string) bool { return stems[s] }) {
			spans = append(spans, [2]int{start, i})
		}
	}
	if low := strings.ToLower(text); len(low) == len(text) {
		for _, v := range w.Values {
			for from := 0; v != ""; {
				i := strings.Index(low[from:], v)
				if i < 0 {
					break
				}
				spans = append(spans, [2]int{from + i, from + i + len(v)})
				from += i + len(v)
			}
		}
	}
	slices.SortFunc(spans, func(a, b [2]int) int { return a[0] - b[0] })
	var out strings.Builder
	last := 0
	for _, s := range spans {
		if s[0] < last {
			continue
		}
		out.WriteString(text[last:s[0]] + on + text[s[0]:s[1]] + off)
		last = s[1]
	}
	return out.String() + text[last:]
}

// String says which time it is.
func (w *Window) String() string {
	const layout = "2006-01-02 15:04:05"
	show := func(t *time.Time) string { return t.Local().Format(layout) }
	switch {
	case w.Since == nil:
		return "before " + show(w.Until)
	case w.Until == nil:
		return "since " + show(w.Since)
	}
	return show(w.Since) + " to " + show(w.Until)
}
