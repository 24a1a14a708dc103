//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// A container's systemd makes its units' cgroups below that of who starts it.
// Two containers below one would kill each other's processes, so that each gets
// one of its own, which its starter has to be in before it begins.

// enterVariable names, to this test binary, the cgroups in which it is to run
// its arguments instead of tests.
const enterVariable = "GB_E2E_CGROUPS"

func TestMain(m *testing.M) {
	if list := os.Getenv(enterVariable); list != "" {
		fmt.Fprintln(os.Stderr, enter(strings.Split(list, ":"), os.Args[1:]))
		os.Exit(1)
	}
	tools.Main(m)
}

// enter becomes the program argv in the given cgroups.
func enter(groups, argv []string) error {
	for _, dir := range groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
	}
	os.Unsetenv(enterVariable)
	return fmt.Errorf("%s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// newCgroups makes a cgroup in each hierarchy that systemd uses: its own of
// version 1, and that of version 2.
func newCgroups(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	unified := "/sys/fs/cgroup"
	if _, err := os.Stat(unified + "/cgroup.procs"); err != nil {
		unified += "/unified"
	}
	var made []string
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		root, ok := map[string]string{"name=systemd": "/sys/fs/cgroup/systemd", "": unified}[f[1]]
		if !ok {
			continue
		}
		dir := filepath.Join(root, f[2], fmt.Sprintf("gb-e2e-%d", os.Getpid()))
		if _, err := os.Stat(filepath.Dir(dir) + "/cgroup.procs"); err != nil {
			continue // not mounted
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		made = append(made, dir)
	}
	t.Cleanup(func() {
		for _, dir := range made {
			removeCgroup(dir)
		}
	})
	return made
}

// removeCgroup removes a cgroup and those below it, whose last processes may
// still be ending.
func removeCgroup(dir string) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var all []string
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for i := len(all) - 1; i >= 0; i-- {
			os.Remove(all[i])
		}
		if _, err := os.Stat(dir); err != nil || time.Now().After(deadline) {
			return
		}
	}
}
