//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
)

func TestMain(m *testing.M) { tools.Main(m) }

// machine skips the test where the pipeline can't run.
func machine(t *testing.T) {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.btrfs")
	if err := checkMachine(); err != nil {
		require.Skip(t, err.Error())
	}
	if _, err := os.Stat("/dev/kmsg"); err != nil {
		require.Skip(t, "needs a source of events: "+err.Error())
	}
}

// The pipeline runs, stops by itself and answers; it runs again on the data
// that it kept, and after it was killed in the middle; each time it leaves
// neither mount nor loop device behind.
func TestRunAgainAndAfterAKill(t *testing.T) {
	machine(t)
	bin, dir := tools.Dir(t), t.TempDir()
	start := func(seconds string) (*exec.Cmd, *tools.Output) {
		out := new(tools.Output)
		cmd := exec.Command(filepath.Join(bin, "run"), "--bin", bin, "--dir", dir, "--seconds", seconds)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	t.Cleanup(func() {
		if err := takeDown(filepath.Join(dir, "btrfs.img"), filepath.Join(dir, "mnt")); err != nil {
			t.Error(err)
		}
	})
	whole := func(what, seconds string) string {
		t.Helper()
		cmd, out := start(seconds)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
		for _, want := range []string{"recording kmsg", "gb-chain query", "index", "events behind", "$ gb-vecsync search", "BTRFS"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: it does not print %q:\n%s", what, want, out)
			}
		}
		if mounted, err := isMounted(filepath.Join(dir, "mnt")); err != nil || mounted {
			t.Errorf("%s: mounted %v, %v", what, mounted, err)
		}
		if devices := attached(t, dir); len(devices) > 0 {
			t.Errorf("%s: attached: %s", what, devices)
		}
		return out.String()
	}
	whole("first run", "4")

	// Another version has made the index.
	unmount, err := mountImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := local.Open(filepath.Join(dir, "mnt", vectors, "index.db"), local.Options{})
	if err == nil {
		var tx index.Tx
		if tx, err = db.Begin(); err == nil {
			err = errors.Join(tx.Set("version", nil), tx.Commit(), db.Close())
		}
	}
	if err = errors.Join(err, unmount()); err != nil {
		t.Fatal(err)
	}
	// It applies its first stream a few seconds later.
	if out := whole("an index of another version", "8"); !strings.Contains(out, "making the index anew") {
		t.Errorf("it does not say that it makes the index anew:\n%s", out)
	}

	cmd, out := start("60")
	await(t, out, "  index ")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("killed: %v", err)
	}
	whole("after a kill", "4")

	// Ctrl-C, as a terminal sends it.
	cmd, out = start("0")
	await(t, out, "  index ")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, out)
	}
	if mounted, err := isMounted(filepath.Join(dir, "mnt")); err != nil || mounted {
		t.Errorf("after Ctrl-C: mounted %v, %v", mounted, err)
	}
}

// await waits until out, which a child writes, has text.
func await(t *testing.T, out *tools.Output, text string) {
	t.Helper()
	for range 300 {
		if strings.Contains(out.String(), text) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("it does not print %q:\n%s", text, out)
}

// attached returns the loop devices of files below dir that stay. One that
// another mount namespace has a copy of, as each that is made while the mount
// is there, goes with that (LO_FLAGS_AUTOCLEAR).
func attached(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(data), dir) {
			continue
		}
		if clears, err := os.ReadFile(filepath.Join(filepath.Dir(f), "autoclear")); err == nil && string(clears) == "0\n" {
			list = append(list, f)
		}
	}
	return list
}

// Without root it says so, and what to do, in two lines.
func TestRunWithoutRootSaysSo(t *testing.T) {
	require.Root(t)                              // to be somebody else
	dir, err := os.MkdirTemp("", "gb-run-test-") // testing's own are for root only
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(tools.Path(t, "run"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "run"), program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "run"), "--bin", dir, "--dir", filepath.Join(dir, "var"), "--seconds", "1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("exit: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "root is missing") || !strings.HasPrefix(lines[1], "hint: sudo ") {
		t.Errorf("it prints\n%s", out)
	}
}

// A kernel without btrfs is named as such.
func TestHasBtrfs(t *testing.T) {
	if !hasBtrfs("nodev\tproc\n\text4\n\tbtrfs\n") {
		t.Error("btrfs is in the list")
	}
}
