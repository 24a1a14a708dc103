package mcp

import (
	"encoding/base64"
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
