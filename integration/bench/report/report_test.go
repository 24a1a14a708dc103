package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const kept = "../../../docs/bench"

// What is shown of the kept run is what its JSON gives, byte for byte, and there
// is nothing else beside it.
func TestReferenceIsRendered(t *testing.T) {
	file := filepath.Join(kept, "reference.json")
	r, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	want := r.Render("reference")
	want["reference.json"], err = r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(kept, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := want[e.Name()]; !ok {
			t.Errorf("%s is not made from reference.json", e.Name())
		} else if !bytes.Equal(got, data) {
			t.Errorf("%s is not what reference.json gives: make bench-render", e.Name())
		}
		delete(want, e.Name())
	}
	for name := range want {
		t.Errorf("%s is missing: make bench-render", name)
	}
	if len(r.Comparisons) < 20 {
		t.Errorf("the kept run has %d comparisons only", len(r.Comparisons))
	}
	for _, c := range r.Comparisons {
		again := c
		again.Rows, again.Wants = slices.Clone(c.Rows), slices.Clone(c.Wants)
		if c.NotMeasured != "" {
			continue
		}
		samples := make([]map[string][]float64, len(c.Rows))
		for i, row := range c.Rows {
			samples[i] = make(map[string][]float64)
			for name, f := range row.Figures {
				samples[i][name] = f.Each
			}
		}
		again.Summarise(samples)
		for i := range c.Wants {
			if c.Wants[i].Outcome != again.Wants[i].Outcome {
				t.Errorf("%s: %v: the samples say %s", c.Name, c.Wants[i], again.Wants[i].Outcome)
			}
		}
	}
}

// made is a comparison of a peer and one of ours in one metric.
func made(better string, peer, ours []float64) *Report {
	c := Comparison{Name: "made/one", Title: "made", Rounds: len(peer), Metrics: []Metric{{"time", "ms", better}},
		Rows: []Row{{Contender: "peer"}, {Contender: "ours", Ours: true}}}
	c.Summarise([]map[string][]float64{{"time": peer}, {"time": ours}})
	return &Report{Format: Format, Comparisons: []Comparison{c}}
}

func TestSummarise(t *testing.T) {
	c := Comparison{Name: "a", Metrics: []Metric{{"time", "ms", Less}, {"peak", "MB", Less}},
		Rows: []Row{{Contender: "peer"}, {Contender: "absent", NotMeasured: "not installed"}, {Contender: "ours", Ours: true}},
		Wants: []Want{
			{Contender: "ours", Metric: "time", Relation: AtMost, Bound: 2, Of: "peer"},
			{Contender: "ours", Metric: "time", Relation: AtLeast, Bound: 2, Of: "peer"},
			{Contender: "ours", Metric: "time", Relation: AtMost, Bound: 2, Of: "absent"},
			{Contender: "ours", Metric: "peak", Relation: AtMost, Bound: 64},
			{Contender: "absent", Metric: "peak", Relation: AtMost, Bound: 64},
		}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	// The ratio is of rounds: its median is 1.5, that of medians would be 3.
	c.Summarise([]map[string][]float64{{"time": {1, 10, 2}}, {}, {"time": {1.5, 30, 3}, "peak": {70, 65, 64}}})
	f := c.Rows[2].Figures["time"]
	if (f.Spread != Spread{3, 1.5, 30}) || f.Ratio == nil || (*f.Ratio != Spread{1.5, 1.5, 3}) {
		t.Errorf("got %+v, %+v", f, f.Ratio)
	}
	var outcomes []string
	for _, w := range c.Wants {
		outcomes = append(outcomes, w.Outcome)
	}
	if want := []string{Held, NotHeld, NotMeasured, NotHeld, NotMeasured}; !slices.Equal(outcomes, want) {
		t.Errorf("got %q, want %q", outcomes, want)
	}
	if c.Wants[2].Got != nil || c.Rows[2].Figures["peak"].Ratio != nil {
		t.Error("something was divided by what is not there")
	}
	var b strings.Builder
	c.Print(&b)
	for _, want := range []string{"not measured: not installed", "ours: time ≤ 2 of peer: held (1.50)", "ours: peak ≤ 64 MB: not held (65.0)", "time ≤ 2 of absent: not measured"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestCompare(t *testing.T) {
	steady := []float64{10, 10, 10, 10, 10}
	reference := []float64{19, 20, 20, 21, 22} // 1.9 to 2.2 of the peer
	for _, test := range []struct {
		name       string
		better     string
		peer, ours []float64
		worse      bool
		gain       bool
	}{
		{"the same", Less, steady, reference, false, false},
		{"a machine three times as slow", Less, []float64{30, 30, 30, 30, 30}, []float64{57, 60, 60, 63, 66}, false, false},
		{"half as quick", Less, steady, []float64{38, 40, 40, 41, 44}, true, false},
		{"half as quick on a machine that is twice as quick", Less, []float64{5, 5, 5, 5, 5}, []float64{19, 20, 20, 21, 22}, true, false},
		{"a little beyond, and less than a tenth", Less, steady, []float64{21.7, 21.8, 21.9, 22, 22}, false, false},
		{"within the spread of the reference", Less, steady, []float64{22, 22, 22, 22, 22}, false, false},
		{"its own spread reaches the reference", Less, steady, []float64{19, 25, 25, 26, 60}, false, false},
		{"twice as quick", Less, steady, []float64{9, 10, 10, 10, 11}, false, true},
		{"twice the rate", More, steady, []float64{38, 40, 40, 41, 44}, false, true},
		{"half the rate", More, steady, []float64{9, 10, 10, 10, 11}, true, false},
		{"no rate at all", More, steady, []float64{0, 0, 0, 0, 0}, true, false},
		{"neither is better", "", steady, []float64{90, 90, 90, 90, 90}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes, lacking := Compare(made(test.better, steady, reference), made(test.better, test.peer, test.ours))
			if len(lacking) > 0 {
				t.Errorf("lacking %q", lacking)
			}
			if test.better == "" {
				if len(changes) > 0 {
					t.Errorf("compared %+v", changes)
				}
				return
			}
			if len(changes) != 1 || changes[0].Regression != test.worse || changes[0].Gain != test.gain {
				t.Errorf("got %+v", changes)
			}
			n := 0
			if test.worse {
				n = 1
			}
			if got := Print(io.Discard, changes, lacking); got != n {
				t.Errorf("printed %d regressions", got)
			}
		})
	}
}

// What wrote nothing and now writes is worse, however little the peer says.
func TestCompareZero(t *testing.T) {
	nothing, some := made(Less, []float64{300, 300}, []float64{0, 0}), made(Less, []float64{300, 300}, []float64{20, 30})
	if changes, _ := Compare(nothing, some); len(changes) != 1 || !changes[0].Regression {
		t.Errorf("got %+v", changes)
	}
	if changes, _ := Compare(nothing, nothing); len(changes) != 1 || changes[0].Regression {
		t.Errorf("got %+v", changes)
	}
	// Without a peer's figure there is no ratio.
	if changes, _ := Compare(made(Less, []float64{0, 1}, []float64{1, 1}), some); len(changes) != 0 {
		t.Errorf("got %+v", changes)
	}
}

// A bound names another peer than the first, and another metric.
func TestCompareBounds(t *testing.T) {
	run := func(peak float64) *Report {
		c := Comparison{Name: "a", Metrics: []Metric{{"time", "ms", Less}, {"peak", "MB", Less}},
			Rows:  []Row{{Contender: "first"}, {Contender: "second"}, {Contender: "ours", Ours: true}},
			Wants: []Want{{Contender: "ours", Metric: "peak", Relation: AtMost, Bound: 2, Of: "second"}}}
		each := func(v float64) map[string][]float64 {
			return map[string][]float64{"time": {10, 10}, "peak": {v, v}}
		}
		c.Summarise([]map[string][]float64{each(10), each(10), each(peak)})
		return &Report{Comparisons: []Comparison{c}}
	}
	changes, _ := Compare(run(10), run(20))
	if len(changes) != 2 || changes[0].Regression || !changes[1].Regression || changes[1].Of != "second" || changes[1].Metric != "peak" {
		t.Errorf("got %+v", changes)
	}
}

func TestCompareNamesWhatIsLacking(t *testing.T) {
	a := made(Less, []float64{1}, []float64{1})
	for _, test := range []struct {
		now  *Report
		want string
	}{
		{&Report{}, "made/one: not run"},
		{&Report{Comparisons: []Comparison{{Name: "made/one", NotMeasured: "needs root"}}}, "made/one: needs root"},
		{&Report{Comparisons: []Comparison{{Name: "made/one", Metrics: []Metric{{"time", "ms", Less}}, Rows: []Row{{Contender: "peer", NotMeasured: "gone"}}}}}, "made/one: time of ours against peer"},
	} {
		changes, lacking := Compare(a, test.now)
		if len(changes) != 0 || !slices.Equal(lacking, []string{test.want}) {
			t.Errorf("got %v, %q, want %q", changes, lacking, test.want)
		}
	}
	// What the reference has not is of no concern.
	if changes, lacking := Compare(&Report{}, a); len(changes)+len(lacking) > 0 {
		t.Errorf("got %v, %q", changes, lacking)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":            `{`,
		"another format":     `{"format":2}`,
		"none":               `{}`,
		"no rows":            `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}]}]}`,
		"no metrics":         `{"format":1,"comparisons":[{"name":"a","rows":[{"contender":"x"}]}]}`,
		"a direction":        `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m","better":"up"}],"rows":[{"contender":"x"}]}]}`,
		"no such contender":  `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}],"rows":[{"contender":"x"}],"wants":[{"contender":"y","metric":"m","relation":"≤"}]}]}`,
		"no such peer":       `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}],"rows":[{"contender":"x"}],"wants":[{"contender":"x","metric":"m","of":"y","relation":"≤"}]}]}`,
		"no such metric":     `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}],"rows":[{"contender":"x"}],"wants":[{"contender":"x","metric":"n","relation":"≤"}]}]}`,
		"no such relation":   `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}],"rows":[{"contender":"x"}],"wants":[{"contender":"x","metric":"m","relation":"="}]}]}`,
		"a want of nobody's": `{"format":1,"comparisons":[{"name":"a","metrics":[{"name":"m"}],"rows":[{"contender":"x"}],"wants":[{"metric":"m","relation":"≤"}]}]}`,
	} {
		file := filepath.Join(t.TempDir(), "r.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// awkward has what plots and tables must take: names with marks of XML and of
// Markdown, nothing, what is not measured, one value, values far apart.
func awkward() *Report {
	wide := Comparison{Name: "odd/wide", Title: "a <b> & \"c\" | d", Note: "two\nlines", Rounds: 2, Metrics: []Metric{{"rate", "x/s", More}, {"n", "", ""}},
		Rows:  []Row{{Contender: "peer <1> | & co"}, {Contender: "absent", NotMeasured: "no | such"}, {Contender: "ours, with a name that is longer than any column is wide", Ours: true}, {Contender: "nothing", Ours: true}},
		Wants: []Want{{Contender: "nothing", Metric: "rate", Relation: AtLeast, Bound: 0.5, Of: "peer <1> | & co"}}}
	wide.Summarise([]map[string][]float64{{"rate": {0.001, 0.002}, "n": {1, 1}}, {}, {"rate": {1e6, 2e6}}, {"rate": {0, 0}}})
	zero := Comparison{Name: "odd/zero", Title: "zero", Rounds: 1, Metrics: []Metric{{"rate", "x/s", Less}}, Rows: []Row{{Contender: "a"}, {Contender: "b", Ours: true}}}
	zero.Summarise([]map[string][]float64{{"rate": {0}}, {"rate": {0}}})
	return &Report{Format: Format, Comparisons: []Comparison{wide, zero, {Name: "gone/1", Title: "gone", NotMeasured: "needs <root>"}}}
}

func TestRenderTakesAnything(t *testing.T) {
	r := awkward()
	files := r.Render("odd")
	if got := len(files); got != 3 { // odd.md, overview.svg, odd.svg
		t.Fatalf("%d files", got)
	}
	for name, data := range files {
		text := string(data)
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s has a number that is none:\n%s", name, text)
		}
		if !strings.HasSuffix(name, ".svg") {
			continue
		}
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if strings.Contains(text, "<script") || !strings.Contains(text, "prefers-color-scheme:dark") {
			t.Errorf("%s: a script, or one scheme only", name)
		}
	}
	md := string(files["odd.md"])
	for _, want := range []string{`peer &lt;1> \| & co`, "- odd/wide, absent: no \\| such", "- gone/1, all of it: needs &lt;root>", "**not held**", "two lines"} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q in\n%s", want, md)
		}
	}
	// A report survives its file.
	data, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Read(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if twice, err := again.JSON(); err != nil || !bytes.Equal(twice, data) {
		t.Errorf("%v, another JSON:\n%s", err, twice)
	}
	if !reflect.DeepEqual(again.Render("odd"), files) {
		t.Error("what is shown of it is not the same")
	}
}

func TestAxis(t *testing.T) {
	for _, test := range []struct {
		values []float64
		log    bool
		ticks  string
	}{
		{[]float64{1, 20}, false, "0 5 10 15 20"},
		{[]float64{1, 21}, true, "1 2 5 10 20"},
		{[]float64{0, 3, 90}, true, "5 10 20 50 100"},
		{[]float64{0.01, 500}, true, "0.01 0.1 1 10 100"},
		{[]float64{0, 0}, false, "0 0.2 0.4 0.6 0.8 1"},
		{[]float64{1234567}, false, "0 500,000 1,000,000"},
	} {
		a := newAxis(test.values)
		var got []string
		for _, v := range a.ticks() {
			got = append(got, tick(v))
		}
		if a.log != test.log || strings.Join(got, " ") != test.ticks {
			t.Errorf("%v: log %v, ticks %q", test.values, a.log, got)
		}
		for _, v := range test.values {
			if x := a.x(v); x < axisLeft || x > axisRight {
				t.Errorf("%v: %v stands at %v", test.values, v, x)
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.003412: "0.0034", 0.25: "0.25", 9.996: "10.0", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -1234.5: "-1,234"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}
