package enrich

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEvent(t *testing.T) {
	catalog := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(catalog, []byte("# comment\n\n-- 00112233445566778899aabbccddeeff\nSubject: Widget @W@ is on fire\nDefined-By: x\nSupport: %S%\n\nThe widget @W@ burns.\n\n-- short\nSubject: no\n\nno\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	x := Load(catalog)
	for _, c := range []struct {
		source, typ string
		fields      map[string]string
		want        string
	}{
		{"journald", "journal.foo", map[string]string{"MESSAGE_ID": "00112233445566778899aabbccddeeff"}, "Widget is on fire The widget burns."},
		{"ovs", "bridge.changed", map[string]string{"table": "Bridge", "column": "stp_enable"}, "virtual switch, network bridge spanning tree, loop protection"},
		{"dbus", "property.changed", map[string]string{"interface": "org.freedesktop.login1.Session"}, "sessions of users, logins, power, shutdown"},
		{"journald", "journal.smartd", nil, "disk health"},
		{"web", "x.y", map[string]string{"table": "Bridge", "MESSAGE_ID": "no"}, ""},
	} {
		if got := x.Event(c.source, c.typ, c.fields); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.source, c.typ, got, c.want)
		}
	}
	if Load(catalog+"x").Event("journald", "journal.smartd", nil) == "" {
		t.Error("without a catalog nothing is explained")
	}
}

// Every line of explain.txt is one, and no key stands there twice.
func TestExplanations(t *testing.T) {
	seen := make(map[string]bool)
	for line := range strings.Lines(explainText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		kind, _, _ := strings.Cut(key, " ")
		if !ok || text == "" || seen[strings.ToLower(key)] || !strings.Contains("message ovs dbus program", kind) {
			t.Errorf("%q", line)
		}
		seen[strings.ToLower(key)] = true
	}
}
