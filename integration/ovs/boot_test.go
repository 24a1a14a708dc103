//go:build linux

package ovs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A machine is this one's system, booted by systemd-nspawn from an overlay
// that keeps what a disk would: systemd, networkd and Open vSwitch as the
// distribution has them, and our unit.
type machine struct {
	*host
	root  string
	spawn *exec.Cmd
	name  string
	init  int // the container's PID 1
	boots int
}

// newMachine makes one whose network is the host's NS: ens1, by DHCP from wan.
func newMachine(t *testing.T) *machine {
	t.Helper()
	for _, tool := range []string{"systemd-nspawn", "dbus-daemon", "networkctl", "dnsmasq", "nsenter"} {
		require.Tool(t, tool)
	}
	s, down, err := vswitch.Make(vswitch.Options{NoSwitch: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := down(); err != nil {
			t.Error(err)
		}
	})
	h := &host{Switch: s, t: t, dir: t.TempDir()}
	m := &machine{host: h, name: fmt.Sprintf("gbt%d", os.Getpid())}
	// The overlay's own file system: an overlay can't lie on every other.
	disk := h.path("disk")
	h.must(os.Mkdir(disk, 0o755))
	sweepMounts()
	h.must(syscall.Mount(m.name, disk, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	m.root = filepath.Join(disk, "root")
	for _, dir := range []string{"root", "upper", "work"} {
		h.must(os.Mkdir(filepath.Join(disk, dir), 0o755))
	}
	h.must(syscall.Mount(m.name, m.root, "overlay", 0, "lowerdir=/,upperdir="+disk+"/upper,workdir="+disk+"/work"))
	t.Cleanup(func() { syscall.Unmount(m.root, syscall.MNT_DETACH) })
	t.Cleanup(func() { os.Remove("/run/systemd/nspawn/propagate/" + m.name) })
	t.Cleanup(m.removeCgroups)
	t.Cleanup(m.powerOff)

	unit := func(name string) string {
		b, err := os.ReadFile("../../units/" + name)
		h.must(err)
		// The log's daemon is outside.
		return strings.NewReplacer("/run/ghostbridge/chain.sock", "/gbt/chain.sock", "Requires=blockchain-log.socket\n", "").Replace(string(b))
	}
	for path, text := range map[string]string{
		"etc/hostname":   "gbtest\n",
		"etc/machine-id": "0123456789abcdef0123456789abcdef\n",
		"etc/systemd/system/ovs-bridge-setup.service": unit("ovs-bridge-setup.service"),
		"etc/systemd/system/blockchain-ovs.service":   unit("blockchain-ovs.service"),
		"etc/systemd/system/ovs-bridge-watch.service": unit("ovs-bridge-watch.service"),
		"etc/systemd/system/gbtest.target": "[Unit]\nDescription=test\nRequires=basic.target\nAfter=multi-user.target basic.target systemd-networkd.service ovs-bridge-setup.service\n" +
			"Wants=dbus.service systemd-networkd.service openvswitch-switch.service ovs-bridge-setup.service\nAllowIsolate=yes\n",
		"etc/systemd/network/10-ens1.network": "[Match]\nName=ens1\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
		"etc/default/ghostbridge":             "GB_CHAIN_SOCKET=/gbt/chain.sock\n",
	} {
		h.must(os.MkdirAll(filepath.Join(m.root, filepath.Dir(path)), 0o755))
		os.Remove(filepath.Join(m.root, path)) // what this machine has there, such as a link
		h.must(os.WriteFile(filepath.Join(m.root, path), []byte(text), 0o644))
	}
	// A switch that has never been started, whatever this machine's has.
	h.must(os.RemoveAll(filepath.Join(m.root, "etc/openvswitch")))
	h.must(os.Mkdir(filepath.Join(m.root, "etc/openvswitch"), 0o755))
	h.must(os.RemoveAll(filepath.Join(m.root, names.StateDir)))
	for _, masked := range []string{"ovs-record-hostname.service", "systemd-networkd-wait-online.service", "nftables.service"} {
		os.Symlink("/dev/null", filepath.Join(m.root, "etc/systemd/system", masked))
	}
	for _, tool := range []string{names.GBOVSSetup, names.GBChain} {
		b, err := os.ReadFile(h.tool(tool))
		h.must(err)
		h.must(os.WriteFile(filepath.Join(m.root, "usr/bin", tool), b, 0o755))
	}
	h.must(os.MkdirAll(filepath.Join(m.root, "etc/ghostbridge"), 0o755))

	h.wan, err = h.Namespace()
	h.must(err)
	h.must(h.Script("-n "+h.wan+" link add br0 type bridge", "-n "+h.wan+" addr add 192.0.2.1/24 dev br0", "-n "+h.wan+" link set br0 up"))
	h.startLog()
	dhcp := exec.Command("ip", "netns", "exec", h.wan, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces",
		"--interface=br0", "--dhcp-range=192.0.2.50,192.0.2.150,1h", "--dhcp-leasefile="+h.path("leases"), "--pid-file=", "--user=root")
	dhcp.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.background(dhcp)
	return m
}

// sweepMounts takes down what machines of test processes that are no more have
// left mounted.
func sweepMounts() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		number, ok := strings.CutPrefix(f[0], "gbt")
		pid, err := strconv.Atoi(number)
		if ok && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

// mac is ens1's: it stays over the boots.
const mac = "02:00:00:00:00:e1"

// boot boots and waits until the target is reached.
func (m *machine) boot() {
	m.t.Helper()
	m.boots++
	ns, err := m.Namespace()
	m.must(err)
	m.NS = ns
	far := fmt.Sprintf("wan%d", m.boots)
	m.must(m.Link("ens1", m.wan, far))
	m.must(m.Script("-n "+ns+" link set ens1 address "+mac, "-n "+m.wan+" link set "+far+" master br0"))
	for _, link := range []string{far, "br0"} { // a network sends checksums
		_, err := m.In(m.wan, "ethtool", "-K", link, "tx", "off")
		m.must(err)
	}
	// What a boot is not to find: its number stays in a container.
	m.must(os.WriteFile(m.path("boot_id"), []byte(fmt.Sprintf("%08x-0000-4000-8000-000000000000\n", m.boots)), 0o444))
	// A PID namespace around it, so that nothing of it outlives a test that is
	// killed.
	// A cgroup of its own, too: --keep-unit would share that of every other
	// container that is started from here.
	script := `for d in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
	[ ! -e "$d/cgroup.procs" ] || { mkdir -p "$d/$0" && echo $$ > "$d/$0/cgroup.procs"; } || exit
done
exec "$@"`
	m.spawn = exec.Command("sh", "-c", script, m.name, "unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--network-namespace-path=/run/netns/"+ns, "--capability=all",
		"--bind=/dev/net/tun", "--bind="+m.dir+":/gbt", "--console=pipe", "--machine="+m.name, "-D", m.root,
		"--boot", "systemd.unit=gbtest.target", "systemd.log_target=journal")
	m.spawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	console, err := os.Create(m.path(fmt.Sprintf("console%d", m.boots)))
	m.must(err)
	m.spawn.Stdout, m.spawn.Stderr = console, console
	m.must(m.spawn.Start())
	began := time.Now()
	m.eventually(func() (err error) {
		m.init, err = initBelow(m.spawn.Process.Pid)
		return err
	})
	m.eventually(func() error {
		out, err := m.inside("systemctl", "is-active", "gbtest.target")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	m.t.Logf("boot %d: %s", m.boots, time.Since(began).Round(100*time.Millisecond))
}

// initBelow returns the descendant of a process that is PID 1 of the second
// namespace below this one: the first is unshare's, and systemd-nspawn has
// other children before.
func initBelow(parent int) (int, error) {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(parent)).Output()
	if err != nil {
		return 0, fmt.Errorf("no child of %d: %w", parent, err)
	}
	for pid := range strings.FieldsSeq(string(out)) {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue
		}
		child, err := strconv.Atoi(pid)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 4 && f[0] == "NSpid:" && f[3] == "1" {
				return child, nil
			}
		}
		if init, err := initBelow(child); err == nil {
			return init, nil
		}
	}
	return 0, fmt.Errorf("nothing below %d is PID 1", parent)
}

// powerOff is what the word says: nothing gets a chance to end well.
func (m *machine) powerOff() {
	if m.spawn == nil {
		return
	}
	if m.t.Failed() {
		for _, argv := range [][]string{{"journalctl", "-b", "--no-pager", "-o", "cat", "-u", "ovs-bridge-setup", "-u", "ovs-bridge-watch", "-u", "blockchain-ovs", "-u", "systemd-networkd", "-u", "ovs-vswitchd", "-u", "gb-ovs-rollback-*"},
			{"networkctl", "--no-pager"}, {"ip", "addr"}, {"sh", "-c", "cat /run/systemd/network/*"}, {"systemctl", "--no-pager", "--failed"}} {
			out, _ := m.inside(argv...)
			m.t.Logf("%v: %s", argv, out[max(0, len(out)-3000):])
		}
	}
	if init, err := initBelow(m.spawn.Process.Pid); err == nil {
		syscall.Kill(init, syscall.SIGKILL)
	} else {
		m.spawn.Process.Kill()
	}
	m.spawn.Wait()
	m.spawn = nil
	m.Script("-n " + m.NS + " link del ens1") // before another takes its name on the bridge
}

// removeCgroups removes those that boot made, and what systemd made in them.
func (m *machine) removeCgroups() {
	for _, dir := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/systemd/", "/sys/fs/cgroup/unified/"} {
		var list []string
		filepath.WalkDir(dir+m.name, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				list = append(list, path)
			}
			return nil
		})
		for _, path := range slices.Backward(list) { // the inner ones first
			os.Remove(path)
		}
	}
}

// inside runs a program in the machine.
func (m *machine) inside(argv ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--all", "--target=" + strconv.Itoa(m.init), "env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GB_CHAIN_SOCKET=/gbt/chain.sock"}, argv...)...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tool runs gb-ovs-setup in the machine and wants the exit code.
func (m *machine) gb(code int, args ...string) string {
	m.t.Helper()
	out, err := m.inside(append([]string{"gb-ovs-setup"}, args...)...)
	var exit *exec.ExitError
	have := 0
	if errors.As(err, &exit) {
		have = exit.ExitCode()
	} else if err != nil {
		m.t.Fatal(err)
	}
	if have != code {
		m.t.Fatalf("gb-ovs-setup %v: exit code %d, want %d\n%s", args, have, code, out)
	}
	return out
}

// at waits until a link has an address, by which the machine is reached from
// outside, and another has none.
func (m *machine) at(link, address, without string) string {
	m.t.Helper()
	var have string
	m.eventually(func() error {
		out, err := m.inside("ip", "-o", "-4", "addr", "show", "dev", link)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		fields := strings.Fields(out)
		if len(fields) < 4 {
			return fmt.Errorf("%s has no address", link)
		}
		have, _, _ = strings.Cut(fields[3], "/")
		if address != "" && have != address {
			return fmt.Errorf("%s has %s, want %s", link, have, address)
		}
		if out, err := m.inside("ip", "-o", "-4", "addr", "show", "dev", without); err == nil && strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s has an address: %s", without, out)
		}
		_, err = m.In(m.wan, "ping", "-c", "1", "-W", "1", have)
		return err
	})
	return have
}

// Real boots, with systemd, networkd and a lease: a change that nobody
// confirmed and two boots; systemd's timer; a confirmed one and a boot; boots
// without a switch.
func TestBoots(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	config := func(text string) {
		m.must(os.WriteFile(filepath.Join(m.root, "etc/ghostbridge/ovs.json"), []byte(text), 0o644))
	}
	database := func() string {
		out, err := m.inside("ovs-vsctl", "--timeout=5", "list-br")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	m.boot()
	address := m.at("ens1", "", "ovsbr0")
	config(twoBridges)
	out := m.gb(0, "apply", "--confirm-timeout", "1h")
	m.contains(out, "> address "+address+"/24", "addresses moved")
	m.at("ovsbr0", address, "ens1")
	out, err := m.inside("systemctl", "--no-pager", "list-timers", "gb-ovs-rollback-*")
	m.contains(out, "1 timers listed")
	m.must(err)
	for range 2 {
		m.powerOff()
		m.boot()
		m.at("ens1", address, "ovsbr0")
		if out := database(); out != "" {
			t.Errorf("after a boot with a change that nobody confirmed there are the bridges %q", out)
		}
	}
	m.gb(2, "apply") // refused
	// Nobody confirms: systemd's timer rolls back.
	m.gb(0, "apply", "--confirm-timeout", "5s")
	m.at("ovsbr0", address, "ens1")
	m.at("ens1", address, "ovsbr0")
	m.eventually(func() error {
		if out := database(); out != "" {
			return errors.New(out)
		}
		return nil
	})
	// Confirmed: networkd runs the bridge, with the lease that the NIC had.
	m.gb(0, "apply", "--confirm-timeout", "1h")
	m.gb(0, "confirm")
	m.at("ovsbr0", address, "ens1")
	out, _ = m.inside("systemctl", "--no-pager", "list-timers", "gb-ovs-rollback-*")
	m.contains(out, "0 timers listed")
	// A later change without a confirmation keeps what networkd was told.
	config(strings.Replace(twoBridges, `"tag": 7`, `"tag": 8`, 1))
	m.gb(0, "apply")
	m.powerOff()
	m.boot()
	m.at("ovsbr0", address, "ens1")
	m.contains(database(), "ovsbr0\novsbr1\n")
	m.gb(4, "plan", "--exit-code")
	m.gb(0, "status", "--exit-code")
	// The recorder tells the log and the keeper puts things back, each with
	// nothing but the rights of its unit.
	for _, unit := range []string{"blockchain-ovs.service", "ovs-bridge-watch.service"} {
		if out, err := m.inside("systemctl", "start", unit); err != nil {
			t.Fatalf("%s: %v: %s", unit, err, out)
		}
	}
	flowsComeBack := func() {
		t.Helper()
		if out, err := m.inside("ovs-ofctl", "del-flows", "ovsbr1"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.eventually(func() error {
			out, err := m.inside("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", "ovsbr1")
			if err == nil && strings.Count(out, "priority=") < 20 {
				err = fmt.Errorf("the flows are not back: %s", out)
			}
			return err
		})
	}
	flowsComeBack()
	// A guest's end of a veth, in its own namespace.
	for _, line := range []string{"ip netns add guest", "ip link add vguest type veth peer name eth0 netns guest", "ip link set vguest up",
		"ovs-vsctl --timeout=5 add-port ovsbr1 vguest"} {
		if out, err := m.inside(strings.Fields(line)...); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	m.eventually(func() error {
		out, err := m.inside("ip", "netns", "exec", "guest", "ethtool", "-k", "eth0")
		if err == nil && !strings.Contains(out, "tx-checksumming: off") {
			err = fmt.Errorf("the guest's checksums are still on: %s", out)
		}
		return err
	})
	// A change that awaits its confirmation is not taken back before its time
	// by who looks after it.
	config(strings.Replace(twoBridges, `"tag": 7`, `"tag": 9`, 1))
	m.gb(0, "apply", "--confirm-timeout", "1h")
	flowsComeBack() // it has looked
	m.gb(0, "confirm")
	if out, err := m.inside("ovs-vsctl", "get", "port", "vnet0", "tag"); err != nil || strings.TrimSpace(out) != "9" {
		t.Errorf("the change that was confirmed: tag %s, %v", out, err)
	}
	if out, err := m.inside("ovs-vsctl", "--timeout=5", "add-port", "ovsbr1", "theirs", "--", "set", "interface", "theirs", "type=internal",
		"--", "set", "port", "vnet0", "tag=99"); err != nil { // a drift that nobody mends
		t.Fatalf("%v: %s", err, out)
	}
	m.eventually(func() error {
		events := m.events()
		for _, want := range []string{`"type":"port.created","subject":"theirs"`, `"type":"ovs.mend.outcome"`, `"type":"drift.found"`} {
			if !strings.Contains(events, want) {
				return fmt.Errorf("the log has no %s", want)
			}
		}
		return nil
	})
	// No switch at all: the boot goes on, and says what is missing.
	m.powerOff()
	for _, masked := range []string{"ovs-vswitchd.service", "ovsdb-server.service"} {
		m.must(os.Symlink("/dev/null", filepath.Join(m.root, "etc/systemd/system", masked)))
		m.boot()
		out, _ := m.inside("systemctl", "is-failed", "ovs-bridge-setup.service")
		m.contains(out, "failed")
		out, err := m.inside("journalctl", "-b", "--no-pager", "-o", "cat", "-u", "ovs-bridge-setup.service")
		m.must(err)
		m.contains(out, "hint: is ovs")
		m.at("ens1", address, "ovsbr0")
		m.powerOff()
	}
}
