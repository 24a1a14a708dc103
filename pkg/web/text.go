package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// clean returns a stranger's text for a page: control characters and those that
// turn or hide what stands around them are shown as escapes. Line ends and tabs
// stay; style decides whether they show.
func clean(s string) string {
	ok := true
	for _, r := range s {
		if hidden(r) {
			ok = false
			break
		}
	}
	if ok && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// hidden says whether a character is not shown as itself: it controls, has no
// width, or changes the direction of others.
func hidden(r rune) bool {
	return r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xad || r == 0x61c || r == 0x180e ||
		r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2060 && r <= 0x206f || r == 0xfeff ||
		r >= 0xfff9 && r <= 0xfffb || r >= 0xe0000 && r <= 0xe0fff
}

// line returns text for one line of a list: cleaned, on one line, and cut.
func line(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = s[:most]
		for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		s = strings.ToValidUTF8(s, "")
	}
	s = strings.Join(strings.Fields(clean(s)), " ")
	if cut {
		s += "…"
	}
	return s
}

const messageInList = 400

// indented returns JSON for people, cleaned: on one line if it is short. It
// returns the text itself if it is none.
func indented(raw json.RawMessage) string {
	var b bytes.Buffer
	if len(raw) < 400 && json.Compact(&b, raw) == nil && b.Len() <= 100 {
		return clean(b.String())
	}
	b.Reset()
	if json.Indent(&b, raw, "", "  ") != nil {
		return clean(string(raw))
	}
	return clean(b.String())
}

// grouped returns a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:] // narrow no-break space
	}
	if neg {
		return "−" + s
	}
	return s
}

// span returns a duration in its largest unit or two.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + span(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// bytesText returns a size for people.
func bytesText(n uint64) string {
	v, unit := float64(n), 0
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.*f %ciB", decimals(v), v, "KMGTP"[unit-1])
}

func decimals(v float64) int {
	if v < 10 && math.Round(v*10) != math.Round(v)*10 {
		return 1
	}
	return 0
}

// Times are the host's: that is where things happened. The time element has
// all of it.
const (
	timeOfDay  = "15:04:05.000"
	dayAndTime = "2006-01-02 15:04:05"
)

// severityClass is one of four looks.
func severityClass(s event.Severity) string {
	switch {
	case s <= event.Critical:
		return "crit"
	case s == event.Error:
		return "err"
	case s == event.Warning:
		return "warn"
	case s == event.Notice:
		return "note"
	case s == event.Info:
		return "info"
	}
	return "debug"
}

func (s *Server) functions() template.FuncMap {
	return template.FuncMap{
		"asset":      func(name string) string { return s.assets.path(name) },
		"clean":      clean,
		"line":       func(v string) string { return line(v, messageInList) },
		"short":      func(n int, v string) string { return line(v, n) },
		"indented":   indented,
		"grouped":    func(v any) string { return grouped(toInt(v)) },
		"span":       span,
		"seconds":    func(v float64) string { return span(time.Duration(v * float64(time.Second))) },
		"ago":        func(t time.Time) string { return span(time.Since(t)) },
		"bytes":      func(v any) string { return bytesText(uint64(toInt(v))) },
		"day":        func(t time.Time) string { return t.Local().Format("2006-01-02") },
		"clock":      func(t time.Time) string { return t.Local().Format(timeOfDay) },
		"datetime":   func(t time.Time) string { return t.Local().Format(dayAndTime) },
		"rfc":        func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"sevclass":   severityClass,
		"severities": func() []string { return severityList },
		"nav":        func() []navEntry { return navigation },
		"add":        func(a, b int64) int64 { return a + b },
		"dict":       func(k1 string, v1 any, k2 string, v2 any) map[string]any { return map[string]any{k1: v1, k2: v2} },
		"deref":      func(p *float64) float64 { return *p },
		"derefu":     func(p *uint64) uint64 { return *p },
		"ms":         func(v float64) string { return span(time.Duration(v * float64(time.Millisecond))) },
		"query":      func(pairs ...string) string { return queryString(pairs) },
		"may": func(l access.Session, role string) bool {
			r, err := access.ParseRole(role)
			return err == nil && l.Role >= r
		},
		"join":  strings.Join,
		"lower": strings.ToLower,
		"hash":  func(v fmt.Stringer) string { return v.String() },
		"text":  func(v any) string { return clean(fmt.Sprint(v)) },
		// A query that url.Values has encoded.
		"q":       func(query string) template.URL { return template.URL(query) },
		"failure": func(text, hint string) *failure { return &failure{Text: text, Advice: hint} },
		"percent": func(v float64) string { return fmt.Sprintf("%.0f %%", v*100) },
	}
}

func toInt(v any) int64 {
	switch x := v.(type) {
	case int:
		return int64(x)
	case int64:
		return x
	case uint32:
		return int64(x)
	case uint64:
		return int64(min(x, math.MaxInt64))
	case float64:
		return int64(x)
	}
	return 0
}

// queryString makes a query of names and values; pairs without a value are left out.
func queryString(pairs []string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Add(pairs[i], pairs[i+1])
		}
	}
	return q.Encode()
}

var severityList = []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

type navEntry struct{ Name, Title, Path, Key string }

var navigation = []navEntry{
	{"overview", "Overview", "/", "o"},
	{"timeline", "Timeline", "/timeline", "t"},
	{"search", "Search", "/search", "s"},
	{"approvals", "Approvals", "/approvals", "a"},
	{"network", "Network", "/network", "n"},
	{"snapshots", "Snapshots", "/snapshots", "p"},
	{"dbus", "D-Bus", "/dbus", "d"},
	{"agents", "Agents", "/agents", "g"},
	{"policy", "Policy", "/policy", "y"},
	{"log", "Log", "/log", "l"},
}
