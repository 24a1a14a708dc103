package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
// $BUS, which is its system bus too. On it are polkitd, systemd and hostnamed,
// as python-dbusmock has them, and a service org.example.Lamp. The log is $GB_LOG.
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
			peers(t, address)
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
					env.Setenv("GB_TOKENS", env.WorkDir+"/tokens.json")
					env.Setenv("GB_CHAIN_SOCKET", env.WorkDir+"/chain.sock")
					env.Setenv("GB_STATE", env.WorkDir+"/state")
					env.Setenv("GB_ROOT", env.WorkDir+"/root")
					env.Setenv("GB_OVS_DB", "unix:"+env.WorkDir+"/ovs.sock")
					env.Setenv("GB_OVS_STATE", env.WorkDir+"/ovs")
					env.Setenv("GB_OVS_CONFIG", env.WorkDir+"/ovs.json")
					env.Setenv("TZ", "UTC")
					env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector's second at the end of each process
					_, err := chain.Create(env.WorkDir+"/L", "test.example/log", env.WorkDir+"/K", chain.Options{})
					return err
				},
				Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
					"code": script.Code, "polkit": polkit, "events": events, "approval": approval, "privately": privately, "mock": mock,
				},
			})
		})
	}
}

// peers starts systemd and hostnamed.
func peers(t *testing.T, address string) {
	t.Helper()
	for name, file := range map[string]string{"org.freedesktop.systemd1": "systemd1.py", "org.freedesktop.hostname1": "hostname1.py"} {
		path, err := filepath.Abs("../../integration/opdbus/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		privatebus.Mock(t, address, name, path)
	}
}

// mock METHOD ARG...: calls a method of systemd's mock.
func mock(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("gdbus", append([]string{"call", "--address", ts.Getenv("BUS"), "--dest", "org.freedesktop.systemd1", "--object-path", "/org/freedesktop/systemd1",
		"--method", "org.freedesktop.DBus.Mock." + args[0]}, args[1:]...)...))
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

// changes are the commands that change something, and how a session uses each;
// looks are those that don't. A command in neither fails TestEveryCommand.
var (
	changes = map[string][]string{
		"call":              {"call", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp.Switch", "true"},
		"set":               {"set", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp.Brightness", "40"},
		"approvals approve": {"approvals", "approve", "ID"},
		"token add":         {"token", "add", "agent", "--scope", "read"},
		"token rm":          {"token", "rm", "agent"},
		"approvals deny":    {"approvals", "deny", "ID"},
		"intents resolve":   {"intents", "resolve", "INTENT", "--found", "not-done"},
		"apply":             {"apply", "STATE"},
		"rollback":          {"rollback"},
	}
	looks = []string{"names", "tree", "introspect", "describe", "get", "watch", "approvals list", "approvals show", "intents list", "policy check", "policy explain", "doctor", "token ls",
		"plan", "diff", "changes", "state", "schema",
		"mcp",     // and those of this one in integration/mcp
		"serve",   // its entrances are tested in integration/opdbus
		"confirm", // there is something to confirm only where the daemon runs: integration/opdbus
	}
)

// Each command is known to change nothing, or leaves intent and outcome; a new
// one without them fails here.
func TestEveryCommand(t *testing.T) {
	require.Root(t)
	require.Tool(t, "dbus-daemon")
	var commands []string
	for _, c := range app().Commands {
		if len(c.Subcommands) == 0 {
			commands = append(commands, c.Name)
		}
		for _, s := range c.Subcommands {
			commands = append(commands, c.Name+" "+s.Name)
		}
	}
	address := privatebus.Start(t, privatebus.Options{Open: true})
	lamp, err := filepath.Abs("testdata/lamp.py")
	if err != nil {
		t.Fatal(err)
	}
	privatebus.Run(t, "ready", nil, privatebus.Python, lamp, address)
	privatebus.Mock(t, address, "org.freedesktop.PolicyKit1", "polkitd")
	peers(t, address)
	dir := t.TempDir()
	if _, err := chain.Create(dir+"/L", "test.example/log", dir+"/K", chain.Options{}); err != nil {
		t.Fatal(err)
	}
	rules := `{"version":1,"rules":[{"id":"fail","members":["Fail"],"effect":"approve"},{"id":"lamp","name":"org.example.Lamp","effect":"allow"},
		{"id":"apply","members":["Apply"],"effect":"allow"},{"id":"names","name":"org.freedesktop.hostname1","effect":"allow"}]}`
	if err := os.WriteFile(dir+"/state.json", []byte(`{"version":1,"plugins":{"hostname":{"pretty":"a"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/policy.json", []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "GB_BUS="+address, "DBUS_SYSTEM_BUS_ADDRESS="+address, "GB_LOG="+dir+"/L", "GB_KEYS="+dir+"/K", "GB_POLICY="+dir+"/policy.json",
		"GB_APPROVALS="+dir+"/approvals", "GB_SPOOL="+dir+"/spool", "GB_CHAIN_SOCKET="+dir+"/chain.sock", "GB_TOKENS="+dir+"/tokens.json",
		"GB_STATE="+dir+"/state", "GB_ROOT="+dir+"/root", "GB_OVS_DB=unix:"+dir+"/ovs.sock")
	run := func(argv ...string) (string, error) {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("gdbus", "call", "--address", address, "--dest", "org.freedesktop.PolicyKit1", "--object-path", "/org/freedesktop/PolicyKit1/Authority",
		"--method", "org.freedesktop.DBus.Mock.SetAllowed", "['org.freedesktop.opdbus.call','org.freedesktop.opdbus.set-property','org.freedesktop.opdbus.approve','org.freedesktop.opdbus.tokens','org.freedesktop.opdbus.apply-state','org.freedesktop.opdbus.rollback']"); err != nil {
		t.Fatal(out, err)
	}
	program, err := exec.LookPath("opdbus") // testscript.Main has put it there
	if err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	recorded := func() (types []string) {
		_, err := chain.Query(t.Context(), os.DirFS(dir+"/L"), chain.QueryOptions{}, func(e *event.Event, _ []byte) error {
			if e.Index >= next && e.Source == "opdbus" {
				types = append(types, strings.TrimPrefix(e.Type, "opdbus."))
			}
			next = max(next, e.Index+1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return types
	}
	for _, c := range commands {
		argv := slices.Clone(changes[c])
		if argv == nil {
			if !slices.Contains(looks, c) {
				t.Errorf("opdbus %s: does it change something? It is in neither list", c)
			}
			continue
		}
		if i := slices.Index(argv, "STATE"); i >= 0 {
			argv[i] = dir + "/state.json"
		}
		if i := slices.Index(argv, "ID"); i >= 0 {
			for range 2 { // the first one may use up what was approved
				run(program, "call", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp.Fail")
			}
			out, err := run(program, "approvals", "list")
			if err != nil {
				t.Fatal(out, err)
			}
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) > 1 && f[1] == "pending" {
					argv[i] = f[0]
				}
			}
			recorded()
		}
		if i := slices.Index(argv, "INTENT"); i >= 0 {
			argv[i] = interrupted(t, program, env)
			recorded()
		}
		if out, err := run(append([]string{program}, argv...)...); err != nil {
			t.Errorf("opdbus %v: %v\n%s", argv, err, out)
		}
		// A change of the desired state has those of its actions within its own.
		got := recorded()
		count := func(kind string) (n int) {
			for _, g := range got {
				if g == kind {
					n++
				}
			}
			return n
		}
		if len(got) < 2 || got[0] != "intent" || got[len(got)-1] != "outcome" || count("intent") != count("outcome") || count("intent")*2 != len(got) {
			t.Errorf("opdbus %v: events %v", argv, got)
		}
	}
}

// interrupted kills a call while it is under way and returns the id of its
// intent.
func interrupted(t *testing.T, program string, env []string) string {
	t.Helper()
	cmd := exec.Command(program, "call", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp.Sleep", "5")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		list := exec.Command(program, "intents", "list", "--json")
		list.Env = env
		if cmd.ProcessState == nil {
			// It is open once its process has ended and its intent is there.
			query := exec.Command("grep", "-c", "opdbus.intent.*Sleep", logFile(env))
			if query.Run() == nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
			continue
		}
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		var o struct{ ID string }
		if json.Unmarshal(out, &o) == nil {
			return o.ID
		}
	}
	t.Fatal("a call that was killed left no intent")
	return ""
}

func logFile(env []string) string {
	for _, kv := range env {
		if dir, ok := strings.CutPrefix(kv, "GB_LOG="); ok {
			return filepath.Join(dir, "000000.jsonl")
		}
	}
	return ""
}
