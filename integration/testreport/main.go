// Testreport runs go test and says what came out of it: a line a package, the
// output of what failed, what was skipped and why, and the totals.
//
//	testreport -- -race ./pkg/... -- ./integration/...
//
// Each "--" begins the arguments of one run of go test -json; -C DIR may come
// first. It exits with 1
// if anything failed, and under GB_REQUIRE=all also if a test was skipped that
// is not one of the long ones (GB_TORTURE).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	var runs [][]string
	for _, arg := range os.Args[1:] {
		if arg == "--" {
			runs = append(runs, nil)
			continue
		}
		if len(runs) == 0 {
			fmt.Fprintln(os.Stderr, "usage: testreport -- GO TEST ARGUMENTS [-- MORE]...")
			os.Exit(2)
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], arg)
	}
	r := newReport(os.Stdout)
	for _, args := range runs {
		if err := r.run(args); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			r.broken = true
		}
	}
	if !r.close(os.Getenv("GB_REQUIRE") == "all") {
		os.Exit(1)
	}
}

// An action is a line of go test -json (cmd/test2json).
type action struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

type report struct {
	w       io.Writer
	output  map[string][]string // of each test that has not passed yet
	passed  int
	failed  []string
	skipped []skip
	long    []string // tests that run with GB_TORTURE only
	broken  bool     // a build failed, or go test itself
}

type skip struct{ test, reason string }

func newReport(w io.Writer) *report { return &report{w: w, output: make(map[string][]string)} }

func (r *report) run(args []string) error {
	command := []string{"test"}
	if len(args) > 1 && args[0] == "-C" { // another module; go wants it first
		command, args = append(command, args[:2]...), args[2:]
	}
	cmd := exec.Command("go", append(append(command, "-json"), args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	rerr := r.read(out)
	werr := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(werr, &exit) && (len(r.failed) > 0 || r.broken) {
		werr = nil // said already
	}
	return errors.Join(rerr, werr)
}

func (r *report) read(in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var a action
		if json.Unmarshal(s.Bytes(), &a) != nil {
			fmt.Fprintln(r.w, s.Text())
			continue
		}
		r.take(a)
	}
	return s.Err()
}

func (r *report) take(a action) {
	name := a.Package
	if a.Test != "" {
		name += " " + a.Test
	}
	switch a.Action {
	case "output":
		r.output[name] = append(r.output[name], a.Output)
	case "build-output":
		fmt.Fprint(r.w, a.Output)
	case "build-fail":
		r.broken = true
	case "pass":
		if a.Test == "" {
			fmt.Fprintf(r.w, "ok    %-60s %6.1fs\n", a.Package, a.Elapsed)
		} else {
			r.passed++
		}
		delete(r.output, name)
	case "skip":
		if a.Test != "" {
			reason := skipReason(r.output[name])
			if strings.Contains(reason, "GB_TORTURE") {
				r.long = append(r.long, name)
			} else {
				r.skipped = append(r.skipped, skip{name, reason})
			}
		}
		delete(r.output, name)
	case "fail":
		if a.Test == "" {
			fmt.Fprintf(r.w, "FAIL  %-60s %6.1fs\n", a.Package, a.Elapsed)
			if !slices.ContainsFunc(r.failed, func(t string) bool { return strings.HasPrefix(t, a.Package+" ") }) {
				r.broken = true // not by a test: a panic, a build, an exit
			}
		} else {
			r.failed = append(r.failed, name)
		}
		fmt.Fprint(r.w, strings.Join(r.output[name], ""))
		delete(r.output, name)
	}
}

// skipReason finds the text of t.Skip in a test's output: "file.go:1: text".
func skipReason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if place, text, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") {
			return text
		}
	}
	return "no reason given"
}

// unasked are the tests that are not there without a value that only a person
// can give.
var unasked = []struct{ env, what string }{
	{"GB_QDRANT", "the index in Qdrant against a real server: HOST:PORT of its gRPC (1.16 to 1.18)"},
	{"GB_NIXPKGS", "the Nix modules on the real lib, and on the real NixOS if it has one: a directory with nixpkgs"},
	{"GB_VM", "the package in a virtual machine with the kernel's own Open vSwitch: make e2e-vm"},
}

// close prints the totals and says whether all is well.
func (r *report) close(skipFails bool) bool {
	if len(r.long) > 0 {
		fmt.Fprintf(r.w, "\nnot run, %d long tests (make torture runs them):\n", len(r.long))
		for _, t := range r.long {
			fmt.Fprintf(r.w, "  %s\n", t)
		}
	}
	for i, u := range unasked {
		if os.Getenv(u.env) != "" {
			continue
		}
		if i == 0 {
			fmt.Fprintf(r.w, "\nnot asked for:\n")
		}
		fmt.Fprintf(r.w, "  %s: %s\n", u.env, u.what)
	}
	if len(r.skipped) > 0 {
		fmt.Fprintf(r.w, "\nskipped:\n")
		for _, s := range r.skipped {
			fmt.Fprintf(r.w, "  %s: %s\n", s.test, s.reason)
		}
	}
	if len(r.failed) > 0 {
		fmt.Fprintf(r.w, "\nfailed:\n")
		for _, t := range r.failed {
			fmt.Fprintf(r.w, "  %s\n", t)
		}
	}
	failed := len(r.failed)
	if r.broken {
		fmt.Fprintln(r.w, "\nsomething else than a test failed: see above")
		failed = max(failed, 1)
	}
	fmt.Fprintf(r.w, "\n%d passed, %d failed, %d skipped\n", r.passed, failed, len(r.skipped))
	return failed == 0 && (!skipFails || len(r.skipped) == 0)
}
