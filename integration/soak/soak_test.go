//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

func TestMain(m *testing.M) { tools.Main(m) }

// mounts are the lines of the mount table with a soak's own mounts, which begin
// with what tmp is.
func mounts(t *testing.T, tmp string) (list []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, tmp) {
			list = append(list, line)
		}
	}
	return list
}

// start starts a soak whose temporary files are in tmp.
func start(t *testing.T, tmp, bin string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.btrfs")
	require.Tool(t, "mkfs.ext4")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		require.Skip(t, "needs loop devices: "+err.Error())
	}
	cmd := exec.Command(tools.Path(t, "soak"), append([]string{"--bin", bin, "--dir", filepath.Join(tmp, "kept")}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "GB_QDRANT=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

// shortTemp is a directory whose name leaves room for sockets.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gb-st-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := mounts(t, dir); len(left) > 0 {
			t.Errorf("mounts are left:\n%s", strings.Join(left, ""))
			return // nothing is to be removed in them
		}
		os.RemoveAll(dir)
	})
	return dir
}

// The short form of make soak, with faults that are always the same.
func TestSoak(t *testing.T) {
	tmp := shortTemp(t)
	cmd, out := start(t, tmp, tools.Dir(t), "--seconds", "12", "--seed", "20")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(tmp, "kept", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Acked < 3000 || r.Log <= r.Acked || len(r.Violations) > 0 || r.Faults[kill] == 0 || r.Faults[fill] == 0 || r.Faults[qdrantStop] == 0 || r.Faults[clockStep] == 0 || r.Asked == 0 {
		t.Errorf("%s\n%s", data, out)
	}
}

// Ctrl-C ends it with 1, and takes down what it has made.
func TestInterrupted(t *testing.T) {
	tmp := shortTemp(t)
	cmd, out := start(t, tmp, tools.Dir(t), "--seconds", "60", "--seed", "1")
	defer cmd.Process.Kill()
	said := filepath.Join(tmp, "kept", "said", "search")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(said); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not come up")
		}
	}
	if len(mounts(t, tmp)) != 2 {
		t.Errorf("mounts: %v", mounts(t, tmp))
	}
	cmd.Process.Signal(os.Interrupt)
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), "kept in ") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(tmp, "kept", "log", layout.Checkpoint)); err != nil {
		t.Error(err)
	}
	if keys, _ := filepath.Glob(filepath.Join(tmp, "kept", "state", "keys")); len(keys) > 0 {
		t.Errorf("secret keys were kept: %s", keys)
	}
}

// What must not be is found: a log whose verification fails, and an index that
// lacks what was acknowledged.
func TestViolationsAreFound(t *testing.T) {
	require.Torture(t)
	for what, c := range map[string]struct{ tool, script, want string }{
		"verification": {"gb-chain", `[ "$1" = verify ] && exit 3; exec %s "$@"`, "the log does not verify"},
		"index":        {"gb-vecsync", `[ "$1" = ingest ] && { cat >/dev/null; exit 0; }; exec %s "$@"`, "the index has 0 of"},
	} {
		tmp := shortTemp(t)
		bin := filepath.Join(tmp, "bin")
		if err := os.CopyFS(bin, os.DirFS(tools.Dir(t))); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\n" + fmt.Sprintf(c.script, tools.Path(t, c.tool)) + "\n"
		if err := errors.Join(os.Remove(filepath.Join(bin, c.tool)), os.WriteFile(filepath.Join(bin, c.tool), []byte(script), 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd, out := start(t, tmp, bin, "--seconds", "10", "--seed", "5")
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
}

func TestSchedule(t *testing.T) {
	victims := []string{"serve", "take", "ingest"}
	for _, d := range []time.Duration{12 * time.Second, 5 * time.Minute, 20 * time.Minute, 8 * time.Hour} {
		for seed := range uint64(20) {
			list := schedule(seed, d, victims, true)
			if !reflect.DeepEqual(list, schedule(seed, d, victims, true)) {
				t.Fatalf("%v, seed %d: another schedule the second time", d, seed)
			}
			kinds := make(map[faultKind]int)
			var offset, before time.Duration
			for _, f := range list {
				kinds[f.kind]++
				offset += f.step
				in := false
				for _, p := range phases(d) {
					in = in || f.at >= p.storm && f.at+f.last <= p.calm
				}
				if !in || f.at < before || offset > furthest || offset < -furthest || f.kind == clockStep && f.step == 0 {
					t.Fatalf("%v, seed %d: %+v, the clock is %v off", d, seed, f, offset)
				}
				before = f.at
			}
			for _, k := range []faultKind{kill, fill, qdrantStop, clockStep} {
				if kinds[k] < 2 {
					t.Errorf("%v, seed %d: %d of %q", d, seed, kinds[k], k)
				}
			}
		}
	}
	for _, f := range schedule(1, time.Minute, victims, false) {
		if f.kind == clockStep {
			t.Errorf("without a clock: %+v", f)
		}
	}
}

// The ledger finds an event that was lost, one that is another, one that two
// were told of, also where the acknowledgement comes after the segment was read.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	line := func(n int) []byte { return fmt.Appendf(nil, `{"i":%d,"subject":"event/%d"}`, n, n+1000) }
	var hasher merkle.Hasher
	write := func(segment int64, n int) {
		t.Helper()
		var b bytes.Buffer
		for i := range n {
			b.Write(line(i))
			b.WriteByte('\n')
		}
		if err := os.WriteFile(filepath.Join(dir, layout.SegmentName(segment)), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(0, layout.SegmentEvents)
	write(1, 3)
	leaf := func(n int) merkle.Hash { return hasher.Leaf(line(n)) }
	fresh := func() *ledger {
		l := newLedger()
		for i := range 10 {
			if err := l.ack(int64(i), leaf(i), uint64(i+1000)); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	l := fresh()
	if err := l.check(dir, false); err != nil || l.confirmed != 10 || l.next != 1 || l.ours != layout.SegmentEvents {
		t.Fatalf("%v, %d confirmed, next %d", err, l.confirmed, l.next)
	}
	if err := l.ack(11, leaf(11), 1011); err != nil || l.confirmed != 11 {
		t.Errorf("an acknowledgement that comes late: %v", err)
	}
	if err := l.ack(12, leaf(13), 1012); err == nil {
		t.Error("a wrong one that comes late passes")
	}
	if err := l.ack(11, leaf(11), 1011); err == nil {
		t.Error("the same twice passes")
	}
	if err := l.check(dir, true); err != nil || l.stored != layout.SegmentEvents+3 {
		t.Errorf("%v, %d stored", err, l.stored)
	}
	for what, spoil := range map[string]func(l *ledger) error{
		"lost":           func(l *ledger) error { return l.ack(layout.SegmentEvents+3, leaf(3), 1003) },
		"another leaf":   func(l *ledger) error { return l.ack(20, leaf(21), 1020) },
		"another event":  func(l *ledger) error { return l.ack(20, leaf(20), 1021) },
		"beyond the log": func(l *ledger) error { return l.ack(layout.SegmentEvents+60000, leaf(1), 5) },
	} {
		l := fresh()
		err := spoil(l)
		if err == nil {
			err = l.check(dir, true)
		}
		if err == nil {
			t.Errorf("%s: passes", what)
		}
	}
}

func TestGrowthIsFound(t *testing.T) {
	const mib = 1 << 20
	long := time.Hour
	for _, c := range []struct {
		warm, end, slack int64
		d                time.Duration
		grew             bool
	}{
		{20 * mib, 20 * mib, 8 * mib, long, false},
		{20 * mib, 31 * mib, 8 * mib, long, false},
		{20 * mib, 33 * mib, 8 * mib, long, true},
		{20 * mib, 33 * mib, 8 * mib, 20 * time.Second, false},
		{10, 14, 4, long, false},
		{10, 17, 4, long, true},
	} {
		if g := compare("x", "", []int64{c.warm}, []int64{c.end}, nil, c.slack, c.d); g.Grew != c.grew {
			t.Errorf("%+v: %+v", c, g)
		}
	}
}
