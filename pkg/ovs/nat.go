package ovs

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrNoNAT says that the desired state has no nat.
var ErrNoNAT = errors.New("the desired state has no nat")

// Nftables returns the ruleset (nft(8)) that lets a bridge's network reach
// outside and nothing outside begin a connection to it. It replaces its own
// table at once and touches no other.
//
// With a kill switch, what comes from the bridge and does not leave through
// that tunnel is dropped: also while the tunnel is down or gone, since the
// rules name it by its name and not by a number.
func (c *Config) Nftables() (string, error) {
	n := c.NAT
	if n == nil {
		return "", ErrNoNAT
	}
	network, err := netip.ParsePrefix(n.Network)
	if err != nil {
		return "", err
	}
	family := "ip"
	if network.Addr().Is6() {
		family = "ip6"
	}
	out := n.Out
	if n.KillSwitch != "" {
		out = n.KillSwitch
	}
	leaves := fmt.Sprintf("oifname != %q", n.Bridge)
	if out != "" {
		leaves = fmt.Sprintf("oifname %q", out)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Made by gb-ovs-setup render nftables.")
	line("table inet ghostbridge")
	line("delete table inet ghostbridge")
	line("table inet ghostbridge {")
	line("\tchain postrouting {")
	line("\t\ttype nat hook postrouting priority srcnat; policy accept;")
	line("\t\t%s saddr %s %s masquerade", family, n.Network, leaves)
	line("\t}")
	line("\tchain forward {")
	line("\t\ttype filter hook forward priority filter; policy accept;")
	line("\t\tiifname %q oifname %[1]q accept", n.Bridge)
	line("\t\tiifname %q %s accept", n.Bridge, leaves)
	line("\t\tiifname %q counter drop", n.Bridge)
	line("\t\toifname %q ct state established,related accept", n.Bridge)
	line("\t\toifname %q counter drop", n.Bridge)
	line("\t}")
	line("}")
	return b.String(), nil
}
