//go:build linux

package chain_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/stepclock"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// The clock is stepped back and forth while the daemon fills a segment: the seal
// has the least and the greatest time that are in it, and the log verifies.
func TestClockStepsWithinASegment(t *testing.T) {
	if !stepclock.Supported {
		require.Skip(t, "needs Linux on amd64, where a program's clock can be stepped")
	}
	dir := t.TempDir()
	log, keys, socket := filepath.Join(dir, "log"), filepath.Join(dir, "keys"), filepath.Join(dir, "sock")
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(tools.Path(t, "gb-chain"), args...)
		cmd.Env = append(os.Environ(), "GB_LOG="+log, "GB_KEYS="+keys)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("gb-chain %s: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	run("", "init", "--origin", "clock.example/log")
	clock := stepclock.New()
	serve := exec.Command(tools.Path(t, "gb-chain"), "serve", "--log", log, "--keys", keys, "--socket", socket, "--writers", "")
	var said bytes.Buffer
	serve.Stderr = &said
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := clock.Start(serve); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if serve.ProcessState == nil {
			serve.Process.Signal(syscall.SIGTERM)
			if err := serve.Wait(); err != nil {
				t.Errorf("serve: %v: %s", err, said.String())
			}
			clock.Done(serve)
		}
	}
	defer stop()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not listen")
		}
	}
	begin := time.Now()
	steps := []time.Duration{0, 3 * time.Hour, -5 * time.Hour, time.Hour, -time.Minute}
	part := strings.Repeat(`{"source":"t","type":"t.n","message":"one of many"}`+"\n", layout.SegmentEvents/len(steps)+1)
	for _, d := range steps {
		if err := clock.Step(d); err != nil {
			t.Fatal(err)
		}
		run(part, "append", "--socket", socket, "-")
	}
	stop()
	if out := run("", "verify"); !strings.Contains(out, "verified:") {
		t.Error(out)
	}
	seals, err := os.ReadFile(filepath.Join(log, layout.Seals))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := layout.ParseSeals(seals)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d seals, %v", len(list), err)
	}
	took := time.Since(begin)
	near := func(at time.Time, offset time.Duration) bool {
		d := at.Sub(begin) - offset
		return d > -time.Second && d < took+time.Second
	}
	if at := list[0].At; !near(at.Min, -2*time.Hour) || !near(at.Max, 3*time.Hour) {
		t.Errorf("the seal says %v to %v, the clock was from two hours before %v to three behind it", at.Min, at.Max, begin)
	}
}
