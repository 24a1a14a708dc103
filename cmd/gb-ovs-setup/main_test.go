package main

import (
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gb-ovs-setup": main})
}

// TestScripts runs sessions of the real binary that need no switch; those
// that do are in integration/ovs.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GB_OVS_STATE", env.WorkDir+"/state")
			env.Setenv("GB_OVS_DB", "unix:"+env.WorkDir+"/db.sock")
			env.Setenv("GB_CHAIN_SOCKET", env.WorkDir+"/chain.sock")
			env.Setenv("GB_SPOOL", env.WorkDir+"/spool")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": code},
	})
}

// code N COMMAND ARGS...: the command ends with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	have := 0
	if err != nil {
		coded, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		have = coded.ExitCode()
	}
	if strconv.Itoa(have) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], have, args[0])
	}
}
