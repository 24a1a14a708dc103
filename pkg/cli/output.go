package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// IsTerminal says whether v is an open terminal.
func IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// OpenInput opens the file called name for reading; "-" and "" are stdin.
func OpenInput(c *Context, name string) (io.ReadCloser, error) {
	if name == "" || name == "-" {
		return io.NopCloser(c.App.Reader), nil
	}
	return os.Open(name)
}

// PrintJSON writes v as one line of JSON, without escaping <, > and &.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A Table prints aligned columns, the header first.
type Table struct{ w *tabwriter.Writer }

// NewTable returns a table on w with the given column names.
func NewTable(w io.Writer, header ...string) *Table {
	t := &Table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		fmt.Fprintln(t.w, strings.ToUpper(strings.Join(header, "\t")))
	}
	return t
}

// Row adds a row; cells are printed as text on one line, control characters
// as escapes.
func (t *Table) Row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, Printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
}

// Flush prints the table.
func (t *Table) Flush() error { return t.w.Flush() }

// Printable returns s with control characters, bidirectional overrides and
// bytes that are not UTF-8 as backslash escapes, so that a stranger's text can
// neither move the cursor of a terminal nor break a line.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if unprintable(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\uFFFD' && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unprintable(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\uFFFD' ||
		r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}
