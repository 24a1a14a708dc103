//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// TestVirtualMachine is the README's host with a kernel of its own, whose Open
// vSwitch forwards: make e2e-vm. Nothing else asks for it (GB_VM).
func TestVirtualMachine(t *testing.T) {
	t.Run("agent", testAgent)
	if os.Getenv("GB_VM") != "" {
		t.Run("host", virtualHost)
	}
}

// vmBridges are the README's, without a tunnel. The kernel forwards: nothing
// says otherwise.
const vmBridges = `{"bridges": {
  "ovsbr0": {"ports": {"ens1": {"type": "uplink"}}, "flows": {"default": true, "leak_guard": ["10.0.1.0/24"]}},
  "ovsbr1": {"flows": {"default": true, "isolate": ["ovsbr0"]}}},
 "nat": {"bridge": "ovsbr1", "network": "10.0.1.0/24"}}
`

// slowSwitch is how long the switch may take for a step where all is slow; less
// than the unit of the bridges may take in all.
const slowSwitch = "30s"

// A vmHost is the virtual machine in what the phases do with it.
type vmHost struct {
	*vm
	outside string        // URL at which this host answers the machine
	sum     string        // SHA-256 of the answer
	normal  time.Duration // user space of a boot with all there is
	before  state         // what the log was, last
}

func virtualHost(t *testing.T) {
	require.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "btrfs", "losetup", "tar", "systemd-escape", "systemctl", "dpkg-deb", "make", "qemu-system-x86_64"} {
		require.Tool(t, tool)
	}
	begin := time.Now()
	h := &vmHost{vm: newVM(t)}
	t.Logf("disk made in %s", time.Since(begin).Round(100*time.Millisecond))
	d := h.disk
	d.disable("prometheus*", "docker*", "containerd*", "novnc*") // for other tests, or for later
	for path, text := range map[string]string{
		"/etc/systemd/network/10-ens1.link":    "[Match]\nMACAddress=" + uplinkMAC + "\n[Link]\nName=ens1\n",
		"/etc/systemd/network/10-ens1.network": "[Match]\nName=ens1\n[Network]\nDHCP=ipv4\n",
		"/etc/tmpfiles.d/work.conf":            "h /work - - - - +C\n", // the README's nodatacow
		// It would log each program that it runs, of which the log would have an event.
		"/etc/systemd/system/qemu-guest-agent.service.d/quiet.conf": "[Service]\nLogLevelMax=notice\n",
	} {
		if err := os.MkdirAll(filepath.Dir(d.root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		d.write(path, text)
	}
	command(t, "systemctl", "--root="+d.root, "enable", "systemd-networkd")
	command(t, "sed", "-i", "s/^root:[^:]*:/root::/", d.root+"/etc/shadow") // to log in on the console
	command(t, "cp", debPackage(t, repository, tools.Dir(t), "0.0.2"), d.root+"/root/ghostbridge.deb")
	h.serve()

	h.boot(true)
	t.Logf("on %s", h.accel)
	defer func() {
		if t.Failed() && h.qemu != nil {
			h.t = t
			t.Log("the journal of our units:\n" + tail(h.journal(begin), 200))
		}
	}()
	for _, phase := range []struct {
		name string
		do   func(*vmHost)
	}{
		{"pipeline", (*vmHost).pipeline},
		{"bridges", (*vmHost).bridges},
		{"doctor", (*vmHost).doctor},
		{"switch killed", (*vmHost).switchKilled},
		{"docker", (*vmHost).docker},
		{"reboot", func(h *vmHost) { h.reboot(); h.normal = h.booted; h.all() }},
		{"power cut", func(h *vmHost) { h.cut(); h.boot(true); h.all() }},
		{"no switch", (*vmHost).noSwitch},
		{"no card", (*vmHost).noCard},
		{"full", (*vmHost).diskFull},
	} {
		if t.Failed() {
			return // what follows builds on it
		}
		t.Run(phase.name, func(t *testing.T) {
			h.t = t
			defer func() { h.t = nil }()
			begin := time.Now()
			phase.do(h)
			t.Logf("took %s", time.Since(begin).Round(time.Second))
		})
	}
}

// serve answers the machine, which has this host at 10.0.2.2, with a megabyte.
func (h *vmHost) serve() {
	answer := make([]byte, 1<<20)
	for i := range answer {
		answer[i] = byte(i * i >> 7)
	}
	h.sum = fmt.Sprintf("%x", sha256.Sum256(answer))
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) })}
	go server.Serve(l)
	h.t.Cleanup(func() { server.Close() })
	h.outside = fmt.Sprintf("http://10.0.2.2:%d/", l.Addr().(*net.TCPAddr).Port)
}

// write writes a file in the machine.
func (h *vmHost) write(path, text string) {
	h.t.Helper()
	h.run("bash", "-c", `mkdir -p "${1%/*}" && printf %s "$2" > "$1"`, "-", path, text)
}

// installs the package; while events come there is a snapshot each second, and
// one is found.
func (h *vmHost) pipeline() {
	h.login()
	h.greeted()
	h.run("dpkg", "--install", "/root/ghostbridge.deb")
	if h.slow > 1 { // a step of the switch's may take longer than on any host
		h.run("bash", "-c", "echo GB_OVS_TIMEOUT="+slowSwitch+" >> /etc/default/ghostbridge")
	}
	h.converge()
	h.healthy()

	h.run("systemd-run", "--quiet", "--unit=gbe2e-writer", "gb-chain", "append", "--socket", names.ChainSocket, "--", "bash", "-c",
		`for ((n = 0; ; n++)); do printf '{"source":"demo","type":"e2e.note","message":"eventmarker number %d"}\n' $n; sleep 0.1; done`)
	// By the machine's clock, which is not this host's.
	now := func() string { return h.run("date", "--utc", "+%Y%m%dT%H%M%S") }
	time.Sleep(5 * time.Second)
	const lasting = 30
	from := now()
	time.Sleep(lasting * time.Second)
	until := now()
	taken := 0
	for _, s := range strings.Fields(h.run("ls", names.SnapshotsDir)) {
		if strings.HasSuffix(s, "Z") && s >= from && s < until {
			taken++
		}
	}
	h.run("systemctl", "stop", "gbe2e-writer")
	begin, err1 := time.Parse("20060102T150405", from)
	end, err2 := time.Parse("20060102T150405", until)
	if err1 != nil || err2 != nil {
		h.t.Fatal(err1, err2)
	}
	seconds := int(end.Sub(begin).Seconds())
	h.t.Logf("%d snapshots in %d s", taken, seconds)
	// An emulated processor has each second on a machine that does nothing else,
	// and half of them beside other work.
	if least := map[string]int{"kvm": 95, "tcg": 50}[h.accel]; taken*100 < seconds*least {
		h.t.Errorf("%d snapshots in %d s", taken, seconds)
	}
	h.run("bash", "-c", `printf '{"source":"demo","type":"e2e.note","message":"a needle in the haystack"}\n' | gb-chain append --socket `+names.ChainSocket)
	written := time.Now()
	h.eventually("search", func() string {
		out, err := h.try("gb-vecsync", "search", "--socket", names.SearchSocket, "--json", "needle haystack")
		if err != nil || !strings.Contains(out, `"message":"a needle in the haystack"`) {
			return fmt.Sprintf("%v, %s", err, out)
		}
		return ""
	})
	h.t.Logf("an event was found after %s", time.Since(written).Round(100*time.Millisecond))
	h.converge()
	h.healthy()
	h.before = h.state()
}

// bridges sets the README's up as the manual says, from a host that had its
// address on the card.
func (h *vmHost) bridges() {
	h.write(names.OVSConfig, vmBridges)
	for file, argv := range map[string]string{
		"/etc/systemd/network/20-ovsbr0.network": "networkd ovsbr0",
		"/etc/systemd/network/20-ovsbr1.network": "networkd ovsbr1",
		"/etc/nftables.conf":                     "nftables",
	} {
		h.run("bash", "-c", "gb-ovs-setup render "+argv+" > "+file)
	}
	h.run("systemctl", "enable", "--now", "nftables")
	h.t.Log(h.run("gb-ovs-setup", "apply", "--confirm-timeout", "10m", "--probe-time", "2m", "--timeout", slowSwitch))
	h.run("gb-ovs-setup", "confirm")
	h.run("systemctl", "start", "ovs-bridge-setup.service", "ovs-bridge-watch.service", "blockchain-ovs.service")
	h.all()
	// While somebody shouts on the wire, the guests hear each other only.
	stop := h.listen()
	sent := h.shout(3 * time.Second)
	h.guests("ping", "-c", "3", "-i", "0.3", "-W", "2", "-b", "10.0.1.255")
	stop(sent)
}

// all is all that a boot has to bring: the log as it was and more, the bridges
// as confirmed, and who is on them.
func (h *vmHost) all() {
	h.t.Helper()
	h.kept()
	if shown := h.run("ovs-appctl", "dpctl/show"); !strings.HasPrefix(shown, "system@ovs-system:") || strings.Contains(shown, "netdev@") ||
		!strings.Contains(shown, ": ens1") || !strings.Contains(shown, ": ovsbr1 (internal)") {
		h.t.Errorf("the kernel's datapath:\n%s", shown)
	}
	h.eventually("the lease", func() string {
		bridge, card := h.run("ip", "-o", "-4", "addr", "show", "dev", "ovsbr0"), h.run("ip", "-o", "-4", "addr", "show", "dev", "ens1")
		if !strings.Contains(bridge, " 10.0.2.15/24 ") || !strings.Contains(bridge, " dynamic ") || card != "" {
			return bridge + "\n" + card
		}
		return ""
	})
	h.greeted()
	h.plug() // a port whose guest is not there is a problem that status shows
	h.eventually("status", func() string {
		out, err := h.try("gb-ovs-setup", "status", "--exit-code", "--timeout", slowSwitch)
		if err != nil {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	})
	h.eventually("plan", func() string {
		if out, err := h.try("gb-ovs-setup", "plan", "--exit-code", "--timeout", slowSwitch); exitCode(err) != 4 {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	})
	if out := h.run("ovs-vsctl", "get", "Open_vSwitch", ".", "other_config:hw-offload"); out != `"false"` {
		h.t.Errorf("hw-offload is %s", out)
	}
	if out := h.run("ovs-appctl", "dpctl/dump-flows", "type=offloaded"); out != "" {
		h.t.Errorf("offloaded flows:\n%s", out)
	}
	features := h.run("ethtool", "-k", "ens1")
	for _, f := range []string{"tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload", "large-receive-offload", "hw-tc-offload"} {
		if !strings.Contains(features, "\n"+f+": off") {
			h.t.Errorf("%s of ens1 is not off:\n%s", f, features)
		}
	}
	h.connect()
}

// kept wants the log to be the one that it was, longer, verified and searchable.
func (h *vmHost) kept() {
	h.t.Helper()
	h.converge()
	h.healthy()
	now := h.state()
	if now.key != h.before.key || now.size < h.before.size || now.events < h.before.events {
		h.t.Errorf("the log before %+v, now %+v", h.before, now)
	}
	h.t.Logf("the log had %d events and has %d", h.before.size, now.size)
	h.before = now
}

// Two hosts on ovsbr1: network namespaces.
var vmGuests = []struct{ ns, port, mac string }{{"one", "vone", "02:00:00:00:01:01"}, {"two", "vtwo", "02:00:00:00:01:02"}}

const leaseScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/24" dev "$interface"
for r in $router; do ip route replace default via "$r"; done
echo "$ip" > "/run/lease-$NS"
`

// guests runs a program in each guest, whatever it says.
func (h *vmHost) guests(argv ...string) {
	for _, g := range vmGuests {
		h.try(append([]string{"ip", "netns", "exec", g.ns}, argv...)...)
	}
}

// plug starts the guests that a boot has ended, and puts them on ovsbr1.
func (h *vmHost) plug() {
	h.t.Helper()
	for _, g := range vmGuests {
		if _, err := h.try("ip", "netns", "exec", g.ns, "true"); err != nil {
			for _, line := range []string{"ip netns add " + g.ns, "ip link add " + g.port + " type veth peer name eth0 netns " + g.ns,
				"ip -n " + g.ns + " link set eth0 address " + g.mac, "ip -n " + g.ns + " link set eth0 up", "ip link set " + g.port + " up",
				"ovs-vsctl --timeout=20 --may-exist add-port ovsbr1 " + g.port} {
				h.run(strings.Fields(line)...)
			}
		}
	}
}

// connect has each guest get a lease, reach the gateway, the other, and this
// host through NAT.
func (h *vmHost) connect() {
	h.t.Helper()
	h.write("/root/lease.sh", leaseScript)
	h.run("chmod", "+x", "/root/lease.sh")
	leases := make(map[string]string)
	for _, g := range vmGuests {
		h.run("env", "NS="+g.ns, "ip", "netns", "exec", g.ns, "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "2", "-s", "/root/lease.sh")
		leases[g.ns] = h.run("cat", "/run/lease-"+g.ns)
		if !strings.HasPrefix(leases[g.ns], "10.0.1.") {
			h.t.Errorf("%s has the lease %s", g.ns, leases[g.ns])
		}
	}
	h.t.Log("leases: ", leases)
	if leases["one"] == leases["two"] {
		h.t.Errorf("both have %s", leases["one"])
	}
	for _, g := range vmGuests {
		other := leases[map[string]string{"one": "two", "two": "one"}[g.ns]]
		for _, to := range []string{names.InternalGateway, other, "10.0.2.2"} {
			h.eventually(g.ns+" pings "+to, func() string {
				if out, err := h.try("ip", "netns", "exec", g.ns, "ping", "-c", "1", "-W", "2", to); err != nil {
					return fmt.Sprintf("%v\n%s", err, out)
				}
				return ""
			})
		}
		if out := h.run("bash", "-c", `ip netns exec "$1" busybox wget -q -O - "$2" | sha256sum`, "-", g.ns, h.outside); !strings.HasPrefix(out, h.sum) {
			h.t.Errorf("%s fetches %s, want %s", g.ns, out, h.sum)
		}
	}
	h.unheard()
}

// unheard complains if the wire has ever heard a guest, by its MAC or by its
// address; the machine itself it has.
func (h *vmHost) unheard() {
	h.t.Helper()
	if h.wire.from(uplinkMAC) == 0 || h.wire.from("10.0.2.15") == 0 {
		h.t.Error("the wire hears nothing of the machine, so that the guests' silence shows nothing")
	}
	for _, prefix := range []string{"10.0.1.", "02:00:00:00:01:"} {
		for _, said := range h.wire.below(prefix) {
			h.t.Errorf("the wire hears %s", said)
		}
	}
}

// listen records what the guests hear, and the host on ovsbr0. The function
// stops that, and complains of a guest that has heard the wire, or nothing, or
// if the host has not heard it.
func (h *vmHost) listen() (stop func(sent int)) {
	h.t.Helper()
	const filter = "ether proto 0x88b5 or icmp"
	dump := func(name string, within ...string) {
		h.run(slices.Concat([]string{"systemd-run", "--quiet", "--collect", "--unit=gbe2e-dump-" + name, "--property=StandardOutput=truncate:/run/dump-" + name}, within,
			[]string{"tcpdump", "-n", "-e", "-l", "-U", "-i"}, map[bool][]string{true: {"eth0"}, false: {"ovsbr0"}}[len(within) > 0], []string{filter})...)
	}
	dump("host")
	for _, g := range vmGuests {
		dump(g.ns, "ip", "netns", "exec", g.ns)
	}
	time.Sleep(h.within(time.Second)) // until they listen
	return func(sent int) {
		h.t.Helper()
		time.Sleep(h.within(300 * time.Millisecond))
		heard := func(name, what string) int { return strings.Count(h.run("cat", "/run/dump-"+name), what) }
		shouts := heard("host", "0x88b5")
		h.t.Logf("%d frames were sent on the wire, the host has %d of them", sent, shouts)
		if sent == 0 || shouts == 0 {
			h.t.Error("the host does not hear the wire, so that the guests' silence shows nothing")
		}
		h.run("systemctl", "stop", "gbe2e-dump-host")
		for _, g := range vmGuests {
			if n := heard(g.ns, "0x88b5"); n > 0 {
				h.t.Errorf("%s hears %d of the wire's frames", g.ns, n)
			}
			if heard(g.ns, "ICMP") == 0 {
				h.t.Errorf("%s hears nothing at all", g.ns)
			}
			h.run("systemctl", "stop", "gbe2e-dump-"+g.ns)
		}
		h.unheard()
	}
}

// shout sends frames on the wire for a while and returns how many.
func (h *vmHost) shout(lasting time.Duration) int {
	stop := h.wire.shouts(50 * time.Millisecond)
	time.Sleep(lasting)
	return stop()
}

// doctor has opdbus look over the host.
func (h *vmHost) doctor() {
	h.t.Helper()
	// What no Debian booted by QEMU itself can have.
	lacking := []string{"boot loader", "declarative"}
	h.eventually("opdbus doctor", func() string {
		out, _ := h.try("opdbus", "doctor", "--json")
		var bad []string
		for line := range strings.Lines(out) {
			if !strings.Contains(line, `"state":"ok"`) && !slices.ContainsFunc(lacking, func(check string) bool { return strings.Contains(line, `"check":"`+check+`"`) }) {
				bad = append(bad, line)
			}
		}
		if out == "" || len(bad) > 0 {
			return strings.Join(bad, "") + out
		}
		return ""
	})
	out, _ := h.try("opdbus", "doctor")
	h.t.Log(out)
}

// Kills the switch, and prints when the next one was started, and when
// ovsbr1's flows that keep frames off ovsbr0 were back: seconds since the boot.
const killScript = `
old=$(pidof ovs-vswitchd) && kill -9 "$old" || exit
until pid=$(pidof ovs-vswitchd) && [ "$pid" != "$old" ]; do sleep 0.01; done
until ovs-ofctl -O OpenFlow14 --timeout=5 dump-flows --no-stats ovsbr1 2>/dev/null | grep -q priority=40000; do sleep 0.01; done
read back rest < /proc/uptime
pid=$(pidof ovs-vswitchd) && stat=$(cat /proc/$pid/stat) && set -- ${stat##*) }
echo "${20} $back"`

// switchKilled kills the switch, with a patch from ovsbr1 to ovsbr0 that
// somebody has made.
func (h *vmHost) switchKilled() {
	const patch = "ovs-vsctl --timeout=20 add-port ovsbr1 px -- set interface px type=patch options:peer=py -- add-port ovsbr0 py -- set interface py type=patch options:peer=px"
	h.run(strings.Fields(patch)...)
	isolated := func() string {
		out, err := h.try("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", "ovsbr1")
		if err != nil || !strings.Contains(out, "priority=40000") {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	}
	h.eventually("isolation", isolated)
	stop := h.listen()
	stopShouts := h.wire.shouts(20 * time.Millisecond)
	for range 3 {
		out := strings.Fields(h.run("bash", "-c", killScript))
		if len(out) != 2 {
			h.t.Fatal(out)
		}
		ticks, err1 := strconv.ParseFloat(out[0], 64)
		back, err2 := strconv.ParseFloat(out[1], 64)
		if err1 != nil || err2 != nil {
			h.t.Fatal(err1, err2)
		}
		took := time.Duration((back - ticks/100) * float64(time.Second)).Round(10 * time.Millisecond)
		h.t.Logf("flows were back %s after the switch was started", took)
		if took > h.within(2*time.Second) {
			h.t.Errorf("flows were back %s after the switch was started", took)
		}
		h.guests("ping", "-c", "2", "-i", "0.3", "-W", "2", "-b", "10.0.1.255")
	}
	h.eventually("status", func() string {
		out, err := h.try("gb-ovs-setup", "status", "--exit-code", "--timeout", slowSwitch)
		if err != nil {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	})
	stop(stopShouts())
	h.connect()

	// Without the flows they do hear the wire: it is them that keep it away.
	h.run("systemctl", "stop", "ovs-bridge-watch")
	h.run("ovs-ofctl", "-O", "OpenFlow14", "del-flows", "ovsbr1")
	for _, br := range []string{"ovsbr0", "ovsbr1"} {
		h.run("ovs-ofctl", "-O", "OpenFlow14", "add-flow", br, "priority=65535,actions=NORMAL")
	}
	h.run("systemd-run", "--quiet", "--collect", "--unit=gbe2e-dump-open", "--property=StandardOutput=truncate:/run/dump-open",
		"ip", "netns", "exec", "one", "tcpdump", "-n", "-e", "-l", "-U", "-i", "eth0", "ether", "proto", "0x88b5")
	stopShouts = h.wire.shouts(50 * time.Millisecond)
	h.eventually("the wire, without the flows", func() string {
		if !strings.Contains(h.run("cat", "/run/dump-open"), "0x88b5") {
			return "is not heard"
		}
		return ""
	})
	stopShouts()
	if out, _ := h.try("opdbus", "doctor", "--json"); !strings.Contains(out, `"check":"bridges","state":"failed"`) {
		h.t.Errorf("with our flows gone, opdbus doctor says:\n%s", out)
	}
	h.run("systemctl", "stop", "gbe2e-dump-open")
	for _, br := range []string{"ovsbr0", "ovsbr1"} {
		h.run("ovs-ofctl", "-O", "OpenFlow14", "--strict", "del-flows", br, "priority=65535")
	}
	h.run(strings.Fields("ovs-vsctl --timeout=20 del-port px -- del-port py")...)
	h.run("systemctl", "start", "ovs-bridge-watch")
	h.all()
}

// docker attaches a container of its engine in the documented way.
func (h *vmHost) docker() {
	h.run("systemctl", "start", "docker")
	h.run("bash", "-c", `set -e; d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin; tar -C $d -c . | docker import - busybox`)
	h.run("docker", "run", "--detach", "--name", "guest", "--network", "none", "busybox", "/bin/busybox", "sleep", "100000")
	h.run("ovs-docker", "add-port", "ovsbr1", "eth1", "guest", "--ipaddress=10.0.1.9/24", "--gateway="+names.InternalGateway)
	for _, to := range []string{names.InternalGateway, "10.0.2.2"} {
		h.eventually("the container pings "+to, func() string {
			if out, err := h.try("docker", "exec", "guest", "/bin/busybox", "ping", "-c", "1", "-W", "2", to); err != nil {
				return fmt.Sprintf("%v\n%s", err, out)
			}
			return ""
		})
	}
	if out := h.run("bash", "-c", `docker exec guest /bin/busybox wget -q -O - "$1" | sha256sum`, "-", h.outside); !strings.HasPrefix(out, h.sum) {
		h.t.Errorf("the container fetches %s, want %s", out, h.sum)
	}
	h.connect() // the others still do, with Docker's rules in the firewall
	if out, err := h.try("gb-ovs-setup", "status", "--exit-code", "--timeout", slowSwitch); err != nil {
		h.t.Errorf("with the container: %v\n%s", err, out)
	}
	h.run("ovs-docker", "del-port", "ovsbr1", "eth1", "guest")
	h.run("docker", "rm", "--force", "guest")
	h.run("systemctl", "stop", "docker.socket", "docker.service", "containerd.service")
}

// goesOn wants a boot in which something is missing to have come to its end,
// about as soon as others, with a login on the console.
func (h *vmHost) goesOn() {
	h.t.Helper()
	if state := h.property("multi-user.target", "ActiveState"); state != "active" {
		h.t.Errorf("multi-user.target is %s", state)
	}
	h.t.Logf("user space took %s, and %s with all there is", h.booted.Round(100*time.Millisecond), h.normal.Round(100*time.Millisecond))
	if h.booted > h.normal+h.within(30*time.Second) {
		h.t.Errorf("user space took %s, and %s with all there is", h.booted, h.normal)
	}
	h.login()
	h.t.Log("failed: ", h.run("systemctl", "list-units", "--failed", "--plain", "--no-legend"))
}

// says wants the journal of this boot to have a text of a unit, in an error.
func (h *vmHost) says(unit string, texts ...string) {
	h.t.Helper()
	out := h.run("journalctl", "--boot", "--no-pager", "--output=cat", "--unit="+unit)
	h.t.Logf("%s: %s", unit, out)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			h.t.Errorf("the journal of %s lacks %q", unit, text)
		}
	}
}

// noSwitch boots with Open vSwitch masked, and with a switch that fails.
func (h *vmHost) noSwitch() {
	h.run("systemctl", "mask", "ovsdb-server", "ovs-vswitchd")
	h.reboot()
	h.goesOn()
	h.says("ovs-bridge-setup", "hint: is ovs")
	h.greeted() // the card keeps its address
	h.keptAlone()
	h.run("systemctl", "unmask", "ovsdb-server", "ovs-vswitchd")

	const aside = `set -e; real=$(readlink -f /usr/sbin/ovs-vswitchd); mv "$real" "$real.aside"; printf '#!/bin/sh\n%s\n' "$1" > "$real"; chmod 755 "$real"`
	h.run("bash", "-c", aside, "-", "echo the switch is broken >&2; exit 1")
	h.reboot()
	h.goesOn()
	h.says("ovs-bridge-setup", "hint: is ovs")
	h.greeted()
	h.run("bash", "-c", `real=$(readlink -f /usr/sbin/ovs-vswitchd); mv "$real.aside" "$real"`)
}

// keptAlone is kept where the bridges are not.
func (h *vmHost) keptAlone() {
	h.t.Helper()
	h.converge()
	if now := h.state(); now.key != h.before.key || now.size < h.before.size {
		h.t.Errorf("the log before %+v, now %+v", h.before, now)
	} else {
		h.before = now
	}
}

// noCard boots without the network card.
func (h *vmHost) noCard() {
	h.off()
	h.boot(false)
	h.goesOn()
	h.says("ovs-bridge-setup", "ens1")
	h.keptAlone()
	h.off()
	h.boot(true)
	h.all()
}

// diskFull boots with no block free.
func (h *vmHost) diskFull() {
	h.run("bash", "-c", `for size in 1G 256M 16M 1M 64K 4K; do n=0; while [ $n -lt 64 ] && fallocate --length $size /work/fill-$size-$n 2>/dev/null; do n=$((n + 1)); done; rm -f /work/fill-$size-$n; done; sync; df /work`)
	h.reboot()
	h.goesOn()
	h.greeted()
	h.t.Log(h.run("df", "/work"))
	h.t.Log(h.try("bash", "-c", `printf '{"source":"demo","type":"e2e.note","message":"on a full disk"}\n' | gb-chain append --socket `+names.ChainSocket))
	h.says("blockchain-log")
	h.t.Log(h.try("opdbus", "doctor"))
	h.run("find", "/work", "-name", "fill-*", "-delete")
	h.run("sync")
	h.all()
}
