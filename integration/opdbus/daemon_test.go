//go:build linux

package opdbus

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// What busctl and gdbus see, as root and as nobody.
func TestIntrospection(t *testing.T) {
	r := newRig(t, lampRule)
	r.start()
	for _, uid := range []uint32{0, nobody} {
		out, err := r.run(uid, "busctl", "--address="+r.address, "introspect", names.BusName, names.BusObject)
		for _, want := range []string{".GetStatus", ".Query", ".EventAppended", ".Version", ".Call", ".Approve", ".Explain", ".Search", ".GetManagedObjects", ".PropertiesChanged", ".GetMachineId", "const"} {
			r.expect("busctl introspect", out, err, true, want)
		}
		out, err = r.run(uid, "gdbus", "introspect", "--address", r.address, "--recurse", "--dest", names.BusName, "--object-path", "/")
		r.expect("gdbus introspect", out, err, true, "node /org/freedesktop/opdbus {")
		out, err = r.run(uid, "busctl", "--address="+r.address, "get-property", names.BusName, names.BusObject, names.BusInterface+".Manager", "Healthy", "LogSize", "LogRoot", "Version")
		r.expect("get-property", out, err, true, "b true\nt ")
		out, err = r.run(uid, "busctl", "--address="+r.address, "set-property", names.BusName, names.BusObject, names.BusInterface+".Manager", "Healthy", "b", "false")
		r.expect("set-property", out, err, false, "read-only")
		out, err = r.run(uid, "busctl", "--address="+r.address, "call", names.BusName, names.BusObject, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
		r.expect("GetManagedObjects", out, err, true, "a{oa{sa{sv}}}")
		out, err = r.status()
		r.expect("GetStatus", out, err, true, "healthy true")
	}
	// Each method has its documentation.
	c, err := bus.Connect(t.Context(), r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	node, err := c.Introspect(t.Context(), names.BusName, names.BusObject, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range node.Interfaces {
		if !strings.HasPrefix(i.Name, names.BusInterface) {
			continue
		}
		for _, m := range i.Methods {
			if m.Doc == "" || i.Doc == "" {
				t.Errorf("%s.%s is not documented", i.Name, m.Name)
			}
		}
	}
	if out, err := r.run(nobody, "busctl", "--address="+r.address, "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", names.BusName+".x", "0"); err == nil {
		t.Errorf("nobody may own a name: %s", out)
	}
}

// Policy, polkit in all its moods, and what the log says of it.
func TestChokePoint(t *testing.T) {
	r := newRig(t, lampRule)
	r.start()
	var mark int64
	out, err := r.switchLamp(nobody, "true")
	r.expect("without polkit", out, err, false, "polkit can't be asked")
	if got := r.types(&mark); got != "refused" {
		t.Errorf("without polkit: %s", got)
	}
	challenge := privatebus.Run(t, "ready", nil, privatebus.Python, "testdata/polkit_challenge.py", r.address)
	out, err = r.switchLamp(nobody, "true")
	r.expect("challenge", out, err, false, "wants a person's password")
	challenge.Process.Signal(syscall.SIGTERM)
	challenge.Wait()
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	out, err = r.switchLamp(nobody, "true")
	r.expect("polkit says no", out, err, false, "does not authorise")
	if got := r.types(&mark); got != "refused refused" {
		t.Errorf("refusals: %s", got)
	}
	r.allow(opdbus.PolkitCall)
	out, err = r.switchLamp(nobody, "true")
	r.expect("polkit says yes", out, err, true, `string "[false]"`)
	list := r.settled(mark)
	if len(list) != 2 || list[0].Type != opdbus.EventIntent || list[1].Type != opdbus.EventOutcome || list[0].Data.ID != list[1].Data.ID || !list[1].Data.OK ||
		list[0].Data.Principal.UID != nobody || list[0].Data.Principal.Entrance != "dbus" || !strings.HasPrefix(list[1].Data.Owner, ":") {
		t.Errorf("%+v", list)
	}
	r.types(&mark)
	// Root is no exception, and reads are not for everybody.
	r.allow()
	out, err = r.switchLamp(0, "true")
	r.expect("root against polkit", out, err, false, "does not authorise")
	out, err = r.busctl(nobody, "Manager", "Query", "a{sv}", "0")
	r.expect("Query as nobody", out, err, false, "Access denied")
	r.allow(opdbus.PolkitRead)
	out, err = r.busctl(nobody, "Manager", "Query", "a{sv}", "2", "source", "s", "opdbus", "limit", "u", "1")
	r.expect("Query", out, err, true, "opdbus.")
	out, err = r.busctl(0, "Manager", "Verify")
	r.expect("Verify", out, err, true, "boolean true")
	// A policy that changes is in force at once; a broken one denies.
	r.allow(opdbus.PolkitCall)
	r.policy(`{"version":1}`)
	out, err = r.switchLamp(0, "true")
	r.expect("another policy", out, err, false, "no rule allows it")
	out, err = r.busctl(nobody, "Policy", "Explain", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", "Switch", "b", "[true]")
	r.expect("Explain", out, err, true, "no rule allows it")
	r.policy(`{`)
	out, err = r.switchLamp(0, "true")
	r.expect("a broken policy", out, err, false, "no rule allows it")
	out, err = r.status()
	r.expect("GetStatus", out, err, true, "healthy false")
	r.policy(lampRule)
	// Never through us: us, and the service manager's end.
	out, err = r.busctl(0, "Bus", "Call", "sossss", names.BusName, names.BusObject, names.BusInterface+".Bus", "Call", "sossss", `["a.b","/","a.b","C","","[]"]`)
	r.expect("ourselves", out, err, false, "yourself")
	out, err = r.busctl(0, "Bus", "Call", "sossss", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Exit", "", "[]")
	r.expect("the never list", out, err, false, "never called")
}

// An agent's wish waits for a person, who answers on the bus; the signals say so.
func TestApprovalsOnTheBus(t *testing.T) {
	r := newRig(t, `{"version":1,"rules":[{"id":"lamp","name":"org.example.Lamp","effect":"approve"}]}`)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.allow(opdbus.PolkitCall, opdbus.PolkitApprove)
	r.start()
	w, err := bus.NewWatch(t.Context(), r.address, 0, bus.Match{Interface: names.BusInterface + ".Approvals"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out, err := r.switchLamp(nobody, "true")
	r.expect("asked", out, err, false, "needs a person's approval")
	s, err := w.Next(t.Context())
	if err != nil || s.Member != "Requested" {
		t.Fatalf("%v, %v", s, err)
	}
	id := s.Body.Values[0].(string)
	r.allow(opdbus.PolkitCall)
	out, err = r.busctl(nobody, "Approvals", "Approve", "s", id)
	r.expect("approve against polkit", out, err, false, "does not authorise")
	r.allow(opdbus.PolkitCall, opdbus.PolkitApprove)
	out, err = r.busctl(0, "Approvals", "Approve", "s", id)
	r.expect("approve", out, err, true, "approved")
	if s, err = w.Next(t.Context()); err != nil || s.Member != "Answered" || s.Body.Values[1] != "approved" {
		t.Fatalf("%v, %v", s, err)
	}
	out, err = r.switchLamp(0, "true")
	r.expect("somebody else's approval", out, err, false, "needs a person's approval")
	out, err = r.switchLamp(nobody, "true")
	r.expect("approved", out, err, true, "[false]")
	out, err = r.switchLamp(nobody, "true")
	r.expect("a second time", out, err, false, "needs a person's approval")
}

// The daemon is killed while a call is under way: the intent is in the log, no
// outcome follows, and doctor says so.
func TestKilledBetweenIntentAndOutcome(t *testing.T) {
	r := newRig(t, lampRule)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.allow(opdbus.PolkitCall)
	r.start()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.busctl(0, "Bus", "Call", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", "Sleep", "d", "[5]")
	}()
	r.wait("the intent", func() bool { return len(r.events(0)) > 0 })
	if err := r.daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.daemon.Wait()
	<-done
	list := r.events(0)
	if len(list) != 1 || list[0].Type != opdbus.EventIntent {
		t.Fatalf("%+v", list)
	}
	out, err := r.run(0, "opdbus", "doctor", "--json")
	if err == nil || !strings.Contains(out, `"check":"intents","state":"failed"`) || !strings.Contains(out, "call org.example.Lamp.Sleep") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	r.start()
	out, err = r.busctl(0, "Manager", "Unresolved")
	r.expect("Unresolved", out, err, true, "call org.example.Lamp.Sleep")
}

// Without the log's daemon nothing is done.
func TestNoLogNoCall(t *testing.T) {
	r := newRig(t, lampRule)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.allow(opdbus.PolkitCall)
	r.env = append(r.env, "GB_CHAIN_SOCKET="+r.dir+"/none.sock")
	r.start()
	out, err := r.switchLamp(0, "true")
	r.expect("no log", out, err, false, "nothing was done")
	c, err := bus.Connect(t.Context(), r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := c.Call(t.Context(), bus.Call{Name: "org.example.Lamp", Path: "/org/example/Lamp", Interface: "org.example.Lamp", Member: "Switch", Args: bus.NewBody("b", false)})
	if err != nil || b.Values[0] != false {
		t.Errorf("the lamp was switched: %v, %v", b, err)
	}
}

// A lost bus ends the daemon, with an error.
func TestLostBus(t *testing.T) {
	dir := privatebus.OpenDir(t)
	address, stop, err := privatebus.Make(dir, privatebus.Options{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, address: address, env: []string{"GB_BUS=" + address, "GB_POLICY=" + dir + "/policy.json"}}
	r.start()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.daemon.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(r.said.String(), "the connection to the bus is lost") {
			t.Errorf("%v\n%s", err, r.said)
		}
	case <-time.After(20 * time.Second):
		t.Error("the daemon goes on without a bus")
		r.daemon.Process.Kill()
		<-ended
	}
}

// exercises call each method of ours that changes something, once.
var exercises = map[string]func(r *rig) (string, error){
	"Agents.Call": func(r *rig) (string, error) {
		return r.busctl(0, "Agents", "Call", "sossss", `{"scopes":["read","execute"],"tool":"call_method"}`, names.BusObject, names.BusInterface+".Bus", "Call", "sossss",
			`["org.example.Lamp","/org/example/Lamp","org.example.Lamp","Switch","b","[true]"]`)
	},
	"Bus.Call": func(r *rig) (string, error) { return r.switchLamp(0, "true") },
	"Approvals.Approve": func(r *rig) (string, error) {
		return r.busctl(0, "Approvals", "Approve", "s", askFor(r, "Fail"))
	},
	"Approvals.Deny": func(r *rig) (string, error) { return r.busctl(0, "Approvals", "Deny", "s", askFor(r, "Old")) },
	"Logins.Call": func(r *rig) (string, error) {
		return r.loginCall(rootApprover, "Approvals", "Deny", "s", askFor(r, "Old"))
	},
	"Logins.RegisterKey": func(r *rig) (string, error) {
		c, _ := r.challenge("register")
		return r.busctl(0, "Logins", "RegisterKey", "ss", rootApprover, newSoftKey(r.t, "k").register(r.t, c))
	},
	"Manager.Apply": func(r *rig) (string, error) {
		return r.busctl(0, "Manager", "Apply", "ssa{sv}", `{"version":1,"plugins":{"hostname":{"pretty":"a"}}}`, "", "0")
	},
	"Manager.Confirm": func(r *rig) (string, error) {
		if out, err := r.busctl(0, "Manager", "Apply", "ssa{sv}", `{"version":1,"plugins":{"hostname":{"pretty":"b"}}}`, "", "1", "confirm_seconds", "u", "3600"); err != nil {
			return out, err
		}
		return r.busctl(0, "Manager", "Confirm", "s", "")
	},
	"Manager.Rollback":                      func(r *rig) (string, error) { return r.busctl(0, "Manager", "Rollback", "s", "") },
	"Network.OpenFlow.ApplyDefaultRules":    func(r *rig) (string, error) { return r.openflow("ApplyDefaultRules", "br0") },
	"Network.OpenFlow.ApplyAllDefaultRules": func(r *rig) (string, error) { return r.openflow("ApplyAllDefaultRules") },
	"Network.OpenFlow.AddFlowRule":          func(r *rig) (string, error) { return r.openflow("AddFlowRule", "br0", "tcp,tp_dst=80,actions=drop") },
	"Network.OpenFlow.RemoveFlowRule":       func(r *rig) (string, error) { return r.openflow("RemoveFlowRule", "br0", "tcp,tp_dst=80,actions=drop") },
	"Network.OpenFlow.ClearFlows":           func(r *rig) (string, error) { return r.openflow("ClearFlows", "br0") },
}

// askFor has an approval asked for and returns its id.
func askFor(r *rig, member string) string {
	r.t.Helper()
	r.busctl(0, "Bus", "Call", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", member, "", "[]")
	list, err := (&opdbus.Approvals{Dir: r.dir + "/approvals"}).List()
	if err != nil || len(list) == 0 {
		r.t.Fatal(list, err)
	}
	return list[0].ID
}

// Every method that the daemon's introspection shows is on the read list, or
// leaves intent and outcome; a new one without them fails here.
func TestEveryEntranceLeavesItsEvents(t *testing.T) {
	r, c := newHost(t, strings.Replace(stateRules, `"rules":[`, `"rules":[{"id":"flows","interface":"org.freedesktop.opdbus.Network.*","effect":"allow"},{"id":"ask","members":["Fail","Old"],"name":"org.example.Lamp","effect":"approve"},{"id":"lamp","clients":["cli","dbus","mcp"],"name":"org.example.Lamp","effect":"allow"},`, 1))
	sw := r.withSwitch()
	if err := os.WriteFile(r.dir+"/ovs.json", []byte(`{"bridges":{"br0":{"datapath_type":"netdev"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r.must("ip", "netns", "exec", sw.NS, tools.Path(t, "gb-ovs-setup"), "apply")
	r.start()
	objects, err := c.Tree(t.Context(), names.BusName, "/", false)
	if err != nil {
		t.Fatal(err)
	}
	var mark int64
	exercised := 0
	for _, o := range objects {
		if o.Err != nil {
			t.Fatal(o.Path, o.Err)
		}
		for _, i := range o.Node.Interfaces {
			for _, m := range i.Methods {
				a := opdbus.Action{Kind: opdbus.KindCall, Name: names.BusName, Interface: i.Name, Member: m.Name}
				if opdbus.IsRead(a) {
					continue
				}
				short := strings.TrimPrefix(i.Name, names.BusInterface+".") + "." + m.Name
				if i.Name == "org.freedesktop.DBus.Properties" && m.Name == "Set" {
					for _, p := range properties(o.Node) {
						if p.Access != "read" {
							t.Errorf("property %s can be set: give it its events", p.Name)
						}
					}
					continue
				}
				do := exercises[short]
				if do == nil {
					t.Errorf("%s is neither on the read list nor exercised here", short)
					continue
				}
				out, err := do(r)
				if err != nil {
					t.Errorf("%s: %v\n%s", short, err, out)
				}
				list := r.settled(mark)
				open := map[string]bool{}
				for _, e := range list {
					mark = e.I + 1
					if e.Type != opdbus.EventRefused { // askFor's
						open[e.Data.ID] = e.Type == opdbus.EventIntent
					}
				}
				// The last event is the outcome of the call itself; nothing that it did is left open.
				if len(open) == 0 || slices.Contains(slices.Collect(maps.Values(open)), true) || list[len(list)-1].Type != opdbus.EventOutcome || !list[len(list)-1].Data.OK {
					t.Errorf("%s: events %+v", short, list)
				}
				exercised++
			}
		}
	}
	if exercised != len(exercises) {
		t.Errorf("%d methods exercised, %d are known", exercised, len(exercises))
	}
}

func properties(n *dbusjson.Node) (list []dbusjson.Property) {
	for _, i := range n.Interfaces {
		list = append(list, i.Properties...)
	}
	return list
}

// Random and hostile calls from libdbus: each is answered, and the daemon is
// afterwards what it was.
func TestHostileCalls(t *testing.T) {
	r := newRig(t, lampRule)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.start()
	round := func(n int, seeds ...int) {
		var wg sync.WaitGroup
		for _, seed := range seeds {
			wg.Go(func() {
				out, err := exec.Command(privatebus.Python, "testdata/hostile.py", r.address, strconv.Itoa(n), strconv.Itoa(seed)).CombinedOutput()
				if err != nil {
					t.Errorf("seed %d: %v\n%s", seed, err, out)
				}
				t.Logf("seed %d: %s", seed, strings.TrimSpace(string(out)))
			})
		}
		wg.Wait()
	}
	round(1000, 1, 2)
	before := usage(t, r.daemon.Process.Pid)
	round(4000, 3, 4)
	after := usage(t, r.daemon.Process.Pid)
	t.Logf("before %+v, after %+v", before, after)
	if after.fds > before.fds+5 || after.rss > before.rss+64<<20 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	out, err := r.status()
	r.expect("GetStatus", out, err, true, "healthy true")
}

type use struct{ fds, rss int }

func usage(t *testing.T, pid int) (u use) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.rss, _ = strconv.Atoi(strings.Fields(string(statm))[1])
	u.rss *= os.Getpagesize()
	return u
}
