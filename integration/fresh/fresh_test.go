//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// Whoever has the variable by accident does not change this host's root.
func TestTheHostKeepsItsRoot(t *testing.T) {
	require.Root(t) // for a namespace of its own, should it not hold
	cmd := exec.Command(os.Args[0], "/usr", "/", "true")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "first process of a namespace only") {
		t.Errorf("%v: %s", err, out)
	}
}
