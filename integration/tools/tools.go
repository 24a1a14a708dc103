// Package tools gives tests the project's own binaries. Where make test has
// built them, GB_BIN names their directory; else they are built once for the
// test binary that asks, and removed when it ends. Every user can run them: where
// GB_BIN is out of others' reach, they are copied.
//
//	func TestMain(m *testing.M) { tools.Main(m) }
//
//	func TestSend(t *testing.T) {
//		out, err := exec.Command(tools.Path(t, "gb-snap"), "send", ...).Output()
package tools

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const module = "github.com/ghostbridge/ghostbridge"

// build covers both variables and runs once: the binaries are the same for all.
var (
	build sync.Once
	dir   string // "" before
	own   bool   // dir is ours to remove
	err   error
)

// Main runs the tests of a package that uses Dir or Path and ends the process.
func Main(m *testing.M) {
	code := m.Run()
	if own {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Dir returns the directory that holds all binaries.
func Dir(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		built := os.Getenv("GB_BIN")
		if built != "" && open(built) {
			dir = built
			return
		}
		if dir, err = os.MkdirTemp("", "gb-bin-"); err != nil {
			return
		}
		own = true
		if err = os.Chmod(dir, 0o755); err != nil {
			return
		}
		if built != "" {
			err = os.CopyFS(dir, os.DirFS(built))
			return
		}
		if out, e := exec.Command("go", "build", "-o", dir+"/", module+"/cmd/...", module+"/integration/run", module+"/integration/soak", module+"/integration/demo").CombinedOutput(); e != nil {
			err = fmt.Errorf("go build: %w\n%s", e, out)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// open says whether everybody can go into a directory: some tests run programs
// as another user, who can't if it is in the home of root.
func open(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// Path returns the path of one binary.
func Path(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Dir(t), name)
}
