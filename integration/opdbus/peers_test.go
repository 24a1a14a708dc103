//go:build linux

package opdbus

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

const peersPolicy = `{"version":1,"per_minute":100000,"rules":[
 {"id":"units","name":"org.freedesktop.systemd1","members":["StartUnit"],"args":{"0":"mock.service"},"effect":"allow"},
 {"id":"time","name":"org.freedesktop.timedate1","members":["SetTimezone"],"effect":"allow"},
 {"id":"login","name":"org.freedesktop.login1","members":["LockSessions","PowerOff"],"effect":"allow"},
 {"id":"radio","name":"org.freedesktop.NetworkManager","kind":"set","members":["WirelessEnabled"],"effect":"allow"}]}`

// The services that a host has, as python-dbusmock plays them, behind our
// shipped policy of the bus: asked by root and by nobody, with each answer that
// polkit has, and without polkit.
func TestPeers(t *testing.T) {
	r := newRig(t, peersPolicy)
	for name, template := range map[string]string{"org.freedesktop.systemd1": "systemd", "org.freedesktop.login1": "logind", "org.freedesktop.timedate1": "timedated", "org.freedesktop.NetworkManager": "networkmanager"} {
		privatebus.Mock(t, r.address, name, template)
	}
	const nm = "/org/freedesktop/NetworkManager"
	r.must("gdbus", "call", "--address", r.address, "--dest", "org.freedesktop.systemd1", "--object-path", "/org/freedesktop/systemd1", "--method", "org.freedesktop.DBus.Mock.AddMockUnit", "mock.service")
	r.start()
	property := func(name, path, iface, property string) string {
		t.Helper()
		return strings.TrimSpace(r.must("busctl", "--address="+r.address, "get-property", name, path, iface, property))
	}
	peers := []struct {
		what  string
		do    func(uid uint32, n int) (string, error)
		state func() string // what the call changes
		after string        // the state then; %d is n
	}{
		{"systemd1 StartUnit", func(uid uint32, _ int) (string, error) {
			return r.busctl(uid, "Bus", "Call", "sossss", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartUnit", "ss", `["mock.service","replace"]`)
		}, func() string {
			return property("org.freedesktop.systemd1", "/org/freedesktop/systemd1/unit/mock_service", "org.freedesktop.systemd1.Unit", "ActiveState")
		}, `s "active"`},
		{"timedate1 SetTimezone", func(uid uint32, n int) (string, error) {
			return r.busctl(uid, "Bus", "Call", "sossss", "org.freedesktop.timedate1", "/org/freedesktop/timedate1", "org.freedesktop.timedate1", "SetTimezone", "sb", fmt.Sprintf(`["Etc/GMT-%d",false]`, n))
		}, func() string {
			return property("org.freedesktop.timedate1", "/org/freedesktop/timedate1", "org.freedesktop.timedate1", "Timezone")
		}, `s "Etc/GMT-%d"`},
		{"login1 LockSessions", func(uid uint32, _ int) (string, error) {
			return r.busctl(uid, "Bus", "Call", "sossss", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "LockSessions", "", "[]")
		}, func() string { return "" }, ""},
		{"NetworkManager WirelessEnabled", func(uid uint32, n int) (string, error) {
			return r.busctl(uid, "Bus", "Call", "sossss", "org.freedesktop.NetworkManager", nm, "org.freedesktop.DBus.Properties", "Set", "ssv",
				fmt.Sprintf(`["org.freedesktop.NetworkManager","WirelessEnabled",{"t":"b","v":%t}]`, n%2 == 0))
		}, func() string {
			return property("org.freedesktop.NetworkManager", nm, "org.freedesktop.NetworkManager", "WirelessEnabled")
		}, ""},
	}
	var mark int64
	refused := func(polkit, want string) {
		t.Helper()
		for _, uid := range []uint32{0, nobody} {
			for _, p := range peers {
				before := p.state()
				out, err := p.do(uid, 9)
				r.expect(fmt.Sprintf("%s by uid %d, %s", p.what, uid, polkit), out, err, false, want)
				if now := p.state(); now != before {
					t.Errorf("%s by uid %d, %s: it was done: %s, before %s", p.what, uid, polkit, now, before)
				}
				if got := r.types(&mark); got != "refused" {
					t.Errorf("%s by uid %d, %s: events %s", p.what, uid, polkit, got)
				}
			}
		}
	}
	refused("no polkit", "polkit can't be asked")
	challenge := privatebus.Run(t, "ready", nil, privatebus.Python, "testdata/polkit_challenge.py", r.address)
	refused("challenge", "wants a person's password")
	challenge.Process.Signal(syscall.SIGTERM)
	challenge.Wait()
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	refused("deny", "does not authorise")
	r.allow(opdbus.PolkitCall, opdbus.PolkitSet)
	for n, uid := range []uint32{0, nobody} {
		for _, p := range peers {
			out, err := p.do(uid, n+1)
			r.expect(fmt.Sprintf("%s by uid %d", p.what, uid), out, err, true, "")
			want := strings.ReplaceAll(p.after, "%d", fmt.Sprint(n+1))
			if p.what == "NetworkManager WirelessEnabled" {
				want = fmt.Sprintf("b %t", n%2 == 1)
			}
			if got := p.state(); got != want {
				t.Errorf("after %s by uid %d: %s, want %s", p.what, uid, got, want)
			}
			if got := r.types(&mark); got != "intent outcome" {
				t.Errorf("%s by uid %d: events %s", p.what, uid, got)
			}
		}
	}
	// A rule that allows does not make what ends the host an everyday thing.
	out, err := r.busctl(0, "Bus", "Call", "sossss", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "PowerOff", "b", "[false]")
	r.expect("PowerOff", out, err, false, "needs a person's approval")
}
