//go:build linux

package ovs

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// earlier gives the switch a configuration with what people have: VLANs, a
// mirror, QoS, and ours.
func (h *host) earlier() string {
	h.t.Helper()
	_, err := h.Vsctl(strings.Fields(`add-br old0 -- set bridge old0 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:77 external_ids:note=mine
		-- add-port old0 oldp tag=5 -- set interface oldp type=internal
		-- --id=@p get port oldp -- --id=@m create mirror name=m0 select_all=true output_port=@p -- set bridge old0 mirrors=@m
		-- --id=@q create qos type=linux-htb other_config:max-rate=1000000 -- set port oldp qos=@q`)...)
	h.must(err)
	h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "ports": {"vnet9": {"type": "internal"}}, "external_ids": {"a": "1"}, "flows": {"rules": ["priority=7,actions=NORMAL"]}}}}`)
	h.setup(0, "apply")
	return h.situation()
}

// Each way in which a change can go wrong brings back what was there.
func TestNeverLockedOut(t *testing.T) {
	changed := func(h *host) {
		h.t.Helper()
		h.eventually(func() error {
			if out, err := h.In(h.NS, "ip", "-o", "-4", "addr", "show", "dev", "ovsbr0"); err != nil || !strings.Contains(out, "192.0.2.2") {
				return fmt.Errorf("%s %v", out, err)
			}
			return nil
		})
	}
	for name, wrong := range map[string]func(h *host){
		"no confirmation": func(h *host) {
			_, stderr := h.setup(0, "apply", "--confirm-timeout", "2s")
			h.contains(stderr, "is rolled back at", "hint: if all is well: gb-ovs-setup confirm")
			changed(h)
			h.must(h.reachable()) // the change itself was good
			_, stderr = h.setup(1, "apply")
			h.contains(stderr, "awaits its confirmation")
		},
		"killed": func(h *host) {
			// The probe hangs, so that it is killed with the change made.
			h.config(strings.Replace(twoBridges, "{", `{"probe": ["203.0.113.1"],`, 1))
			cmd := h.command("apply", "--confirm-timeout", "3s", "--probe-time", "30s")
			h.must(cmd.Start())
			changed(h)
			h.must(cmd.Process.Kill())
			cmd.Wait()
		},
		"probe": func(h *host) {
			h.config(strings.Replace(twoBridges, "{", `{"probe": ["192.0.2.1:1", "192.0.2.9"],`, 1))
			_, stderr := h.setup(1, "apply", "--confirm-timeout", "60s", "--probe-time", "500ms")
			h.contains(stderr, "rolled back: no answer from 192.0.2.1:1", "192.0.2.9")
		},
		"gateway": func(h *host) {
			// The flows drop ARP, as those of the system that this one replaces did.
			h.config(strings.Replace(twoBridges, `"default": true, "leak_guard": ["10.0.1.0/24"]`, `"rules": ["priority=100,arp,actions=drop", "priority=1,actions=NORMAL"]`, 1))
			_, stderr := h.setup(1, "apply", "--confirm-timeout", "60s", "--probe-time", "500ms")
			h.contains(stderr, "rolled back: no answer from the gateway 192.0.2.1")
		},
		"missing NIC": func(h *host) {
			h.config(strings.Replace(twoBridges, `"vnet0": {`, `"nosuchnic0": {}, "vnet0": {`, 1))
			_, stderr := h.setup(1, "apply", "--confirm-timeout", "60s")
			h.contains(stderr, "rolled back: the switch could not bring up nosuchnic0")
		},
		"by hand": func(h *host) {
			h.setup(0, "apply", "--confirm-timeout", "60s")
			changed(h)
			h.setup(0, "rollback")
			h.setup(4, "rollback", "--exit-code")
		},
		"by hand, the log away": func(h *host) {
			h.setup(0, "apply", "--confirm-timeout", "60s")
			changed(h)
			h.stopLog()
			h.setup(0, "rollback")
			h.startLog()
			// The next that is recorded takes along what waited.
			h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "ports": {"vnet9": {"type": "internal"}}, "external_ids": {"a": "2"}}}}`)
			h.setup(0, "apply")
			h.contains(h.events(), `"type":"ovs.rollback.outcome"`, `"spooled":true`)
			h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "ports": {"vnet9": {"type": "internal"}}, "external_ids": {"a": "1"}, "flows": {"rules": ["priority=7,actions=NORMAL"]}}}}`)
			h.setup(0, "apply")
			h.config(twoBridges)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			before := h.earlier()
			h.config(twoBridges)
			wrong(h)
			h.eventually(func() error {
				if now := h.situation(); now != before {
					return fmt.Errorf("the earlier situation is not back:\n%s", firstDifference(before, now))
				}
				return nil
			})
			h.must(h.reachable())
			h.eventually(func() error {
				if _, err := os.Stat(h.path("state/pending")); err == nil {
					return fmt.Errorf("still pending")
				}
				return nil
			})
			flows, err := h.Run("ovs-ofctl", "dump-flows", "--no-stats", "ovsbr1")
			h.must(err)
			h.contains(flows, "priority=7 actions=NORMAL")
			if _, stderr := h.setup(2, "apply"); !strings.Contains(stderr, "was rolled back") {
				t.Errorf("the configuration is not refused: %s", stderr)
			}
		})
	}
}

// Nothing was confirmed before, so that nothing but the checkpoint says which
// flows a bridge had: another's, of which ours replace some.
func TestFlowsOfAnotherComeBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	_, err := h.Vsctl(strings.Fields("add-br ovsbr1 -- set bridge ovsbr1 datapath_type=netdev")...)
	h.must(err)
	for _, flow := range []string{"cookie=0x77,priority=100,arp,actions=NORMAL", "cookie=0x78,table=3,priority=5,ip,nw_dst=10.0.1.0/24,actions=drop"} {
		_, err := h.Run("ovs-ofctl", "-O", "OpenFlow14", "add-flow", "ovsbr1", flow)
		h.must(err)
	}
	flows := func() string {
		out, err := h.Run("ovs-ofctl", "-O", "OpenFlow14", "--sort", "dump-flows", "--no-stats", "ovsbr1")
		h.must(err)
		return out
	}
	before := flows()
	h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "flows": {"rules": ["priority=100,arp,actions=drop", "priority=0,actions=drop"]}}}}`)
	h.setup(0, "apply", "--confirm-timeout", "2s")
	if changed := flows(); strings.Contains(changed, "cookie=0x77") || !strings.Contains(changed, "cookie=0x78") {
		t.Fatalf("the change is not as the test means it:\n%s", changed)
	}
	_, err = h.Run("ovs-ofctl", "-O", "OpenFlow14", "add-flow", "ovsbr1", "cookie=0x79,priority=9,ip6,actions=NORMAL") // meanwhile, by another
	h.must(err)
	h.eventually(func() error {
		if _, err := os.Stat(h.path("state/pending")); err == nil {
			return fmt.Errorf("still pending")
		}
		return nil
	})
	after := flows()
	h.contains(after, "cookie=0x79")
	_, err = h.Run("ovs-ofctl", "-O", "OpenFlow14", "del-flows", "ovsbr1", "cookie=0x79/-1")
	h.must(err)
	if after := flows(); after != before {
		t.Errorf("the flows are not back:\n%s", firstDifference(before, after))
	}
}

// Where the one that was armed to roll back is killed too, watch does it.
func TestWatchRollsBackWhatIsOverdue(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.earlier()
	watch := h.command("watch", "--every", "500ms")
	watch.Stdout, _ = os.Create(h.path("events"))
	h.background(watch)
	h.config(twoBridges)
	h.setup(0, "apply", "--confirm-timeout", "2s")
	id, err := os.ReadFile(h.path("state/pending"))
	h.must(err)
	out, err := exec.Command("pgrep", "-f", "--", "--after 2s "+strings.TrimSpace(string(id))).Output()
	h.must(err)
	armed, err := strconv.Atoi(strings.TrimSpace(string(out)))
	h.must(err)
	h.must(syscall.Kill(armed, syscall.SIGKILL))
	h.eventually(func() error {
		if now := h.situation(); now != before {
			return fmt.Errorf("the earlier situation is not back:\n%s", firstDifference(before, now))
		}
		return nil
	})
	h.eventually(func() error {
		if _, err := os.Stat(h.path("state/pending")); err == nil {
			return fmt.Errorf("still pending")
		}
		return nil
	})
	h.contains(h.events(), `"type":"ovs.rollback.outcome"`)
}

// What is confirmed stays, and boots apply it.
func TestConfirmedStays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.config(twoBridges)
	h.setup(0, "apply", "--confirm-timeout", "3s")
	h.setup(0, "confirm")
	h.contains(h.events(), `"type":"ovs.confirm"`)
	time.Sleep(3500 * time.Millisecond)
	h.setup(4, "plan", "--exit-code")
	h.must(h.reachable())
	_, stderr := h.setup(1, "confirm")
	h.contains(stderr, "no change awaits a confirmation")
	// The file changes without being applied; the boot applies what is confirmed.
	h.config(`{"bridges": {}}`)
	h.stopLog() // which a boot does not wait for
	h.boot()
	_, stderr = h.setup(0, "apply", "--boot")
	h.contains(stderr, "the configuration is not the confirmed one")
	h.startLog()
	h.must(h.reachable())
	if out, err := h.In(h.NS, "ip", "-o", "-4", "addr", "show", "dev", "ovsbr0"); err != nil || !strings.Contains(out, "192.0.2.2") {
		t.Errorf("after a boot: %s, %v", out, err)
	}
	h.setup(0, "apply") // and takes the boot's events to the log
	h.contains(h.events(), `"spooled":true`, `"boot":true`)
}

// boot is a boot of the switch's host: fresh namespace and kernel state, the
// same disk. ens1 comes up with its address, as the host's own files have it.
func (h *host) boot() {
	h.t.Helper()
	h.must(h.Script("-n " + h.wan + " link del wan0")) // the other end goes with the namespace, but not at once
	h.must(h.Boot())
	h.uplink()
	h.must(h.StartSwitch())
	h.must(os.WriteFile(h.path("boot_id"), []byte(fmt.Sprintf("%d\n", time.Now().UnixNano())), 0o644))
}

// bootCommand is gb-ovs-setup with another boot's number in /proc.
func (h *host) bootCommand(args ...string) *exec.Cmd {
	cmd := h.command(args...)
	script := `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	inner := append([]string{"/bin/sh", "-c", script, h.path("boot_id")}, cmd.Args[4:]...)
	cmd.Args = append(cmd.Args[:4:4], inner...) // ip netns exec has a mount namespace of its own
	return cmd
}

// A change that nobody has confirmed, and two boots.
func TestUnconfirmedAndBootedTwice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.situation()
	h.config(strings.Replace(twoBridges, `"default": true, "leak_guard": ["10.0.1.0/24"]`, `"rules": ["priority=100,icmp,actions=drop", "priority=1,actions=NORMAL"]`, 1))
	h.setup(0, "apply", "--confirm-timeout", "10m")
	if h.reachable() == nil {
		t.Fatal("the change locks nobody out: nothing would be shown")
	}
	for n := range 2 {
		h.boot()
		code := 2 // the file itself is refused, and nothing else was ever confirmed
		_, stderr := h.wants(code, h.bootCommand("apply", "--boot"))
		if n == 0 {
			h.contains(stderr, "a change that nobody confirmed was rolled back")
		}
		h.contains(stderr, "was rolled back")
		h.must(h.reachable())
		if now := h.situation(); now != before {
			t.Errorf("boot %d: the earlier situation is not back:\n%s", n, firstDifference(before, now))
		}
	}
	h.contains(h.events(), `"type":"ovs.rollback.outcome"`)
}
