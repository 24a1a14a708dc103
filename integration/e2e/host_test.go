//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// TestHost is the README's host, in a container that boots behind a NIC: its
// bridges and who lives on them, its monitoring, each command of its
// troubleshooting, a change that a person approves, and boots in which
// something is broken.
func TestHost(t *testing.T) {
	require.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "btrfs", "losetup", "nsenter", "unshare", "tar", "systemd-escape", "dpkg-deb", "make", "systemd-nspawn",
		"ip", "ethtool", "ping", "dnsmasq", "udhcpc", "tcpdump"} {
		require.Tool(t, tool)
	}
	o := newOutside(t)
	d := newDisk(t, 3<<30, tree(t, treePackages), "")
	deb := debPackage(t, repository, tools.Dir(t), "0.0.2")
	// The host as it is without us: its NIC by DHCP, and a switch without
	// bridges.
	d.write("/etc/systemd/network/20-ens1.network", "[Match]\nName=ens1\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n")
	command(t, "systemctl", "--root="+d.root, "enable", "systemd-networkd")
	d.write("/etc/default/prometheus", `ARGS="--web.listen-address=127.0.0.1:9090"`+"\n")
	h := &host{whole: t, d: d, o: o}
	h.boot(true)
	h.bare = h.booted
	defer func() {
		if t.Failed() {
			out, _ := h.try("journalctl", "--no-pager", "--boot", "--output=short-precise", "--lines=300", "--unit=blockchain-*", "--unit=btrfs-*", "--unit=gb-vecsync*",
				"--unit=op-dbus*", "--unit=ovs-*", "--unit=ovsdb-*", "--unit=dbus-mcp-*", "--unit=systemd-networkd*")
			t.Log("the journal:\n" + out)
		}
	}()
	phase := func(name string, f func(*testing.T, *host)) {
		if t.Failed() {
			return // what follows builds on it
		}
		t.Run(name, func(part *testing.T) {
			h.t = part
			defer func() { h.t = t }()
			f(part, h)
		})
	}
	phase("install", func(t *testing.T, h *host) { setUp(t, h, deb) })
	phase("boot", func(t *testing.T, h *host) {
		h.reboot(t, true)
		t.Logf("boot: %s with bridges and our units, %s without", h.booted.Round(time.Millisecond), h.bare.Round(time.Millisecond))
		if gain := h.booted - h.bare; gain > span(2*time.Second, 10*time.Second) { // a busy machine makes the same work take longer
			t.Errorf("our units make the boot %s longer\n%s", gain, h.run("systemd-analyze", "blame"))
		}
		h.good = h.booted
		h.onBridges()
		h.converge()
	})
	phase("readme", func(t *testing.T, h *host) { readme(t, h.container) })
	phase("guests", guests)
	phase("approved", approved)
	phase("idle", func(t *testing.T, h *host) { idle(t, h.container) })
	phase("qdrant", qdrantIndex)
	phase("faults", bootFaults)
}

// An outside is what a host's NIC leads to: a network with a DHCP server, and
// an address behind it.
type outside struct {
	*vswitch.Switch
	ns    string // its namespace
	boots int
}

const (
	outsideGateway = "192.0.2.1"    // of the network that the NIC is in
	outsideFar     = "198.51.100.9" // what is reached through it
	nicMAC         = "02:00:00:00:00:e1"
)

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{Switch: vswitch.Start(t, vswitch.Options{NoDB: true})}
	var err error
	if o.ns, err = o.Namespace(); err != nil {
		t.Fatal(err)
	}
	if err := o.Script("-n "+o.ns+" link add br0 type bridge", "-n "+o.ns+" addr add "+outsideGateway+"/24 dev br0", "-n "+o.ns+" link set br0 up",
		"-n "+o.ns+" addr add "+outsideFar+"/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	dhcp := exec.Command("ip", "netns", "exec", o.ns, require.Tool(t, "dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces",
		"--interface=br0", "--dhcp-range=192.0.2.50,192.0.2.150,1h", "--dhcp-leasefile="+filepath.Join(o.Dir, "leases"), "--pid-file=", "--user=root")
	dhcp.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := dhcp.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dhcp.Process.Signal(syscall.SIGTERM)
		dhcp.Wait()
	})
	return o
}

// plug makes the network namespace of a host that is to boot, with ens1 in it
// or without.
func (o *outside) plug(t *testing.T, nic bool) string {
	t.Helper()
	ns, err := o.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	o.NS = ns
	if nic {
		o.insert(t)
	}
	return ns
}

// insert puts ens1 into the host that is up.
func (o *outside) insert(t *testing.T) {
	t.Helper()
	ns := o.NS
	o.boots++
	far := fmt.Sprintf("wan%d", o.boots)
	if err := o.Link("ens1", o.ns, far); err != nil {
		t.Fatal(err)
	}
	if err := o.Script("-n "+ns+" link set ens1 address "+nicMAC, "-n "+o.ns+" link set "+far+" master br0"); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{far, "br0"} { // a network sends checksums
		if _, err := o.In(o.ns, "ethtool", "-K", link, "tx", "off"); err != nil {
			t.Fatal(err)
		}
	}
}

// A host is the container that is up at the moment, its disk, and what is
// outside.
type host struct {
	*container
	whole *testing.T // what is booted in a phase outlives it
	d     *disk
	o     *outside
	bare  time.Duration // how long it takes to boot without us
	good  time.Duration // and with us
}

// boot boots it, with its NIC or without.
func (h *host) boot(nic bool) {
	h.whole.Helper()
	h.container = boot(h.whole, h.d, h.o.plug(h.whole, nic))
}

// reboot takes its power away and boots it anew.
func (h *host) reboot(t *testing.T, nic bool) {
	t.Helper()
	h.kill()
	h.o.Run("ip", "-n", h.o.NS, "link", "del", "ens1") // its power is off, too
	h.boot(nic)
	h.t = t
}

// address returns a link's first IPv4 address, "" if it has none.
func (h *host) address(link string) string {
	out, err := h.try("ip", "-o", "-4", "addr", "show", "dev", link)
	if f := strings.Fields(out); err == nil && len(f) > 3 {
		address, _, _ := strings.Cut(f[3], "/")
		return address
	}
	return ""
}

// reached wants the host to be reached from outside at the lease that a link
// has, and another link to have none.
func (h *host) reached(link, without string) {
	h.t.Helper()
	h.eventually("the host at "+link, func() string {
		lease := h.address(link)
		if !strings.HasPrefix(lease, "192.0.2.") || h.address(without) != "" {
			return fmt.Sprintf("%s has %q, %s has %q", link, lease, without, h.address(without))
		}
		if _, err := h.o.In(h.o.ns, "ping", "-c", "1", "-W", "1", lease); err != nil {
			return err.Error()
		}
		return ""
	})
}

// onBridges wants the bridges to be up: the lease of ovsbr0, and the gateway of
// ovsbr1.
func (h *host) onBridges() {
	h.t.Helper()
	h.reached(names.UplinkBridge, names.UplinkInterface)
	h.eventually("the gateway", func() string {
		if have := h.address(names.InternalBridge); have != names.InternalGateway {
			return fmt.Sprintf("%s has %q", names.InternalBridge, have)
		}
		return ""
	})
}

// The bridges of a host without hardware: the switch forwards in user space.
const readmeBridges = `{"bridges": {
  "ovsbr0": {"datapath_type": "netdev", "ports": {"ens1": {"type": "uplink"}}, "flows": {"default": true, "leak_guard": ["10.0.1.0/24"]}},
  "ovsbr1": {"datapath_type": "netdev", "flows": {"default": true, "isolate": ["ovsbr0"]}}},
 "nat": {"bridge": "ovsbr1", "network": "10.0.1.0/24"}}
`

// setUp does what INSTALL.md says, on a host that runs.
func setUp(t *testing.T, h *host, deb string) {
	h.reached(names.UplinkInterface, names.UplinkBridge)
	h.put(deb, "/root/ghostbridge.deb")
	h.run("dpkg", "--install", "/root/ghostbridge.deb")
	for path, text := range map[string]string{
		names.OVSConfig:                readmeBridges,
		"/etc/tmpfiles.d/work.conf":    "h /work - - - - +C\n",
		"/etc/sysctl.d/60-router.conf": "net.ipv4.ip_forward=1\n",
		"/etc/default/prometheus":      `ARGS="--web.listen-address=127.0.0.1:9090"` + "\n",
	} {
		if err := os.WriteFile(h.path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	address := h.address(names.UplinkInterface)
	for _, x := range []struct {
		to   string
		argv []string
	}{
		{"/etc/systemd/network/30-ovsbr1.network", []string{"render", "networkd", names.InternalBridge}},
		{"/etc/nftables.conf", []string{"render", "nftables"}},
	} {
		if err := os.WriteFile(h.path(x.to), []byte(h.run(append([]string{"gb-ovs-setup"}, x.argv...)...)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.run("gb-ovs-setup", "apply", "--confirm-timeout", "2m")
	h.onBridges()
	if now := h.address(names.UplinkBridge); now != address {
		t.Errorf("the host was at %s, and is at %s", address, now)
	}
	h.run("gb-ovs-setup", "confirm")
	h.run("cp", "/usr/share/ghostbridge/monitoring/prometheus.yml", "/etc/prometheus/prometheus.yml")
	h.run("systemctl", "enable", "nftables", "novnc", "prometheus", "openvswitch-switch")
	h.converge()
}
