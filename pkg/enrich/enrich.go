// Package enrich tells what an event does not say itself: the explanation of
// a message id in systemd's catalog, what a column of the Open vSwitch database
// is for, what an interface on the bus does. It goes into the search, so that
// an event is found by the words of its explanation too; it is shown nowhere
// and is in no id.
package enrich

import (
	_ "embed"
	"os"
	"strings"
)

// explain.txt has lines "kind key: explanation".
//
//go:embed explain.txt
var explainText string

// maxText bounds the explanation of one event, in bytes.
const maxText = 400

// A Texts explains events. It may be used by several goroutines.
type Texts struct {
	byKey map[string]string // kind and key in lower case, as "ovs bridge.fail_mode"
}

// CatalogFile is systemd's message catalog. Where it is not there, the texts
// that are built in do.
const CatalogFile = "/usr/lib/systemd/catalog/systemd.catalog"

// Load returns the texts that are built in, with those of a catalog file; ""
// for none. A file that can't be read counts as none.
func Load(catalog string) *Texts {
	t := &Texts{byKey: make(map[string]string)}
	for line := range strings.Lines(explainText) {
		key, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && !strings.HasPrefix(line, "#") {
			t.byKey[strings.ToLower(key)] = text
		}
	}
	if catalog != "" {
		if data, err := os.ReadFile(catalog); err == nil && len(data) < 4<<20 {
			t.addCatalog(string(data))
		}
	}
	return t
}

// addCatalog adds the entries of a catalog (see journalctl(1), -x): "-- id",
// header lines, an empty line, text with @FIELDS@.
func (t *Texts) addCatalog(data string) {
	for entry := range strings.SplitSeq("\n"+data, "\n-- ") {
		id, rest, ok := strings.Cut(entry, "\n")
		if !ok || len(id) != 32 {
			continue
		}
		header, body, _ := strings.Cut(rest, "\n\n")
		var words []string
		for line := range strings.Lines(header) {
			if s, ok := strings.CutPrefix(line, "Subject: "); ok {
				words = append(words, strings.Fields(s)...)
			}
		}
		words = append(words, strings.Fields(body)...)
		var b strings.Builder
		for _, w := range words {
			if strings.HasPrefix(w, "@") || strings.HasPrefix(w, "http") {
				continue
			}
			if b.Len()+len(w) > maxText {
				break
			}
			b.WriteString(w + " ")
		}
		key := "message " + strings.ToLower(id)
		t.byKey[key] = strings.TrimSpace(t.byKey[key] + " " + b.String())
	}
}

// Event explains an event of a source and type; fields are those of its data.
// It returns "" if it knows nothing.
func (t *Texts) Event(source, typ string, fields map[string]string) string {
	var list []string
	add := func(kind, key string) {
		if key == "" {
			return
		}
		if s := t.byKey[kind+" "+strings.ToLower(key)]; s != "" {
			list = append(list, s)
		}
	}
	if id := fields["MESSAGE_ID"]; id != "" {
		add("message", id)
	}
	if source == "ovs" {
		add("ovs", fields["table"])
		if c := fields["column"]; c != "" {
			add("ovs", fields["table"]+"."+c)
		}
	}
	if source == "dbus" {
		// A name explains what is below it.
		for name := fields["interface"]; name != ""; {
			if s := t.byKey["dbus "+strings.ToLower(name)]; s != "" {
				list = append(list, s)
				break
			}
			i := strings.LastIndexByte(name, '.')
			if i < 0 {
				break
			}
			name = name[:i]
		}
		add("dbus", fields["member"])
	}
	add("program", strings.TrimPrefix(typ, "journal."))
	text := strings.Join(list, " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}
