package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The measures of a plot, in pixels. Widths of text are taken to be 6.3 a
// letter, which holds for most sans-serif fonts at the size used.
const (
	plotWidth  = 900
	labelRight = 290 // where labels end
	axisLeft   = 304
	axisRight  = 668
	valueLeft  = 684
	rowHeight  = 22
	titleWidth = 128 // letters
)

// style has the colours of both schemes; a picture that is an img of a page
// follows the reader's.
const style = `<style>
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2328}
.back{fill:#ffffff}.title{font-size:15px;font-weight:600}.name{font-weight:600}.faint{fill:#59636e}
.grid{stroke:#d1d9e0;stroke-width:1}.axis{stroke:#818b98;stroke-width:1}
.ours{fill:#0969da;stroke:#0969da}.peer{fill:#6e7781;stroke:#6e7781}.bound{stroke:#bc4c00;stroke-width:2}
line.ours,line.peer{stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}.back{fill:#0d1117}.faint{fill:#9198a1}
.grid{stroke:#30363d}.axis{stroke:#6e7681}
.ours{fill:#4493f8;stroke:#4493f8}.peer{fill:#9198a1;stroke:#9198a1}.bound{stroke:#f0883e}
}
</style>
`

// A drawing is an SVG that grows downwards.
type drawing struct {
	strings.Builder
	y float64
}

// at is a coordinate, to a tenth of a pixel.
func at(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func (d *drawing) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(d, `<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`+"\n", at(x), at(y), class, anchor, html.EscapeString(text))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, at(x1), at(y1), at(x2), at(y2))
}

// dot is a median with the line from the least to the greatest.
func (d *drawing) dot(class string, a axis, s Spread, y float64) {
	d.line(class, a.x(s.Least), y, a.x(s.Greatest), y)
	fmt.Fprintf(d, `<circle class="%s" cx="%s" cy="%s" r="4.5"/>`+"\n", class, at(a.x(s.Median)), at(y))
}

// finish returns the picture. desc is what one reads who can't see it.
func (d *drawing) finish(desc string) []byte {
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %s" width="%d" height="%s" role="img">
<desc>%s</desc>
%s<rect class="back" width="100%%" height="100%%"/>
%s</svg>
`, plotWidth, at(d.y), plotWidth, at(d.y), html.EscapeString(desc), style, d.String())
}

// legend says what the marks mean, of those that there are.
func (d *drawing) legend(peers, bounds bool) {
	d.y += 20
	x := 16.0
	entries := []struct{ class, text string }{{"ours", "GhostBridge"}, {"peer", "peer"}}
	if !peers {
		entries = entries[:1]
	}
	for _, entry := range entries {
		d.line(entry.class, x, d.y-4, x+24, d.y-4)
		fmt.Fprintf(d, `<circle class="%s" cx="%s" cy="%s" r="4.5"/>`+"\n", entry.class, at(x+12), at(d.y-4))
		d.text(x+30, d.y, "faint", "start", entry.text)
		x += 46 + 6.3*float64(len(entry.text))
	}
	d.text(x, d.y, "faint", "start", "median, and from the least to the greatest of the rounds")
	if bounds {
		x += 380
		d.line("bound", x, d.y-12, x, d.y+3)
		d.text(x+8, d.y, "faint", "start", "the bound wanted")
	}
	d.y += 16
}

// An axis maps values onto the width of the plot.
type axis struct {
	low, high float64
	log       bool
}

// newAxis makes an axis for values: logarithmic where they span more than a
// factor of twenty, else from zero.
func newAxis(values []float64) axis {
	least, greatest := math.Inf(1), 0.0
	for _, v := range values {
		greatest = max(greatest, v)
		if v > 0 {
			least = min(least, v)
		}
	}
	switch {
	case greatest == 0:
		return axis{0, 1, false}
	case greatest/least <= 20:
		return axis{0, greatest * 1.05, false}
	}
	return axis{least / 1.3, greatest * 1.3, true}
}

// x is where a value stands. Zero has no place on a logarithmic axis: it stands
// at its left end.
func (a axis) x(v float64) float64 {
	f := (v - a.low) / (a.high - a.low)
	if a.log {
		if v <= a.low {
			return axisLeft
		}
		f = math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return axisLeft + f*(axisRight-axisLeft)
}

// ticks are round values: 1, 2 and 5 times powers of ten, on a long logarithmic
// axis powers of ten only.
func (a axis) ticks() (list []float64) {
	if a.log {
		steps := []float64{1, 2, 5}
		if a.high/a.low > 1000 {
			steps = steps[:1]
		}
		for e := math.Floor(math.Log10(a.low)); e <= math.Ceil(math.Log10(a.high)); e++ {
			for _, s := range steps {
				if v := s * math.Pow(10, e); v >= a.low && v <= a.high {
					list = append(list, v)
				}
			}
		}
		return list
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1} {
		if a.high/(step*f) <= 6 {
			step *= f
			break
		}
	}
	for i := 0.0; i*step <= a.high; i++ {
		list = append(list, i*step)
	}
	return list
}

// tick is a value as an axis has it.
func tick(v float64) string {
	if v >= 1000 {
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// grid draws the axis' lines from top to bottom, its ticks and its name.
func (d *drawing) grid(a axis, top, bottom float64, name string) {
	last := math.Inf(-1)
	for _, v := range a.ticks() {
		x := a.x(v)
		d.line("grid", x, top, x, bottom)
		if label := tick(v); x-3.4*float64(len(label)) > last {
			d.text(x, bottom+14, "faint", "middle", label)
			last = x + 3.4*float64(len(label)) + 4
		}
	}
	d.line("axis", axisLeft, bottom, axisRight, bottom)
	if a.log {
		name += ", logarithmic"
	}
	d.text((axisLeft+axisRight)/2, bottom+29, "faint", "middle", name)
}

func class(ours bool) string {
	if ours {
		return "ours"
	}
	return "peer"
}

// shorten cuts a text to n letters.
func shorten(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}

// wrap breaks a text into lines of at most n letters.
func wrap(text string, n int) (list []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(w)) > n {
			list = append(list, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(list, line)
}

// plots draws the first metric of comparisons of one family, one below the
// other.
func plots(title string, list []*Comparison) []byte {
	d := &drawing{y: 30}
	d.text(16, d.y, "title", "start", title)
	bounds := false
	desc := title + "."
	for _, c := range list {
		m := c.Metrics[0]
		desc += fmt.Sprintf(" %s, %s:", c.Name, column(m))
		d.y += 14
		for _, l := range wrap(c.Name+": "+c.Title, titleWidth) {
			d.y += 16
			d.text(16, d.y, "name", "start", l)
		}
		d.y += 8
		var values []float64
		marks := make(map[string][]float64) // bounds, by contender
		for _, r := range c.Rows {
			if f, ok := r.Figures[m.Name]; ok {
				values = append(values, f.Least, f.Median, f.Greatest)
			}
		}
		for _, w := range c.Wants {
			if w.Metric != m.Name || w.Got == nil {
				continue
			}
			v := w.Bound
			if w.Of != "" {
				v *= c.Row(w.Of).Figures[m.Name].Median
			}
			marks[w.Contender] = append(marks[w.Contender], v)
			values = append(values, v)
			bounds = true
		}
		a := newAxis(values)
		top := d.y
		bottom := top + rowHeight*float64(len(c.Rows)) + 4
		name := strings.TrimSuffix(m.Name+", "+m.Unit, ", ")
		if m.Better != "" {
			name += " (" + m.Better + " is better)"
		}
		d.grid(a, top, bottom, name)
		for _, r := range c.Rows {
			y := d.y + rowHeight/2 + 2
			d.text(labelRight, y+4, "", "end", shorten(r.Contender, 43))
			f, ok := r.Figures[m.Name]
			if !ok {
				d.text(axisLeft+4, y+4, "faint", "start", "not measured")
				desc += fmt.Sprintf(" %s not measured;", r.Contender)
				d.y += rowHeight
				continue
			}
			for _, v := range marks[r.Contender] {
				d.line("bound", a.x(v), y-8, a.x(v), y+8)
			}
			d.dot(class(r.Ours), a, f.Spread, y)
			text := strings.TrimSpace(number(f.Median) + " " + m.Unit)
			if f.Ratio != nil && r.Contender != c.Rows[0].Contender {
				text += ", " + number(f.Ratio.Median) + "×"
			}
			d.text(valueLeft, y+4, "", "start", shorten(text, 34))
			desc += fmt.Sprintf(" %s %s;", r.Contender, text)
			d.y += rowHeight
		}
		d.y = bottom + 36
	}
	d.legend(true, bounds)
	return d.finish(desc)
}

// headline is what the overview shows of a comparison: one of our contenders
// against one that is not ours, as the first want that has both, else our first
// against the first of others.
func (c *Comparison) headline() (p Change, ok bool) {
	for _, w := range c.Wants {
		if own, of := c.Row(w.Contender), c.Row(w.Of); w.Of != "" && own.Ours && !of.Ours {
			p = Change{Contender: w.Contender, Metric: w.Metric, Of: w.Of}
			if s := ratioOf(c, p); s != nil && s.Least > 0 && c.Metric(w.Metric).Better != "" {
				p.Now = *s
				return p, true
			}
		}
	}
	own := slices.IndexFunc(c.Rows, func(r Row) bool { return r.Ours && r.NotMeasured == "" })
	of := slices.IndexFunc(c.Rows, func(r Row) bool { return !r.Ours && r.NotMeasured == "" })
	if own < 0 || of < 0 || c.Metrics[0].Better == "" {
		return p, false
	}
	p = Change{Contender: c.Rows[own].Contender, Metric: c.Metrics[0].Name, Of: c.Rows[of].Contender}
	if s := ratioOf(c, p); s != nil && s.Least > 0 {
		p.Now = *s
		return p, true
	}
	return p, false
}

// overview is one row for each comparison with a peer: how many times better
// than it.
func (r *Report) overview() []byte {
	d := &drawing{y: 30}
	d.text(16, d.y, "title", "start", "GhostBridge beside what one would take instead")
	d.y += 12
	type row struct {
		c *Comparison
		p Change
		s Spread
	}
	var list []row
	var values []float64
	for i := range r.Comparisons {
		c := &r.Comparisons[i]
		if c.NotMeasured != "" {
			continue
		}
		p, ok := c.headline()
		if !ok {
			continue
		}
		s := p.Now
		if c.Metric(p.Metric).Better == Less {
			s = Spread{1 / s.Median, 1 / s.Greatest, 1 / s.Least}
		}
		list = append(list, row{c, p, s})
		values = append(values, s.Least, s.Greatest)
	}
	a := newAxis(append(values, 0.5, 20)) // logarithmic: half and double are as far from 1
	bottom := d.y + rowHeight*float64(len(list)) + 4
	d.grid(a, d.y, bottom, "times as good as the peer: 2 is twice the rate or half the time")
	d.line("axis", a.x(1), d.y, a.x(1), bottom)
	desc := "How many times as good as its peer each is."
	for _, row := range list {
		y := d.y + rowHeight/2 + 2
		d.text(labelRight, y+4, "", "end", shorten(row.c.Name+", "+row.p.Metric, 43))
		d.dot("ours", a, row.s, y)
		text := number(row.s.Median) + "×"
		d.text(valueLeft, y+4, "", "start", shorten(text+" of "+row.p.Of, 34))
		desc += fmt.Sprintf(" %s, %s: %s of %s;", row.c.Name, row.p.Metric, text, row.p.Of)
		d.y += rowHeight
	}
	d.y = bottom + 36
	d.legend(false, false)
	return d.finish(desc)
}
