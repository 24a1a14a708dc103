//go:build linux

// Package rtnetlink reads and changes links, addresses and routes of this
// network namespace through vishvananda/netlink. What it reads can be kept as
// JSON and put back.
package rtnetlink

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Link is a network interface.
type Link struct {
	Name string `json:"name"`
	Type string `json:"type"` // veth, tun, device, ...
	MAC  string `json:"mac,omitempty"`
	MTU  int    `json:"mtu"`
	Up   bool   `json:"up"`

	index int
	peer  int // ifindex of a veth's other end
	netns int // id of the other end's namespace as this one knows it, -1 for this one
}

// An Address is one of a link's.
type Address struct {
	CIDR      netip.Prefix `json:"cidr"`
	Peer      netip.Prefix `json:"peer,omitzero"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
	Label     string       `json:"label,omitempty"`
	Scope     int          `json:"scope,omitempty"`         // RT_SCOPE_ of rtnetlink(7)
	Flags     int          `json:"flags,omitempty"`         // IFA_F_
	Valid     int          `json:"valid_lft,omitempty"`     // seconds; 0 for ever
	Preferred int          `json:"preferred_lft,omitempty"` // likewise
}

// A Route is one that leads over a link. Numbers are the kernel's, as
// rtnetlink(7) has them: Scope RT_SCOPE_, Type RTN_, Protocol RTPROT_, Flags
// RTNH_F_; MTU is in bytes, 0 for the link's.
type Route struct {
	Dst      netip.Prefix `json:"dst"`
	Gateway  netip.Addr   `json:"gateway,omitzero"`
	Src      netip.Addr   `json:"src,omitzero"`
	Table    int          `json:"table"`
	Metric   int          `json:"metric,omitempty"`
	Scope    int          `json:"scope,omitempty"`
	Type     int          `json:"type,omitempty"`
	Protocol int          `json:"protocol,omitempty"`
	Flags    int          `json:"flags,omitempty"`
	MTU      int          `json:"mtu,omitempty"`
}

// ErrNoLink says that a link is not there.
var ErrNoLink = errors.New("no such network interface")

func find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) || errors.Is(err, unix.ENODEV) {
			err = ErrNoLink
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{Name: a.Name, Type: l.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0, index: a.Index, netns: -1}
	if l.Type() == "veth" {
		out.peer, out.netns = a.ParentIndex, a.NetNsID
	}
	return out
}

// Get returns one link; an error is ErrNoLink if it is not there.
func Get(name string) (Link, error) {
	l, err := find(name)
	if err != nil {
		return Link{}, err
	}
	return linkOf(l), nil
}

// Links returns all links, by name.
func Links() (map[string]Link, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	out := make(map[string]Link, len(list))
	for _, l := range list {
		out[l.Attrs().Name] = linkOf(l)
	}
	return out, nil
}

// SetUp brings a link up or down.
func SetUp(name string, up bool) error {
	l, err := find(name)
	if err != nil {
		return err
	}
	if up {
		err = netlink.LinkSetUp(l)
	} else {
		err = netlink.LinkSetDown(l)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// BringUp brings links up that Links or Get has returned.
func BringUp(links ...Link) error {
	if len(links) == 0 {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("bring up the network interfaces: %w", err)
	}
	defer h.Close()
	for _, l := range links {
		if err := h.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.index}}); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return nil
}

// SetMTU sets a link's MTU.
func SetMTU(name string, mtu int) error {
	l, err := find(name)
	if err == nil {
		err = netlink.LinkSetMTU(l, mtu)
	}
	if err != nil {
		return fmt.Errorf("%s: MTU %d: %w", name, mtu, err)
	}
	return nil
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipnet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func ip(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

// Addresses returns a link's addresses, but for IPv6 link-local ones, which
// the kernel makes of the MAC.
func Addresses(name string) ([]Address, error) {
	l, err := find(name)
	if err != nil {
		return nil, err
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	out := []Address{}
	for _, a := range list {
		p := prefix(a.IPNet)
		if p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
			continue
		}
		x := Address{CIDR: p, Broadcast: addr(a.Broadcast), Label: a.Label, Scope: a.Scope,
			Flags: a.Flags &^ (unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_SECONDARY | unix.IFA_F_DEPRECATED)}
		if a.Flags&unix.IFA_F_PERMANENT == 0 {
			x.Valid, x.Preferred = a.ValidLft, a.PreferedLft
		}
		if a.Peer != nil && prefix(a.Peer) != p {
			x.Peer = prefix(a.Peer)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Address) int { return strings.Compare(a.CIDR.String(), b.CIDR.String()) })
	return out, nil
}

func (a Address) netlink(link string) *netlink.Addr {
	out := &netlink.Addr{IPNet: ipnet(a.CIDR), Peer: ipnet(a.Peer), Broadcast: ip(a.Broadcast), Scope: a.Scope,
		Flags: a.Flags &^ unix.IFA_F_PERMANENT, ValidLft: a.Valid, PreferedLft: a.Preferred}
	if strings.HasPrefix(a.Label, link+":") || a.Label == link {
		out.Label = a.Label
	}
	if a.CIDR.Addr().Is4() && out.Broadcast == nil {
		out.Broadcast = net.IPv4zero // none; nil would have the library make one up
	}
	if a.CIDR.Addr().Is6() {
		out.Flags |= unix.IFA_F_NODAD // it was this host's a moment ago
	}
	return out
}

// AddAddress puts an address on a link, or brings the one that is there to
// the same lifetimes.
func AddAddress(name string, a Address) error {
	l, err := find(name)
	if err == nil {
		err = netlink.AddrReplace(l, a.netlink(name))
	}
	if err != nil {
		return fmt.Errorf("address %s on %s: %w", a.CIDR, name, err)
	}
	return nil
}

// RemoveAddress takes an address off a link; one that is not there is no
// error.
func RemoveAddress(name string, a Address) error {
	l, err := find(name)
	if err == nil {
		err = netlink.AddrDel(l, &netlink.Addr{IPNet: ipnet(a.CIDR), Peer: ipnet(a.Peer)})
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("address %s on %s: %w", a.CIDR, name, err)
	}
	return nil
}

// Routes returns the routes over a link in all tables, but for those that the
// kernel makes of addresses. Routes over several links are left out.
func Routes(name string) ([]Route, error) {
	l, err := find(name)
	if err != nil {
		return nil, err
	}
	out := []Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_UNSPEC},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("routes over %s: %w", name, err)
		}
		for _, r := range list {
			if r.Protocol == unix.RTPROT_KERNEL || r.Table == unix.RT_TABLE_LOCAL || r.Type != unix.RTN_UNICAST {
				continue
			}
			dst := prefix(r.Dst)
			if !dst.IsValid() {
				dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
				if family == netlink.FAMILY_V6 {
					dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
				}
			}
			out = append(out, Route{Dst: dst, Gateway: addr(r.Gw), Src: addr(r.Src), Table: r.Table, Metric: r.Priority,
				Scope: int(r.Scope), Type: r.Type, Protocol: int(r.Protocol), Flags: r.Flags & unix.RTNH_F_ONLINK, MTU: r.MTU})
		}
	}
	// Those without a gateway first: the others need them.
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(cmp.Compare(btoi(a.Gateway.IsValid()), btoi(b.Gateway.IsValid())),
			strings.Compare(a.Dst.String(), b.Dst.String()), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric),
			a.Gateway.Compare(b.Gateway))
	})
	return out, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r Route) netlink(index int) *netlink.Route {
	out := &netlink.Route{LinkIndex: index, Dst: ipnet(r.Dst), Gw: ip(r.Gateway), Src: ip(r.Src), Table: r.Table, Priority: r.Metric,
		Scope: netlink.Scope(r.Scope), Type: r.Type, Protocol: netlink.RouteProtocol(r.Protocol), Flags: r.Flags, MTU: r.MTU, Family: netlink.FAMILY_V4}
	if r.Dst.Addr().Is6() {
		out.Family = netlink.FAMILY_V6
	}
	return out
}

// AddRoute adds a route over a link, or replaces the one to the same network
// with the same metric.
func AddRoute(name string, r Route) error {
	l, err := find(name)
	if err == nil {
		err = netlink.RouteReplace(r.netlink(l.Attrs().Index))
	}
	if err != nil {
		return fmt.Errorf("route to %s over %s: %w", r.Dst, name, err)
	}
	return nil
}

// RemoveRoute removes a route over a link; one that is not there is no error.
func RemoveRoute(name string, r Route) error {
	l, err := find(name)
	if err == nil {
		err = netlink.RouteDel(r.netlink(l.Attrs().Index))
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("route to %s over %s: %w", r.Dst, name, err)
	}
	return nil
}

// Watch calls changed with the name of each link that changes, until done is
// closed.
func Watch(done <-chan struct{}, changed func(name string)) error {
	ch := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(ch, done, netlink.LinkSubscribeOptions{}); err != nil {
		return fmt.Errorf("watch the network interfaces: %w", err)
	}
	for u := range ch {
		changed(u.Attrs().Name)
	}
	return nil
}

// AtPeer calls do in the network namespace where a veth's other end is, with
// its name there. It says false if that namespace can't be found, such as one
// that no process and no name holds any more.
func AtPeer(l Link, do func(name string) error) (bool, error) {
	if l.Type != "veth" || l.peer == 0 {
		return false, nil
	}
	if l.netns < 0 {
		peer, err := netlink.LinkByIndex(l.peer)
		if err != nil {
			return false, nil
		}
		return true, do(peer.Attrs().Name)
	}
	ns := namespaceFile(l.netns)
	if ns == nil {
		return false, nil
	}
	defer ns.Close()
	if err := within(ns, l.peer, do); err != nil {
		return true, fmt.Errorf("other end of %s: %w", l.Name, err)
	}
	return true, nil
}

// within calls do in a network namespace with the name of a link there. Its
// thread is there meanwhile, and comes back: another goroutine for it would
// cost two changes of threads, each of which a busy machine makes wait.
func within(ns *os.File, index int, do func(name string) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer comeHome(home)
	peer, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	return do(peer.Attrs().Name)
}

// comeHome brings the thread back to its namespace. The kernel can refuse only
// for want of memory; in another namespace nothing may go on.
func comeHome(home *os.File) {
	var err error
	for range 100 {
		if err = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	panic(fmt.Sprintf("the network namespace can't be left: %v", err))
}

// seen remembers where the namespace with an id was found: paths by id.
var seen sync.Map

// namespaceFile opens the network namespace that this one knows by id.
func namespaceFile(id int) *os.File {
	if path, ok := seen.Load(id); ok {
		if f := openNamespace(path.(string), id); f != nil {
			return f
		}
	}
	looked := make(map[uint64]bool)
	for _, pattern := range []string{"/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			var st unix.Stat_t // of processes, most are in the same one
			if unix.Stat(path, &st) != nil || looked[st.Ino] {
				continue
			}
			looked[st.Ino] = true
			if f := openNamespace(path, id); f != nil {
				seen.Store(id, path)
				return f
			}
		}
	}
	return nil
}

// openNamespace opens a file if it is the network namespace that this one
// knows by id.
func openNamespace(path string, id int) *os.File {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	if have, err := netlink.GetNetNsIdByFd(int(f.Fd())); err != nil || have != id {
		f.Close()
		return nil
	}
	return f
}

// DefaultGateways returns the gateways of the default routes in the main
// table, by link.
func DefaultGateways() (map[string][]netip.Addr, error) {
	out := make(map[string][]netip.Addr)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range list {
			if r.Gw == nil || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				continue
			}
			l, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue
			}
			out[l.Attrs().Name] = append(out[l.Attrs().Name], addr(r.Gw))
		}
	}
	return out, nil
}

// Answers says whether the link layer has resolved an address on a link: the
// neighbour table has a hardware address for it that was not found stale. A
// stale one is heard: who has it spoke first, such as to ask for ours, or has
// answered long ago. The kernel would ask it again 5 s after it is used.
func Answers(link string, a netip.Addr) (answers, heard bool, err error) {
	l, err := find(link)
	if err != nil {
		return false, false, err
	}
	list, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return false, false, fmt.Errorf("neighbours on %s: %w", link, err)
	}
	for _, n := range list {
		if addr(n.IP) == a && len(n.HardwareAddr) > 0 {
			answers = answers || n.State&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0
			heard = heard || n.State&(netlink.NUD_STALE|netlink.NUD_DELAY) != 0
		}
	}
	return answers, heard, nil
}

// Forget removes an address from a link's neighbour table, so that it must
// answer anew.
func Forget(link string, a netip.Addr) error {
	l, err := find(link)
	if err != nil {
		return err
	}
	err = netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: ip(a)})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("neighbour %s on %s: %w", a, link, err)
	}
	return nil
}
