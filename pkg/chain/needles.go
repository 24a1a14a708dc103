package chain

import "bytes"

// needles are what a line without escapes must contain for a filter to choose
// it: of each list one. They tell most lines apart from those that match
// without decoding them.
type needles [][][]byte

// needles of a filter. A value that JSON could spell in another way than as it
// is makes its list say nothing.
func (f *Filter) needles() (n needles) {
	add := func(values []string, quote bool) {
		list := make([][]byte, 0, len(values))
		for _, v := range values {
			b := []byte(v)
			if quote {
				b = []byte(`"` + v)
				if cut, all := bytes.CutSuffix(b, []byte(".*")); all {
					b = cut // of a type, and of others still a part of what must be there
				} else {
					b = append(b, '"')
				}
			}
			if len(v) == 0 || hasEscape(v) {
				return
			}
			list = append(list, b)
		}
		if len(list) > 0 {
			n = append(n, list)
		}
	}
	for _, values := range [][]string{f.Sources, f.Hosts, f.Actors, f.Subjects, f.Types} {
		add(values, true)
	}
	for _, m := range f.Matches {
		add([]string{m.Value}, false)
	}
	return n
}

// hasEscape says whether s has a character that is escaped in JSON, or that may
// be.
func hasEscape(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return true
		}
	}
	return false
}

// mayMatch says whether line must be looked at closer.
func (n needles) mayMatch(line []byte) bool {
	if len(n) == 0 || bytes.IndexByte(line, '\\') >= 0 {
		return true
	}
next:
	for _, list := range n {
		for _, needle := range list {
			if bytes.Contains(line, needle) {
				continue next
			}
		}
		return false
	}
	return true
}
