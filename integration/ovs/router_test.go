//go:build linux

package ovs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

const router = `{
	"bridges": {
		"ovsbr0": {"datapath_type": "netdev", "ports": {"ens1": {"type": "uplink"}}, "flows": {"default": true, "leak_guard": ["10.0.1.0/24"]}},
		"ovsbr1": {"datapath_type": "netdev", "ports": {"va": {}, "vb": {}}, "flows": {"default": true, "broadcast_limit": 50, "isolate": ["ovsbr0"]}}
	},
	"nat": {"bridge": "ovsbr1", "network": "10.0.1.0/24"}
}`

// vms makes two namespaces with eth0 on ports va and vb of the switch.
func (h *host) vms() (vms [2]string) {
	h.t.Helper()
	for i, port := range []string{"va", "vb"} {
		ns, err := h.Namespace()
		h.must(err)
		h.must(h.Link(port, ns, "eth0"))
		vms[i] = ns
		h.guests[port] = ns
	}
	return vms
}

// namespaceOf is the namespace that vms has put a port's other end into.
func (h *host) namespaceOf(port string) string { return h.guests[port] }

// background runs a program until the test ends; the function ends it with
// SIGTERM and waits.
func (h *host) background(cmd *exec.Cmd) (stop func()) {
	h.t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.must(cmd.Start())
	stop = func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	}
	h.t.Cleanup(stop)
	return stop
}

// networkd runs systemd-networkd in the switch's namespace, with directories
// of its own, on the .network files that render prints for links.
func (h *host) networkd(links ...string) {
	h.t.Helper()
	const networkd = "/lib/systemd/systemd-networkd"
	if _, err := os.Stat(networkd); err != nil {
		require.Skip(h.t, "needs "+networkd)
	}
	files := h.path("network")
	h.must(os.MkdirAll(files, 0o755))
	h.must(os.Chmod(h.dir, 0o755))
	for _, l := range links {
		out, _ := h.wants(0, exec.Command(h.tool("gb-ovs-setup"), "render", "networkd", "--config", h.path("ovs.json"), l))
		h.must(os.WriteFile(filepath.Join(files, "20-"+l+".network"), []byte(out), 0o644))
	}
	// Without systemd: a mount namespace in which /run/systemd is empty, its
	// files are there, and /sys is read-only, so that it does not wait for udev.
	script := `set -e
mount --make-rprivate /
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
mount --bind "$1" /run/systemd/network
[ ! -d /etc/systemd/network ] || mount -t tmpfs none /etc/systemd/network
mount -o remount,ro,bind /sys || mount -t sysfs -o ro none /sys
exec ` + networkd
	cmd := exec.Command("ip", "netns", "exec", h.NS, "unshare", "-m", "sh", "-c", script, "sh", files)
	log, err := os.Create(h.path("networkd.log"))
	h.must(err)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_TARGET=console")
	h.background(cmd)
	h.t.Cleanup(func() {
		if h.t.Failed() {
			if b, err := os.ReadFile(h.path("networkd.log")); err == nil {
				h.t.Logf("networkd: %s", b[max(0, len(b)-2000):])
			}
		}
	})
}

// lease gets a DHCP lease in the namespace ns, puts it on eth0 and returns the
// address.
func (h *host) lease(ns string) string {
	h.t.Helper()
	script := h.path("lease.sh")
	h.must(os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/24" dev "$interface"
for r in $router; do ip route add default via "$r"; done
echo "$ip" > "$LEASE"
`), 0o755))
	file := h.path("lease-" + ns)
	cmd := exec.Command("ip", "netns", "exec", ns, "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", script)
	cmd.Env = append(os.Environ(), "LEASE="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("udhcpc: %v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	h.must(err)
	return strings.TrimSpace(string(b))
}

func (h *host) ping(ns, to string) error {
	_, err := h.In(ns, "ping", "-c", "1", "-W", "1", to)
	return err
}

// trace is what the flows of a bridge do with a packet.
func (h *host) trace(bridge, packet string) string {
	h.t.Helper()
	out, err := h.Run("ovs-appctl", "-t", h.Dir+"/switch.ctl", "ofproto/trace", bridge, packet)
	h.must(err)
	_, actions, ok := strings.Cut(out, "Datapath actions: ")
	if !ok {
		h.t.Fatalf("no actions in:\n%s", out)
	}
	return strings.TrimSpace(actions)
}

// Two guests get a lease, ping the gateway and each other, reach outside by
// NAT, and nothing outside begins a connection to them.
func TestGuestsBehindNAT(t *testing.T) {
	t.Parallel()
	require.Tool(t, "nft")
	require.Tool(t, "udhcpc")
	h := newHost(t)
	vms := h.vms()
	h.config(router)
	h.setup(0, "apply")
	h.networkd("ens1", "ovsbr1")
	rules, _ := h.wants(0, exec.Command(h.tool("gb-ovs-setup"), "render", "nftables", "--config", h.path("ovs.json")))
	h.nft(rules)
	h.nft(rules) // twice is the same
	_, err := h.In(h.NS, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	h.must(err)
	a, b := h.lease(vms[0]), h.lease(vms[1])
	if a == b || !strings.HasPrefix(a, "10.0.1.") || !strings.HasPrefix(b, "10.0.1.") {
		t.Fatalf("leases are %s and %s", a, b)
	}
	for _, to := range []string{"10.0.1.1", b, "192.0.2.1"} {
		h.eventually(func() error { return h.ping(vms[0], to) })
	}
	h.must(vswitch.Transfer(vms[0], vms[1], b, 4<<20, 20*time.Second))
	h.must(vswitch.Transfer(vms[0], h.wan, "192.0.2.1", 4<<20, 20*time.Second))
	// From outside, somebody who knows the network's address tries.
	_, err = h.In(h.wan, "ip", "route", "add", "10.0.1.0/24", "via", "192.0.2.2")
	h.must(err)
	if h.ping(h.wan, a) == nil {
		t.Error("a guest is reached from outside")
	}

	// The kill switch: nothing but through the tunnel, also while it is down.
	tun, err := h.Namespace()
	h.must(err)
	h.must(h.Link("wg0", tun, "t0"))
	h.must(h.Script("-n "+tun+" addr add 203.0.113.1/24 dev t0", "-n "+h.NS+" addr add 203.0.113.2/24 dev wg0",
		"-n "+h.NS+" route add 192.0.2.1/32 via 203.0.113.1 dev wg0", "-n "+tun+" addr add 192.0.2.1/32 dev lo"))
	h.config(strings.Replace(router, `"network": "10.0.1.0/24"`, `"network": "10.0.1.0/24", "kill_switch": "wg0"`, 1))
	rules, _ = h.wants(0, exec.Command(h.tool("gb-ovs-setup"), "render", "nftables", "--config", h.path("ovs.json")))
	h.nft(rules)
	h.eventually(func() error { return h.ping(vms[0], "192.0.2.1") }) // through the tunnel
	h.must(h.Script("-n " + h.NS + " link set wg0 down"))             // now the route by ovsbr0 is the one
	if err := h.ping(h.NS, "192.0.2.1"); err != nil {
		t.Fatalf("the host itself does not reach outside, so that the guest's silence shows nothing: %v", err)
	}
	if h.ping(vms[0], "192.0.2.1") == nil {
		t.Error("with the tunnel down, a guest reaches outside past it")
	}
	h.must(h.ping(vms[0], "10.0.1.1"))
}

func (h *host) nft(rules string) {
	h.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", h.NS, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("nft: %v: %s\n%s", err, out, rules)
	}
}

// The default flows keep what a host can't live without, by trace.
func TestDefaultFlowsByTrace(t *testing.T) {
	h := newHost(t)
	h.vms()
	h.config(router)
	h.setup(0, "apply")
	const from = "in_port=va,dl_src=02:00:00:00:00:0a,"
	const all = "dl_dst=ff:ff:ff:ff:ff:ff,"
	for _, c := range []struct{ name, bridge, packet, not, want string }{
		{"ARP", "ovsbr1", from + all + "arp,arp_op=1,arp_spa=10.0.1.5,arp_tpa=10.0.1.1", "meter", ""},
		{"DHCP", "ovsbr1", from + all + "udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,udp_src=68,udp_dst=67", "meter", ""},
		{"DHCPv6", "ovsbr1", from + "dl_dst=33:33:00:01:00:02,udp6,ipv6_src=fe80::1,ipv6_dst=ff02::1:2,udp_src=546,udp_dst=547", "meter", ""},
		{"neighbour solicitation", "ovsbr1", from + "dl_dst=33:33:ff:00:00:01,icmp6,ipv6_src=fe80::1,ipv6_dst=ff02::1:ff00:1,icmpv6_type=135,icmpv6_code=0", "meter", ""},
		{"SSH", "ovsbr1", from + "dl_dst=02:00:00:00:00:0b,tcp,nw_src=10.0.1.5,nw_dst=10.0.1.6,tcp_dst=22", "drop", ""},
		{"other", "ovsbr1", from + "dl_dst=02:00:00:00:00:0b,tcp,nw_src=10.0.1.5,nw_dst=10.0.1.6,tcp_dst=443", "drop", ""},
		{"other broadcast", "ovsbr1", from + all + "udp,nw_src=10.0.1.5,nw_dst=10.0.1.255,udp_dst=137", "drop", "meter("},
		{"multicast", "ovsbr1", from + "dl_dst=01:00:5e:00:00:fb,udp,nw_src=10.0.1.5,nw_dst=224.0.0.251,udp_dst=5353", "drop", "meter("},
		{"a leak", "ovsbr0", "in_port=LOCAL,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0b,tcp,nw_src=10.0.1.5,nw_dst=192.0.2.1,tcp_dst=443", "meter", "drop"},
		{"a leaking ARP", "ovsbr0", "in_port=ens1,dl_src=02:00:00:00:00:0a," + all + "arp,arp_op=1,arp_spa=192.0.2.1,arp_tpa=10.0.1.1", "meter", "drop"},
	} {
		got := h.trace(c.bridge, c.packet)
		if c.want == "" && got == "drop" || c.not != "" && strings.Contains(got, c.not) || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// From the moment that ovsbr0 comes up, no frame with an address behind NAT
// gets out by it: its flows are there before it is up. Without the guard such
// frames do get out.
func TestGuardedFromTheStart(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprint("guarded ", guarded), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			config := router
			if !guarded {
				config = strings.Replace(router, `, "leak_guard": ["10.0.1.0/24"]`, "", 1)
			}
			h.vms()
			h.config(config)
			seen, err := os.Create(h.path("seen"))
			h.must(err)
			dump := exec.Command("ip", "netns", "exec", h.wan, "tcpdump", "-n", "-l", "-U", "-i", "wan0", "src", "net", "10.0.1.0/24")
			dump.Stdout = seen
			var words bytes.Buffer
			dump.Stderr = &words
			undump := h.background(dump)
			time.Sleep(300 * time.Millisecond) // until it listens
			stop, sent := make(chan struct{}), make(chan int)
			go func() {
				n, err := leak(h.NS, "ovsbr0", stop)
				if err != nil {
					t.Error(err)
				}
				sent <- n
			}()
			h.setup(0, "apply")
			time.Sleep(100 * time.Millisecond) // what a bridge that came up late would let out
			close(stop)
			if n := <-sent; n == 0 {
				t.Fatal("no frame was sent")
			}
			time.Sleep(300 * time.Millisecond) // until it has said what it heard
			undump()
			b, err := os.ReadFile(h.path("seen"))
			h.must(err)
			if leaked := len(bytes.TrimSpace(b)) > 0; leaked == guarded {
				t.Errorf("guarded: %v; the network sees %q\n%s", guarded, b[:min(len(b), 500)], words.Bytes())
			}
		})
	}
}

// leak sends, as often as it can, frames from 10.0.1.5 out by a link of ns as
// soon as that is up, until it is stopped. It returns how many.
func leak(ns, link string, stop <-chan struct{}) (sent int, err error) {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x00,
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 5, 192, 0, 2, 1, 0x27, 0x0f, 0x27, 0x0f, 0, 8, 0, 0}, make([]byte, 18)...)
	err = vswitch.Enter(ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for {
			select {
			case <-stop:
				return nil
			case <-time.After(100 * time.Microsecond):
			}
			l, err := net.InterfaceByName(link)
			if err != nil {
				continue
			}
			if unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6}) == nil {
				sent++
			}
		}
	})
	return sent, err
}

// Access ports of one VLAN reach each other and a trunk that carries it, over a
// patch to another bridge too, and no other VLAN.
func TestVLANs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ns := make(map[string]string)
	for i, port := range []string{"pa", "pb", "pc", "pt", "pd"} {
		n, err := h.Namespace()
		h.must(err)
		ns[port] = n
		h.must(h.Link(port, n, "eth0"))
		h.must(h.Script(fmt.Sprintf("-n %s addr add 10.9.0.%d/24 dev eth0", n, i+1)))
	}
	h.config(`{"bridges": {
		"br-a": {"datapath_type": "netdev", "ports": {"pa": {"tag": 10}, "pb": {"tag": 20}, "pt": {"trunks": [10, 30]}, "to-b": {"type": "patch", "peer": "to-a"}}},
		"br-b": {"datapath_type": "netdev", "ports": {"pc": {"tag": 10}, "pd": {"tag": 20}, "to-a": {"type": "patch", "peer": "to-b", "trunks": [10]}}}}}`)
	h.setup(0, "apply")
	seen, err := os.Create(h.path("trunk"))
	h.must(err)
	dump := exec.Command("ip", "netns", "exec", ns["pt"], "tcpdump", "-n", "-e", "-l", "-U", "-i", "eth0", "arp")
	dump.Stdout = seen
	h.background(dump)
	h.eventually(func() error { return h.ping(ns["pa"], "10.9.0.3") }) // over the patch
	for _, to := range []string{"10.9.0.2", "10.9.0.4", "10.9.0.5"} {  // of another VLAN, or untagged behind the trunk
		if h.ping(ns["pa"], to) == nil {
			t.Errorf("VLAN 10 reaches %s", to)
		}
	}
	if h.ping(ns["pb"], "10.9.0.5") == nil {
		t.Error("VLAN 20 goes over a patch that carries VLAN 10 alone")
	}
	h.eventually(func() error { // the trunk has VLAN 10, with its tag
		h.ping(ns["pa"], "10.9.0.9")
		b, err := os.ReadFile(h.path("trunk"))
		if err == nil && !bytes.Contains(b, []byte("vlan 10,")) {
			err = fmt.Errorf("the trunk has %q", b)
		}
		return err
	})
	b, err := os.ReadFile(h.path("trunk"))
	h.must(err)
	if bytes.Contains(b, []byte("vlan 20,")) {
		t.Errorf("the trunk has VLAN 20: %s", b)
	}
}

// Broadcast is limited, in packets that arrive; what a host can't live without
// and unicast are not.
func TestBroadcastIsLimited(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vms := h.vms()
	for i, vm := range vms {
		h.must(h.Script(fmt.Sprintf("-n %s addr add 10.0.1.%d/24 broadcast 10.0.1.255 dev eth0", vm, 11+i)))
	}
	h.config(router) // 50 a second, and bursts of 50
	h.setup(0, "apply")
	h.eventually(func() error { return h.ping(vms[0], "10.0.1.12") })
	var in, out net.PacketConn
	h.must(vswitch.Enter(vms[1], func() (err error) { in, err = net.ListenPacket("udp4", ":9999"); return err }))
	defer in.Close()
	h.must(vswitch.Enter(vms[0], func() (err error) { out, err = net.ListenPacket("udp4", ":0"); return err }))
	defer out.Close()
	counts := make(chan int)
	go func() {
		for b := make([]byte, 64); ; { // until nothing has come for a second
			in.SetReadDeadline(time.Now().Add(20 * time.Second))
			n := 0
			for {
				if _, _, err := in.ReadFrom(b); err != nil {
					break
				}
				n++
				in.SetReadDeadline(time.Now().Add(time.Second))
			}
			if counts <- n; n == 0 {
				return
			}
		}
	}()
	const sent = 1500
	send := func(to string) (came int, took time.Duration) {
		addr, err := net.ResolveUDPAddr("udp4", to+":9999")
		h.must(err)
		begin := time.Now()
		for range sent {
			if _, err := out.WriteTo([]byte("frame"), addr); err != nil {
				h.must(err)
			}
			time.Sleep(500 * time.Microsecond)
		}
		return <-counts, time.Since(begin)
	}
	unicast, _ := send("10.0.1.12")
	broadcast, took := send("10.0.1.255")
	limit := 50 + int(50*(took.Seconds()+1))
	t.Logf("of %d frames each, %d came by unicast and %d by broadcast in %s", sent, unicast, broadcast, took.Round(time.Millisecond))
	if broadcast > limit || broadcast < 50 {
		t.Errorf("%d of %d broadcast frames came, want 50 to %d", broadcast, sent, limit)
	}
	if unicast < sent*9/10 {
		t.Errorf("%d of %d unicast frames came", unicast, sent)
	}
	// ARP is broadcast too, and passes while other broadcast uses up the limit.
	done := make(chan struct{})
	go func() { defer close(done); send("10.0.1.255") }()
	for range 5 {
		_, err := h.In(vms[0], "ip", "neigh", "flush", "dev", "eth0")
		h.must(err)
		if _, err := h.In(vms[0], "ping", "-c", "1", "-W", "2", "10.0.1.12"); err != nil {
			t.Error(err)
		}
	}
	<-done
}

// Somebody patches ovsbr1 to ovsbr0. With watch running, no frame gets over,
// also not across a kill -9 of the switch, and the flows are back within 2 s.
func TestIsolationHolds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	vm := h.vms()[0]
	h.must(h.Script("-n "+vm+" addr add 192.0.2.77/24 dev eth0", "-n "+vm+" addr add 10.0.1.77/24 dev eth0"))
	patch := strings.Fields("add-port ovsbr1 px -- set interface px type=patch options:peer=py -- add-port ovsbr0 py -- set interface py type=patch options:peer=px")
	// As it is without us: over the patch, it is one network.
	_, err := h.Vsctl(append(strings.Fields("add-br ovsbr0 -- set bridge ovsbr0 datapath_type=netdev -- add-br ovsbr1 -- set bridge ovsbr1 datapath_type=netdev -- add-port ovsbr0 ens1 -- add-port ovsbr1 va -- add-port ovsbr1 vb --"), patch...)...)
	h.must(err)
	h.eventually(func() error { return h.ping(vm, "192.0.2.1") })
	_, err = h.Vsctl(strings.Fields("del-port px -- del-port py")...)
	h.must(err)

	h.config(router)
	h.setup(0, "apply")
	events, err := os.Create(h.path("events"))
	h.must(err)
	watch := h.command("watch", "--every", "1s", "--metrics", h.path("metrics"))
	watch.Stdout = events
	var words bytes.Buffer
	watch.Stderr = &words
	stop := h.background(watch)
	h.eventually(func() error { _, err := os.Stat(h.path("metrics")); return err })

	_, err = h.Vsctl(patch...)
	h.must(err)
	isolated := func() error {
		out, err := h.Run("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", "ovsbr1")
		if err != nil || !strings.Contains(out, "priority=40000") {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	}
	h.eventually(isolated)
	h.must(h.ping(h.NS, "192.0.2.1"))
	seen, err := os.Create(h.path("seen"))
	h.must(err)
	mac, err := h.In(h.wan, "cat", "/sys/class/net/wan0/address")
	h.must(err)
	dump := exec.Command("ip", "netns", "exec", vm, "tcpdump", "-n", "-l", "-U", "-i", "eth0", "ether", "src", strings.TrimSpace(mac))
	dump.Stdout = seen
	undump := h.background(dump)
	time.Sleep(300 * time.Millisecond) // until it listens
	for round := range 3 {
		if round > 0 {
			h.KillSwitch()
			h.must(h.StartSwitch())
			began := time.Now()
			pinged := make(chan struct{})
			go func() { // all the while
				defer close(pinged)
				if h.ping(vm, "192.0.2.1") == nil {
					t.Error("while the switch comes up, ovsbr1 reaches ovsbr0")
				}
			}()
			h.eventually(isolated)
			t.Logf("flows were back %s after the switch", time.Since(began).Round(time.Millisecond))
			<-pinged
		}
		if h.ping(vm, "192.0.2.1") == nil {
			t.Error("ovsbr1 reaches ovsbr0 at layer 2")
		}
		h.eventually(func() error { return h.ping(h.NS, "192.0.2.1") })
		// Broadcast on ovsbr0, which would reach every port of one network.
		h.In(h.wan, "ping", "-c", "3", "-i", "0.2", "-W", "1", "-b", "192.0.2.255")
		h.In(h.wan, "ping", "-c", "1", "-W", "1", "192.0.2.200")
	}
	undump()
	if b, err := os.ReadFile(h.path("seen")); err != nil || len(bytes.TrimSpace(b)) > 0 {
		t.Errorf("a guest sees frames of ovsbr0: %s, %v", b, err)
	}
	// Drift by hand is found: flows, and an offload that somebody switched on.
	_, err = h.Run("ovs-ofctl", "del-flows", "ovsbr1")
	h.must(err)
	h.eventually(isolated)
	_, err = h.In(vm, "ethtool", "-K", "eth0", "tx", "on")
	h.must(err)
	_, err = h.In(h.NS, "ethtool", "-K", "va", "tso", "on")
	h.must(err)
	h.eventually(func() error {
		out, err := h.In(vm, "ethtool", "-k", "eth0")
		if err != nil || !strings.Contains(out, "tx-checksum-ip-generic: off") {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	})
	h.eventually(func() error {
		out, err := os.ReadFile(h.path("events"))
		if err != nil || !bytes.Contains(out, []byte(`"type":"drift.gone"`)) {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	})
	// With the database away, the metrics say so, and later that it is back.
	measured := func(want string) {
		t.Helper()
		h.eventually(func() error {
			out, err := os.ReadFile(h.path("metrics"))
			if err != nil || !bytes.Contains(out, []byte(want)) {
				return fmt.Errorf("want %s in:\n%s %v", want, out, err)
			}
			return nil
		})
	}
	measured("ghostbridge_ovs_healthy 1\n")
	h.KillDB()
	measured("ghostbridge_ovs_healthy 0\n")
	h.must(h.StartDB())
	measured("ghostbridge_ovs_healthy 1\n")
	stop()
	out, err := os.ReadFile(h.path("events"))
	h.must(err)
	h.contains(string(out), `"type":"switch.unreachable"`, `"type":"switch.reachable"`)
	h.contains(string(out), `"source":"ovs","type":"port.created","subject":"px"`, `"type":"drift.found"`, `"kind":"flows"`)
	// The log takes every line of it.
	h.stopLog()
	if _, err := h.Run(h.tool("gb-chain"), "append", "--log", h.path("log"), "--keys", h.path("keys"), h.path("events")); err != nil {
		t.Error(err)
	}
	h.contains(h.events(), `"type":"ovs.mend.intent"`, `"type":"port.created"`)
	metrics, err := os.ReadFile(h.path("metrics"))
	h.must(err)
	h.contains(string(metrics), "# TYPE ghostbridge_ovs_healthy gauge", `ghostbridge_ovs_port_up{bridge="ovsbr0",port="ens1"} 1`)
}

// status says what is there, and what about it is wrong.
// As the units have it: one keeps the flows and says nothing, another records
// and changes nothing.
func TestWatchInTwoParts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.vms()
	h.config(router)
	h.setup(2, "watch", "--dry-run", "--no-events")
	h.setup(0, "apply")
	start := func(args ...string) (stop func(), printed func() string) {
		file := h.path(args[0])
		out, err := os.Create(file)
		h.must(err)
		watch := h.command(append([]string{"watch"}, args...)...)
		watch.Stdout = out
		stop = h.background(watch)
		return stop, func() string {
			b, err := os.ReadFile(file)
			h.must(err)
			return string(b)
		}
	}
	flows := func() int {
		out, _ := h.Run("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", "ovsbr1")
		return strings.Count(out, "priority=")
	}
	wanted := flows()
	stopKeeper, kept := start("--no-events")
	_, recorded := start("--dry-run")
	h.KillSwitch()
	h.must(h.StartSwitch())
	began := time.Now()
	h.eventually(func() error {
		if n := flows(); n != wanted {
			return fmt.Errorf("%d flows of %d", n, wanted)
		}
		return nil
	})
	t.Logf("flows were back %s after the switch", time.Since(began).Round(time.Millisecond))
	h.eventually(func() error {
		if events := h.events(); !strings.Contains(events, `"type":"ovs.mend.outcome"`) {
			return errors.New("the log has no ovs.mend.outcome")
		}
		return nil
	})
	stopKeeper()
	if out := kept(); out != "" {
		t.Errorf("the keeper printed %s", out)
	}
	_, err := h.Run("ovs-ofctl", "del-flows", "ovsbr1")
	h.must(err)
	h.eventually(func() error {
		if out := recorded(); !strings.Contains(out, `"type":"drift.found"`) || !strings.Contains(out, `"kind":"flows"`) {
			return fmt.Errorf("the recorder printed %s", out)
		}
		return nil
	})
	if n := flows(); n == wanted {
		t.Error("the recorder has put flows back")
	}
	// Somebody makes a bond of our ports: no plan leads from there to what is
	// wanted, and that is said.
	_, err = h.Vsctl(strings.Fields("del-port va -- del-port vb -- add-bond ovsbr1 bond0 va vb")...)
	h.must(err)
	h.eventually(func() error {
		if out := recorded(); !strings.Contains(out, "va: is an interface of a bond") {
			return fmt.Errorf("the recorder printed %s", out)
		}
		return nil
	})
}

func TestStatus(t *testing.T) {
	h := newHost(t)
	h.vms()
	h.config(router)
	h.setup(0, "apply")
	out, _ := h.setup(0, "status", "--exit-code")
	h.contains(out, "ovsbr1  va", "healthy", "192.0.2.2/24", "20 of 20", "va (other end)")
	out, _ = h.setup(0, "status", "--json")
	h.contains(out, `"healthy":true,"problems":[]`, `"drift":[]`)
	_, err := h.Vsctl(strings.Fields("set port va tag=9 -- add-port ovsbr1 nosuchnic2")...)
	h.must(err)
	out, _ = h.setup(1, "status", "--exit-code")
	h.contains(out, "problem: port va is not as it should be", "problem: nosuchnic2: could not open network device nosuchnic2")
	out, _ = h.setup(0, "status", "--metrics")
	h.contains(out, "ghostbridge_ovs_healthy 0\n", `ghostbridge_ovs_port_up{bridge="ovsbr1",port="nosuchnic2"} 0`, "ghostbridge_ovs_drift 1\n")
	h.StopSwitch()
	begin := time.Now()
	out, _ = h.setup(1, "status", "--exit-code", "--timeout", "1s")
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("status of a dead switch took %s", took)
	}
	h.contains(out, "problem:")
	h.ContinueSwitch()
	h.KillDB()
	out, _ = h.setup(1, "status", "--exit-code", "--json")
	h.contains(out, `"healthy":false,"problems":["database at unix:`)
}
