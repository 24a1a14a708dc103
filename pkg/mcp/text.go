package mcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/ghostbridge/ghostbridge/pkg/redact"
)

// Bounds of what is returned.
const (
	maxText   = 2 << 10   // bytes of one text of the host
	maxValue  = 32 << 10  // bytes of one value of the host
	maxAnswer = 256 << 10 // bytes of one answer
)

// clean returns a stranger's text for an agent: without escape sequences and
// invisible characters, on one line, redacted, at most limit bytes and three
// dots long.
func clean(s string, limit int) string {
	if len(s) > 8*limit { // what is cut off in the end is not looked at
		s = s[:8*limit]
	}
	if !printable(s) {
		var b strings.Builder
		b.Grow(len(s))
		for i := 0; i < len(s); {
			if n := escape(s[i:]); n > 0 {
				i += n
				continue
			}
			r, n := rune(s[i]), 1
			if r >= 0x80 {
				for _, r = range s[i:] {
					break
				}
				n = len(string(r))
				if r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\uFFFD") {
					n = 1 // a byte that is not UTF-8
				}
			}
			i += n
			switch {
			case r == '\n' || r == '\t' || r == '\u2028' || r == '\u2029':
				b.WriteByte(' ')
			case invisible(r):
			default:
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	s = redact.Text(s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

// printable says whether s is all printable ASCII: most texts are.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// invisible says whether r shows nothing of itself: controls, formats (marks of
// direction, zero-width characters, tags), private use, variation selectors,
// fillers. Instructions can be hidden in all of them.
func invisible(r rune) bool {
	switch {
	case r < 0x7f:
		return r < 0x20
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point), r == 0x2800:
		return true
	}
	return false
}

// escape returns the length of the escape sequence that s begins with (ECMA-48:
// CSI, and strings such as OSC up to BEL or ST), 0 if it begins with none.
func escape(s string) int {
	if s == "" {
		return 0
	}
	i := 0
	switch {
	case s[0] == 0x1b && len(s) > 1:
		i = 2
	case strings.HasPrefix(s, "\u009b"), strings.HasPrefix(s, "\u009d"), strings.HasPrefix(s, "\u0090"):
		i = 2
		if s[1] == 0x9b {
			return csi(s, i)
		}
		return controlString(s, i)
	case s[0] == 0x1b:
		return 1
	default:
		return 0
	}
	switch s[1] {
	case '[':
		return csi(s, i)
	case ']', 'P', 'X', '^', '_':
		return controlString(s, i)
	}
	for i < len(s) && s[i-1] >= 0x20 && s[i-1] <= 0x2f { // intermediate bytes
		i++
	}
	return i
}

func csi(s string, i int) int {
	for i < len(s) && s[i] >= 0x20 && s[i] <= 0x3f {
		i++
	}
	if i < len(s) && s[i] >= 0x40 && s[i] <= 0x7e {
		i++
	}
	return i
}

// controlString ends at BEL or ST. One without an end is not taken for one:
// else it would hide the rest.
func controlString(s string, i int) int {
	for k := i; k < len(s) && k < i+4096; k++ {
		switch {
		case s[k] == 7:
			return k + 1
		case s[k] == 0x1b && k+1 < len(s) && s[k+1] == '\\':
			return k + 2
		}
	}
	return i
}

// secretKeys are parts of the keys whose values are secrets.
var secretKeys = []string{"psk", "password", "passphrase", "passwd", "secret", "token", "private-key", "private_key", "privatekey", "wep-key", "credential", "apikey", "api-key", "api_key"}

func secretKey(key string) bool {
	key = strings.ToLower(key)
	if key == "environment" || key == "pin" || key == "auth" {
		return true
	}
	for _, s := range secretKeys {
		if strings.Contains(key, s) {
			return true
		}
	}
	return false
}

// cleanValue returns a value of the host, JSON as package dbusjson writes it,
// with all its texts clean and its secrets blacked out. One that is too long is
// replaced by what says so.
func cleanValue(raw json.RawMessage, key string) any {
	if len(raw) > maxValue {
		return map[string]any{"left_out": "the value is too long", "bytes": len(raw)}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return map[string]any{"left_out": fmt.Sprintf("not readable: %v", err)}
	}
	if secretKey(key) && hidden(v) {
		return redact.Mark
	}
	return cleanAny(v)
}

// cleanObject is cleanValue for an object; another value becomes one.
func cleanObject(raw json.RawMessage) map[string]any {
	v := cleanValue(raw, "")
	if m, ok := v.(map[string]any); ok {
		return m
	}
	return map[string]any{"value": v}
}

// cleanList is cleanValue for a list; another value becomes one.
func cleanList(raw json.RawMessage) values {
	v := cleanValue(raw, "")
	if l, ok := v.([]any); ok {
		return l
	}
	return values{v}
}

// hidden says whether a value under a secret's key is one: flags and numbers
// are not.
func hidden(v any) bool {
	switch x := v.(type) {
	case string:
		return x != ""
	case []any:
		return len(x) > 0
	case map[string]any:
		if inner, ok := x["v"]; ok && len(x) == 2 && x["t"] != nil {
			return hidden(inner)
		}
		return len(x) > 0
	}
	return false
}

func cleanAny(v any) any {
	switch x := v.(type) {
	case string:
		return clean(x, maxText)
	case []any:
		for i := range x {
			x[i] = cleanAny(x[i])
		}
		// [key, value], as a pair of a dict or a property of systemd's.
		if len(x) == 2 {
			if key, ok := x[0].(string); ok && secretKey(key) && hidden(x[1]) {
				x[1] = redact.Mark
			}
		}
		return x
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			if secretKey(k) && hidden(e) {
				out[clean(k, 256)] = redact.Mark
				continue
			}
			out[clean(k, 256)] = cleanAny(e)
		}
		return out
	}
	return v
}
