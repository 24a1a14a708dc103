//go:build linux

// Bench compares GhostBridge's parts with what a user would take instead. Each
// comparison runs its contenders in turns, round after round, on one machine,
// so that what else the machine does meets all of them alike; what counts is
// the ratio, not the figure.
//
//	bench [-list] [-run REGEXP] [-quick] [-rounds N] [-json FILE] [-bin DIR]
//	bench render FILE
//	bench compare REFERENCE RUN
//
// It prints a table a comparison: for each contender the median of its rounds,
// and the median of the ratios to the first contender, the peer, within the
// same round. -json writes every sample with the machine that gave it
// (FORMATS.md, "Benchmarks"). render makes Markdown and plots of such a file,
// beside it. compare sets one against another by the ratios alone, and ends
// with 1 if one of them is worse beyond the spread of the rounds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/bench/report"
)

// comparisons are all that there are, in the order in which they run. Each
// has a file of its own.
var comparisons = [][]comparison{appends, producers, verifies, readers, starts, ingests, lags, searches, snapshots, switches, calls, agents, webs}

// quickRounds are those of -quick, at the most.
const quickRounds = 2

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == bareDaemon:
		return serveBare(args[1], args[2])
	case len(args) == 2 && args[0] == bareStream:
		return serveStream(args[1])
	case len(args) == 2 && args[0] == "render":
		return render(args[1])
	case len(args) == 3 && args[0] == "compare":
		return compare(os.Stdout, args[1], args[2])
	}
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.list, "list", false, "print the names of the comparisons")
	match := f.String("run", ".", "run those whose name matches `REGEXP`")
	f.BoolVar(&o.quick, "quick", false, fmt.Sprintf("%d rounds at the most, and shorter ones, to see that all runs; the figures are rough", quickRounds))
	f.IntVar(&o.rounds, "rounds", 0, "`N` rounds instead of each comparison's own number")
	f.StringVar(&o.file, "json", "", "write all samples to `FILE`")
	f.StringVar(&o.bin, "bin", "bin", "`DIR` of the binaries")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s: neither a flag nor render FILE nor compare REFERENCE RUN", strings.Join(f.Args(), " "))
	}
	var err error
	if o.match, err = regexp.Compile(*match); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return bench(ctx, o)
}

type options struct {
	list, quick bool
	match       *regexp.Regexp
	rounds      int
	file, bin   string
}

// bench runs what o asks for. It goes on past a comparison that fails, which is
// its error at the end; interrupted it writes no file.
func bench(ctx context.Context, o options) error {
	var chosen []comparison
	for _, list := range comparisons {
		for _, c := range list {
			if o.match.MatchString(c.name) {
				chosen = append(chosen, c)
			}
		}
	}
	if len(chosen) == 0 {
		return errors.New("-run matches no comparison: see -list")
	}
	if o.list {
		for _, c := range chosen {
			fmt.Printf("%-28s %s\n", c.name, c.title)
		}
		return nil
	}
	begin := time.Now()
	r := report.Report{Format: report.Format, Machine: thisMachine(ctx)}
	r.Machine.Quick = o.quick
	fmt.Println(r.Machine)
	var failed error
	for i, c := range chosen {
		if o.rounds > 0 {
			c.rounds = o.rounds
		}
		fmt.Fprintf(os.Stderr, "[%d of %d, after %v] %s ", i+1, len(chosen), time.Since(begin).Round(time.Second), c.name)
		result, err := measure(ctx, c, &env{bin: o.bin, quick: o.quick}, os.Stderr)
		fmt.Fprintf(os.Stderr, " %.0f s\n", result.Seconds)
		if ctx.Err() != nil {
			return errors.Join(failed, context.Cause(ctx))
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", c.name, err))
			result.Rows, result.Wants, result.NotMeasured = nil, nil, err.Error()
		}
		r.Comparisons = append(r.Comparisons, result)
		result.Print(os.Stdout)
	}
	r.Machine.Seconds = time.Since(begin).Round(time.Second).Seconds()
	fmt.Fprintf(os.Stderr, "%d comparisons in %v\n", len(chosen), time.Since(begin).Round(time.Second))
	if o.file != "" {
		data, err := r.JSON()
		if err != nil {
			return errors.Join(failed, err)
		}
		if err := os.WriteFile(o.file, data, 0o644); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// render writes what is shown of a report beside it: reference.json gives
// reference.md and plots.
func render(file string) error {
	r, err := report.Read(file)
	if err != nil {
		return err
	}
	for name, data := range r.Render(strings.TrimSuffix(filepath.Base(file), ".json")) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func compare(w io.Writer, reference, run string) error {
	a, err := report.Read(reference)
	if err != nil {
		return err
	}
	b, err := report.Read(run)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "reference: %s\nnow:       %s\n\n", a.Machine, b.Machine)
	changes, lacking := report.Compare(a, b)
	if n := report.Print(w, changes, lacking); n > 0 {
		return fmt.Errorf("%d worse than in %s", n, reference)
	}
	if len(changes) == 0 {
		return errors.New("the runs have nothing in common to compare")
	}
	return nil
}
