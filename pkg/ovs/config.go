package ovs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// A Config is the desired state: the content of /etc/ghostbridge/ovs.json.
//
// The tags of these types are the format's one source: Parse enforces them and
// Schema makes the JSON Schema of them.
type Config struct {
	SchemaRef   string            `json:"$schema,omitempty" doc:"the JSON Schema of this file, for editors"`
	Bridges     map[string]Bridge `json:"bridges" doc:"the bridges, by name" key:"ifname" required:"true"`
	HWOffload   bool              `json:"hw_offload,omitempty" doc:"let the datapath offload flows to the NIC (Open_vSwitch other_config:hw-offload); false is written out"`
	Offload     map[string]string `json:"offload,omitempty" doc:"offload profile of a network interface; uplinks have safe unless named here" key:"ifname" enum:"tc-only,safe,strict,keep"`
	OtherConfig map[string]string `json:"other_config,omitempty" doc:"keys of Open_vSwitch other_config"`
	ExternalIDs map[string]string `json:"external_ids,omitempty" doc:"keys of Open_vSwitch external_ids"`
	NAT         *NAT              `json:"nat,omitempty" doc:"what gb-ovs-setup render nftables prints"`
	Probe       []string          `json:"probe,omitempty" doc:"hosts, each an address or address:port, that must answer after a change, besides the gateway"`
}

// A Bridge is a desired bridge.
type Bridge struct {
	DatapathType string            `json:"datapath_type,omitempty" doc:"system (the kernel's, the default) or netdev (userspace)" enum:"system,netdev"`
	FailMode     string            `json:"fail_mode,omitempty" doc:"standalone (the default) or secure; a bridge that is isolated has secure by default" enum:"standalone,secure"`
	MAC          string            `json:"mac,omitempty" doc:"the bridge's address (other_config:hwaddr); by default that of its uplink" format:"mac"`
	MTU          int               `json:"mtu,omitempty" doc:"MTU of the bridge's own port" min:"68" max:"65535"`
	Protocols    []string          `json:"protocols,omitempty" doc:"OpenFlow versions; all by default" enum:"OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15"`
	OtherConfig  map[string]string `json:"other_config,omitempty" doc:"all of the bridge's other_config, but for hwaddr"`
	ExternalIDs  map[string]string `json:"external_ids,omitempty" doc:"keys of the bridge's external_ids"`
	Ports        map[string]Port   `json:"ports,omitempty" doc:"the bridge's ports besides its own, by name" key:"ifname"`
	Flows        *Flows            `json:"flows,omitempty" doc:"OpenFlow flows; without it they are left alone"`
}

// A Port is a desired port with its one interface.
type Port struct {
	Type        string            `json:"type,omitempty" doc:"system (the default): a device that is there, such as a tap or a veth; uplink: a NIC, whose addresses move to the bridge; internal; patch" enum:"system,uplink,internal,patch"`
	Peer        string            `json:"peer,omitempty" doc:"a patch port's other end" format:"ifname"`
	Tag         *int              `json:"tag,omitempty" doc:"access VLAN" min:"0" max:"4095"`
	Trunks      []int             `json:"trunks,omitempty" doc:"VLANs of a trunk; all by default" min:"0" max:"4095"`
	VLANMode    string            `json:"vlan_mode,omitempty" doc:"access, trunk, native-tagged, native-untagged or dot1q-tunnel; follows from tag and trunks by default" enum:"access,trunk,native-tagged,native-untagged,dot1q-tunnel"`
	MAC         string            `json:"mac,omitempty" doc:"address of an internal port" format:"mac"`
	MTU         int               `json:"mtu,omitempty" doc:"MTU" min:"68" max:"65535"`
	OtherConfig map[string]string `json:"other_config,omitempty" doc:"all of the port's other_config"`
	ExternalIDs map[string]string `json:"external_ids,omitempty" doc:"keys of the interface's external_ids"`
}

// Flows are a bridge's desired flows. They carry our cookie; flows with
// another are reported and left alone.
type Flows struct {
	Default        bool     `json:"default,omitempty" doc:"the default set: ARP, DHCP, neighbour discovery and SSH pass, other broadcast and multicast is limited, the rest is switched"`
	BroadcastLimit int      `json:"broadcast_limit,omitempty" doc:"frames a second of other broadcast and multicast in the default set; 1000 by default" min:"1" max:"10000000"`
	Isolate        []string `json:"isolate,omitempty" doc:"bridges that no frame may reach from this one, or come from, through patch ports" format:"ifname"`
	LeakGuard      []string `json:"leak_guard,omitempty" doc:"networks (CIDR) whose addresses may not appear on this bridge, such as those behind NAT" format:"cidr"`
	Rules          []string `json:"rules,omitempty" doc:"further flows, as ovs-ofctl(8) writes them, without cookie"`
}

// NAT is what lets a bridge's network reach outside.
type NAT struct {
	Bridge     string `json:"bridge" doc:"the bridge whose network is translated" format:"ifname" required:"true"`
	Network    string `json:"network" doc:"its network" format:"cidr" required:"true"`
	Out        string `json:"out,omitempty" doc:"the interface that leads outside, such as ovsbr0 or a tunnel; any but the bridge by default" format:"ifname"`
	KillSwitch string `json:"kill_switch,omitempty" doc:"a tunnel interface: what does not leave through it is dropped, also while it is down" format:"ifname"`
}

// A ConfigError says what is wrong where: exit code 2.
type ConfigError struct {
	Path   string // such as bridges.ovsbr0.ports.ens1.tag
	Reason string
	Advice string
}

func (e *ConfigError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// ExitCode is that of wrong configuration.
func (e *ConfigError) ExitCode() int { return 2 }

// Hint is the advice.
func (e *ConfigError) Hint() string { return e.Advice }

func wrong(path, format string, args ...any) *ConfigError {
	return &ConfigError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// Parse reads and checks a desired state. Unknown and duplicate keys are
// errors. Every error is a *ConfigError.
func Parse(data []byte) (*Config, error) {
	c := new(Config)
	if err := decodeStrict(data, c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// Hash identifies the desired state: two files that mean the same have the
// same, however they are written.
func (c *Config) Hash() string {
	d := *c
	d.SchemaRef = ""
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// names returns the keys of m, sorted.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// check finds what the tags can't say.
func (c *Config) check() error {
	owner := make(map[string]string) // port: bridge
	for _, name := range names(c.Bridges) {
		owner[name] = name
	}
	for _, name := range names(c.Bridges) {
		if err := c.checkBridge(name, owner); err != nil {
			return err
		}
	}
	for _, name := range names(c.Bridges) {
		for _, port := range names(c.Bridges[name].Ports) {
			p := c.Bridges[name].Ports[port]
			if p.Type != "patch" {
				continue
			}
			path := "bridges." + name + ".ports." + port
			peer, ok := c.Bridges[owner[p.Peer]].Ports[p.Peer]
			if !ok || peer.Type != "patch" {
				return wrong(path+".peer", "%s is no patch port of this file", p.Peer)
			}
			if peer.Peer != port {
				return wrong(path+".peer", "%s has %s as its peer, not %s", p.Peer, peer.Peer, port)
			}
		}
	}
	for _, key := range names(c.OtherConfig) {
		if key == "hw-offload" {
			return wrong("other_config.hw-offload", "is set by hw_offload")
		}
	}
	if err := checkIDs("external_ids", c.ExternalIDs); err != nil {
		return err
	}
	for i, p := range c.Probe {
		if _, _, err := splitProbe(p); err != nil {
			return wrong(fmt.Sprintf("probe[%d]", i), "%v", err)
		}
	}
	if n := c.NAT; n != nil {
		if _, ok := c.Bridges[n.Bridge]; !ok {
			return wrong("nat.bridge", "%s is no bridge of this file", n.Bridge)
		}
		if n.Out == n.Bridge || n.KillSwitch == n.Bridge {
			return wrong("nat", "%s can't lead outside of itself", n.Bridge)
		}
	}
	return nil
}

func (c *Config) checkBridge(name string, owner map[string]string) error {
	b, path := c.Bridges[name], "bridges."+name
	if _, ok := b.OtherConfig["hwaddr"]; ok {
		return wrong(path+".other_config.hwaddr", "is set by mac")
	}
	if err := checkIDs(path+".external_ids", b.ExternalIDs); err != nil {
		return err
	}
	uplinks := 0
	for _, port := range names(b.Ports) {
		p, path := b.Ports[port], path+".ports."+port
		if other, taken := owner[port]; taken {
			return wrong(path, "the name is taken by a port of %s", other)
		}
		owner[port] = name
		if err := checkIDs(path+".external_ids", p.ExternalIDs); err != nil {
			return err
		}
		switch {
		case p.Type == "patch" && p.Peer == "":
			return wrong(path+".peer", "a patch port needs one")
		case p.Type != "patch" && p.Peer != "":
			return wrong(path+".peer", "is for patch ports")
		case p.Type != "internal" && p.MAC != "":
			return wrong(path+".mac", "is for internal ports; a device has its own")
		case p.Type == "patch" && p.MTU != 0:
			return wrong(path+".mtu", "a patch port has none")
		case p.VLANMode == "access" && len(p.Trunks) > 0:
			return wrong(path+".trunks", "an access port has none")
		case p.VLANMode == "trunk" && p.Tag != nil:
			return wrong(path+".tag", "a trunk has none; vlan_mode native-tagged or native-untagged may have one")
		case p.VLANMode == "dot1q-tunnel" && p.Tag == nil:
			return wrong(path+".tag", "dot1q-tunnel needs one")
		}
		seen := map[int]bool{}
		for i, v := range p.Trunks {
			if seen[v] {
				return wrong(fmt.Sprintf("%s.trunks[%d]", path, i), "%d stands twice", v)
			}
			seen[v] = true
		}
		if p.Type == "uplink" {
			uplinks++
		}
	}
	if uplinks > 1 {
		return wrong(path+".ports", "%d uplinks on one bridge make a loop", uplinks)
	}
	if b.Flows == nil {
		return nil
	}
	for i, other := range b.Flows.Isolate {
		if other == name {
			return wrong(fmt.Sprintf("%s.flows.isolate[%d]", path, i), "a bridge can't be isolated from itself")
		}
		if _, ok := c.Bridges[other]; !ok {
			return wrong(fmt.Sprintf("%s.flows.isolate[%d]", path, i), "%s is no bridge of this file", other)
		}
	}
	for i, r := range b.Flows.Rules {
		if err := checkRule(r); err != nil {
			return wrong(fmt.Sprintf("%s.flows.rules[%d]", path, i), "%v", err)
		}
	}
	if len(b.Protocols) > 0 && !slices.Contains(b.Protocols, "OpenFlow14") {
		return wrong(path+".protocols", "flows are replaced at once by a bundle, which needs OpenFlow14")
	}
	return nil
}

func checkIDs(path string, ids map[string]string) error {
	for _, k := range names(ids) {
		if strings.HasPrefix(k, "gb-") {
			return wrong(path+"."+k, "keys that begin with gb- are this tool's own")
		}
	}
	return nil
}

// uplink returns the bridge's uplink, "" if it has none.
func (b Bridge) uplink() string {
	for _, name := range names(b.Ports) {
		if b.Ports[name].Type == "uplink" {
			return name
		}
	}
	return ""
}

// isolated says whether some bridge is out of this one's reach.
func (b Bridge) isolated() bool { return b.Flows != nil && len(b.Flows.Isolate) > 0 }

// splitProbe reads an address, or an address and a port.
func splitProbe(s string) (netip.Addr, string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a, "", nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.Addr{}, "", fmt.Errorf("%q is neither an address nor address:port", s)
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, "", fmt.Errorf("%q: the host must be an address: name resolution may depend on what is changed", s)
	}
	return a, port, nil
}

// validName says whether s may name a network interface: what the kernel's
// dev_valid_name accepts, and nothing that a shell or ovs-ofctl would read
// otherwise.
func validName(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." || s == "all" || s == "default" {
		return false
	}
	for _, r := range s {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@", r) {
			continue
		}
		return false
	}
	return s[0] != '-'
}
