package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gb-snap": main})
}

// TestScripts runs sessions of the real binary on a btrfs of the session's
// own, mounted at $FS: $SRC is a subvolume, $D the directory of snapshots.
// Besides testscript's own, the commands are those below.
func TestScripts(t *testing.T) {
	require.Root(t)
	require.Tool(t, "btrfs")
	scripts, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range scripts {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := loopbtrfs.Mount(t, loopbtrfs.Options{Size: 512 << 20, MountOptions: "noatime"})
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error {
					env.Setenv("FS", dir)
					env.Setenv("SRC", filepath.Join(dir, "src"))
					env.Setenv("D", filepath.Join(dir, "snapshots"))
					env.Setenv("GB_SNAPSHOTS", filepath.Join(dir, "snapshots"))
					env.Setenv("GB_RUN", filepath.Join(env.WorkDir, "run"))
					env.Setenv("GB_SPOOL", filepath.Join(env.WorkDir, "spool"))
					env.Setenv("TZ", "UTC")
					own := filepath.Join(env.WorkDir, "own") // what take --subvolume mounted
					env.Defer(func() { syscall.Unmount(own, 0) })
					return os.Mkdir(filepath.Join(dir, "snapshots"), 0o755)
				},
				Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
					"code":  script.Code,
					"write": write,
					"await": await,
					"uuid":  uuid, "cursor": cursor,
					"count": count,
				},
			})
		})
	}
}

// write FILE TEXT appends to a file and does not sync.
func write(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	_, err = f.WriteString(args[1] + "\n")
	ts.Check(err)
	ts.Check(f.Close())
}

// await N PATTERN waits until N files match.
func await(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if matches(ts, args) {
			return
		}
	}
	ts.Fatalf("%v did not come", args)
}

// count N PATTERN: N files match.
func count(ts *testscript.TestScript, neg bool, args []string) {
	if !matches(ts, args) {
		ts.Fatalf("want %s of %s", args[0], args[1])
	}
}

func matches(ts *testscript.TestScript, args []string) bool {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	found, err := filepath.Glob(args[1])
	ts.Check(err)
	return len(found) == n
}

// uuid FILE first|second|...: sets FIRST, SECOND, ... to the UUIDs that list
// --json has printed, one a line.
func uuid(ts *testscript.TestScript, neg bool, args []string) {
	n := slices.Index([]string{"first", "second", "third"}, args[1])
	lines := strings.Split(ts.ReadFile(args[0]), "\n")
	var sn struct {
		UUID string `json:"uuid"`
	}
	ts.Check(json.Unmarshal([]byte(lines[n]), &sn))
	ts.Setenv(strings.ToUpper(args[1]), sn.UUID)
}

// cursor FILE UUID writes a cursor file as gb-vecsync does.
func cursor(ts *testscript.TestScript, neg bool, args []string) {
	c := fmt.Sprintf(`{"source_uuid":"%[1]s","snapshot_uuid":"%[1]s","ctransid":7,"tree_size":1,"root":""}`, args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(c+"\n"), 0o644))
}
