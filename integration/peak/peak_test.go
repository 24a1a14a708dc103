//go:build linux

package peak

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A large parent is not its child's memory.
func TestPeakIsTheProgramsOwn(t *testing.T) {
	ballast := make([]byte, 200<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	n, err := Run(exec.Command("sleep", "0.1"))
	if err != nil || n == 0 || n > 20<<20 {
		t.Errorf("sleep took %d bytes, %v", n, err)
	}
	if ballast[0] != 1 {
		t.Fatal()
	}
}

// Of a program that takes its memory in its last milliseconds, it is all there.
func TestPeakOfAShortProgram(t *testing.T) {
	for range 10 {
		n, err := Run(exec.Command("awk", `BEGIN { s = "x"; for (i = 0; i < 25; i++) s = s s; exit length(s) < 30000000 }`))
		if err != nil || n < 30<<20 || n > 200<<20 {
			t.Errorf("awk with 32 MiB took %d bytes, %v", n, err)
		}
	}
}

// The program is the one that is executed last, and it runs as it would: with
// its input, its output, its exit code, its signals, and its end when time is up.
func TestPeakLetsTheProgramBe(t *testing.T) {
	var out strings.Builder
	cmd := exec.Command("env", "A=b", "cat")
	cmd.Stdin, cmd.Stdout = strings.NewReader("through"), &out
	if n, err := Run(cmd); err != nil || n == 0 || out.String() != "through" {
		t.Errorf("%d bytes, %v, %q", n, err, &out)
	}
	var exit *exec.ExitError
	if _, err := Run(exec.Command("false")); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("false: %v", err)
	}
	if _, err := Run(exec.Command("/does/not/exist")); err == nil {
		t.Error("a program that is not there ran")
	}
	// timeout sends its child a signal, which awakes it itself by SIGCHLD.
	if _, err := Run(exec.Command("timeout", "0.05", "sleep", "60")); !errors.As(err, &exit) || exit.ExitCode() != 124 {
		t.Errorf("timeout: %v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if n, err := Run(exec.CommandContext(ctx, "sleep", "60")); err == nil {
		t.Errorf("sleep, killed: %d bytes, %v", n, err)
	}
}
