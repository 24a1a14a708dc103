// Package netoffload switches offloads of network interfaces off, through
// safchain/ethtool (ETHTOOL_SFEATURES), and reads back what came of it, by
// itself (ETHTOOL_GFEATURES).
//
// Names are the kernel's, as ethtool -k prints the finer ones. A feature that
// the driver does not let change is fixed: it is reported and no failure.
package netoffload

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/safchain/ethtool"
)

// Profiles, from the mildest to the strictest: each has the features of those
// before it off. Keep leaves an interface alone.
const (
	Keep   = "keep"
	TCOnly = "tc-only" // flows and filters that the NIC would handle by itself, and merging below the kernel
	Safe   = "safe"    // segmentation and merging
	Strict = "strict"  // checksums and VLAN tags
)

var profiles = []struct {
	name     string
	features []string
}{
	{TCOnly, []string{"hw-tc-offload", "rx-ntuple-filter", "rx-lro", "rx-gro-hw"}},
	// Kernels learn new kinds of segmentation: 6.17 tx-tcp-accecn-segmentation.
	{Safe, []string{"tx-*-segmentation", "tx-gso-list", "tx-gso-partial", "rx-gro", "rx-gro-list", "rx-udp-gro-forwarding"}},
	{Strict, []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp", "rx-checksum",
		"rx-vlan-hw-parse", "tx-vlan-hw-insert", "rx-vlan-stag-hw-parse", "tx-vlan-stag-hw-insert"}},
}

// Checksums are the features of a sender whose frames a userspace datapath
// would pass on with half a checksum.
var Checksums = []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp"}

// Features returns what a profile has off: names, and patterns of names
// (path.Match).
func Features(profile string) []string {
	var out []string
	for _, p := range profiles {
		out = append(out, p.features...)
		if p.name == profile {
			return out
		}
	}
	return nil
}

// expand returns the names of an interface's features that patterns match.
func expand(have map[string]Feature, patterns []string) []string {
	var out []string
	for name := range have {
		if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			out = append(out, name)
		}
	}
	return out
}

// A Feature is one of an interface's.
type Feature struct {
	Active bool `json:"active"`
	Wanted bool `json:"requested"` // what was asked of the driver, if it could
	Fixed  bool `json:"fixed"`
}

// A Verdict is how an interface stands to what is wanted of it.
type Verdict struct {
	On    []string `json:"on,omitempty"`    // are active and could be off
	Fixed []string `json:"fixed,omitempty"` // are active and the driver does not let go of them
}

// Check says which features that should be off are not.
func Check(have map[string]Feature, off []string) Verdict {
	var v Verdict
	for _, name := range expand(have, off) {
		switch f := have[name]; {
		case !f.Active:
		case f.Fixed:
			v.Fixed = append(v.Fixed, name)
		default:
			v.On = append(v.On, name)
		}
	}
	slices.Sort(v.On)
	slices.Sort(v.Fixed)
	return v
}

// A RefusedError says that a driver took a change and did not do it.
type RefusedError struct {
	NIC      string
	Features []string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("offload of %s: the driver left %v as they were", e.NIC, e.Features)
}

// Set switches features of an interface and reads back: an error that is a
// *RefusedError names those that did not follow. Features that the interface
// does not have, or that are fixed, are passed over.
func Set(nic string, want map[string]bool) error {
	return set(nic, func(map[string]Feature) map[string]bool { return want })
}

// Off is Set with every feature off that the patterns match.
func Off(nic string, patterns []string) error {
	return set(nic, func(have map[string]Feature) map[string]bool {
		want := make(map[string]bool)
		for _, f := range expand(have, patterns) {
			want[f] = false
		}
		return want
	})
}

// set is Set with what choose wants of the features that the interface has.
func set(nic string, choose func(have map[string]Feature) map[string]bool) error {
	have, err := Read(nic)
	if err != nil {
		return err
	}
	change := make(map[string]bool)
	for name, on := range choose(have) {
		if f, ok := have[name]; ok && !f.Fixed && (f.Active != on || f.Wanted != on) {
			change[name] = on
		}
	}
	if len(change) == 0 {
		return nil
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("offload of %s: %w", nic, err)
	}
	defer e.Close()
	if err := e.Change(nic, change); err != nil {
		return fmt.Errorf("offload of %s: %w", nic, err)
	}
	if have, err = Read(nic); err != nil {
		return err
	}
	var refused []string
	for _, name := range slices.Sorted(maps.Keys(change)) {
		if have[name].Active != change[name] && !change[name] {
			refused = append(refused, name)
		}
	}
	if len(refused) > 0 {
		return &RefusedError{nic, refused}
	}
	return nil
}
