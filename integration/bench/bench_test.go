//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/bench/report"
	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
)

// fake is a comparison whose contenders note their turns.
func fake(turns *[]string, fail error) comparison {
	one := func(name string, v float64) contender {
		return contender{name: name, ours: name == "ours", run: func(context.Context) (sample, error) {
			*turns = append(*turns, name)
			if name == "ours" && fail != nil {
				return nil, fail
			}
			return sample{"time": v * float64(len(*turns))}, nil
		}}
	}
	return comparison{name: "fake/one", title: "fake", rounds: 4, metrics: []metric{{"time", "ms", less}},
		wants: []want{{"ours", "time", atMost, 3, "peer"}},
		setup: func(_ context.Context, e *env) ([]contender, error) {
			e.atEnd(func() error { *turns = append(*turns, "down"); return nil })
			fmt.Fprintln(&e.words, strings.Repeat("x", 2*tailLength)+" last words")
			return []contender{one("peer", 1), {name: "absent", missing: "not there"}, one("ours", 1)}, nil
		}}
}

func TestMeasure(t *testing.T) {
	var turns []string
	var progress strings.Builder
	c, err := measure(t.Context(), fake(&turns, nil), &env{}, &progress)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(turns, " "); got != strings.TrimSpace(strings.Repeat("peer ours ", 5))+" down" {
		t.Errorf("turns %q", got)
	}
	// The first round does not count.
	if got := c.Row("peer").Figures["time"].Each; !slices.Equal(got, []float64{3, 5, 7, 9}) {
		t.Errorf("got %v", got)
	}
	if c.Row("absent").NotMeasured != "not there" || c.Wants[0].Outcome != report.Held || progress.String() != "....." {
		t.Errorf("got %+v, progress %q", c, &progress)
	}
	if c, err := measure(t.Context(), fake(new([]string), nil), &env{quick: true}, &progress); err != nil || c.Rounds != quickRounds {
		t.Errorf("quick: %d rounds, %v", c.Rounds, err)
	}
}

// A contender that fails ends its comparison, with the last that programs said;
// all is taken down.
func TestMeasureFails(t *testing.T) {
	broken := errors.New("broken")
	var turns []string
	_, err := measure(t.Context(), fake(&turns, broken), &env{}, new(strings.Builder))
	if !errors.Is(err, broken) || !strings.HasSuffix(err.Error(), "x last words") || len(err.Error()) > tailLength+100 {
		t.Errorf("got %v", err)
	}
	if turns[len(turns)-1] != "down" {
		t.Errorf("turns %q", turns)
	}
	c := fake(&turns, nil)
	c.wants = []want{{"nobody", "time", atMost, 3, "peer"}}
	if _, err := measure(t.Context(), c, &env{}, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("got %v", err)
	}
}

// What fails is in the file, with the reason, and is the run's error; what can
// be measured is.
func TestBenchGoesOn(t *testing.T) {
	defer func(all [][]comparison) { comparisons = all }(comparisons)
	second := fake(new([]string), nil)
	second.name = "fake/two"
	comparisons = [][]comparison{{fake(new([]string), errors.New("broken"))}, {second}}
	file := filepath.Join(t.TempDir(), "run.json")
	err := bench(t.Context(), options{match: regexp.MustCompile("fake"), file: file})
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
	r, err := report.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Comparisons) != 2 || !strings.Contains(r.Comparisons[0].NotMeasured, "broken") || r.Comparisons[1].NotMeasured != "" {
		t.Errorf("got %+v", r.Comparisons)
	}
	if r.Machine.Cores == 0 || r.Machine.Kernel == "" || r.Machine.FileSystem == "" || r.Machine.Memory == 0 {
		t.Errorf("machine %+v", r.Machine)
	}
	if err := bench(t.Context(), options{match: regexp.MustCompile("no such")}); err == nil {
		t.Error("a name that matches nothing was taken")
	}
}

// A comparison's name is its own, and says to which family it belongs.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, list := range comparisons {
		for _, c := range list {
			if seen[c.name] || strings.ContainsAny(c.name, " |<") {
				t.Errorf("the name %q", c.name)
			}
			seen[c.name] = true
		}
	}
}

func TestRenderAndCompare(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, ours ...float64) string {
		c := report.Comparison{Name: "made/one", Title: "made", Rounds: 3, Metrics: []report.Metric{{Name: "time", Unit: "ms", Better: less}},
			Rows: []report.Row{{Contender: "peer"}, {Contender: "ours", Ours: true}}}
		c.Summarise([]map[string][]float64{{"time": {10, 10, 10}}, {"time": ours}})
		r := report.Report{Format: report.Format, Comparisons: []report.Comparison{c}}
		data, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	reference, worse, same := write("reference.json", 20, 21, 22), write("worse.json", 40, 41, 42), write("same.json", 20, 20, 23)
	if err := run([]string{"compare", reference, same}); err != nil {
		t.Errorf("the same: %v", err)
	}
	if err := run([]string{"compare", reference, worse}); err == nil || !strings.Contains(err.Error(), "1 worse") {
		t.Errorf("worse: %v", err)
	}
	empty := filepath.Join(dir, "empty.json")
	if err := os.WriteFile(empty, []byte(`{"format":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"compare", reference, empty}, {"compare", reference, dir + "/none"}, {"compare", dir + "/none", reference}, {"render", dir + "/none"}, {"compare", reference}, {"-run", "("}, {"-no-such-flag"}} {
		if err := run(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if err := run([]string{"render", reference}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"reference.md", "made.svg", "overview.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// The C program calls as often as it is told, and not sooner.
func TestSDBus(t *testing.T) {
	require.Tool(t, "gcc")
	require.Tool(t, "dbus-daemon")
	if _, err := os.Stat("/usr/include/systemd/sd-bus.h"); err != nil {
		require.Skip(t, "needs libsystemd's headers")
	}
	t.Chdir("../..") // it is built from the source's root
	address, stop, err := privatebus.Make(t.TempDir(), privatebus.Options{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	e := &env{}
	defer func() {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}()
	c := e.sdbus(t.Context(), 4, 100*time.Millisecond, address, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetNameOwner", "org.freedesktop.DBus")
	if c.missing != "" {
		t.Fatal(c.missing)
	}
	for range 2 {
		s, err := c.run(t.Context())
		if err != nil {
			t.Fatalf("%v: %s", err, &e.words)
		}
		if s["rate"] > 45 || s["rate"] < 5 || s["p50"] <= 0 || s["p99"] < s["p50"] { // 40 a second where nothing is late
			t.Errorf("got %v", s)
		}
	}
	bad := &env{}
	c = bad.sdbus(t.Context(), 1, 0, address, "org.example.Nobody", "/", "org.example.Nobody", "Nothing")
	if _, err := c.run(t.Context()); err == nil {
		t.Error("a call of nobody succeeded")
	}
	if err := bad.close(); err == nil || !strings.Contains(bad.words.String(), "org.freedesktop.DBus.Error") {
		t.Errorf("%v, %q", err, &bad.words)
	}
}
