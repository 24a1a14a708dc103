//go:build linux

// Bench compares GhostBridge's parts with what a user would take instead. Each
// comparison runs its contenders in turns, round after round, in one process
// on one machine, so that what else the machine does meets all of them alike;
// what counts is the ratio, not the figure.
//
//	bench [-list] [-run REGEXP] [-rounds N] [-json FILE] [-bin DIR]
//
// It prints a table a comparison: for each contender the median of its rounds,
// and the median of the ratios to the first contender, the peer, within the
// same round. -json writes every sample with the machine that gave it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

// comparisons are all that there are, in the order in which they run. Each
// has a file of its own.
var comparisons = [][]comparison{appends, producers, verifies, readers, starts, ingests, lags, snapshots, switches, calls, agents, webs}

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareDaemon {
		if err := serveBare(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == bareStream {
		if err := serveStream(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	list := flag.Bool("list", false, "print the names of the comparisons")
	run := flag.String("run", ".", "run those whose name matches `REGEXP`")
	rounds := flag.Int("rounds", 0, "`N` rounds instead of each comparison's own number")
	file := flag.String("json", "", "write all samples to `FILE`")
	bin := flag.String("bin", "bin", "`DIR` of the binaries")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *list, *run, *rounds, *file, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, list bool, run string, rounds int, file, bin string) error {
	match, err := regexp.Compile(run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	r := report{Machine: thisMachine(ctx)}
	var failed error
	for _, file := range comparisons {
		for _, c := range file {
			if !match.MatchString(c.name) {
				continue
			}
			if list {
				fmt.Printf("%-28s %s\n", c.name, c.title)
				continue
			}
			if len(r.Results) == 0 {
				fmt.Println(r.Machine)
			}
			if rounds > 0 {
				c.rounds = rounds
			}
			result, err := measure(ctx, c, bin)
			if ctx.Err() != nil {
				return errors.Join(failed, context.Cause(ctx))
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", c.name, err))
				fmt.Printf("\n%s\n  not measured: %v\n", c.title, err)
				continue
			}
			r.Results = append(r.Results, result)
			result.print(os.Stdout)
		}
	}
	if file != "" {
		data, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	return failed
}
