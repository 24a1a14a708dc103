package ovs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/netoffload"
	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
)

// An offloadTarget is an interface and what should be off about it.
type offloadTarget struct {
	link    rtnetlink.Link
	profile string
	peer    bool // the checksums of a veth's other end too
}

// offloadTargets returns the interfaces that have a profile: uplinks (safe),
// those that the file names, and veths on bridges of the userspace datapath,
// which passes on what their other end leaves without a checksum.
func offloadTargets(c *Config, s *State, links map[string]rtnetlink.Link) []offloadTarget {
	profile := make(map[string]string)
	peer := make(map[string]bool)
	for _, name := range names(c.Bridges) {
		b := c.Bridges[name]
		if up := b.uplink(); up != "" {
			profile[up] = netoffload.Safe
		}
		if b.DatapathType != "netdev" {
			continue
		}
		ports := names(b.Ports)
		if row := byName(s.Bridges, name); row != nil { // those of others too
			for _, p := range s.portsOf(row) {
				ports = append(ports, p.String("name"))
			}
		}
		for _, p := range ports {
			if links[p].Type == "veth" {
				peer[p] = true
				if profile[p] == "" {
					profile[p] = netoffload.Strict
				}
			}
		}
	}
	for nic, p := range c.Offload {
		profile[nic] = p
		if p == netoffload.Keep {
			delete(peer, nic)
		}
	}
	var out []offloadTarget
	for _, nic := range names(profile) {
		if l, ok := links[nic]; ok && profile[nic] != netoffload.Keep {
			out = append(out, offloadTarget{l, profile[nic], peer[nic]})
		}
	}
	return out
}

// An Offload is how an interface stands to its profile.
type Offload struct {
	NIC     string `json:"nic"`
	Profile string `json:"profile"`
	Peer    bool   `json:"peer,omitempty"` // of a veth, its other end
	netoffload.Verdict
}

// check reads what is on and should be off.
func (t offloadTarget) check() ([]Offload, error) {
	have, err := netoffload.Read(t.link.Name)
	if err != nil {
		return nil, err
	}
	out := []Offload{{t.link.Name, t.profile, false, netoffload.Check(have, netoffload.Features(t.profile))}}
	if !t.peer {
		return out, nil
	}
	_, err = rtnetlink.AtPeer(t.link, func(name string) error {
		have, err := netoffload.Read(name)
		if err == nil {
			out = append(out, Offload{t.link.Name, t.profile, true, netoffload.Check(have, netoffload.Checksums)})
		}
		return err
	})
	return out, err
}

// off switches off what should be off. What a driver takes as an order and does
// not follow goes to refused and is no error.
func (t offloadTarget) off(refused func(error)) error {
	pass := func(err error) error {
		var r *netoffload.RefusedError
		if errors.As(err, &r) {
			refused(err)
			return nil
		}
		return err
	}
	err := pass(netoffload.Off(t.link.Name, netoffload.Features(t.profile)))
	if t.peer {
		_, perr := rtnetlink.AtPeer(t.link, func(name string) error { return netoffload.Off(name, netoffload.Checksums) })
		err = errors.Join(err, pass(perr))
	}
	return err
}

// checkOffload returns how every target stands. Interfaces that vanish while
// it looks are left out.
func checkOffload(targets []offloadTarget) ([]Offload, error) {
	var out []Offload
	var errs []error
	for _, t := range targets {
		o, err := t.check()
		if err != nil {
			if _, gone := rtnetlink.Get(t.link.Name); errors.Is(gone, rtnetlink.ErrNoLink) {
				continue
			}
			errs = append(errs, err)
		}
		out = append(out, o...)
	}
	return out, errors.Join(errs...)
}

// settledOffload says whether a survey has seen that nothing is to be switched
// off about a target.
func (v *Survey) settledOffload(t offloadTarget) bool {
	near, far := false, !t.peer
	for _, o := range v.Offload {
		if o.NIC != t.link.Name || o.Profile != t.profile {
			continue
		}
		if len(o.On) > 0 {
			return false
		}
		near, far = near || !o.Peer, far || o.Peer
	}
	return near && far
}

// planOffload adds what is on and should be off to a plan.
func (p *Plan) planOffload(list []Offload) {
	for _, o := range list {
		name := o.NIC
		if o.Peer {
			name += " (other end)"
		}
		if len(o.On) > 0 {
			f := make(map[string]*Delta)
			for _, feature := range o.On {
				f[feature] = &Delta{true, false}
			}
			p.Changes = append(p.Changes, Change{Action: "update", Kind: "offload", Name: name, Fields: f})
		}
		if len(o.Fixed) > 0 {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s: the driver does not let go of %v [fixed]", name, o.Fixed))
		}
	}
}

// upLinks returns the interfaces that must be up: uplinks, bridges' own ports,
// internal ports.
func upLinks(c *Config) []string {
	var out []string
	for _, name := range names(c.Bridges) {
		out = append(out, name)
		for _, port := range names(c.Bridges[name].Ports) {
			if t := c.Bridges[name].Ports[port].Type; t == "uplink" || t == "internal" {
				out = append(out, port)
			}
		}
	}
	return out
}

// planLinks adds links that are down, and addresses that are on an uplink
// instead of its bridge.
func (p *Plan) planLinks(c *Config, s *State, links map[string]rtnetlink.Link) error {
	for _, name := range upLinks(c) {
		l, there := links[name]
		if !there && byName(s.Interfaces, name) != nil || there && l.Up {
			continue // one that the switch has not made is a fault, not a change
		}
		if !there && !p.creates(name) {
			continue
		}
		p.Changes = append(p.Changes, Change{Action: "update", Kind: "link", Name: name, Fields: map[string]*Delta{"up": {false, true}}})
	}
	for _, ch := range p.Changes {
		if _, there := links[ch.Name]; ch.Kind != "bridge" || ch.Action != "delete" || !there {
			continue
		}
		addresses, err := rtnetlink.Addresses(ch.Name)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s goes, and its address %s with it", ch.Name, a.CIDR))
		}
	}
	for _, name := range names(c.Bridges) {
		up := c.Bridges[name].uplink()
		if _, there := links[up]; !there {
			continue
		}
		addresses, err := rtnetlink.Addresses(up)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			p.Changes = append(p.Changes, Change{Action: "move", Kind: "address", Name: a.CIDR.String(),
				Fields: map[string]*Delta{"link": {up, name}}})
		}
	}
	return nil
}

// creates says whether the plan makes an internal port called name.
func (p *Plan) creates(name string) bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool {
		return c.Action == "create" && c.Kind == "port" && c.Name == name && c.Fields["type"] != nil && c.Fields["type"].To == "internal"
	})
}

// moveAddresses moves addresses and routes from one link to another. The new
// place has an address before the old one loses it; what follows takes
// milliseconds.
func moveAddresses(from, to string) (moved int, err error) {
	addresses, err := rtnetlink.Addresses(from)
	if err != nil || len(addresses) == 0 {
		return 0, err
	}
	routes, err := rtnetlink.Routes(from)
	if err != nil {
		return 0, err
	}
	if err := rtnetlink.SetUp(to, true); err != nil {
		return 0, err
	}
	for _, a := range addresses {
		a.Label = ""
		if err := rtnetlink.AddAddress(to, a); err != nil {
			return 0, err
		}
	}
	for _, a := range addresses { // takes the routes with it
		if err := rtnetlink.RemoveAddress(from, a); err != nil {
			return 0, err
		}
	}
	for _, r := range routes {
		rtnetlink.RemoveRoute(from, r)
		if err := rtnetlink.AddRoute(to, r); err != nil {
			return 0, err
		}
	}
	return len(addresses), nil
}

// A LinkState is what a checkpoint keeps of a link.
type LinkState struct {
	rtnetlink.Link
	Addresses []rtnetlink.Address `json:"addresses"`
	Routes    []rtnetlink.Route   `json:"routes"`
	Features  map[string]bool     `json:"features,omitempty"` // those that a driver lets change
}

func readLink(name string) (*LinkState, error) {
	l, err := rtnetlink.Get(name)
	if err != nil {
		return nil, err
	}
	st := &LinkState{Link: l, Features: make(map[string]bool)}
	if st.Addresses, err = rtnetlink.Addresses(name); err != nil {
		return nil, err
	}
	if st.Routes, err = rtnetlink.Routes(name); err != nil {
		return nil, err
	}
	features, err := netoffload.Read(name)
	if err != nil {
		return nil, err
	}
	for f, x := range features {
		if !x.Fixed {
			st.Features[f] = x.Active
		}
	}
	return st, nil
}

// restoreLinks puts links back as they were. First all addresses that should
// not be there go, then come those that should: an address may have moved.
func restoreLinks(states []*LinkState) error {
	var errs []error
	try := func(err error) {
		if err != nil && !errors.Is(err, rtnetlink.ErrNoLink) {
			errs = append(errs, err)
		}
	}
	for _, st := range states {
		if _, err := rtnetlink.Get(st.Name); err != nil {
			try(err)
			continue
		}
		have, err := rtnetlink.Addresses(st.Name)
		try(err)
		for _, a := range have {
			if !slices.ContainsFunc(st.Addresses, func(b rtnetlink.Address) bool { return a.CIDR == b.CIDR }) {
				try(rtnetlink.RemoveAddress(st.Name, a))
			}
		}
	}
	for _, st := range states {
		now, err := rtnetlink.Get(st.Name)
		if err != nil {
			try(err)
			continue
		}
		if now.MTU != st.MTU {
			try(rtnetlink.SetMTU(st.Name, st.MTU))
		}
		if now.Up != st.Up {
			try(rtnetlink.SetUp(st.Name, st.Up))
		}
		for _, a := range st.Addresses {
			try(rtnetlink.AddAddress(st.Name, a))
		}
		if !st.Up {
			continue
		}
		have, err := rtnetlink.Routes(st.Name)
		try(err)
		for _, r := range have {
			if !slices.Contains(st.Routes, r) {
				try(rtnetlink.RemoveRoute(st.Name, r))
			}
		}
		for _, r := range st.Routes {
			try(rtnetlink.AddRoute(st.Name, r))
		}
		try(netoffload.Set(st.Name, st.Features))
	}
	return errors.Join(errs...)
}

// factsOf is what a plan needs to know of links.
func factsOf(links map[string]rtnetlink.Link) Facts {
	f := Facts{MACs: make(map[string]string, len(links))}
	for name, l := range links {
		if l.MAC != "" {
			f.MACs[name] = l.MAC
		}
	}
	return f
}
