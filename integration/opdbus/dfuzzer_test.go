//go:build linux

package opdbus

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// dfuzzer calls each method of ours with arguments of the right types that are
// otherwise nonsense, and reads each property, as a user without privileges and
// as root: the daemon outlives it, needs no more descriptors and hardly more
// memory, and answers every call with a value or an error of D-Bus. It is in
// few distributions: GB_DFUZZER names it where it was built from its sources
// (github.com/dbus-fuzzer/dfuzzer), and without it there is no such test.
func TestDfuzzer(t *testing.T) {
	tool := os.Getenv("GB_DFUZZER")
	if tool == "" {
		found, err := require.Find("dfuzzer")
		if err != nil {
			t.Log("there is no dfuzzer, and GB_DFUZZER does not name one: TestHostileCalls alone sends nonsense")
			return
		}
		tool = found
	}
	r := newRig(t, lampRule)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.start()
	fuzz := func(uid uint32) {
		logs := privatebus.OpenDir(t)
		if err := os.Chmod(logs, 0o777); err != nil {
			t.Fatal(err)
		}
		// It would name the bus of the session too.
		env := append([]string{"DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent"}, r.env...)
		out, err := r.runWith(uid, env, tool, "--no-suppressions", "--verbose", "--log-dir="+logs, "--bus="+names.BusName)
		text, _ := os.ReadFile(filepath.Join(logs, names.BusName))
		var failed []string
		passed := 0
		for line := range strings.Lines(out + string(text)) {
			switch {
			case strings.Contains(line, "PASS"):
				passed++
			case strings.Contains(line, "FAIL"), strings.Contains(line, "WARN"), strings.Contains(line, "internal error"):
				failed = append(failed, strings.TrimSpace(line))
			}
		}
		t.Logf("uid %d: %d passed, %d not", uid, passed, len(failed))
		if err != nil || len(failed) > 0 || passed < 20 {
			t.Errorf("dfuzzer as uid %d: %v\n%s\n%s", uid, err, strings.Join(failed, "\n"), tailOf(out+string(text), 4000))
		}
	}
	fuzz(nobody)
	before := usage(t, r.daemon.Process.Pid)
	fuzz(nobody)
	fuzz(0)
	after := usage(t, r.daemon.Process.Pid)
	t.Logf("before %+v, after %+v", before, after)
	if after.fds > before.fds+5 || after.rss > before.rss+64<<20 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	out, err := r.status()
	r.expect("GetStatus", out, err, true, "healthy true")
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }

// runWith is run with another environment.
func (r *rig) runWith(uid uint32, env []string, argv ...string) (string, error) {
	r.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	asUser(cmd, uid)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
