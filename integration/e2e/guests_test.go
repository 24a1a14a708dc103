//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A guest lives in a network namespace of the container, on a port of ovsbr1,
// as a virtual machine or an LXC container does.
type guest struct {
	h       *host
	name    string
	mac     string
	address string // its lease
}

// namespace is where the test's machine sees the guest's.
func (g *guest) namespace() string { return g.h.path("/run/netns/" + g.name) }

// command is a program of the test's machine in the guest's namespace.
func (g *guest) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + g.namespace(), "--"}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (g *guest) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(g.h.t.Context(), time.Minute)
	defer cancel()
	out, err := g.command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s in %s: %w: %s", strings.Join(argv, " "), g.name, err, bytes.TrimSpace(out))
	}
	return string(out), err
}

func (g *guest) ping(to string) error {
	_, err := g.try("ping", "-c", "1", "-W", "1", to)
	return err
}

// reaches wants an address to answer, soon.
func (g *guest) reaches(to string) {
	g.h.t.Helper()
	g.h.eventually(g.name+" reaches "+to, func() string {
		if err := g.ping(to); err != nil {
			return err.Error()
		}
		return ""
	})
}

// connect makes a guest, and gets it a lease as a virtual machine's system does.
func (h *host) connect(name string) *guest {
	t := h.t
	t.Helper()
	g := &guest{h: h, name: name}
	port := "v" + name
	h.run("ip", "netns", "add", name)
	h.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
	h.run("ip", "link", "set", port, "up")
	h.run("ip", "-n", name, "link", "set", "eth0", "up")
	h.run("ovs-vsctl", "--timeout=10", "add-port", names.InternalBridge, port)
	g.mac = strings.TrimSpace(h.run("ip", "netns", "exec", name, "cat", "/sys/class/net/eth0/address"))
	dir := t.TempDir()
	script, lease := filepath.Join(dir, "lease.sh"), filepath.Join(dir, "lease")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add \"$ip/24\" dev \"$interface\"\n"+
		"for r in $router; do ip route add default via \"$r\"; done\necho \"$ip $router\" > "+lease+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := g.try("udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", script); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(lease)
	if err != nil {
		t.Fatal(err)
	}
	router := ""
	if _, err := fmt.Sscan(string(b), &g.address, &router); err != nil || !strings.HasPrefix(g.address, "10.0.1.") || router != names.InternalGateway {
		t.Fatalf("the lease of %s: %q", name, b)
	}
	// What checksums a guest leaves to hardware is nobody's: the switch forwards
	// in user space.
	h.eventually("the guest's offloads", func() string {
		out, err := g.try("ethtool", "-k", "eth0")
		if err != nil || !strings.Contains(out, "tx-checksumming: off") {
			return fmt.Sprint(err, out)
		}
		return ""
	})
	return g
}

// A capture is what comes by on a link, a line a frame.
type capture struct {
	path string
	stop func()
}

func startCapture(t *testing.T, cmd *exec.Cmd) *capture {
	t.Helper()
	c := &capture{path: filepath.Join(t.TempDir(), "frames")}
	f, err := os.Create(c.path)
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	stopped := false
	c.stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Signal(syscall.SIGINT)
			cmd.Wait()
		}
	}
	t.Cleanup(c.stop)
	// It listens when it says so.
	for b := make([]byte, 1); ; {
		line := ""
		for !strings.HasSuffix(line, "\n") {
			if _, err := said.Read(b); err != nil {
				t.Fatalf("tcpdump: %s", line)
			}
			line += string(b)
		}
		if strings.Contains(line, "listening on") {
			break
		}
	}
	go func() { // it says more at its end
		for b := make([]byte, 512); ; {
			if _, err := said.Read(b); err != nil {
				return
			}
		}
	}()
	return c
}

// frames returns those that hold any of the words.
func (c *capture) frames(t *testing.T, words ...string) (list []string) {
	t.Helper()
	b, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		for _, w := range words {
			if strings.Contains(line, w) {
				list = append(list, strings.TrimSpace(line))
				break
			}
		}
	}
	return list
}

var tcpdump = []string{"tcpdump", "-n", "-e", "-l", "-U", "-i"}

// Two guests on ovsbr1: each gets a lease, reaches the gateway, the other one
// and the outside by NAT, and nobody sees the other bridge's frames.
func guests(t *testing.T, h *host) {
	a, b := h.connect("a"), h.connect("b")
	if a.address == b.address {
		t.Fatalf("both have %s", a.address)
	}
	t.Logf("a has %s, b has %s", a.address, b.address)
	listen := startCapture(t, a.command(t.Context(), append(tcpdump, "eth0")...))
	out := exec.Command("ip", append([]string{"netns", "exec", h.o.ns}, append(tcpdump, "br0")...)...)
	out.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	wire := startCapture(t, out)

	for _, to := range []string{names.InternalGateway, b.address, outsideGateway, outsideFar, h.address(names.UplinkBridge)} {
		a.reaches(to)
	}
	b.reaches(a.address)
	// And with more than a ping: what is sent by TCP arrives as it was.
	for to, ns := range map[string]string{b.address: b.namespace(), outsideFar: h.o.ns} {
		if err := vswitch.Transfer(a.namespace(), ns, to, 4<<20, 20*time.Second); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
	}

	// From outside, somebody who knows the network's address tries, and shouts.
	lease := h.address(names.UplinkBridge)
	if _, err := h.o.In(h.o.ns, "ip", "route", "add", names.InternalNet, "via", lease); err != nil {
		t.Fatal(err)
	}
	if _, err := h.o.In(h.o.ns, "ping", "-c", "1", "-W", "1", a.address); err == nil {
		t.Error("a guest is reached from outside")
	}
	if _, err := h.o.In(h.o.ns, "ip", "route", "del", names.InternalNet); err != nil {
		t.Fatal(err)
	}
	h.o.In(h.o.ns, "ping", "-b", "-c", "2", "-i", "0.2", "-W", "1", "192.0.2.255")
	h.o.In(h.o.ns, "ping", "-c", "1", "-W", "1", "192.0.2.77") // ARP for nobody
	// A guest gives itself an address of the other network, and one asks for it.
	if _, err := a.try("ip", "addr", "add", "192.0.2.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	if a.ping(outsideGateway) == nil {
		t.Error("with an address of the network outside, a guest is in it")
	}
	if _, err := a.try("ip", "addr", "del", "192.0.2.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	b.try("ping", "-c", "1", "-W", "1", "10.0.1.77") // ARP for nobody, which a hears
	time.Sleep(500 * time.Millisecond)
	listen.stop()
	wire.stop()

	gateway, err := h.o.In(h.o.ns, "cat", "/sys/class/net/br0/address")
	if err != nil {
		t.Fatal(err)
	}
	if len(listen.frames(t, b.mac)) == 0 || len(wire.frames(t, strings.TrimSpace(gateway))) == 0 {
		t.Fatal("the captures have not what they should, so that what they lack shows nothing")
	}
	for what, frames := range map[string][]string{
		"a guest sees frames of ovsbr0":             listen.frames(t, strings.TrimSpace(gateway), nicMAC, "192.0.2.255"),
		"the network outside sees frames of ovsbr1": wire.frames(t, a.mac, b.mac, ": 10.0.1.", "tell 10.0.1."),
	} {
		if len(frames) > 0 {
			t.Errorf("%s:\n%s", what, strings.Join(frames, "\n"))
		}
	}
	t.Logf("%d frames on a's link, %d on the network outside", len(listen.frames(t, " ")), len(wire.frames(t, " ")))
	// They come and go without a change of what shall be.
	if out, err := h.try("gb-ovs-setup", "status", "--exit-code"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, g := range []*guest{a, b} {
		h.run("ovs-vsctl", "--timeout=10", "del-port", names.InternalBridge, "v"+g.name)
		h.run("ip", "netns", "del", g.name)
	}
	h.eventually("the log of the ports", func() string {
		for _, want := range []string{"port.created", "port.deleted"} {
			if h.query("--source", "ovs", "--type", want, "--subject", "va") == 0 {
				return "no " + want
			}
		}
		return ""
	})
}
