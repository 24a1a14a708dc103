package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/script"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"opdbus": main})
}

// TestScripts runs sessions of the real binary on a bus of the session's own,
// $BUS, which is its system bus too. On it are polkitd and systemd, as
// python-dbusmock has them, and a service org.example.Lamp. The log is $GB_LOG.
func TestScripts(t *testing.T) {
	require.Root(t)
	require.Tool(t, "dbus-daemon")
	scripts, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	lamp, err := filepath.Abs("testdata/lamp.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(session), ".txt"), func(t *testing.T) {
			address := privatebus.Start(t, privatebus.Options{Open: true})
			privatebus.Run(t, "ready", nil, privatebus.Python, lamp, address)
			privatebus.Mock(t, address, "org.freedesktop.PolicyKit1", "polkitd")
			testscript.Run(t, testscript.Params{
				Files: []string{session},
				Setup: func(env *testscript.Env) error {
					env.Setenv("BUS", address)
					env.Setenv("GB_BUS", address)
					env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
					env.Setenv("GB_LOG", env.WorkDir+"/L")
					env.Setenv("GB_KEYS", env.WorkDir+"/K")
					env.Setenv("GB_POLICY", env.WorkDir+"/policy.json")
					env.Setenv("GB_APPROVALS", env.WorkDir+"/approvals")
					env.Setenv("GB_SPOOL", env.WorkDir+"/spool")
					env.Setenv("GB_CHAIN_SOCKET", env.WorkDir+"/chain.sock")
					env.Setenv("TZ", "UTC")
					env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector's second at the end of each process
					_, err := chain.Create(env.WorkDir+"/L", "test.example/log", env.WorkDir+"/K", chain.Options{})
					return err
				},
				Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
					"code": script.Code, "polkit": polkit, "events": events, "approval": approval, "privately": privately,
				},
			})
		})
	}
}

// polkit ACTION...: polkit authorises these actions and no others.
func polkit(ts *testscript.TestScript, neg bool, args []string) {
	list := "['" + strings.Join(args, "','") + "']"
	if len(args) == 0 {
		list = "@as []"
	}
	ts.Check(ts.Exec("gdbus", "call", "--address", ts.Getenv("BUS"), "--dest", "org.freedesktop.PolicyKit1", "--object-path", "/org/freedesktop/PolicyKit1/Authority",
		"--method", "org.freedesktop.DBus.Mock.SetAllowed", list))
}

// events TYPE...: the log has just these events of source opdbus since the
// last time, and each intent has its outcome.
func events(ts *testscript.TestScript, neg bool, args []string) {
	mark := filepath.Join(ts.Getenv("WORK"), ".events")
	from := int64(0)
	if b, err := os.ReadFile(mark); err == nil {
		fmt.Sscan(string(b), &from)
	}
	var have []string
	open := map[string]bool{}
	next := from
	_, err := chain.Query(context.Background(), os.DirFS(ts.Getenv("GB_LOG")), chain.QueryOptions{}, func(e *event.Event, line []byte) error {
		if e.Index < from {
			return nil
		}
		next = e.Index + 1
		if e.Source != "opdbus" {
			return nil
		}
		have = append(have, strings.TrimPrefix(e.Type, "opdbus."))
		var d struct{ ID string }
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return err
		}
		open[d.ID] = e.Type == "opdbus.intent"
		return nil
	})
	ts.Check(err)
	ts.Check(os.WriteFile(mark, []byte(fmt.Sprint(next)), 0o644))
	if !slices.Equal(have, args) {
		ts.Fatalf("events %v, want %v", have, args)
	}
	for id, o := range open {
		if o {
			ts.Fatalf("intent %s has no outcome", id)
		}
	}
}

// approval sets $ID to the id of the newest approval that waits.
func approval(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.Getenv("GB_APPROVALS"), "*.json"))
	ts.Check(err)
	for _, f := range files {
		data, err := os.ReadFile(f)
		ts.Check(err)
		var a struct{ ID, State string }
		ts.Check(json.Unmarshal(data, &a))
		if a.State == "pending" {
			ts.Setenv("ID", a.ID)
			return
		}
	}
	ts.Fatalf("no approval waits")
}

// privately MODE FILE: chmod.
func privately(ts *testscript.TestScript, neg bool, args []string) {
	mode, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	ts.Check(os.Chmod(ts.MkAbs(args[1]), os.FileMode(mode)))
}
