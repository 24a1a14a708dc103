// Package require is how tests say what they need of the machine. A test that
// lacks something is skipped with the reason; where GB_REQUIRE=all is in the
// environment, as in CI, it fails instead, so that nothing is left out unseen.
//
//	func TestSend(t *testing.T) {
//		require.Root(t)
//		require.Tool(t, "btrfs")
//		...
//	}
package require

import (
	"os"
	"os/exec"
	"testing"
)

// Root needs an effective uid of 0.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Tool needs the program name on PATH, or in the directories of root's, and
// returns where it is.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := Find(name)
	if err != nil {
		Skip(t, "needs the program "+name)
	}
	return path
}

// Find returns where the program name is: on PATH, or in root's directories,
// which an ordinary user's PATH leaves out.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}

// Skip skips the test because of reason, or fails it under GB_REQUIRE=all.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("GB_REQUIRE") == "all" {
		t.Fatalf("%s, and GB_REQUIRE=all forbids to skip", reason)
	}
	t.Skip(reason)
}

// Torture skips the test unless GB_TORTURE=1: for those that take minutes and
// have a short form beside them. It is no lack of the machine, so GB_REQUIRE
// does not turn it into a failure.
func Torture(t testing.TB) {
	t.Helper()
	if os.Getenv("GB_TORTURE") != "1" {
		t.Skip("takes minutes; runs with GB_TORTURE=1")
	}
}
