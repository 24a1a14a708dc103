package mcp

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestRequestState(t *testing.T) {
	s := newSealer()
	now := time.Now()
	s.now = func() time.Time { return now }
	seal := func() string {
		return s.seal(requestState{Client: "a", Tool: "call_method", SHA256: "x", Approval: "1"})
	}
	if st, err := s.open(seal(), "a", "call_method", "x"); err != nil || st.Approval != "1" {
		t.Error(st, err)
	}
	once := seal()
	s.open(once, "a", "call_method", "x")
	late := seal()
	other := newSealer().seal(requestState{Client: "a", Tool: "call_method", SHA256: "x"})
	changed := []byte(seal())
	raw, _ := base64.RawURLEncoding.DecodeString(string(changed))
	raw[40] ^= 1
	for name, c := range map[string][4]string{
		"used":           {once, "a", "call_method", "x"},
		"another client": {seal(), "b", "call_method", "x"},
		"another tool":   {seal(), "a", "act_on_unit", "x"},
		"other args":     {seal(), "a", "call_method", "y"},
		"another key":    {other, "a", "call_method", "x"},
		"changed":        {base64.RawURLEncoding.EncodeToString(raw), "a", "call_method", "x"},
		"cut":            {seal()[:30], "a", "call_method", "x"},
		"empty":          {"", "a", "call_method", "x"},
		"padded":         {seal() + "==", "a", "call_method", "x"},
		"long":           {strings.Repeat("A", 1<<20), "a", "call_method", "x"},
	} {
		if _, err := s.open(c[0], c[1], c[2], c[3]); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	now = now.Add(stateLife)
	if _, err := s.open(late, "a", "call_method", "x"); err == nil {
		t.Error("it was taken after its time")
	}
}

// What strict takes has each key once in each object, and is read alike by
// everybody.
func FuzzStrictHasNoKeyTwice(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":{"a":2}}`, `{"a":1,"a":2}`, `[{"a":[]},{"a":{}}]`, `{"a":"a","b":["a","a"]}`, `{"\u0061":1,"a":2}`, `{"a":{"b":1},"b":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var v any
		if !json.Valid([]byte(s)) || json.Unmarshal([]byte(s), &v) != nil {
			return
		}
		twice := keysOf([]byte(s)) != count(v)
		if err := strict(json.RawMessage(s)); err == nil && twice {
			t.Errorf("%q has a key twice, and was taken", s)
		} else if err != nil && !twice && !strings.Contains(err.Error(), "nested") {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// count returns how many keys a value has, in all of its objects.
func count(v any) int {
	n := 0
	switch x := v.(type) {
	case map[string]any:
		n = len(x)
		for _, e := range x {
			n += count(e)
		}
	case []any:
		for _, e := range x {
			n += count(e)
		}
	}
	return n
}

// keysOf counts the keys in the text: a colon outside of strings is behind each.
func keysOf(s []byte) int {
	n, in := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case in && s[i] == '\\':
			i++
		case s[i] == '"':
			in = !in
		case s[i] == ':' && !in:
			n++
		}
	}
	return n
}
