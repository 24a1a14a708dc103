package document

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	for _, x := range []struct {
		printed, document string
		want              bool
	}{
		{"", "", true},
		{"a", "", false},
		{"", "a", false},
		{"a\nb\nc", "...\nc", true},
		{"a\nb\nc", "...\nd", false},
		{"a\nb", "a", false},
		{"a\nb\nc", "a\n...", true},
		{"at 2026-01-02T03:04:05Z", "at 2025-12-31T23:59:59.5Z", true},
		{"size 3 MiB", "size 12 MiB", true},
		{"active (running) since now", "active (running) …", true},
		{"inactive (running) since now", "active (running) …", false},
		{"active", "active …", false},
		{"a 1 b 2", "a … b …", true},
		{"a 1 c 2", "a … b …", false},
		{"ends here", "…here", true},
		{"ends here not", "…here", false},
	} {
		if got := Matches(Lines([]byte(x.printed)), Lines([]byte(x.document))) == nil; got != x.want {
			t.Errorf("%q against %q: %v", x.printed, x.document, got)
		}
	}
}

func TestRead(t *testing.T) {
	read := func(text string) ([]Block, error) {
		file := filepath.Join(t.TempDir(), "x.md")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "'", "`")), 0o600); err != nil {
			t.Fatal(err)
		}
		return Read(file)
	}
	list, err := read("# x\n\n<!-- session: one, switch -->\n'''console\n$ a\n> b\nc\n$ d\n'''\n\n'''\ne\n'''\n")
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	b := list[0]
	if b.Line != 4 || b.Info != "console" || b.Kind != "session" || b.Name() != "one" || b.Option() != "switch" {
		t.Errorf("%+v", b)
	}
	commands, err := b.Commands()
	if err != nil || len(commands) != 2 || commands[0].Text != "a\nb" || len(commands[0].Output) != 1 || commands[1].Line != 8 {
		t.Errorf("%+v, %v", commands, err)
	}
	if list[1].Kind != "" || list[1].Info != "" {
		t.Errorf("%+v", list[1])
	}
	for _, bad := range []string{"<!-- session: x -->\n\n'''console\n'''\n", "'''console\n$ a\n"} {
		if list, err := read(bad); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
	if list, err := read("'''console\na\n$ b\n'''\n"); err != nil {
		t.Error(err)
	} else if _, err := list[0].Commands(); err == nil {
		t.Error("output before the first command")
	}
}
