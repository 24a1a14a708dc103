package timeline

import (
	"bytes"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Choice says which events a page or a stream shows. A nil Choice chooses all.
type Choice struct {
	filter *chain.Filter
	text   []byte // in lower case
	need   [][][]byte
}

// NewChoice chooses what f chooses and whose stored line holds text, in any case
// of ASCII letters; f may be nil.
func NewChoice(f *chain.Filter, text []byte) *Choice {
	if f == nil {
		f = &chain.Filter{}
	}
	c := &Choice{filter: f, text: lower(nil, text)}
	for _, list := range [][]string{f.Sources, f.Hosts, f.Actors, f.Subjects} {
		c.require(list)
	}
	types := make([]string, len(f.Types))
	for i, t := range f.Types {
		if n := len(t) - len(".*"); n >= 0 && t[n:] == ".*" {
			t = t[:n]
		}
		types[i] = t
	}
	c.require(types)
	if f.HasSeverity {
		var names []string
		for _, n := range severityWords {
			if s, err := event.ParseSeverity(n); err == nil && s <= f.Severity {
				names = append(names, n)
			}
		}
		c.require(names)
	}
	return c
}

// severityWords are all that ParseSeverity takes; a test holds it to that.
var severityWords = []string{"emerg", "emergency", "alert", "crit", "critical", "err", "error", "warning", "warn", "notice", "info", "informational", "debug"}

// require says that a line must hold one of values, if they are of characters
// that every writer of JSON writes as they are.
func (c *Choice) require(values []string) {
	if len(values) == 0 {
		return
	}
	var list [][]byte
	for _, v := range values {
		if v == "" {
			return
		}
		for i := range len(v) {
			if b := v[i]; b < 0x20 || b >= 0x7f || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' || b == '/' {
				return
			}
		}
		list = append(list, []byte(v))
	}
	c.need = append(c.need, list)
}

// skips says that a line need not be decoded: it is not chosen. buf is scratch.
func (c *Choice) skips(line []byte, buf *[]byte) bool {
	if len(c.text) > 0 {
		*buf = lower((*buf)[:0], line)
		if !bytes.Contains(*buf, c.text) {
			return true
		}
	}
	if len(c.need) == 0 || bytes.IndexByte(line, '\\') >= 0 { // a value may be written otherwise
		return false
	}
	for _, list := range c.need {
		found := false
		for _, v := range list {
			if bytes.Contains(line, v) {
				found = true
				break
			}
		}
		if !found {
			return true
		}
	}
	return false
}

// chooses says whether a row, which is not damaged, is chosen. A row without its
// line is taken to hold the text.
func (c *Choice) chooses(r Row) bool {
	if len(c.text) > 0 && r.Line != nil && !bytes.Contains(lower(nil, r.Line), c.text) {
		return false
	}
	return c.filter.Chooses(r.Event)
}

// NeedsLine says whether a choice looks at the stored line.
func (c *Choice) NeedsLine() bool { return len(c.text) > 0 }

// Chooses says whether a row is chosen; one that is damaged is not.
func (c *Choice) Chooses(r Row) bool { return c == nil || r.Event != nil && c.chooses(r) }

func lower(dst, src []byte) []byte {
	for _, b := range src {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	return dst
}
