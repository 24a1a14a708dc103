package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ghostbridge/ghostbridge/integration/script"
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
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": script.Code},
	})
}
