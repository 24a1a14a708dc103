//go:build linux

package mcp

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

const nodeModules = "testdata/node/node_modules"

// node returns a Node of version 22 or newer, and the directory of the modules
// that package-lock.json names; make test-deps installs both.
func node(t testing.TB) (program, modules string) {
	t.Helper()
	modules, err := filepath.Abs(nodeModules)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "@modelcontextprotocol/conformance")); err != nil {
		require.Skip(t, "needs the npm packages of integration/mcp/testdata/node (make test-deps)")
	}
	found, err := filepath.Glob(filepath.Join(modules, "node-linux-*/bin/node"))
	if err != nil || len(found) == 0 {
		found = append(found, require.Tool(t, "node"))
	}
	for _, program := range found {
		out, err := exec.Command(program, "--version").Output()
		if version := strings.TrimSpace(string(out)); err == nil && version >= "v22" && !strings.HasPrefix(version, "v8.") && !strings.HasPrefix(version, "v9.") {
			return program, modules
		}
	}
	require.Skip(t, "needs Node 22")
	return "", ""
}

// runNode runs a script with arguments, for at most some time.
func runNode(t testing.TB, patience time.Duration, env []string, args ...string) (string, error) {
	t.Helper()
	program, _ := node(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "NO_COLOR=1"), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
