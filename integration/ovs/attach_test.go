//go:build linux

package ovs

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

// asHost is a program that sees the switch where a host has it: in the
// switch's network namespace, with its sockets in /run/openvswitch. hide are
// directories and files for which it gets those below host/ of the test's
// directory, empty ones unless they are there, so that nothing of the machine
// that runs the test is touched.
func (h *host) asHost(hide []string, argv ...string) *exec.Cmd {
	script := `set -e
mount --make-rprivate /
mkdir -p /run/openvswitch "$1/cgroup"
mount --bind "$1" /run/openvswitch
# /sys of this network namespace, with the machine's cgroups.
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1/cgroup" /sys/fs/cgroup
umount -R "$1/cgroup"
n=$2
shift 2
while [ "$n" -gt 0 ]; do [ -e "$2" ] || mkdir -p "$2"; [ -e "$1" ] || mkdir -p "$1"; mount --bind "$2" "$1"; n=$((n - 1)); shift 2; done
exec "$@"`
	words := []string{"--net=/run/netns/" + h.NS, "unshare", "-m", "sh", "-c", script, "sh", h.Dir, fmt.Sprint(len(hide))}
	for _, dir := range hide {
		words = append(words, dir, h.path(filepath.Join("host", dir)))
	}
	cmd := exec.Command("nsenter", append(words, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (h *host) hostRun(hide []string, argv ...string) {
	h.t.Helper()
	cmd := h.asHost(hide, argv...)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// A greeter is a web server on the gateway's address: guests say by it who
// they are and where they come from.
type greeter struct {
	mu   sync.Mutex // covers from
	from map[string]string
}

const greeting = "http://10.0.1.1/"

func (h *host) greeter() *greeter {
	h.t.Helper()
	var l net.Listener
	h.must(vswitch.Enter(h.NS, func() (err error) {
		l, err = net.Listen("tcp4", "10.0.1.1:80")
		return err
	}))
	g := &greeter{from: make(map[string]string)}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, _, _ := net.SplitHostPort(r.RemoteAddr)
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "boot" { // iPXE, which is told apart by its address and stays in its script
			if arp, err := h.In(h.NS, "ip", "neigh", "show", addr); err == nil {
				name = strings.Join(strings.Fields(arp), " ")
			}
		}
		g.mu.Lock()
		g.from[name] = addr
		g.mu.Unlock()
		fmt.Fprint(w, "#!ipxe\nsleep 600\n")
		w.Write(make([]byte, 64<<10)) // several segments
	})}
	go server.Serve(l)
	h.t.Cleanup(func() { server.Close() })
	return g
}

// greeted waits until the guest whose name has the part has greeted, and
// returns its address.
func (h *host) greeted(g *greeter, part string) (addr string) {
	h.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		g.mu.Lock()
		for name, a := range g.from {
			if strings.Contains(name, part) {
				addr = a
			}
		}
		g.mu.Unlock()
		if addr != "" {
			return addr
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h.t.Fatalf("%s never greeted; these did: %v", part, g.from)
	return ""
}

// greet fetches the greeting, in the network namespace ns.
func greet(ns, name string) error {
	var c net.Conn
	err := vswitch.Enter(ns, func() (err error) {
		c, err = net.DialTimeout("tcp4", "10.0.1.1:80", time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(c, "GET /%s HTTP/1.0\r\n\r\n", name)
	if n, err := io.Copy(io.Discard, c); err != nil || n < 64<<10 {
		return fmt.Errorf("%d bytes came: %w", n, err)
	}
	return nil
}

// Guests of all kinds come onto ovsbr1 as their own programs attach them: each
// gets a lease, fetches something by TCP and answers a ping, and none of what
// was attached counts as drift.
func TestAttach(t *testing.T) {
	for _, tool := range []string{"qemu-system-x86_64", "libvirtd", "virsh", "lxc-start", "lxc-stop", "busybox", "ovs-docker", "udhcpc", "nsenter"} {
		require.Tool(t, tool)
	}
	t.Parallel()
	h := newHost(t)
	h.vms()
	h.must(h.Script("-n "+h.NS+" tuntap add dev tap0 mode tap", "-n "+h.NS+" link set tap0 up"))
	h.config(strings.Replace(router, `"vb": {}`, `"vb": {}, "tap0": {}`, 1))
	h.setup(0, "apply")
	h.networkd("ens1", "ovsbr1")
	drop := h.path("network/20-ovsbr1.network.d")
	h.must(os.MkdirAll(drop, 0o755))
	h.must(os.WriteFile(filepath.Join(drop, "boot.conf"), []byte("[DHCPServer]\nBootServerAddress=10.0.1.1\nBootFilename="+greeting+"boot\n"), 0o644))
	h.eventually(func() error {
		out, err := h.In(h.NS, "ip", "-o", "addr", "show", "dev", "ovsbr1")
		if err == nil && !strings.Contains(out, "10.0.1.1/24") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	g := h.greeter()
	watch := h.command("watch")
	watch.Stdout, _ = os.Create(h.path("events"))
	h.background(watch) // which sees to the checksums of veths that others attach

	machine := []string{"-machine", "pc,accel=tcg", "-m", "64", "-nodefaults", "-no-user-config", "-display", "none", "-boot", "n"}
	for _, guest := range []struct {
		name   string
		attach func(t *testing.T, h *host) string
	}{
		{"tap", func(t *testing.T, h *host) string {
			cmd := h.asHost(nil, append(append([]string{"qemu-system-x86_64"}, machine...), "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
				"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:01:01")...)
			h.background(cmd)
			return "52:54:00:00:01:01"
		}},
		{"libvirt", func(t *testing.T, h *host) string {
			// The user that libvirt's other package would make.
			for file, line := range map[string]string{"/etc/passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n", "/etc/group": "libvirt-qemu:x:64055:\n"} {
				b, err := os.ReadFile(file)
				h.must(err)
				h.must(os.MkdirAll(h.path("host/etc"), 0o755))
				h.must(os.WriteFile(h.path("host"+file), append(b, line...), 0o644))
			}
			hide := []string{"/etc/passwd", "/etc/group", "/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"}
			h.must(os.MkdirAll(h.path("host/etc/libvirt"), 0o755))
			h.must(os.WriteFile(h.path("host/etc/libvirt/libvirtd.conf"), []byte("auth_unix_rw = \"none\"\n"), 0o644))
			h.must(os.WriteFile(h.path("host/etc/libvirt/qemu.conf"),
				[]byte("user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n"), 0o644))
			h.must(os.WriteFile(h.path("guest.xml"), []byte(`<domain type='qemu'>
  <name>gbt</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='bridge'>
      <mac address='52:54:00:00:01:02'/>
      <source bridge='ovsbr1'/>
      <virtualport type='openvswitch'/>
      <model type='virtio'/><driver name='qemu'/>
      <boot order='1'/>
    </interface>
  </devices>
</domain>
`), 0o644))
			daemon := h.asHost(hide, "libvirtd")
			log, err := os.Create(h.path("libvirtd.log"))
			h.must(err)
			daemon.Stdout, daemon.Stderr = log, log
			h.background(daemon)
			t.Cleanup(func() {
				if t.Failed() {
					b, _ := os.ReadFile(h.path("libvirtd.log"))
					t.Logf("libvirtd: %s", b)
				}
			})
			sock := h.path("host/run/libvirt/libvirt-sock")
			h.eventually(func() error { _, err := os.Stat(sock); return err })
			virsh := []string{"virsh", "-q", "-c", "qemu:///system"}
			h.hostRun(hide, append(virsh, "create", h.path("guest.xml"))...)
			t.Cleanup(func() { h.asHost(hide, append(virsh, "destroy", "gbt")...).Run() })
			return "52:54:00:00:01:02"
		}},
		{"lxc", func(t *testing.T, h *host) string {
			name := fmt.Sprintf("gbt%d", os.Getpid())
			root := h.path("lxc/" + name + "/rootfs")
			for _, dir := range []string{"bin", "dev", "proc", "sys", "usr", "lib", "lib64", "tmp"} {
				h.must(os.MkdirAll(filepath.Join(root, dir), 0o755))
			}
			h.must(os.WriteFile(filepath.Join(root, "lease.sh"), []byte("#!/usr/bin/busybox sh\n"+
				"[ \"$1\" = bound ] || exit 0\n/usr/bin/busybox ifconfig eth0 $ip netmask $subnet\n"), 0o755))
			h.must(os.WriteFile(filepath.Join(root, "init.sh"), []byte("#!/usr/bin/busybox sh\n"+
				"/usr/bin/busybox udhcpc -i eth0 -f -n -q -t 20 -T 1 -s /lease.sh\n"+
				"until /usr/bin/bash -c 'exec 3<>/dev/tcp/10.0.1.1/80 && printf \"GET /lxc HTTP/1.0\\r\\n\\r\\n\" >&3 && cat <&3 >/dev/null'; do /usr/bin/busybox sleep 1; done\n"+
				"exec /usr/bin/busybox sleep 600\n"), 0o755))
			h.must(os.WriteFile(h.path("lxc/"+name+"/config"), []byte("lxc.uts.name = gbt\nlxc.rootfs.path = dir:"+root+"\n"+
				"lxc.mount.entry = /usr usr none ro,bind 0 0\nlxc.mount.entry = /lib lib none ro,bind 0 0\nlxc.mount.entry = /lib64 lib64 none ro,bind 0 0\n"+
				"lxc.mount.auto = proc:mixed\nlxc.apparmor.profile = unconfined\nlxc.init.cmd = /init.sh\n"+
				"lxc.net.0.type = veth\nlxc.net.0.link = ovsbr1\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.veth.pair = lxcgbt\n"), 0o644))
			t.Cleanup(func() {
				if t.Failed() {
					b, _ := os.ReadFile(h.path("lxc.log"))
					t.Logf("lxc: %s", b)
				}
				h.asHost(nil, "lxc-stop", "-P", h.path("lxc"), "-n", name, "-k").Run()
				left, _ := filepath.Glob("/sys/fs/cgroup/*/lxc.*." + name) // which it fails to remove where nothing mounts cgroups for it
				for _, dir := range left {
					os.Remove(dir)
				}
			})
			h.hostRun(nil, "lxc-start", "-P", h.path("lxc"), "-n", name, "-o", h.path("lxc.log"), "-l", "DEBUG")
			return "lxc"
		}},
		{"docker", func(t *testing.T, h *host) string {
			// What docker would say of a container: its process.
			ns, err := h.Namespace()
			h.must(err)
			container := exec.Command("ip", "netns", "exec", ns, "sleep", "600")
			h.background(container)
			h.must(os.MkdirAll(h.path("path"), 0o755))
			h.must(os.WriteFile(h.path("path/docker"), []byte(fmt.Sprintf("#!/bin/sh\necho %d\n", container.Process.Pid)), 0o755))
			h.hostRun(nil, "env", "PATH="+h.path("path")+":"+os.Getenv("PATH"), "ovs-docker", "add-port", "ovsbr1", "eth1", "c1", "--ipaddress=10.0.1.250/24")
			h.eventually(func() error { return greet(ns, "docker") })
			return "docker"
		}},
		{"veth", func(t *testing.T, h *host) string {
			ns := h.namespaceOf("va")
			h.lease(ns)
			h.eventually(func() error { return greet(ns, "veth") })
			return "veth"
		}},
	} {
		t.Run(guest.name, func(t *testing.T) {
			t.Parallel()
			h := h.in(t)
			addr := h.greeted(g, guest.attach(t, h))
			h.eventually(func() error { return h.ping(h.NS, addr) })
			t.Logf("%s is %s", guest.name, addr)
			// Nothing of it counts as drift, and apply does not take it off.
			h.eventually(func() error {
				cmd := h.command("apply", "--exit-code")
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState.ExitCode() != 4 {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			h.must(h.ping(h.NS, addr))
		})
	}
}
