//go:build linux

package opdbus

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// An openGate makes every call.
type openGate struct{ conn *bus.Conn }

func (g openGate) Do(ctx context.Context, op hoststate.Operation, act func(context.Context, hoststate.Send) (json.RawMessage, error)) error {
	_, err := act(ctx, func(ctx context.Context) (bus.Body, error) {
		types, err := dbusjson.ParseSignature(op.Signature)
		if err != nil {
			return bus.Body{}, err
		}
		values, err := dbusjson.UnmarshalArgs(op.Args, types)
		if err != nil {
			return bus.Body{}, err
		}
		return g.conn.Call(ctx, bus.Call{Name: op.Name, Path: op.Path, Interface: op.Interface, Member: op.Member, Args: bus.Body{Types: types, Values: values}})
	})
	return err
}

func (g openGate) Undo(ctx context.Context, op hoststate.Operation, act func(context.Context, hoststate.Send) (json.RawMessage, error)) error {
	return g.Do(ctx, op, act)
}

// For random desired states on a service manager and a hostnamed: a second
// apply does nothing, and the way back leads to what was.
func TestRandomStates(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	privatebus.Mock(t, address, "org.freedesktop.systemd1", mustAbs(t, "testdata/systemd1.py"))
	privatebus.Mock(t, address, "org.freedesktop.hostname1", mustAbs(t, "testdata/hostname1.py"))
	conn, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := &rig{t: t, address: address}
	units := []string{"a.service", "b.socket", "c@1.service", "d.timer"}
	for i, u := range units {
		r.mock(conn, "AddUnit", "sss", u, []string{"enabled", "disabled"}[i%2], []string{"active", "inactive"}[i/2])
	}
	host := opdbus.NewHost(&opdbus.Gate{}, conn, opdbus.HostOptions{Dir: t.TempDir(), Root: t.TempDir()})
	named := make(map[string]hoststate.Unit)
	for _, u := range units {
		named[u] = hoststate.Unit{}
	}
	all := &hoststate.Document{Version: 1, Plugins: hoststate.Plugins{Systemd: &hoststate.Systemd{Units: named}}}
	look := func() string {
		var list []string
		for _, p := range host.Engine.Plugins {
			switch p.About().Name {
			case "systemd", "hostname", "snapshots":
				v, err := p.Read(t.Context(), all)
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, string(text))
			}
		}
		return strings.Join(list, "\n")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	maybe := func() *bool {
		if dice.IntN(3) == 0 {
			return nil
		}
		b := dice.IntN(2) == 0
		return &b
	}
	applied := 0
	for range 60 {
		d := &hoststate.Document{Version: 1, Plugins: hoststate.Plugins{Systemd: &hoststate.Systemd{Units: map[string]hoststate.Unit{}}}}
		for _, u := range units {
			if dice.IntN(3) > 0 {
				d.Plugins.Systemd.Units[u] = hoststate.Unit{Active: maybe(), Enabled: maybe(), Masked: maybe()}
			}
		}
		if dice.IntN(2) == 0 {
			name, n := fmt.Sprintf("h%d", dice.IntN(4)), dice.IntN(300)
			d.Plugins.Hostname = &hoststate.Hostname{Static: &name, Pretty: &name}
			d.Plugins.Snapshots = &hoststate.Snapshots{MaxCount: &n}
		}
		d, err := hoststate.Parse(d.Bytes())
		if err != nil {
			continue // it contradicts itself
		}
		before := look()
		c, err := host.Engine.Apply(t.Context(), openGate{conn}, d, hoststate.ApplyOptions{Partial: true})
		if err != nil {
			t.Fatalf("%s\non\n%s\n%v", d.Bytes(), before, err)
		}
		after := look()
		if again, err := host.Engine.Apply(t.Context(), openGate{conn}, d, hoststate.ApplyOptions{Partial: true}); err != nil || again.Result != hoststate.ResultNothing || look() != after {
			t.Fatalf("%s\na second time: %v, %+v", d.Bytes(), err, again)
		}
		if c.Result == hoststate.ResultNothing {
			continue
		}
		applied++
		if len(c.Plan.Irreversible()) > 0 || dice.IntN(3) == 0 {
			continue // it stays, so that the next one begins elsewhere
		}
		if _, err := host.Engine.Rollback(t.Context(), openGate{conn}, "", "test"); err != nil || look() != before {
			t.Fatalf("%s\nback: %v\n%s\nwant\n%s", d.Bytes(), err, look(), before)
		}
	}
	if applied < 10 {
		t.Errorf("only %d were applied", applied)
	}
}

// The policy changes while an apply is under way: the next action is refused,
// and all is taken back, also what the policy would no longer allow.
func TestStateDeniedMeanwhile(t *testing.T) {
	r, c := newHost(t, stateRules)
	r.start()
	r.mock(c, "SetJob", "ssu", "db.service", "done", uint32(1000))
	done := make(chan error, 1)
	go func() {
		_, err := r.apply(c, wanted, "", nil)
		done <- err
	}()
	r.wait("the job", func() bool {
		b, err := c.Call(t.Context(), bus.Call{Name: "org.freedesktop.systemd1", Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.systemd1.Manager", Member: "ListJobs"})
		return err == nil && strings.Contains(fmt.Sprint(b.Values), "db.service")
	})
	r.policy(`{"version":1}`)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "start web.service") || !strings.Contains(err.Error(), "no rule allows it") || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("%v", err)
	}
	if got := r.units(c); got != unitsBefore {
		t.Error(got)
	}
	if _, err := r.manager(c, "Plan", "s", wanted); err != nil {
		t.Error(err)
	}
}

// Many applies, each killed at some moment: the next daemon leaves either all
// of it or none.
func TestStateKilledAtRandom(t *testing.T) {
	r, c := newHost(t, stateRules)
	rounds := 8
	if os.Getenv("GB_TORTURE") != "" {
		rounds = 200
	}
	kept := 0
	for n := range rounds {
		r.start()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.apply(c, wanted, "", nil)
		}()
		time.Sleep(time.Duration(n*97%200) * time.Millisecond) // a moment, any
		r.daemon.Process.Kill()
		r.daemon.Wait()
		<-done
		r.start()
		r.wait("rest", func() bool { _, err := os.Stat(r.dir + "/state/current.json"); return err != nil })
		switch got := r.units(c); got {
		case unitsBefore:
		case unitsWanted:
			kept++
			if _, err := r.manager(c, "Rollback", "s", ""); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("round %d: %s", n, got)
		}
		r.daemon.Process.Kill()
		r.daemon.Wait()
	}
	t.Logf("%d of %d were done before they were killed", kept, rounds)
}

// The commands, where the daemon runs: it does the work, and records it, once.
func TestStateByCommands(t *testing.T) {
	r, c := newHost(t, stateRules)
	r.start()
	if err := os.WriteFile(r.dir+"/state.json", []byte(wanted), 0o644); err != nil {
		t.Fatal(err)
	}
	var mark int64
	three := "intent intent outcome intent outcome intent outcome outcome"
	for _, s := range []struct {
		argv   []string
		code   int
		want   string
		events string
		units  string
	}{
		{[]string{"plan", r.dir + "/state.json"}, 0, "policy: allow", "", unitsBefore},
		{[]string{"apply", "-n", r.dir + "/state.json"}, 0, "policy: allow", "", unitsBefore},
		{[]string{"apply", "--confirm-timeout", "1h", r.dir + "/state.json"}, 0, "hint: if all is well: opdbus confirm", three, unitsWanted},
		{[]string{"apply", r.dir + "/state.json"}, 75, "awaits its confirmation", "intent outcome", unitsWanted},
		{[]string{"confirm", "-n"}, 0, ": pending", "", unitsWanted},
		{[]string{"confirm"}, 0, ": applied", "intent outcome", unitsWanted},
		{[]string{"confirm"}, 1, "no change awaits", "intent outcome", unitsWanted},
		{[]string{"diff", "--exit-code"}, 4, "", "", unitsWanted},
		{[]string{"state", "hostname"}, 0, `"static":"web1"`, "", unitsWanted},
		{[]string{"state", "--plugins"}, 0, "timedate", "", unitsWanted},
		{[]string{"changes"}, 0, "applied", "", unitsWanted},
		{[]string{"apply", "--exit-code", r.dir + "/state.json"}, 4, "nothing to do", "", unitsWanted},
		{[]string{"rollback"}, 0, "undone", three, unitsBefore},
		{[]string{"rollback"}, 1, "no change to take back", "", unitsBefore},
		{[]string{"apply", "--plan", strings.Repeat("0", 64), r.dir + "/state.json"}, 1, "hint: opdbus plan shows", "", unitsBefore},
	} {
		out, err := r.run(0, append([]string{"opdbus"}, s.argv...)...)
		code := 0
		if err != nil {
			if e, ok := err.(interface{ ExitCode() int }); ok {
				code = e.ExitCode()
			}
		}
		if code != s.code || !strings.Contains(out, s.want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s", s.argv, code, s.code, s.want, out)
		}
		if got := r.types(&mark); got != s.events {
			t.Errorf("%v: events %q, want %q", s.argv, got, s.events)
		}
		if got := r.units(c); got != s.units {
			t.Errorf("%v: %s", s.argv, got)
		}
	}
	// What fails is reported action by action.
	r.mock(c, "SetJob", "ssu", "web.service", "failed", uint32(0))
	out, err := r.run(0, "opdbus", "apply", r.dir+"/state.json")
	for _, want := range []string{"undone       stop db.service", `undone       start web.service: the job of web.service ended with "failed"`, ": rolled-back, since it failed"} {
		r.expect("what fails", out, err, false, want)
	}
	// Nobody without polkit's word.
	out, err = r.run(nobody, "opdbus", "apply", "/dev/null")
	r.expect("an empty document", out, err, false, "/dev/null")
	r.allow()
	out, err = r.run(nobody, "opdbus", "plan", r.dir+"/state.json")
	r.expect("plan as nobody", out, err, false, "read-sensitive")
}
