//go:build linux

package ovs

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

const twoBridges = `{"bridges": {
	"ovsbr0": {"datapath_type": "netdev", "ports": {"ens1": {"type": "uplink"}}, "flows": {"default": true, "leak_guard": ["10.0.1.0/24"]}},
	"ovsbr1": {"datapath_type": "netdev", "ports": {"vnet0": {"type": "internal", "tag": 7, "mtu": 1400}}, "flows": {"default": true, "isolate": ["ovsbr0"]}}}}`

// A second apply changes nothing, and what is there is what was asked for.
func TestApplyTwice(t *testing.T) {
	h := newHost(t)
	h.config(twoBridges)
	out, _ := h.setup(0, "plan", "--exit-code")
	h.contains(out, "+ bridge ovsbr0\n", "+ port ens1 on ovsbr0\n", "> address 192.0.2.2/24\n", "tx-tcp-segmentation: true -> false", "~ flows ovsbr1\n")
	again, _ := h.setup(0, "apply")
	if again != out {
		t.Errorf("apply printed another plan than plan:\n%s\n%s", again, out)
	}
	before := h.nextCfg()
	situation := h.situation()
	for range 2 {
		out, _ = h.setup(4, "apply", "--exit-code")
		h.contains(out, "nothing to do")
	}
	out, _ = h.setup(4, "plan", "--exit-code", "--json")
	h.contains(out, `{"changes":[]}`)
	if after := h.nextCfg(); after != before {
		t.Errorf("applies that had nothing to do made transactions: next_cfg %s, then %s", before, after)
	}
	if h.situation() != situation {
		t.Error("applies that had nothing to do changed something")
	}
	h.must(h.reachable())
	for query, want := range map[string]string{
		"get Bridge ovsbr0 fail_mode":              "standalone",
		"get Bridge ovsbr1 fail_mode":              "secure",
		"get Port vnet0 tag":                       "7",
		"get Interface vnet0 mtu":                  "1400",
		"get Open_vSwitch . other_config":          "{hw-offload=\"false\"}",
		"get Interface ens1 external_ids:gb-owner": "gb-ovs-setup",
	} {
		out, err := h.Vsctl(strings.Fields(query)...)
		h.must(err)
		if strings.TrimSpace(out) != want {
			t.Errorf("%s: %s, want %s", query, out, want)
		}
	}
	events := h.events()
	h.contains(events, `"type":"ovs.apply.intent"`, `"type":"ovs.apply.outcome"`, `"ok":true`)
	if n := strings.Count(events, `"type":"ovs.apply.intent"`); n != 1 {
		t.Errorf("%d intents of one change", n)
	}
	// Drift is found and mended: a port that somebody took off.
	_, err := h.Vsctl("del-port", "vnet0")
	h.must(err)
	out, _ = h.setup(0, "apply")
	h.contains(out, "+ port vnet0 on ovsbr1")
	// And what is no longer wanted goes.
	h.config(strings.Replace(twoBridges, `"vnet0": {"type": "internal", "tag": 7, "mtu": 1400}`, "", 1))
	out, _ = h.setup(0, "apply")
	h.contains(out, "- port vnet0 on ovsbr1\n")
}

// ovs-vsctl reports success for a NIC that is not there; apply does not.
func TestMissingNIC(t *testing.T) {
	h := newHost(t)
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev", "ports": {"nosuchnic0": {"type": "uplink"}}}}}`)
	out, stderr := h.setup(1, "apply")
	h.contains(out, "warning: nosuchnic0, the uplink of ovsbr0, is not there")
	h.contains(stderr, "nosuchnic0: could not open network device nosuchnic0 (No such device)")
	_, stderr = h.setup(1, "apply") // and again, although nothing is left to change
	h.contains(stderr, "nosuchnic0")
	if _, err := h.Run("ovs-vsctl", "--timeout=5", "--db="+h.DB, "--may-exist", "add-port", "ovsbr0", "nosuchnic1"); err != nil {
		t.Errorf("ovs-vsctl has learnt to fail: %v", err)
	}
}

// What others have put there stays, and is reported.
func TestForeignRowsStay(t *testing.T) {
	h := newHost(t)
	for _, argv := range []string{
		"add-br theirs -- set bridge theirs datapath_type=netdev external_ids:who=them",
		"set Open_vSwitch . external_ids:system-id=abc other_config:their-key=1",
	} {
		_, err := h.Vsctl(strings.Fields(argv)...)
		h.must(err)
	}
	h.config(twoBridges)
	h.setup(0, "apply")
	_, err := h.Vsctl(strings.Fields("add-port ovsbr1 tap9 -- set interface tap9 type=internal external_ids:vm-id=x -- set bridge ovsbr1 external_ids:theirs=2")...)
	h.must(err)
	out, _ := h.setup(4, "apply", "--exit-code")
	h.contains(out, "! bridge theirs is not ours and stays", "! port tap9 on ovsbr1 is not ours and stays")
	// The bridge is no longer wanted, but somebody's port is on it.
	h.config(`{"bridges": {}}`)
	out, _ = h.setup(0, "apply")
	h.contains(out, "- bridge ovsbr0\n", "! bridge ovsbr1 is not ours and stays: is no longer wanted, but has 1 ports of others", "- port vnet0 on ovsbr1")
	list, err := h.Vsctl("list-br")
	h.must(err)
	if list != "ovsbr1\ntheirs\n" {
		t.Errorf("bridges are %q", list)
	}
	out, err = h.Vsctl("get", "Open_vSwitch", ".", "external_ids", "other_config")
	h.must(err)
	h.contains(out, "system-id=abc", `their-key="1"`)
	// A port of somebody else's bridge is not taken.
	_, err = h.Vsctl(strings.Fields("add-port theirs p1 -- set interface p1 type=internal")...)
	h.must(err)
	h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "ports": {"p1": {"type": "internal"}}}}}`)
	_, stderr := h.setup(1, "apply")
	h.contains(stderr, "p1: is a port of theirs that is not ours", "hint: take it off first")
}

// Checksum offload over a userspace datapath breaks TCP while ping works.
// Applying the bridges mends it.
func TestTCPFailsBeforeAndWorksAfter(t *testing.T) {
	h := newHost(t)
	var vms []string
	for i, name := range []string{"va", "vb"} {
		ns, err := h.Namespace()
		h.must(err)
		h.must(h.Link(name, ns, "eth0"))
		h.must(h.Script(fmt.Sprintf("-n %s addr add 10.0.1.%d/24 dev eth0", ns, 11+i)))
		vms = append(vms, ns)
	}
	// As it is without us.
	_, err := h.Vsctl(strings.Fields("add-br ovsbr1 -- set bridge ovsbr1 datapath_type=netdev -- add-port ovsbr1 va -- add-port ovsbr1 vb")...)
	h.must(err)
	h.eventually(func() error { _, err := h.In(vms[0], "ping", "-c", "1", "-W", "1", "10.0.1.12"); return err })
	if err := vswitch.Transfer(vms[0], vms[1], "10.0.1.12", 1<<20, 2*time.Second); err == nil {
		t.Fatal("TCP works without us: the fault is not reproduced, so nothing would be shown")
	}
	h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev", "ports": {"va": {}, "vb": {}}}}}`)
	out, _ := h.setup(0, "apply")
	h.contains(out, "~ offload va (other end)", "tx-checksum-ip-generic: true -> false", "~ bridge ovsbr1 (was not ours)")
	h.must(vswitch.Transfer(vms[0], vms[1], "10.0.1.12", 64<<20, 30*time.Second))
	h.setup(4, "apply", "--exit-code")
	// A driver that was reset, as it looks from here.
	_, err = h.In(vms[0], "ethtool", "-K", "eth0", "tx", "on")
	h.must(err)
	out, _ = h.setup(0, "apply")
	h.contains(out, "~ offload va (other end)")
}

// No database, no answer, a dead switch: each a clear error in time.
func TestFaultsEndInTime(t *testing.T) {
	h := newHost(t)
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev"}}}`)
	timed := func(code int, args ...string) string {
		t.Helper()
		begin := time.Now()
		_, stderr := h.setup(code, args...)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%v took %s", args, took)
		}
		return stderr
	}
	h.StopSwitch()
	h.contains(timed(1, "apply", "--timeout", "1s"), "ovs-vswitchd has not taken the change after ", "hint: is ovs-vswitchd running?")
	h.ContinueSwitch()
	h.setup(0, "apply")
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev", "flows": {"default": true}}}}`)
	h.StopSwitch()
	h.contains(timed(1, "apply", "--timeout", "1s"), "ovs-vswitchd")
	h.ContinueSwitch()
	h.setup(0, "apply")
	h.StopDB()
	h.contains(timed(1, "plan", "--timeout", "1s"), "no answer to transact", "hint: is ovsdb-server well?")
	h.contains(timed(1, "apply", "--timeout", "1s"), "no answer to transact")
	h.contains(timed(1, "apply", "--boot", "--timeout", "1s"), "no answer to transact")
	timed(1, "status", "--exit-code", "--timeout", "1s")
	h.ContinueDB()
	h.setup(4, "apply", "--exit-code")
	h.KillSwitch()
	h.config(`{"bridges": {}}`)
	h.contains(timed(1, "apply", "--boot=false", "--timeout", "1s"), "has not taken the change")
	h.KillDB()
	h.contains(timed(1, "apply", "--timeout", "1s"), "connect: no such file or directory", "hint: is ovsdb-server running?")
	h.contains(timed(1, "apply", "--boot", "--timeout", "1s"), "connect: no such file")
	h.must(os.WriteFile(filepath.Join(h.Dir, "db.sock"), []byte("no socket"), 0o644))
	h.contains(timed(1, "plan", "--timeout", "1s"), "connect: connection refused")
}

// A database that is not the switch's, or not yet: each has an error that says
// so.
func TestBadDatabases(t *testing.T) {
	h := newHost(t)
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev"}}}`)
	_, err := h.Run("ovsdb-client", "transact", h.DB, `["Open_vSwitch", {"op": "delete", "table": "Open_vSwitch", "where": []}]`)
	h.must(err)
	for _, command := range []string{"plan", "apply"} {
		_, stderr := h.setup(1, command)
		h.contains(stderr, "the Open_vSwitch table is empty: the switch has never been started on this database", "hint: ")
	}
	h.KillSwitch()
	h.KillDB()
	// Another schema.
	schema := h.path("other.ovsschema")
	h.must(os.WriteFile(schema, []byte(`{"name": "Other", "version": "1.0.0", "tables": {"T": {"columns": {"a": {"type": "string"}}}}}`), 0o644))
	_, err = h.Run("ovsdb-tool", "create", h.path("other.db"), schema)
	h.must(err)
	other := exec.Command("ovsdb-server", h.path("other.db"), "--remote=p"+h.DB, "--unixctl="+h.path("other.ctl"), "-vconsole:off")
	stop := h.background(other)
	h.eventually(func() error { _, err := os.Stat(filepath.Join(h.Dir, "db.sock")); return err })
	_, stderr := h.setup(1, "apply")
	h.contains(stderr, "unknown database")
	stop()
	os.Remove(filepath.Join(h.Dir, "db.sock"))
	// Something else altogether, that never ends its answer.
	l, err := net.Listen("unix", filepath.Join(h.Dir, "db.sock"))
	h.must(err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					if _, err := c.Write([]byte(`{"result":[[[[[[`)); err != nil {
						return
					}
				}
			}()
		}
	}()
	begin := time.Now()
	_, stderr = h.setup(1, "apply", "--timeout", "1s")
	h.contains(stderr, "database at unix:")
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("an endless answer took %s", took)
	}
}

// Where the log does not take the intent, nothing is done.
func TestUnrecordedIsNotDone(t *testing.T) {
	h := newHost(t)
	h.stopLog()
	h.config(twoBridges)
	before := h.situation()
	_, stderr := h.setup(75, "apply")
	h.contains(stderr, "nothing was changed, since it can't be recorded", "hint: is gb-chain serve running?")
	h.setup(75, "apply", "--confirm-timeout", "5s")
	if h.situation() != before {
		t.Error("something was changed")
	}
}
