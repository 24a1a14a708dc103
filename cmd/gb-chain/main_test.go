package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ghostbridge/ghostbridge/integration/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gb-chain": main})
}

// TestScripts runs sessions of the real binary. Besides testscript's own, the
// commands are those below.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GB_LOG", env.WorkDir+"/L")
			env.Setenv("GB_KEYS", env.WorkDir+"/K")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":   await,
			"replace": replace,
			"lines":   lines,
			"code":    script.Code,
			"fill":    fill,
		},
	})
}

// await FILE waits until FILE exists, await FILE TEXT until TEXT is in it.
func await(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if len(args) == 1 {
			if _, err := os.Stat(path); err == nil {
				return
			}
		} else if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(args[1])) {
			return
		}
	}
	ts.Fatalf("%v did not come", args)
}

// replace FILE OLD NEW replaces the first OLD.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	if !bytes.Contains(data, []byte(args[1])) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, bytes.Replace(data, []byte(args[1]), []byte(args[2]), 1), 0o644))
}

// lines FILE N: FILE has N lines.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	data := ts.ReadFile(args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	if have := bytes.Count([]byte(data), []byte("\n")); have != n {
		ts.Fatalf("%s has %d lines, want %d", args[0], have, n)
	}
}

// fill FILE N [BYTES] writes N events, each with a message of so many bytes.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	size := 20
	if len(args) > 2 {
		size, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"source":"fill","type":"fill.n","message":"%0*d"}`+"\n", size, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}
