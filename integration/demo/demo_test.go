//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

func TestMain(m *testing.M) { tools.Main(m) }

// start starts the demo with all that it makes in a directory of its own. When
// the test is done nothing of that must be left.
func start(t *testing.T) (*exec.Cmd, *tools.Output) {
	t.Helper()
	require.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "dbus-daemon", "dbus-send"} {
		require.Tool(t, tool)
	}
	vswitch.Need(t, vswitch.Options{})
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		require.Skip(t, "needs loop devices: "+err.Error())
	}
	found := false
	for _, path := range polkitPaths {
		_, err := os.Stat(path)
		found = found || err == nil
	}
	if !found {
		require.Skip(t, "needs polkitd")
	}
	tmp, err := os.MkdirTemp("", "gb-dt-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tools.Path(t, "demo"), "--bin", tools.Dir(t), "--units", "../../units")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out := new(tools.Output)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
		entries, err := os.ReadDir(tmp)
		if err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v, %v", tmp, entries, err)
		} else if err := os.Remove(tmp); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(fmt.Sprintf("/run/netns/gbt-%d-*", cmd.Process.Pid)); len(left) > 0 {
			t.Errorf("left: %s", left)
		}
		// Whatever it has started had the directory's name in its arguments or its
		// environment.
		processes, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, p := range processes {
			if data, err := os.ReadFile(p); err == nil && bytes.Contains(data, []byte(tmp)) {
				line, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
				t.Errorf("left: process %s", bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
			}
		}
	})
	return cmd, out
}

// The story, and its facts as the terminal has them, in their order. The program
// checks them itself, too.
func TestStory(t *testing.T) {
	begin := time.Now()
	cmd, out := start(t)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	}
	rest := out.String()
	for _, want := range []string{
		": applied\n",
		"1 packets transmitted, 1 received",
		"agent> roll_back", `"status": "denied"`, `"reason": "no rule allows it"`,
		"agent> plan_changes", `"plan.differences": [{"have":10,"path":"port vnet-db tag","plugin":"ovs","want":20}]`,
		"agent> apply_changes", `"status": "approval_needed"`,
		"get port vnet-db tag\n  10\n",
		"nobody$ dbus-send", "polkit wants a person's password",
		"# opdbus approvals approve", " approved: ",
		"agent> apply_changes", `"status": "done"`, `"change.result": "pending"`,
		"get port vnet-db tag\n  20\n",
		"1 packets transmitted, 0 received",
		"get port vnet-db tag\n  10\n",
		"1 packets transmitted, 1 received",
		"rolled-back", "nobody confirmed it in time",
		"agent> apply_changes", `"status": "approval_needed"`,
		"gb-vecsync search -n 14 'who touched the bridge'",
		"hits; the index has verified the log up to",
		"  verified: demo.example/log,",
		"gb-chain check --vkey", "is in demo.example/log as of size",
		"Every fact above was checked",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("%q is not where it should be in\n%s", want, out)
		}
		rest = after
	}
	answers, _, _ := strings.Cut(out.String()[strings.Index(out.String(), "'who touched the bridge'"):], "Is it true?")
	for _, want := range []string{
		"opdbus.outcome org.freedesktop.opdbus by mcp:claude", "opdbus.refused org.freedesktop.opdbus by mcp:claude", "opdbus.refused org.freedesktop.opdbus by uid:65534",
		"(set bridge ovsbr1): done", "(set bridge ovsbr1): refused", "(set bridge ovsbr1), for mcp:claude): done", "nobody confirmed it in time): done",
	} {
		if !strings.Contains(answers, want) {
			t.Errorf("no answer has %q:\n%s", want, answers)
		}
	}
	if strings.Contains(out.String(), "gbmcp_") && !strings.Contains(out.String(), "*****") {
		t.Error("the token's secret is shown")
	}
}

// Ctrl-C in the middle ends it with 1, and nothing is left of it, which start
// sees to.
func TestInterrupted(t *testing.T) {
	cmd, out := start(t)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), "# opdbus approvals approve"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come that far:\n%s", out)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Contains(out.String(), "goroutine") {
		t.Errorf("%v\n%s", err, out)
	}
}
