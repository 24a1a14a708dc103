package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Print writes a comparison as a table for a terminal.
func (c *Comparison) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s, %d rounds\n", c.Name, c.Title, c.Rounds)
	if c.NotMeasured != "" {
		fmt.Fprintf(w, "  not measured: %s\n", c.NotMeasured)
		return
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, m := range c.Metrics {
		fmt.Fprintf(t, "%s\t", column(m))
	}
	fmt.Fprint(t, "ratio\t(least to greatest)\t\n")
	for _, r := range c.Rows {
		fmt.Fprintf(t, "%s\t", r.Contender)
		if r.NotMeasured != "" {
			fmt.Fprintf(t, "not measured: %s\t\n", r.NotMeasured)
			continue
		}
		for _, m := range c.Metrics {
			if f, ok := r.Figures[m.Name]; ok {
				fmt.Fprint(t, number(f.Median))
			}
			fmt.Fprint(t, "\t")
		}
		if ratio := r.Figures[c.Metrics[0].Name].Ratio; ratio != nil {
			fmt.Fprintf(t, "%s\t(%s to %s)\t", number(ratio.Median), number(ratio.Least), number(ratio.Greatest))
		}
		fmt.Fprint(t, "\n")
	}
	t.Flush()
	for _, wanted := range c.Wants {
		fmt.Fprintf(w, "  wanted: %s: %s\n", wanted.text(c), wanted.outcome())
	}
	if c.Note != "" {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(c.Note, "\n", "\n  "))
	}
}

func column(m Metric) string { return strings.TrimSpace(m.Name + " " + m.Unit) }

// text is the bound in words: "gb-chain's log: rate ≥ 0.8 of write and fdatasync".
func (w Want) text(c *Comparison) string {
	bound := fmt.Sprintf("%s %s %s", w.Metric, w.Relation, plain(w.Bound))
	if w.Of != "" {
		bound += " of " + w.Of
	} else if m := c.Metric(w.Metric); m != nil && m.Unit != "" {
		bound += " " + m.Unit
	}
	return w.Contender + ": " + bound
}

func (w Want) outcome() string {
	if w.Got == nil {
		return w.Outcome
	}
	return fmt.Sprintf("%s (%s)", w.Outcome, number(*w.Got))
}

// plain is a bound as one writes it.
func plain(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// number has three significant digits, and commas between thousands.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.0995 || a == 0:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}

func thousands(digits string) string {
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
