// Package intake turns lines that other programs print into events: plain
// text, journalctl -o json, /dev/kmsg, and busctl monitor --json=short.
//
// What comes from there is written by strangers. Every converter strips
// control characters, replaces what is not UTF-8, and caps what it takes, so
// that its output is a line that the log accepts: for a line of its format it
// never returns an error, only for one that is not of its format.
package intake

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Converter turns a line, without its newline, into an event's line; nil for
// a line to leave out.
type Converter func(line []byte) ([]byte, error)

// Options are for the formats that leave something open.
type Options struct {
	Source   string // of text, "text" if empty
	Type     string // of text, "line" if empty
	Severity string
	Boot     time.Time // of kmsg: when its clock started
	After    uint64    // of kmsg: leave out records up to this sequence number,
	HasAfter bool      // if this is set
}

// Formats returns the names of the formats, sorted.
func Formats() []string {
	names := make([]string, 0, len(formats))
	for n := range formats {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

var formats = map[string]func(Options) Converter{
	"text":     text,
	"journald": journald,
	"kmsg":     kmsg,
	"busctl":   busctl,
}

// New returns the converter of a format.
func New(format string, o Options) (Converter, error) {
	f, ok := formats[format]
	if !ok {
		return nil, fmt.Errorf("format %q: want %s", format, strings.Join(Formats(), ", "))
	}
	return f(o), nil
}

// out is what a converter makes.
type out struct {
	Time     string         `json:"time,omitempty"`
	Host     string         `json:"host,omitempty"`
	Source   string         `json:"source"`
	Type     string         `json:"type"`
	Subject  string         `json:"subject,omitempty"`
	Severity string         `json:"severity,omitempty"`
	Actor    string         `json:"actor,omitempty"`
	Message  string         `json:"message"`
	Data     map[string]any `json:"data,omitempty"`
}

const (
	maxMessage = 32 << 10 // bytes
	maxField   = 4 << 10
	maxFields  = 64
)

func (o *out) line() ([]byte, error) {
	o.Subject, o.Actor, o.Host = clean(o.Subject, maxField), clean(o.Actor, maxField), clean(o.Host, 255)
	o.Message = clean(o.Message, maxMessage)
	return json.Marshal(o)
}

// clean makes s UTF-8 without control characters (a line break and a tab
// become a space) of at most limit bytes.
func clean(s string, limit int) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			r = '\uFFFD'
		case r == '\n' || r == '\t' || r == '\r':
			r = ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// name makes s a source or type: other characters than the log takes become
// '-'.
func name(s, fallback string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-:/@+", r):
			return r
		}
		return '-'
	}, s)
	if len(s) > 100 {
		s = s[:100]
	}
	if s == "" || s == "log" || strings.HasPrefix(s, "log.") {
		return fallback
	}
	return s
}

func micros(us int64) string { return time.UnixMicro(us).UTC().Format(event.TimeFormat) }

func text(o Options) Converter {
	source, typ := name(o.Source, "text"), name(o.Type, "line")
	return func(line []byte) ([]byte, error) {
		message := clean(string(line), maxMessage)
		if message == "" {
			return nil, nil
		}
		return (&out{Source: source, Type: typ, Severity: o.Severity, Message: message}).line()
	}
}
