//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// What the container's policy allows: the services that it really has.
const busPolicy = `{"version":1,"per_minute":1000000,"rules":[
 {"id":"units","name":"org.freedesktop.systemd1","interface":"org.freedesktop.systemd1.Manager","members":["StartUnit","StopUnit"],"args":{"0":"e2e-*.service"},"effect":"allow"},
 {"id":"hostname","name":"org.freedesktop.hostname1","members":["SetPrettyHostname"],"effect":"allow"},
 {"id":"time","name":"org.freedesktop.timedate1","members":["SetTimezone"],"effect":"allow"},
 {"id":"login","name":"org.freedesktop.login1","members":["SetWallMessage"],"effect":"allow"},
 {"id":"names","name":"org.freedesktop.resolve1","members":["FlushCaches"],"effect":"allow"},
 {"id":"statistics","name":"org.freedesktop.resolve1","members":["ResetStatistics"],"effect":"allow","polkit":"none"},
 {"id":"network","name":"org.freedesktop.network1","members":["Reload"],"effect":"allow"},
 {"id":"unasked","name":"org.freedesktop.hostname1","members":["SetIconName"],"effect":"allow","polkit":"none"}]}`

// as runs a program as a user: "" for root.
func (c *container) as(user string, argv ...string) (string, error) {
	if user != "" {
		argv = append([]string{"setpriv", "--reuid=" + user, "--regid=nogroup", "--clear-groups"}, argv...)
	}
	return c.try(argv...)
}

// through calls a method of a service through the daemon.
func (c *container) through(user, name, path, member, signature, args string) (string, error) {
	i := strings.LastIndexByte(member, '.')
	return c.as(user, "dbus-send", "--system", "--print-reply", "--reply-timeout=30000", "--dest="+names.BusName, names.BusObject, names.BusInterface+".Bus.Call",
		"string:"+name, "objpath:"+path, "string:"+member[:i], "string:"+member[i+1:], "string:"+signature, "string:"+args)
}

// The daemon between callers and systemd's own services, with a real polkit.
func systemBus(t *testing.T, c *container) {
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(c.path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(names.PolicyFile, busPolicy)
	write("/run/systemd/system/e2e-thing.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n")
	c.run("systemctl", "daemon-reload")
	c.run("systemctl", "start", "systemd-networkd.service", "systemd-resolved.service")

	// The daemon comes when it is asked for.
	c.run("systemctl", "stop", "op-dbus.service")
	if out, err := c.as("nobody", "busctl", "--system", "call", names.BusName, names.BusObject, names.BusInterface+".Manager", "GetStatus"); err != nil {
		t.Fatalf("activation: %v\n%s", err, out)
	}
	if state := c.property("op-dbus.service", "ActiveState"); state != "active" {
		t.Errorf("op-dbus.service is %s", state)
	}

	const thing = "e2e-thing.service"
	active := func() string { out, _ := c.try("systemctl", "is-active", thing); return out }
	start := func(user string) (string, error) {
		return c.through(user, "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.StartUnit", "ss", `["`+thing+`","replace"]`)
	}
	refused := func(what, user, want string) {
		t.Helper()
		if out, err := start(user); err == nil || !strings.Contains(err.Error(), want) || active() != "inactive" {
			t.Errorf("%s: %v, %s; want %q, and %s inactive, not %s", what, err, out, want, thing, active())
		}
	}
	allowed := func(what, user string) {
		t.Helper()
		if out, err := start(user); err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		for deadline := time.Now().Add(10 * time.Second); active() != "active" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		}
		if active() != "active" {
			t.Errorf("%s: %s is %s", what, thing, active())
		}
		c.run("systemctl", "stop", thing)
	}
	// polkit rules are read when they change, a moment later.
	polkit := func(result string) {
		t.Helper()
		write("/etc/polkit-1/rules.d/10-e2e.rules", `polkit.addRule(function (a, s) { if (a.id.indexOf("org.freedesktop.opdbus.") === 0 && s.user === "nobody") { return polkit.Result.`+result+`; } });`)
		c.run("systemctl", "restart", "polkit.service")
	}
	refused("nobody, challenged", "nobody", "wants a person's password")
	polkit("NO")
	refused("nobody, denied", "nobody", "does not authorise")
	allowed("root", "")
	polkit("YES")
	allowed("nobody, allowed", "nobody")
	c.run("systemctl", "mask", "--runtime", "--now", "polkit.service")
	refused("nobody, without polkit", "nobody", "polkit can't be asked")
	refused("root, without polkit", "", "polkit can't be asked")
	c.run("systemctl", "unmask", "--runtime", "polkit.service")
	c.run("systemctl", "start", "polkit.service")
	if out, err := c.through("", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager.Reboot", "b", "[false]"); err == nil || !strings.Contains(err.Error(), "no rule allows it") {
		t.Errorf("Reboot: %v %s", err, out)
	}

	// Each of systemd's services does what it is told, by root and by nobody.
	mark := int64(len(c.lines()))
	type call struct{ name, path, member, signature, args, look, want string }
	calls := []call{
		{"org.freedesktop.hostname1", "/org/freedesktop/hostname1", "org.freedesktop.hostname1.SetPrettyHostname", "sb", `["Geist %s",false]`, "busctl get-property org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1 PrettyHostname", `s "Geist %s"`},
		{"org.freedesktop.timedate1", "/org/freedesktop/timedate1", "org.freedesktop.timedate1.SetTimezone", "sb", `["Etc/GMT-%n",false]`, "readlink /etc/localtime", "../usr/share/zoneinfo/Etc/GMT-%n"},
		{"org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager.SetWallMessage", "sb", `["ende %s",true]`, "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager WallMessage", `s "ende %s"`},
		{"org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager.FlushCaches", "", `[]`, "busctl get-property org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager CacheStatistics", "(ttt) 0"},
		{"org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.network1.Manager.Reload", "", `[]`, "systemctl is-active systemd-networkd.service", "active"},
	}
	for n, user := range []string{"", "nobody"} {
		fill := strings.NewReplacer("%s", "von "+user+".", "%n", fmt.Sprint(n+1))
		for _, k := range calls {
			if out, err := c.through(user, k.name, k.path, k.member, k.signature, fill.Replace(k.args)); err != nil {
				t.Errorf("%s by %q: %v\n%s", k.member, user, err, out)
			}
			if out, err := c.try(strings.Fields(k.look)...); err != nil || !strings.HasPrefix(out, fill.Replace(k.want)) {
				t.Errorf("after %s by %q: %q, %v, want %q", k.member, user, out, err, fill.Replace(k.want))
			}
		}
	}
	// The tool's own choke point, beside the daemon's.
	if out, err := c.try("opdbus", "call", "org.freedesktop.hostname1", "/org/freedesktop/hostname1", "org.freedesktop.hostname1.SetPrettyHostname", "Gespenst", "false"); err != nil {
		t.Errorf("opdbus call: %v\n%s", err, out)
	}
	intents := map[string]string{} // id to what
	done := 0
	for deadline := time.Now().Add(10 * time.Second); done < 2*len(calls)+1 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		done = 0
		for _, line := range c.lines("--source", "opdbus") {
			var e struct {
				I    int64
				Type string
				Data struct {
					ID     string
					OK     bool
					Action struct{ Interface, Member string }
				}
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			switch {
			case e.I < mark:
			case e.Type == "opdbus.intent":
				intents[e.Data.ID] = e.Data.Action.Interface + "." + e.Data.Action.Member
			case e.Type == "opdbus.outcome" && e.Data.OK && intents[e.Data.ID] != "":
				done++
			}
		}
	}
	if done != 2*len(calls)+1 {
		t.Errorf("%d outcomes of %d calls", done, 2*len(calls)+1)
	}
	// The recorder has seen what they caused.
	var seen []string
	for deadline := time.Now().Add(10 * time.Second); len(seen) == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		seen = c.lines("--source", "dbus", "--grep", "org.freedesktop.hostname1")
	}
	if len(seen) == 0 || !strings.Contains(seen[len(seen)-1], `"systemd-hostnamed.service"`) {
		t.Errorf("the recorder has not seen the host name change, or not whose doing it is: %v", seen)
	}
	if out, err := c.try("opdbus", "doctor", "--dbus"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	measureBus(t, c)
	for _, path := range []string{names.PolicyFile, "/etc/polkit-1/rules.d/10-e2e.rules", "/run/systemd/system/e2e-thing.service"} {
		if err := os.Remove(c.path(path)); err != nil {
			t.Error(err)
		}
	}
	c.run("systemctl", "daemon-reload")
	c.healthy()
}

// measureBus says how long it takes to look over a real system bus, and what a
// call through the daemon costs beside the same call of the service.
func measureBus(t *testing.T, c *container) {
	address := "unix:path=" + c.path("/run/dbus/system_bus_socket")
	for range 2 {
		conn, err := bus.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		look := func() (took time.Duration, objects int) {
			begin := time.Now()
			list, err := conn.TreeOfAll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			took = time.Since(begin)
			for _, n := range list {
				objects += len(n.Objects)
			}
			return took, objects
		}
		cold, objects := look()
		warm, again := look()
		t.Logf("tree of the system bus: %d objects, cold %s; %d, warm %s", objects, cold.Round(time.Millisecond), again, warm.Round(100*time.Microsecond))
		if objects < 50 {
			t.Errorf("%d objects", objects)
		}
	}
	// Calls of real services. ResetStatistics does hardly anything; for
	// SetIconName hostnamed writes a file, and first asks polkit, unless it is
	// root who calls, as here, and not the daemon.
	type target struct{ name, path, member, signature, args string }
	for _, k := range []target{
		{"org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager.ResetStatistics", "", "[]"},
		{"org.freedesktop.hostname1", "/org/freedesktop/hostname1", "org.freedesktop.hostname1.SetIconName", "sb", `["icon",false]`},
	} {
		i := strings.LastIndexByte(k.member, '.')
		types, err := dbusjson.ParseSignature(k.signature)
		if err != nil {
			t.Fatal(err)
		}
		values, err := dbusjson.UnmarshalArgs([]byte(k.args), types)
		if err != nil {
			t.Fatal(err)
		}
		bare := bus.Call{Name: k.name, Path: k.path, Interface: k.member[:i], Member: k.member[i+1:], Args: bus.Body{Types: types, Values: values}}
		audited := bus.Call{Name: names.BusName, Path: names.BusObject, Interface: names.BusInterface + ".Bus", Member: "Call",
			Args: bus.NewBody("sossss", k.name, dbusjson.Path(k.path), k.member[:i], k.member[i+1:], k.signature, k.args)}
		for range 2 {
			callAtOnce(t, address, k.member+", bare", bare)
			callAtOnce(t, address, k.member+", through the daemon", audited)
		}
	}
}

// callAtOnce has 32 callers call for a second, and says how that went.
func callAtOnce(t *testing.T, address, name string, call bus.Call) {
	conn, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	begin := time.Now()
	for range 32 {
		wg.Go(func() {
			for time.Since(begin) < time.Second {
				start := time.Now()
				if _, err := conn.Call(t.Context(), call); err != nil {
					t.Error(name, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(took) == 0 {
		return
	}
	elapsed := time.Since(begin)
	slices.Sort(took)
	t.Logf("%s: %.0f/s by 32 callers, p50 %s, p99 %s", name, float64(len(took))/elapsed.Seconds(),
		took[len(took)/2].Round(100*time.Microsecond), took[len(took)*99/100].Round(100*time.Microsecond))
}
