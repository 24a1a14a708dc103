//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A report is what -json writes: all that was measured in one run.
type report struct {
	Machine machine  `json:"machine"`
	Results []result `json:"results"`
}

type machine struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of this source
	Go      string    `json:"go"`
	Kernel  string    `json:"kernel"`
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s", m.CPU, m.Cores, m.Kernel, m.Go, m.Version)
}

// A result is one comparison's.
type result struct {
	Name    string         `json:"name"`
	Title   string         `json:"title"`
	Rounds  int            `json:"rounds"`
	Note    string         `json:"note,omitempty"`
	Metrics []resultMetric `json:"metrics"`
	Rows    []row          `json:"rows"`
}

type resultMetric struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	Want string `json:"want,omitempty"`
}

// A row is one contender's.
type row struct {
	Contender string               `json:"contender"`
	Missing   string               `json:"missing,omitempty"` // why it was not measured
	Samples   map[string][]float64 `json:"samples,omitempty"` // by metric, a value a round
	Median    map[string]float64   `json:"median,omitempty"`
	// Ratio is the median, over the rounds, of the first metric's value
	// divided by the peer's of the same round.
	Ratio    float64 `json:"ratio,omitempty"`
	RatioLow float64 `json:"ratio_low,omitempty"` // the least and the greatest of them
	RatioTop float64 `json:"ratio_top,omitempty"`
}

func (r *result) summarise() {
	first := r.Metrics[0].Name
	for i := range r.Rows {
		x := &r.Rows[i]
		x.Median = map[string]float64{}
		for name, values := range x.Samples {
			x.Median[name] = median(values)
		}
		peer, own := r.Rows[0].Samples[first], x.Samples[first]
		if len(own) == 0 || len(own) != len(peer) {
			continue
		}
		ratios := make([]float64, len(own))
		for k := range own {
			ratios[k] = own[k] / peer[k]
		}
		x.Ratio, x.RatioLow, x.RatioTop = median(ratios), slices.Min(ratios), slices.Max(ratios)
	}
}

func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s, %d rounds\n", r.Name, r.Title, r.Rounds)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, m := range r.Metrics {
		fmt.Fprintf(t, "%s %s\t", m.Name, m.Unit)
	}
	fmt.Fprint(t, "ratio\t(least to greatest)\t\n")
	for _, x := range r.Rows {
		fmt.Fprintf(t, "%s\t", x.Contender)
		if x.Missing != "" {
			fmt.Fprintf(t, "not measured: %s\t\n", x.Missing)
			continue
		}
		for _, m := range r.Metrics {
			v, ok := x.Median[m.Name]
			if !ok {
				fmt.Fprint(t, "\t")
				continue
			}
			fmt.Fprintf(t, "%s\t", figure(v))
		}
		if x.Ratio != 0 {
			fmt.Fprintf(t, "%.2f\t(%.2f to %.2f)\t", x.Ratio, x.RatioLow, x.RatioTop)
		}
		fmt.Fprint(t, "\n")
	}
	t.Flush()
	for _, m := range r.Metrics {
		if m.Want != "" {
			fmt.Fprintf(w, "  wanted, %s: %s\n", m.Name, m.Want)
		}
	}
	if r.Note != "" {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(r.Note, "\n", "\n  "))
	}
}

// figure prints three significant digits.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile returns the q-quantile of values, the nearest rank; NaN of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func thisMachine(ctx context.Context) machine {
	m := machine{Time: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Cores: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		m.Version = string(bytes.TrimSpace(out))
	}
	return m
}
