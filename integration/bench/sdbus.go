//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A turner is a program that does the turns of a contender: for each line that
// it is given it does one, and answers with a line of JSON.
type turner struct {
	in  io.Writer
	out *json.Decoder
}

// turner starts a program that lives as long as the comparison.
func (e *env) turner(ctx context.Context, program string, args ...string) (*turner, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &e.words
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	e.atEnd(func() error {
		err := errors.Join(in.Close(), cmd.Wait())
		if ctx.Err() != nil {
			return nil // it was killed
		}
		return err
	})
	return &turner{in, json.NewDecoder(bufio.NewReader(out))}, nil
}

// do asks for a turn.
func (t *turner) do(line string, answer any) error {
	if _, err := fmt.Fprintln(t.in, line); err != nil {
		return err
	}
	return t.out.Decode(answer)
}

// sdbus is a contender that calls a method with systemd's sd-bus, in a program
// built from sdbus/call.c.
func (e *env) sdbus(ctx context.Context, callers int, pace time.Duration, address string, call ...string) contender {
	c := contender{name: "sd-bus, bare"}
	dir, err := e.dir("")
	if err != nil {
		c.missing = err.Error()
		return c
	}
	program := filepath.Join(dir, "call")
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", program, "integration/bench/sdbus/call.c", "-lsystemd").CombinedOutput(); err != nil {
		words, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		c.missing = fmt.Sprintf("can't be built with gcc and libsystemd's headers: %v %s", err, words)
		return c
	}
	t, err := e.turner(ctx, program, append([]string{address}, call...)...)
	if err != nil {
		c.missing = err.Error()
		return c
	}
	c.run = func(context.Context) (sample, error) {
		var answer struct {
			Took  []float64
			Total float64
		}
		if err := t.do(fmt.Sprintf("%d %f %f", callers, callFor.Seconds(), pace.Seconds()), &answer); err != nil {
			return nil, err
		}
		if len(answer.Took) == 0 {
			return nil, errors.New("no calls")
		}
		s := sample{"rate": float64(len(answer.Took)) / answer.Total}
		if callers > 1 {
			s["p50"], s["p99"] = median(answer.Took), quantile(answer.Took, 0.99)
		}
		return s, nil
	}
	return c
}
