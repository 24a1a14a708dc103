//go:build linux

package opdbus

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

const stateRules = `{"version":1,"per_minute":100000,"rules":[
	{"id":"apply","name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.Manager","members":["Apply"],"effect":"allow"},
	{"id":"units","name":"org.freedesktop.systemd1","effect":"allow"},
	{"id":"names","name":"org.freedesktop.hostname1","effect":"allow"}]}`

// newHost starts a rig with a service manager of three units and a hostnamed.
func newHost(t *testing.T, policy string) (*rig, *bus.Conn) {
	t.Helper()
	r := newRig(t, policy)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	privatebus.Mock(t, r.address, "org.freedesktop.systemd1", mustAbs(t, "testdata/systemd1.py"))
	privatebus.Mock(t, r.address, "org.freedesktop.hostname1", mustAbs(t, "testdata/hostname1.py"))
	r.allow(opdbus.PolkitCall, opdbus.PolkitApply, opdbus.PolkitRollback, opdbus.PolkitNetwork, opdbus.PolkitRead, opdbus.PolkitApprove)
	c, err := bus.Connect(t.Context(), r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r.mock(c, "AddUnit", "sss", "web.service", "disabled", "inactive")
	r.mock(c, "AddUnit", "sss", "db.service", "enabled", "active")
	r.mock(c, "AddUnit", "sss", "bad.service", "disabled", "inactive")
	r.mock(c, "SetJob", "ssu", "bad.service", "failed", uint32(0))
	return r, c
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// mock calls the service manager's mock.
func (r *rig) mock(c *bus.Conn, member, sig string, args ...any) bus.Body {
	r.t.Helper()
	call := bus.Call{Name: "org.freedesktop.systemd1", Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.DBus.Mock", Member: member}
	if sig != "" {
		call.Args = bus.NewBody(sig, args...)
	}
	b, err := c.Call(r.t.Context(), call)
	if err != nil {
		r.t.Fatalf("%s: %v", member, err)
	}
	return b
}

// manager calls a method of the daemon that answers one string.
func (r *rig) manager(c *bus.Conn, member, sig string, args ...any) (string, error) {
	r.t.Helper()
	call := bus.Call{Name: names.BusName, Path: names.BusObject, Interface: names.BusInterface + ".Manager", Member: member}
	if sig != "" {
		types, err := dbusjson.ParseSignature(sig)
		if err != nil {
			r.t.Fatal(err)
		}
		call.Args = bus.Body{Types: types, Values: args}
	}
	b, err := c.Call(r.t.Context(), call)
	if err != nil {
		return "", err
	}
	s, _ := b.Values[0].(string)
	return s, nil
}

type change struct {
	ID, Result, Reason, Error string
	Plan                      struct{ Hash string }
	Steps                     []struct{ Title, State, Error string }
}

func (r *rig) apply(c *bus.Conn, state, plan string, options dbusjson.Dict) (ch change, err error) {
	r.t.Helper()
	if options == nil {
		options = dbusjson.Dict{}
	}
	out, err := r.manager(c, "Apply", "ssa{sv}", state, plan, options)
	if err == nil {
		if err := json.Unmarshal([]byte(out), &ch); err != nil {
			r.t.Fatal(err, out)
		}
	}
	return ch, err
}

func confirmIn(seconds uint32) dbusjson.Dict {
	u, _ := dbusjson.ParseType("u")
	return dbusjson.Dict{{Key: "confirm_seconds", Value: dbusjson.Variant{Type: u, Value: seconds}}}
}

// units is the state of the service manager's units and the host's name.
func (r *rig) units(c *bus.Conn) string {
	r.t.Helper()
	var list []string
	for _, u := range []string{"web.service", "db.service", "bad.service"} {
		path := "/org/freedesktop/systemd1/unit/" + strings.ReplaceAll(u, ".", "_2e")
		v, err := c.Get(r.t.Context(), "org.freedesktop.systemd1", path, "org.freedesktop.systemd1.Unit", "ActiveState")
		if err != nil {
			r.t.Fatal(err)
		}
		b, err := c.Call(r.t.Context(), bus.Call{Name: "org.freedesktop.systemd1", Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.systemd1.Manager",
			Member: "GetUnitFileState", Args: bus.NewBody("s", u)})
		if err != nil {
			r.t.Fatal(err)
		}
		active := v.Value.(string)
		if active == "failed" {
			active = "inactive"
		}
		list = append(list, fmt.Sprintf("%s %s %s", u, active, b.Values[0]))
	}
	v, err := c.Get(r.t.Context(), "org.freedesktop.hostname1", "/org/freedesktop/hostname1", "org.freedesktop.hostname1", "StaticHostname")
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(append(list, v.Value.(string)), "; ")
}

const (
	unitsBefore = "web.service inactive disabled; db.service active enabled; bad.service inactive disabled; old"
	wanted      = `{"version":1,"plugins":{"hostname":{"static":"web1"},"systemd":{"units":{"web.service":{"active":true},"db.service":{"active":false}}}}}`
	unitsWanted = "web.service active disabled; db.service inactive enabled; bad.service inactive disabled; web1"
)

// withSwitch gives the rig a switch in a namespace, in which the daemon will
// run; nothing is set up on it yet.
func (r *rig) withSwitch() *vswitch.Switch {
	r.t.Helper()
	sw := vswitch.Start(r.t, vswitch.Options{})
	r.within = []string{"ip", "netns", "exec", sw.NS}
	r.env = append(r.env, "GB_OVS_DB="+sw.DB, "OVS_RUNDIR="+sw.Dir, "GB_OVS_STATE="+r.dir+"/ovs", "GB_OVS_CONFIG="+r.dir+"/ovs.json")
	return sw
}

// openflow calls a method of the flows with strings, as root.
func (r *rig) openflow(member string, args ...string) (string, error) {
	r.t.Helper()
	argv := []string{"dbus-send", "--bus=" + r.address, "--print-reply", "--reply-timeout=60000", "--dest=" + names.BusName, names.BusObject + "/network/openflow", names.BusInterface + ".Network.OpenFlow." + member}
	for _, a := range args {
		argv = append(argv, "string:"+a)
	}
	return r.run(0, argv...)
}

const switchRules = `{"id":"net","interface":"org.freedesktop.opdbus.Network.*","effect":"allow"},`

// Bridges and flows, forth and back, on a real switch: by the daemon itself,
// and by a keeper that it asks, as its unit without rights does.
func TestStateOfTheSwitch(t *testing.T) {
	t.Run("by itself", func(t *testing.T) { testStateOfTheSwitch(t, false) })
	t.Run("by its keeper", func(t *testing.T) { testStateOfTheSwitch(t, true) })
}

// keeper answers on a socket as ovs-switch.socket does, in the switch's
// namespace; the daemon is in another.
func (r *rig) keeper(sw *vswitch.Switch) {
	r.t.Helper()
	l, err := net.Listen("unix", r.dir+"/switch.sock")
	if err != nil {
		r.t.Fatal(err)
	}
	env := append(os.Environ(), r.env...)
	r.within = nil
	r.env = append(r.env, "GB_OVS_SOCKET="+r.dir+"/switch.sock")
	program := tools.Path(r.t, "gb-ovs-setup")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				f, err := conn.(*net.UnixConn).File()
				if err != nil {
					return
				}
				defer f.Close()
				cmd := exec.Command("ip", "netns", "exec", sw.NS, program, "answer")
				cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, f, f, os.Stderr
				cmd.Run()
			})
		}
	})
	r.t.Cleanup(func() { l.Close(); wg.Wait() })
}

func testStateOfTheSwitch(t *testing.T, keeper bool) {
	r, c := newHost(t, strings.Replace(stateRules, `"rules":[`, `"rules":[`+switchRules, 1))
	sw := r.withSwitch()
	if keeper {
		r.keeper(sw)
	}
	r.allow(opdbus.PolkitCall, opdbus.PolkitApply, opdbus.PolkitRollback, opdbus.PolkitNetwork)
	r.start()
	doc := `{"version":1,"plugins":{"ovs":{"bridges":{"br0":{"datapath_type":"netdev","ports":{"in0":{"type":"internal"}}}}},"openflow":{"bridges":{"br0":{"default":true}}},
		"systemd":{"units":{"web.service":{"active":true}}}}}`
	before, err := sw.Vsctl("show")
	if err != nil {
		t.Fatal(err)
	}
	w, err := bus.NewWatch(t.Context(), r.address, 0, bus.Match{Member: "FlowsChanged"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	flowsChanged := func() {
		t.Helper()
		if s, err := w.Next(t.Context()); err != nil || s.Path != names.BusObject+"/network/openflow" || s.Body.Values[0] != "br0" {
			t.Errorf("%v, %+v", err, s)
		}
	}
	ch, err := r.apply(c, doc, "", nil)
	if err != nil || ch.Result != "applied" || len(ch.Steps) != 2 {
		t.Fatalf("%v, %+v", err, ch)
	}
	flowsChanged()
	if out, err := sw.Vsctl("list-ports", "br0"); err != nil || strings.TrimSpace(out) != "in0" {
		t.Errorf("%v, %s", err, out)
	}
	if ch, err = r.apply(c, doc, "", nil); err != nil || ch.Result != "nothing" {
		t.Errorf("again: %v, %+v", err, ch)
	}
	out, err := r.openflow("AddFlowRule", "br0", "priority=7, tcp,tp_dst=80,actions=drop")
	r.expect("AddFlowRule", out, err, true, "boolean true")
	flowsChanged()
	out, err = r.openflow("AddFlowRule", "br0", "tcp,priority=7,tp_dst=80,actions=drop")
	r.expect("AddFlowRule again", out, err, true, "boolean false")
	out, err = r.openflow("DumpFlows", "br0")
	r.expect("DumpFlows", out, err, true, "priority=7,tcp,tp_dst=80 actions=drop")
	out, err = r.openflow("GetBridgeConfig", "br0")
	r.expect("GetBridgeConfig", out, err, true, `"managed":true,"config":{"datapath_type":"netdev"`)
	out, err = r.run(nobody, "busctl", "--address="+r.address, "call", names.BusName, names.BusObject, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
	r.expect("GetManagedObjects", out, err, true, `"/org/freedesktop/opdbus/network/openflow"`)
	out, err = r.openflow("ListBridges")
	r.expect("ListBridges", out, err, true, `string "br0"`)
	out, err = r.openflow("AddFlowRule", "br9", "actions=drop")
	r.expect("a bridge that is not there", out, err, false, "was not set up here")
	out, err = r.openflow("AddFlowRule", "br0", "cookie=1,actions=drop")
	r.expect("a bad rule", out, err, false, "cookies are this tool's")
	if out, err := r.manager(c, "Diff", "s", ""); err != nil || !strings.Contains(out, "tp_dst=80") {
		t.Errorf("Diff: %v, %s", err, out)
	}
	if ch, err = r.apply(c, doc, "", nil); err != nil || ch.Result != "applied" {
		t.Errorf("the rule goes: %v, %+v", err, ch)
	}
	if text, err := r.manager(c, "Rollback", "s", ""); err != nil {
		t.Errorf("%v, %s", err, text)
	}
	out, err = r.openflow("DumpFlows", "br0")
	r.expect("the rule is back", out, err, true, "tp_dst=80")
	out, err = r.openflow("ClearFlows", "br0")
	r.expect("ClearFlows", out, err, true, "boolean true")
	out, err = r.openflow("ClearFlows", "br0")
	r.expect("ClearFlows again", out, err, true, "boolean false")
	if text, err := r.manager(c, "Rollback", "s", ""); err != nil {
		t.Errorf("%v, %s", err, text)
	}
	if after, err := sw.Vsctl("show"); err != nil || after != before {
		t.Errorf("%v\nbefore\n%s\nafter\n%s", err, before, after)
	}
	if got := r.units(c); got != unitsBefore {
		t.Error(got)
	}
	if _, err := os.Stat(r.dir + "/ovs/confirmed.json"); !os.IsNotExist(err) {
		t.Errorf("what boots apply is still there: %v", err)
	}
	// What fails behind the switch's change takes it back too.
	r.mock(c, "SetJob", "ssu", "web.service", "failed", uint32(0))
	if _, err = r.apply(c, doc, "", nil); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("a unit that fails: %v", err)
	}
	if after, err := sw.Vsctl("show"); err != nil || after != before {
		t.Errorf("%v\nbefore\n%s\nafter\n%s", err, before, after)
	}
	r.mock(c, "SetJob", "ssu", "web.service", "done", uint32(0))
	// Killed while the switch is at it.
	sw.StopSwitch()
	done := make(chan struct{})
	go func() { defer close(done); r.apply(c, doc, "", nil) }()
	r.wait("the bridge in the database", func() bool {
		out, err := sw.Vsctl("--no-wait", "list-br")
		return err == nil && strings.Contains(out, "br0")
	})
	r.daemon.Process.Kill()
	r.daemon.Wait()
	<-done
	sw.ContinueSwitch()
	r.start()
	r.wait("the way back", func() bool { _, err := os.Stat(r.dir + "/state/current.json"); return err != nil })
	if after, err := sw.Vsctl("show"); err != nil || after != before {
		t.Errorf("%v\nbefore\n%s\nafter\n%s", err, before, after)
	}
}

// Plan, apply, apply again, roll back; the signals and events of each.
func TestState(t *testing.T) {
	r, c := newHost(t, stateRules)
	r.start()
	w, err := bus.NewWatch(t.Context(), r.address, 0, bus.Match{Interface: names.BusInterface + ".Manager"}, bus.Match{Path: names.BusObject, Member: "PropertiesChanged"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	text, err := r.manager(c, "Plan", "s", wanted)
	if err != nil {
		t.Fatal(err)
	}
	var plan struct {
		Hash     string
		Actions  []struct{ Verb, Object string }
		Decision struct{ Effect string }
	}
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, a := range plan.Actions {
		titles = append(titles, a.Verb+" "+a.Object)
	}
	if got := strings.Join(titles, ", "); got != "set static, stop db.service, start web.service" || plan.Decision.Effect != "allow" {
		t.Errorf("plan: %s\n%s", got, text)
	}
	if again, err := r.manager(c, "Plan", "s", wanted); err != nil || again != text {
		t.Errorf("a second plan is another: %v\n%s\n%s", err, text, again)
	}
	var mark int64
	if got := r.types(&mark); got != "" || r.units(c) != unitsBefore {
		t.Errorf("a plan has changed something: %s; %s", got, r.units(c))
	}
	if _, err := r.apply(c, wanted, strings.Repeat("0", 64), nil); err == nil || !strings.Contains(err.Error(), "PlanChanged") {
		t.Errorf("another plan: %v", err)
	}
	ch, err := r.apply(c, "", plan.Hash, nil)
	if err != nil || ch.Result != "applied" || r.units(c) != unitsWanted {
		t.Fatalf("%v, %+v\n%s", err, ch, r.units(c))
	}
	if got := r.types(&mark); got != "intent intent outcome intent outcome intent outcome outcome" {
		t.Errorf("events: %s", got)
	}
	var signals []string
	for len(signals) == 0 || !strings.HasPrefix(signals[len(signals)-1], "Applied") {
		s, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch s.Member {
		case "StateChanged":
			signals = append(signals, fmt.Sprint(s.Body.Values[3], " ", s.Body.Values[2], " ", s.Body.Values[4]))
		case "PropertiesChanged":
			changed := s.Body.Values[1].(dbusjson.Dict)
			if changed[0].Key == "LastApply" {
				signals = append(signals, "LastApply "+changed[0].Value.(dbusjson.Variant).Value.(dbusjson.Dict)[2].Value.(dbusjson.Variant).Value.(string))
			}
		case "Applied":
			signals = append(signals, "Applied")
		}
	}
	if want := []string{"set static done", "stop db.service done", "start web.service done", "LastApply applied", "Applied"}; !slices.Equal(signals, want) {
		t.Errorf("signals %q, want %q", signals, want)
	}
	ch, err = r.apply(c, wanted, "", nil)
	if err != nil || ch.Result != "nothing" {
		t.Errorf("a second time: %v, %+v", err, ch)
	}
	if got := r.types(&mark); got != "" {
		t.Errorf("events of nothing: %s", got)
	}
	if out, err := r.manager(c, "Diff", "s", ""); err != nil || out != "[]" {
		t.Errorf("Diff: %v, %s", err, out)
	}
	r.mock(c, "SetActive", "ss", "web.service", "failed")
	if out, err := r.manager(c, "Diff", "s", ""); err != nil || !strings.Contains(out, `"path":"units.web.service.active","have":false,"want":true`) {
		t.Errorf("Diff: %v, %s", err, out)
	}
	out, err := r.manager(c, "Rollback", "s", "")
	if err != nil || !strings.Contains(out, `"result":"rolled-back"`) || r.units(c) != unitsBefore {
		t.Errorf("rollback: %v\n%s\n%s", err, out, r.units(c))
	}
	if got := r.types(&mark); got != "intent intent outcome intent outcome intent outcome outcome" {
		t.Errorf("events of the way back: %s", got)
	}
	if _, err := r.manager(c, "Diff", "s", ""); err == nil || !strings.Contains(err.Error(), "no desired state") {
		t.Errorf("Diff with nothing in force: %v", err)
	}
}

// What fails in the middle is taken back, and so is what nobody confirms.
func TestStateGoesBack(t *testing.T) {
	r, c := newHost(t, stateRules)
	r.start()
	bad := `{"version":1,"plugins":{"hostname":{"static":"web1"},"systemd":{"units":{"db.service":{"active":false,"enabled":false},"web.service":{"enabled":true,"active":true},"bad.service":{"active":true}}}}}`
	ask := func() string {
		_, err := r.apply(c, bad, "", nil)
		if err == nil {
			t.Fatal("it was applied")
		}
		return err.Error()
	}
	// What is started at boot needs a person, whatever the rules say.
	if got := ask(); !strings.Contains(got, "needs a person's approval") {
		t.Fatal(got)
	}
	list, err := (&opdbus.Approvals{Dir: r.dir + "/approvals"}).List()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	out, err := r.busctl(0, "Approvals", "Approve", "s", list[0].ID)
	r.expect("approve", out, err, true, "approved")
	if got := ask(); !strings.Contains(got, "rolled back") || !strings.Contains(got, "bad.service") || r.units(c) != unitsBefore {
		t.Errorf("%s\n%s", got, r.units(c))
	}
	ch, err := r.apply(c, wanted, "", confirmIn(1))
	if err != nil || ch.Result != "pending" || r.units(c) != unitsWanted {
		t.Fatalf("%v, %+v", err, ch)
	}
	if _, err := r.apply(c, wanted, "", nil); err == nil || !strings.Contains(err.Error(), "awaits its confirmation") {
		t.Errorf("while one is pending: %v", err)
	}
	r.wait("the way back", func() bool { _, err := os.Stat(r.dir + "/state/current.json"); return err != nil })
	if got := r.units(c); got != unitsBefore {
		t.Errorf("after the time: %s", got)
	}
	if _, err := r.manager(c, "Confirm", "s", ch.ID); err == nil {
		t.Error("it was confirmed after its time")
	}
	if ch, err = r.apply(c, wanted, "", confirmIn(3600)); err != nil {
		t.Fatal(err)
	}
	if out, err := r.manager(c, "Confirm", "s", ch.ID); err != nil || !strings.Contains(out, `"result":"applied"`) {
		t.Errorf("confirm: %v, %s", err, out)
	}
	if got := r.units(c); got != unitsWanted {
		t.Errorf("confirmed: %s", got)
	}
}

// What changes behind the desired state's back is told at once, once, and
// recorded; what is put back is forgotten.
func TestDrift(t *testing.T) {
	r, c := newHost(t, stateRules)
	r.start()
	w, err := bus.NewWatch(t.Context(), r.address, 0, bus.Match{Interface: names.BusInterface + ".Manager", Member: "DriftDetected"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := r.apply(c, wanted, "", nil); err != nil {
		t.Fatal(err)
	}
	next := func() string {
		s, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(fmt.Sprintln(s.Body.Values...))
	}
	for range 2 {
		r.mock(c, "SetActive", "ss", "bad.service", "active") // nobody has named it
		r.mock(c, "SetActive", "ss", "web.service", "failed")
		if got := next(); got != "systemd units.web.service.active false true" {
			t.Error(got)
		}
		if _, err := c.Call(t.Context(), bus.Call{Name: "org.freedesktop.hostname1", Path: "/org/freedesktop/hostname1", Interface: "org.freedesktop.hostname1", Member: "SetStaticHostname",
			Args: bus.NewBody("sb", "x", false)}); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != `hostname static "x" "web1"` {
			t.Error(got)
		}
		out, err := r.run(0, "opdbus", "doctor", "--json")
		r.expect("doctor", out, err, false, `"check":"desired state","state":"failed","evidence":"2 differences from the desired state in force"`)
		if ch, err := r.apply(c, wanted, "", nil); err != nil || ch.Result != "applied" {
			t.Errorf("%v, %+v", err, ch)
		}
	}
	drifts := 0
	for _, e := range r.events(0) {
		if e.Type == opdbus.EventDrift {
			drifts++
		}
	}
	if drifts != 4 {
		t.Errorf("%d drifts are recorded, want 4", drifts)
	}
}

// The daemon is killed at each step; the next one takes back what was done.
func TestStateKilled(t *testing.T) {
	r, c := newHost(t, stateRules)
	for n, unit := range []string{"db.service", "web.service"} {
		r.mock(c, "SetJob", "ssu", unit, "done", uint32(60_000))
		r.start()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.apply(c, wanted, "", nil)
		}()
		r.wait("the job of "+unit, func() bool {
			b, err := c.Call(t.Context(), bus.Call{Name: "org.freedesktop.systemd1", Path: "/org/freedesktop/systemd1", Interface: "org.freedesktop.systemd1.Manager", Member: "ListJobs"})
			return err == nil && strings.Contains(fmt.Sprint(b.Values), unit)
		})
		r.daemon.Process.Kill()
		r.daemon.Wait()
		<-done
		r.mock(c, "SetJob", "ssu", unit, "done", uint32(0))
		r.start()
		r.wait("the way back", func() bool { _, err := os.Stat(r.dir + "/state/current.json"); return err != nil })
		if got := r.units(c); got != unitsBefore {
			t.Errorf("killed at step %d: %s", n+1, got)
		}
		r.wait("the outcomes of what was cut off", func() bool {
			out, err := r.busctl(0, "Manager", "Unresolved")
			return err == nil && !strings.Contains(out, "Apply")
		})
		r.daemon.Process.Kill()
		r.daemon.Wait()
	}
}
