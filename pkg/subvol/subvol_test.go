package subvol

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestUUIDText(t *testing.T) {
	const s = "0d1e2f30-4152-6374-8596-a7b8c9dadbec"
	u, err := ParseUUID(strings.ToUpper(s))
	if err != nil || u.String() != s {
		t.Fatalf("ParseUUID = %v, %v", u, err)
	}
	for _, bad := range []string{"", "none", s[1:], s + "0", strings.Replace(s, "-", "0", 1), strings.Replace(s, "0d", "0g", 1)} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("ParseUUID(%q) took it", bad)
		}
	}
	var v struct{ A, B UUID }
	b, err := json.Marshal(struct{ A, B UUID }{A: u})
	if err != nil || string(b) != `{"A":"`+s+`","B":""}` {
		t.Fatalf("marshalled %s, %v", b, err)
	}
	if err := json.Unmarshal(b, &v); err != nil || v.A != u || !v.B.IsZero() {
		t.Fatalf("unmarshalled %+v, %v", v, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"x"}`), &v); err == nil {
		t.Error("a bad UUID was taken")
	}
}
