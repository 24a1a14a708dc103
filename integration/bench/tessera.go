//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// peersModule is the module, below the source, whose programs are Tessera's
// and use Tessera.
const peersModule = "integration/chain/peers"

// peerProgram builds a program of that module and returns its path.
func (e *env) peerProgram(ctx context.Context, pkg string) (string, error) {
	dir, err := e.dir("")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	out, err := exec.CommandContext(ctx, "go", "build", "-C", peersModule, "-o", path, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// tesseraAppender is a contender that has Tessera's POSIX driver append the
// lines of a batch in dir, in a process of its own that lives as long as the
// comparison.
func tesseraAppender(ctx context.Context, e *env, dir string, lines []byte, batch int) contender {
	c := contender{name: "Tessera's POSIX driver"}
	fail := func(err error) contender {
		c.missing = err.Error()
		return c
	}
	program, err := e.peerProgram(ctx, "./tesseraappend")
	if err != nil {
		return fail(err)
	}
	file := program + ".batch"
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		return fail(err)
	}
	cmd := exec.Command(program, dir, file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return fail(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	e.atEnd(func() error { return errors.Join(in.Close(), cmd.Wait()) })
	answers := json.NewDecoder(bufio.NewReader(out))
	c.run = func(ctx context.Context) (sample, error) {
		if _, err := fmt.Fprintln(in, appendFor.Seconds()); err != nil {
			return nil, err
		}
		var answer struct {
			Took  []float64
			Total float64
		}
		if err := answers.Decode(&answer); err != nil {
			return nil, err
		}
		return sample{"rate": float64(len(answer.Took)*batch) / answer.Total, "p50": median(answer.Took), "p99": quantile(answer.Took, 0.99)}, nil
	}
	return c
}
