//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// peersModule is the module, below the source, whose programs are Tessera's
// and use Tessera.
const peersModule = "integration/chain/peers"

// peerProgram builds a program of a module below the source and returns its
// path.
func (e *env) peerProgram(ctx context.Context, module, pkg string) (string, error) {
	dir, err := e.dir("")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	out, err := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", path, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// tesseraAppender is a contender that has Tessera's POSIX driver append the
// lines of a batch in dir, in a process of its own that lives as long as the
// comparison.
func tesseraAppender(ctx context.Context, e *env, dir string, lines []byte, batch int) contender {
	c := contender{name: tesseraDriver}
	fail := func(err error) contender {
		c.missing = err.Error()
		return c
	}
	program, err := e.peerProgram(ctx, peersModule, "./tesseraappend")
	if err != nil {
		return fail(err)
	}
	file := program + ".batch"
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		return fail(err)
	}
	t, err := e.turner(ctx, program, dir, file)
	if err != nil {
		return fail(err)
	}
	c.run = func(ctx context.Context) (sample, error) {
		var answer struct {
			Took  []float64
			Total float64
		}
		if err := t.do(fmt.Sprint(appendFor.Seconds()), &answer); err != nil {
			return nil, err
		}
		return sample{"rate": float64(len(answer.Took)*batch) / answer.Total, "p50": median(answer.Took), "p99": quantile(answer.Took, 0.99)}, nil
	}
	return c
}
