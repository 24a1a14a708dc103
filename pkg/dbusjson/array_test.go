package dbusjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

// Arrays are split, and strings read, as encoding/json does it.
func FuzzArray(f *testing.F) {
	for _, s := range []string{`[]`, ` [ ] `, `[1, "a,b" ,[2,[3]],{"k":"]","l":[","]}]`, `["\\","\"",",\\\""]`, "[\"\u00a0\", null\t]", `{"a":1}`, `["\u00e9","]\\"]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkText(data) != nil {
			return
		}
		var want []json.RawMessage
		werr := json.Unmarshal(data, &want)
		if first(data) != '[' {
			werr = errors.New("no array")
		}
		have, err := array(data)
		if (err == nil) != (werr == nil) {
			t.Fatalf("array(%q): %v, encoding/json: %v", data, err, werr)
		}
		if err != nil {
			return
		}
		if !slices.EqualFunc(have, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("array(%q) = %q, encoding/json has %q", data, have, want)
		}
		for _, item := range want {
			if item[0] != '"' {
				continue
			}
			var text string
			if err := json.Unmarshal(item, &text); err != nil {
				t.Fatal(err)
			}
			if s, err := unquote(item); err != nil || s != text {
				t.Fatalf("unquote(%s) = %q, %v, encoding/json has %q", item, s, err, text)
			}
		}
	})
}
