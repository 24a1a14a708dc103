package ovs

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/openflow"
)

// The priorities of our flows; those of rules are the file's own.
const (
	prioIsolate = 40000 // frames between isolated bridges
	prioLeak    = 39000 // addresses that may not appear
	prioKeep    = 30000 // what a host can't live without
	prioLimit   = 20000 // other broadcast and multicast
	prioSwitch  = 0     // the rest
)

const defaultBroadcastLimit = 1000 // frames a second

// FlowSets are the flows that bridges should have, by bridge.
type FlowSets map[string]FlowSet

// A FlowSet is a bridge's flows and the rate of its meter in frames a second, 0
// for none.
type FlowSet struct {
	Flows []openflow.Flow
	Rate  int
}

// WantedFlows returns the flows of every bridge that has some. They depend on
// the patch ports that are there, also those of others, and so on a State read
// after the switch has made them.
func WantedFlows(c *Config, s *State) FlowSets {
	sets := make(FlowSets)
	add := func(bridge string, table, priority int, match, actions string) {
		f := openflow.Flow{Table: table, Priority: priority, Match: match, Actions: actions}
		sum := sha256.Sum256([]byte(f.String()))
		f.Cookie = openflow.CookiePrefix | binary.BigEndian.Uint64(sum[:])>>16
		set := sets[bridge]
		if !slices.Contains(set.Flows, f) {
			set.Flows = append(set.Flows, f)
		}
		sets[bridge] = set
	}
	for _, name := range names(c.Bridges) {
		f := c.Bridges[name].Flows
		if f == nil {
			continue
		}
		if f.Default {
			set := sets[name]
			set.Rate = f.BroadcastLimit
			if set.Rate == 0 {
				set.Rate = defaultBroadcastLimit
			}
			sets[name] = set
			for _, match := range kept {
				add(name, 0, prioKeep, match, "NORMAL")
			}
			limited := fmt.Sprintf("meter:%d,NORMAL", openflow.Meter)
			add(name, 0, prioLimit, "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", limited) // broadcast too
			add(name, 0, prioSwitch, "", "NORMAL")
		}
		for _, network := range f.LeakGuard {
			for _, match := range leaks(network) {
				add(name, 0, prioLeak, match, "drop")
			}
		}
		for _, other := range f.Isolate {
			for _, end := range s.paths(name, other) {
				add(end.bridge, 0, prioIsolate, "in_port="+strconv.FormatInt(end.ofport, 10), "drop")
			}
			if !f.Default && len(f.Rules) == 0 {
				add(name, 0, prioSwitch, "", "NORMAL") // a bridge that fails secure passes nothing of itself
			}
		}
		for _, r := range f.Rules {
			if rule, err := parseRule(r); err == nil { // Parse has refused others
				add(name, rule.Table, rule.Priority, rule.Match, rule.Actions)
			}
		}
	}
	return sets
}

// rules returns the flows that the file itself has.
func (f *Flows) rules() []string {
	if f == nil {
		return nil
	}
	return f.Rules
}

// wrongFlow says where in the file a flow is that ovs-ofctl can't read.
func (c *Config) wrongFlow(bridge string, e *openflow.SyntaxError) *ConfigError {
	path := "bridges." + bridge + ".flows"
	for i, r := range c.Bridges[bridge].Flows.rules() {
		rule, err := parseRule(r)
		if rule.Cookie = e.Flow.Cookie; err == nil && rule == e.Flow {
			return wrong(fmt.Sprintf("%s.rules[%d]", path, i), "%s", e.Reason)
		}
	}
	return wrong(path, "%v", e)
}

// kept matches what a host can't live without: ARP, DHCP for both families,
// router and neighbour discovery and multicast listening (RFC 4861, RFC 2710,
// RFC 3810), and SSH.
var kept = []string{
	"arp",
	"udp,tp_src=68,tp_dst=67", "udp,tp_src=67,tp_dst=68",
	"udp6,tp_src=546,tp_dst=547", "udp6,tp_src=547,tp_dst=546",
	"icmp6,icmp_type=130", "icmp6,icmp_type=131", "icmp6,icmp_type=132", "icmp6,icmp_type=143",
	"icmp6,icmp_type=133", "icmp6,icmp_type=134", "icmp6,icmp_type=135", "icmp6,icmp_type=136", "icmp6,icmp_type=137",
	"tcp,tp_dst=22", "tcp,tp_src=22", "tcp6,tp_dst=22", "tcp6,tp_src=22",
}

// leaks matches every frame that shows an address of network.
func leaks(network string) []string {
	p, err := netip.ParsePrefix(network)
	if err != nil {
		return nil // Parse has refused it
	}
	if p.Addr().Is6() {
		return []string{"ipv6,ipv6_src=" + network, "ipv6,ipv6_dst=" + network,
			"icmp6,icmp_type=135,nd_target=" + network, "icmp6,icmp_type=136,nd_target=" + network}
	}
	return []string{"ip,nw_src=" + network, "ip,nw_dst=" + network, "arp,arp_spa=" + network, "arp,arp_tpa=" + network}
}

// A patchEnd is one end of a patch: where its frames come in.
type patchEnd struct {
	bridge string
	ofport int64
}

// paths returns both ends of each patch of bridge from by which frames may
// reach bridge to, over other bridges too.
func (s *State) paths(from, to string) []patchEnd {
	type link struct {
		near, far patchEnd
	}
	links := make(map[string][]link)
	place := make(map[string]patchEnd) // of interfaces, by name
	for _, b := range s.Bridges {
		for _, p := range s.portsOf(b) {
			for _, i := range s.interfacesOf(p) {
				if n, ok := i.Int("ofport"); ok && n > 0 {
					place[i.String("name")] = patchEnd{b.String("name"), n}
				}
			}
		}
	}
	for _, i := range sortedRows(s.Interfaces) {
		near, ok1 := place[i.String("name")]
		far, ok2 := place[i.Strings("options")["peer"]]
		other := byName(s.Interfaces, i.Strings("options")["peer"])
		mutual := other.String("type") == "patch" && other.Strings("options")["peer"] == i.String("name")
		if i.String("type") == "patch" && mutual && ok1 && ok2 {
			links[near.bridge] = append(links[near.bridge], link{near, far})
		}
	}
	var ends []patchEnd
	for _, l := range links[from] {
		seen, queue := map[string]bool{from: true, l.far.bridge: true}, []string{l.far.bridge}
		for len(queue) > 0 && !seen[to] {
			at := queue[0]
			queue = queue[1:]
			for _, next := range links[at] {
				if !seen[next.far.bridge] {
					seen[next.far.bridge] = true
					queue = append(queue, next.far.bridge)
				}
			}
		}
		if seen[to] {
			ends = append(ends, l.near, l.far)
		}
	}
	return ends
}

// parseRule reads a flow in the syntax of ovs-ofctl(8).
func parseRule(s string) (openflow.Flow, error) {
	f := openflow.Flow{Priority: 32768} // ovs-ofctl's default
	left, actions, ok := strings.Cut(s, "actions=")
	if !ok || strings.TrimSpace(actions) == "" {
		return f, errors.New("has no actions=")
	}
	f.Actions = strings.TrimSpace(actions)
	if strings.Contains(actions, "actions=") {
		return f, errors.New("has actions= twice")
	}
	var match []string
	for _, field := range strings.FieldsFunc(left, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "priority", "table":
			limit := 65535
			if key == "table" {
				limit = 254
			}
			n, err := strconv.ParseUint(value, 0, 16)
			if err != nil || int(n) > limit {
				return f, fmt.Errorf("%s is no number up to %d", field, limit)
			}
			if key == "priority" {
				f.Priority = int(n)
			} else {
				f.Table = int(n)
			}
		case "cookie":
			return f, errors.New("cookies are this tool's")
		case "idle_timeout", "hard_timeout", "send_flow_rem", "check_overlap", "out_port", "out_group":
			return f, fmt.Errorf("%s: a desired flow lasts and is no filter", key)
		case "add", "delete", "modify", "add-flow":
			return f, fmt.Errorf("%s: write the flow alone", key)
		default:
			match = append(match, field)
		}
	}
	f.Match = strings.Join(match, ",")
	return f, nil
}

func checkRule(s string) error {
	_, err := parseRule(s)
	return err
}

// SameRule says whether two flows, in the syntax of ovs-ofctl(8), are written
// alike but for the order of what selects table and priority.
func SameRule(a, b string) bool {
	x, errX := parseRule(a)
	y, errY := parseRule(b)
	return errX == nil && errY == nil && x == y
}

// CheckRule says what is wrong with a flow that a bridge should have.
func CheckRule(rule string) error { return checkRule(rule) }
