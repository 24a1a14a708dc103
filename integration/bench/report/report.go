// Package report holds what a run of integration/bench measured: its JSON form
// (FORMATS.md, "Benchmarks"), what follows from the samples, the text, Markdown
// and SVG made of it, and the comparison of two runs.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Format is the version of the JSON form. A reader refuses any other.
const Format = 1

// A Report is one run.
type Report struct {
	Format      int          `json:"format"`
	Machine     Machine      `json:"machine"`
	Comparisons []Comparison `json:"comparisons"`
}

// A Machine is where and of what a run was made.
type Machine struct {
	Time       time.Time `json:"time"`              // when it began, UTC
	Seconds    float64   `json:"seconds,omitempty"` // how long it took
	Quick      bool      `json:"quick,omitempty"`   // few and short rounds: the figures are rough
	Load       float64   `json:"load,omitempty"`    // the load average of the minute before it began
	Commit     string    `json:"commit"`            // of the source, 40 hex digits
	Version    string    `json:"version"`           // git describe; ends with -dirty where files were changed
	Go         string    `json:"go"`
	Kernel     string    `json:"kernel"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     int64     `json:"memory"`      // bytes
	FileSystem string    `json:"file_system"` // on which the images of the loop devices lie
	// Peers are the versions of the programs and libraries compared with, those
	// that are there.
	Peers map[string]string `json:"peers"`
}

// String is one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GiB, Linux %s, %s, on %s, %s", m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.FileSystem, m.Version)
}

// A Comparison is contenders that did the same work in turns.
type Comparison struct {
	Name    string   `json:"name"` // "append/btrfs/100"; the family is what stands before the first slash
	Title   string   `json:"title"`
	Note    string   `json:"note,omitempty"` // what one must know to read the figures
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"` // how long it took, with what it made before
	Metrics []Metric `json:"metrics"` // the first is the one that plots show
	Rows    []Row    `json:"rows"`    // the first is the peer that ratios refer to
	Wants   []Want   `json:"wants,omitempty"`
	// NotMeasured says why there are no rows, if there are none.
	NotMeasured string `json:"not_measured,omitempty"`
}

// Family is the first part of the name.
func (c *Comparison) Family() string {
	family, _, _ := strings.Cut(c.Name, "/")
	return family
}

// A Metric is a column.
type Metric struct {
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Better string `json:"better,omitempty"` // Less or More; empty where neither is
}

// The directions of a Metric.
const (
	Less = "less"
	More = "more"
)

// A Row is a contender.
type Row struct {
	Contender   string            `json:"contender"`
	Ours        bool              `json:"ours"`                   // of this project, not a peer
	NotMeasured string            `json:"not_measured,omitempty"` // why it did not run
	Figures     map[string]Figure `json:"figures,omitempty"`      // by metric
}

// A Figure is what a contender had in one metric.
type Figure struct {
	Spread
	Ratio *Spread   `json:"ratio,omitempty"` // to the first row, round by round; none where that is 0
	Each  []float64 `json:"each"`            // a value a round
}

// A Spread is of the values of some rounds.
type Spread struct {
	Median   float64 `json:"median"`
	Least    float64 `json:"least"`
	Greatest float64 `json:"greatest"`
}

// A Want is a bound that the project has set itself: a contender's metric, or,
// with Of, the median over the rounds of its ratio to another contender's.
type Want struct {
	Contender string   `json:"contender"`
	Metric    string   `json:"metric"`
	Relation  string   `json:"relation"` // AtMost or AtLeast
	Bound     float64  `json:"bound"`
	Of        string   `json:"of,omitempty"`
	Got       *float64 `json:"got,omitempty"`
	Outcome   string   `json:"outcome"` // Held, NotHeld or NotMeasured
}

// The relations and outcomes of a Want.
const (
	AtMost      = "≤"
	AtLeast     = "≥"
	Held        = "held"
	NotHeld     = "not held"
	NotMeasured = "not measured"
)

// Row returns the row of a contender, nil if there is none.
func (c *Comparison) Row(contender string) *Row {
	if i := slices.IndexFunc(c.Rows, func(r Row) bool { return r.Contender == contender }); i >= 0 {
		return &c.Rows[i]
	}
	return nil
}

// Metric returns a metric, nil if there is none.
func (c *Comparison) Metric(name string) *Metric {
	if i := slices.IndexFunc(c.Metrics, func(m Metric) bool { return m.Name == name }); i >= 0 {
		return &c.Metrics[i]
	}
	return nil
}

// Check says what of a comparison does not fit together: a want that names a
// contender or a metric that there is none of, or a word that has no meaning.
func (c *Comparison) Check() error {
	if c.NotMeasured != "" {
		return nil
	}
	if len(c.Metrics) == 0 || len(c.Rows) == 0 {
		return fmt.Errorf("%s: no metrics or no rows", c.Name)
	}
	for _, m := range c.Metrics {
		if m.Better != "" && m.Better != Less && m.Better != More {
			return fmt.Errorf("%s: %s: better %q", c.Name, m.Name, m.Better)
		}
	}
	for _, w := range c.Wants {
		for _, name := range []string{w.Contender, w.Of} {
			if name != "" && c.Row(name) == nil {
				return fmt.Errorf("%s: a want names %q, which is no contender", c.Name, name)
			}
		}
		if w.Contender == "" || c.Metric(w.Metric) == nil {
			return fmt.Errorf("%s: a want of %q, %q", c.Name, w.Contender, w.Metric)
		}
		if w.Relation != AtMost && w.Relation != AtLeast {
			return fmt.Errorf("%s: relation %q", c.Name, w.Relation)
		}
	}
	return nil
}

// Summarise derives all that follows from the samples: rows[i] are those of
// row i, by metric, a value a round.
func (c *Comparison) Summarise(rows []map[string][]float64) {
	for i := range c.Rows {
		r := &c.Rows[i]
		r.Figures = make(map[string]Figure, len(rows[i]))
		for name, each := range rows[i] {
			f := Figure{Spread: spread(each), Each: rounded(each)}
			if ratios := ratiosTo(each, rows[0][name]); ratios != nil {
				s := spread(ratios)
				f.Ratio = &s
			}
			r.Figures[name] = f
		}
	}
	for i := range c.Wants {
		w := &c.Wants[i]
		w.Outcome, w.Got = NotMeasured, nil
		own := c.Row(w.Contender).Figures[w.Metric]
		got := own.Median
		if w.Of != "" {
			ratios := ratiosTo(own.Each, c.Row(w.Of).Figures[w.Metric].Each)
			if ratios == nil {
				continue
			}
			got = spread(ratios).Median
		} else if len(own.Each) == 0 {
			continue
		}
		w.Got, w.Outcome = &got, NotHeld
		if w.Relation == AtMost && got <= w.Bound || w.Relation == AtLeast && got >= w.Bound {
			w.Outcome = Held
		}
	}
}

// ratiosTo divides round by round; nil where there is nothing to divide by.
func ratiosTo(own, peer []float64) []float64 {
	if len(own) == 0 || len(own) != len(peer) || slices.Contains(peer, 0) {
		return nil
	}
	list := make([]float64, len(own))
	for k := range own {
		list[k] = own[k] / peer[k]
	}
	return list
}

func spread(each []float64) Spread {
	return Spread{significant(Median(each)), significant(slices.Min(each)), significant(slices.Max(each))}
}

func rounded(each []float64) []float64 {
	list := make([]float64, len(each))
	for i, v := range each {
		list[i] = significant(v)
	}
	return list
}

// significant rounds to five significant digits, more than any clock here is
// good for.
func significant(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// Median returns the median, of an even number the upper of the middle two; NaN
// of none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile returns the q-quantile of values, the nearest rank; NaN of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// Read reads a report of this Format and checks it.
func Read(file string) (*Report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("%s: format %d, only %d is known: measure anew", file, r.Format, Format)
	}
	for i := range r.Comparisons {
		if err := r.Comparisons[i].Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return &r, nil
}

// JSON is the report with a line for each row, so that two of them can be
// compared by eye.
func (r *Report) JSON() ([]byte, error) {
	var b strings.Builder
	var failed error
	put := func(v any) {
		data, err := json.Marshal(v)
		if err != nil && failed == nil {
			failed = err
		}
		b.Write(data)
	}
	fmt.Fprintf(&b, "{\"format\":%d,\n\"machine\":", r.Format)
	put(r.Machine)
	b.WriteString(",\n\"comparisons\":[")
	for i, c := range r.Comparisons {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n\n")
		rows, wants := c.Rows, c.Wants
		c.Rows, c.Wants = nil, nil
		head, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		b.WriteString(strings.TrimSuffix(strings.Replace(string(head), `,"rows":null`, "", 1), "}"))
		lines := func(key string, n int, at func(int) any) {
			fmt.Fprintf(&b, ",\n%q:[", key)
			for k := range n {
				if k > 0 {
					b.WriteString(",")
				}
				b.WriteString("\n\t")
				put(at(k))
			}
			b.WriteString("]")
		}
		lines("rows", len(rows), func(k int) any { return rows[k] })
		if len(wants) > 0 {
			lines("wants", len(wants), func(k int) any { return wants[k] })
		}
		b.WriteString("}")
	}
	b.WriteString("\n]}\n")
	return []byte(b.String()), failed
}
