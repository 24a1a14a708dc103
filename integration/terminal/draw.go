//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Sizes in pixels, for a monospaced font whose letters are 0.6 as wide as high.
const (
	columns    = 108
	letter     = 7.8
	fontSize   = 13
	lineHeight = 19
	margin     = 16
)

// draw writes rows as an SVG: a text element for each line, of the class t if it
// was typed, p if it was printed. A row that is too long goes on in the next
// line, of the class more too, as in a terminal of so many columns.
func draw(w io.Writer, rows []row) error {
	type line struct {
		text, class string
	}
	var lines []line
	for _, r := range rows {
		class := "p"
		if r.typed {
			class = "t"
		}
		for rest := r.text; ; {
			head, tail := cut(rest, columns)
			lines = append(lines, line{head, class})
			if tail == "" {
				break
			}
			rest, class = tail, class[:1]+" more"
		}
	}
	width, height := columns*letter+2*margin, len(lines)*lineHeight+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img">
<style>
svg { --paper: #fbfbfa; --ink: #24292f; --typed: #0b5cad; --line: #d0d3d8 }
@media (prefers-color-scheme: dark) { svg { --paper: #16181c; --ink: #d5d9e0; --typed: #7ab7f5; --line: #3a3f47 } }
rect { fill: var(--paper); stroke: var(--line) }
text { font: %dpx ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink); white-space: pre }
.t { fill: var(--typed); font-weight: 600 }
</style>
<rect x="0.5" y="0.5" width="%.0f" height="%d" rx="6"/>
`, width, height, width, height, fontSize, width-1, height-1)
	for i, l := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="%s" xml:space="preserve">`, margin, margin+(i+1)*lineHeight-5, l.class)
		if err := xml.EscapeText(&b, []byte(l.text)); err != nil {
			return err
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// cut splits s behind n letters.
func cut(s string, n int) (head, tail string) {
	if utf8.RuneCountInString(s) <= n {
		return s, ""
	}
	r := []rune(s)
	return string(r[:n]), string(r[n:])
}
