//go:build linux

package ovs

import (
	"os"
	"testing"
)

// A flow that ovs-ofctl can't read is found before anything is changed, on a
// bridge that is there and on one that is not, and named as in the file.
func TestWrongFlowsChangeNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev"}}}`)
	h.setup(0, "apply")
	before := h.nextCfg()
	for _, bridge := range []string{"ovsbr0", "ovsbr1"} {
		h.config(`{"bridges": {"` + bridge + `": {"datapath_type": "netdev",
			"flows": {"default": true, "rules": ["priority=7,ip,actions=drop", "priority=5,tcp,tp_dst=22,actions=bogus"]}}}}`)
		for _, command := range []string{"plan", "apply"} {
			_, stderr := h.setup(2, command)
			h.contains(stderr, "bridges."+bridge+".flows.rules[1]: unknown action bogus")
		}
	}
	if now := h.nextCfg(); now != before {
		t.Errorf("the configuration's number went from %s to %s", before, now)
	}
}

// What a broken disk may leave of our state: each command says what is lost
// and how to go on, and a boot goes on by itself.
func TestLostState(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.config(`{"bridges": {"ovsbr0": {"datapath_type": "netdev"}}}`)
	h.setup(0, "apply")
	h.must(os.WriteFile(h.path("state/pending"), []byte("20260101T000000Z-abcdef\n"), 0o600))
	_, stderr := h.setup(1, "apply")
	h.contains(stderr, "awaits its confirmation")
	for _, command := range []string{"confirm", "rollback"} {
		_, stderr := h.setup(1, command)
		h.contains(stderr, `checkpoint "20260101T000000Z-abcdef"`, "hint: what was there before is lost; gb-ovs-setup apply --boot")
	}
	stdout, _ := h.setup(1, "status", "--exit-code")
	h.contains(stdout, `problem: checkpoint "20260101T000000Z-abcdef"`)
	_, err := h.Vsctl("del-br", "ovsbr0")
	h.must(err)
	_, stderr = h.setup(0, "apply", "--boot")
	h.contains(stderr, "can't be rolled back")
	h.contains(h.events(), `"type":"ovs.rollback.outcome"`, "could not be rolled back")
	stdout, _ = h.setup(0, "status", "--exit-code")
	h.contains(stdout, "healthy")

	h.must(os.WriteFile(h.path("state/confirmed.json"), []byte(`{"hash": "x", "config": {"bridges": {}, "of another version": 1}}`), 0o600))
	_, stderr = h.setup(2, "apply", "--boot")
	h.contains(stderr, "confirmed configuration", "hint: gb-ovs-setup apply makes it anew")
	stdout, _ = h.setup(1, "status", "--exit-code")
	h.contains(stdout, "problem: confirmed configuration: ")
	h.setup(0, "apply")
	h.setup(4, "apply", "--boot", "--exit-code")
	h.setup(0, "status", "--exit-code")
}
