//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A fault is something that a boot finds broken.
type fault struct {
	name  string
	short bool              // in make test, too
	limit time.Duration     // how much longer a boot may be than with nothing broken
	noNIC bool              // it boots without ens1
	do    func(*host)       // while it still runs; then its power is cut
	says  map[string]string // what the journal of a unit has to say about it
	check func(*host)       // how the host is meanwhile
	mend  func(*host)       // while it runs
}

// Where Debian has the switch and its database.
const (
	vswitchd = "/usr/lib/openvswitch-switch/ovs-vswitchd"
	database = "/var/lib/openvswitch/conf.db"
)

// What stands in for a program that is broken still says its version: ovs-ctl
// asks for that before anything else.
const brokenSwitch = `#!/bin/sh
[ "$1" != --version ] || exec ` + vswitchd + `.away --version
echo "ovs-vswitchd: this one is broken" >&2
`

// move renames a file of the disk, which is there while nothing runs, too.
func (h *host) move(from, to string) {
	h.t.Helper()
	if err := os.Rename(filepath.Join(h.d.root, from), filepath.Join(h.d.root, to)); err != nil {
		h.t.Fatal(err)
	}
}

// instead puts another file where one is, which is moved away.
func (h *host) instead(path, text string) {
	h.t.Helper()
	h.move(path, path+".away")
	if err := os.WriteFile(filepath.Join(h.d.root, path), []byte(text), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// bootFaults boots with one thing broken after another. Each boot reaches
// multi-user.target within a time that has a limit, says what is wrong, and
// leaves the host reachable where it can be; with the fault mended, without
// another boot, bridges, log and index are as they should be.
func bootFaults(t *testing.T, h *host) {
	onNIC := func(h *host) { h.reached(names.UplinkInterface, names.UplinkBridge) }
	bridgesAgain := func(h *host) {
		h.run("systemctl", "daemon-reload")
		h.run("systemctl", "reset-failed")
		h.run("systemctl", "restart", "ovsdb-server.service")
		h.run("systemctl", "restart", "openvswitch.service")
		h.run("systemctl", "restart", "ovs-bridge-setup.service") // the README's
	}
	noSwitch := map[string]string{"ovs-bridge-setup.service": "hint: is ovs-vswitchd running?"}
	noDatabase := map[string]string{"ovs-bridge-setup.service": "hint: is ovsdb-server running?"}
	for _, f := range []fault{
		{name: "the switch is masked", limit: 5 * time.Second,
			do: func(h *host) { h.run("systemctl", "mask", "ovs-vswitchd.service") }, says: noSwitch, check: onNIC,
			mend: func(h *host) { h.run("systemctl", "unmask", "ovs-vswitchd.service"); bridgesAgain(h) }},
		{name: "the switch ends at once", short: true, limit: 5 * time.Second,
			do: func(h *host) { h.instead(vswitchd, brokenSwitch+"exit 1\n") }, says: noSwitch, check: onNIC,
			mend: func(h *host) { h.move(vswitchd+".away", vswitchd); bridgesAgain(h) }},
		// It is waited for until it has hung twice: the first time the network
		// comes, the second time all that comes after network.target.
		{name: "the switch never answers", limit: 150 * time.Second,
			do: func(h *host) { h.instead(vswitchd, brokenSwitch+"exec sleep infinity\n") }, says: noSwitch, check: onNIC,
			mend: func(h *host) { h.move(vswitchd+".away", vswitchd); bridgesAgain(h) }},
		{name: "the switch's database is broken", limit: 5 * time.Second,
			do: func(h *host) { h.instead(database, strings.Repeat("broken\n", 100)) }, says: noDatabase, check: onNIC,
			mend: func(h *host) { h.move(database+".away", database); bridgesAgain(h) }},
		{name: "the NIC is missing", short: true, noNIC: true, limit: 20 * time.Second,
			says: map[string]string{"ovs-bridge-setup.service": "ens1"},
			check: func(h *host) {
				h.eventually("the gateway", func() string {
					if have := h.address(names.InternalBridge); have != names.InternalGateway {
						return fmt.Sprintf("%s has %q", names.InternalBridge, have)
					}
					return ""
				})
			},
			mend: func(h *host) {
				h.o.insert(h.t)
				h.run("systemctl", "restart", "ovs-bridge-setup.service")
			}},
		{name: "the disk is full", short: true, limit: 5 * time.Second,
			do: func(h *host) { h.fill() }, check: func(h *host) { h.onBridges() },
			mend: func(h *host) {
				h.drain()
				h.run("systemctl", "reset-failed") // such as systemd-update-utmp.service
			}},
	} {
		if t.Failed() {
			return
		}
		if !long && !f.short {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			if f.do != nil {
				f.do(h)
			}
			h.reboot(t, !f.noNIC)
			t.Logf("boot: %s; with nothing broken %s, without us %s", h.booted.Round(time.Millisecond), h.good.Round(time.Millisecond), h.bare.Round(time.Millisecond))
			if longer := h.booted - h.good; longer > span(f.limit, f.limit+10*time.Second) { // the machine is busy
				t.Errorf("%s longer than with nothing broken, want %s at most", longer, f.limit)
			}
			if state := h.property("multi-user.target", "ActiveState"); state != "active" {
				t.Errorf("multi-user.target is %s", state)
			}
			t.Logf("failed: %s", h.run("systemctl", "list-units", "--failed", "--plain", "--no-legend"))
			for unit, want := range f.says {
				out := h.run("journalctl", "--boot", "--no-pager", "--output=cat", "--unit="+unit)
				if !strings.Contains(out, want) {
					t.Errorf("%s does not say %q:\n%s", unit, want, out)
				}
			}
			f.check(h)
			f.mend(h)
			h.onBridges()
			h.converge()
			h.healthy()
		})
	}
}
