//go:build linux

package ovs

import (
	"strings"
	"testing"
)

// A profile has off what it names, and no more; what a driver does not let go
// of is reported.
func TestOffloadProfiles(t *testing.T) {
	h := newHost(t)
	for _, nic := range []string{"nic0", "nic1", "nic2", "nic3"} {
		h.must(h.Link(nic, h.wan, "far-"+nic))
		_, err := h.In(h.NS, "ethtool", "-K", nic, "gro", "on", "gso", "on", "tso", "on", "tx", "on", "rx", "on", "txvlan", "on")
		h.must(err)
	}
	h.config(`{"bridges": {"ovsbr1": {"datapath_type": "netdev"}}, "offload": {"nic0": "tc-only", "nic1": "safe", "nic2": "strict", "nic3": "keep", "lo": "strict"}}`)
	out, _ := h.setup(0, "apply")
	h.contains(out, "warning: lo: the driver does not let go of [", "tx-checksum-ip-generic", "[fixed]")
	for nic, want := range map[string]map[string]bool{
		"nic0": {"tcp-segmentation-offload": true, "generic-segmentation-offload": true, "generic-receive-offload": true, "tx-checksumming": true, "tx-vlan-offload": true},
		"nic1": {"tcp-segmentation-offload": false, "generic-segmentation-offload": false, "generic-receive-offload": false, "tx-checksumming": true, "tx-vlan-offload": true},
		"nic2": {"tcp-segmentation-offload": false, "generic-segmentation-offload": false, "generic-receive-offload": false, "tx-checksumming": false, "tx-vlan-offload": false},
		"nic3": {"tcp-segmentation-offload": true, "generic-segmentation-offload": true, "generic-receive-offload": true, "tx-checksumming": true, "tx-vlan-offload": true},
	} {
		out, err := h.In(h.NS, "ethtool", "-k", nic)
		h.must(err)
		for feature, on := range want {
			state := "off"
			if on {
				state = "on"
			}
			if !strings.Contains(out, "\n"+feature+": "+state) {
				t.Errorf("%s: %s is not %s", nic, feature, state)
			}
		}
	}
	out, _ = h.setup(0, "status", "--json", "--exit-code") // what is fixed is no fault
	h.contains(out, `{"nic":"nic1","profile":"safe"}`, `{"nic":"nic2","profile":"strict"}`, `"nic":"lo","profile":"strict","fixed":["`)
	if strings.Contains(out, "nic3") {
		t.Errorf("what is to be kept is looked at: %s", out)
	}
}
