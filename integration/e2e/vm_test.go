//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// vmPackages are what the virtual machine has besides the container's: a kernel
// with Open vSwitch in it, what a host has, and what the test looks with.
var vmPackages = append(slices.Clone(treePackages), "apparmor", "busybox-static", "docker.io", "ethtool", "initramfs-tools", "iputils-ping", "kmod",
	"linux-image-cloud-amd64", "nftables", "openssh-server", "qemu-guest-agent", "tcpdump", "udev", "udhcpc", "zstd")

// uplinkMAC is that of the virtual machine's network card.
const uplinkMAC = "52:54:00:00:00:e1"

// A vm is a virtual machine on a disk, with one network card, ens1, on a wire
// on which are also QEMU's router and the test.
type vm struct {
	machine
	disk      *disk
	dir       string // of sockets and of what QEMU and the console said
	kernel    string
	initrd    string
	accel     string // tcg or kvm
	ssh       string // where this host reaches the machine's port 22
	agent     *agent
	wire      *wire
	qemu      *exec.Cmd
	ended     chan struct{} // closed when QEMU has ended
	bootID    string
	booted    time.Duration // from the start of user space to its end, as systemd says
	reachable time.Duration // from the start of QEMU to the first answer of the agent
	starts    int
}

// newVM makes a disk with the tree, not yet booted.
func newVM(t *testing.T) *vm {
	t.Helper()
	v := &vm{machine: machine{t: t}, dir: t.TempDir()}
	v.disk = newDisk(t, 6<<30, tree(t, vmPackages), "/dev/vda")
	v.kernel, v.initrd = v.take("vmlinuz-*"), v.take("initrd.img-*")
	v.agent = &agent{socket: filepath.Join(v.dir, "agent")}
	v.wire = newWire(t, v.dir)
	v.try = func(argv ...string) (string, error) { return v.agent.run(v.within(2*time.Minute), argv...) }
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.ssh = l.Addr().String()
	l.Close()
	t.Cleanup(v.cut)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console:\n%s", tail(v.said("console.log"), 80))
			t.Logf("QEMU: %s", v.said("qemu.log"))
		}
	})
	return v
}

// take copies a file of the disk's /boot.
func (v *vm) take(pattern string) string {
	v.t.Helper()
	found, err := filepath.Glob(filepath.Join(v.disk.root, "boot", pattern))
	if err != nil || len(found) != 1 {
		v.t.Fatalf("%s in /boot: %v, %v", pattern, found, err)
	}
	to := filepath.Join(v.dir, filepath.Base(found[0]))
	command(v.t, "cp", found[0], to)
	return to
}

func (v *vm) said(log string) string {
	data, err := os.ReadFile(filepath.Join(v.dir, log))
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(data), "\r", "")
}

// power switches the machine on, with its network card or without.
func (v *vm) power(accel string, card bool) {
	v.t.Helper()
	v.disk.detach()
	cpu := map[string]string{"kvm": "host", "tcg": "qemu64"}[accel]
	args := []string{
		"-machine", "q35,accel=" + accel, "-cpu", cpu, "-m", "1536", "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", v.kernel, "-initrd", v.initrd,
		"-append", "root=/dev/vda rootfstype=btrfs rootflags=subvol=@,noatime rw console=ttyS0 loglevel=4 mitigations=off",
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file=" + v.disk.image, "-device", "virtio-blk-pci,drive=disk",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path=" + v.agent.socket,
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
		"-chardev", "socket,id=console,server=on,wait=off,path=" + filepath.Join(v.dir, "console") + ",logappend=on,logfile=" + filepath.Join(v.dir, "console.log"),
		"-serial", "chardev:console",
	}
	if card {
		// A hub: the card, a router with DHCP that leads to this host, and the test.
		args = append(args,
			"-netdev", "user,id=router,hostfwd=tcp:"+v.ssh+"-:22", "-netdev", "hubport,id=hub0,hubid=0,netdev=router",
			"-netdev", "dgram,id=test,local.type=unix,local.path="+v.wire.far+",remote.type=unix,remote.path="+v.wire.near, "-netdev", "hubport,id=hub1,hubid=0,netdev=test",
			"-netdev", "hubport,id=hub2,hubid=0", "-device", "virtio-net-pci,netdev=hub2,mac="+uplinkMAC)
	}
	os.Remove(v.wire.far)
	log, err := os.OpenFile(filepath.Join(v.dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		v.t.Fatal(err)
	}
	defer log.Close()
	v.qemu = exec.Command(require.Tool(v.t, "qemu-system-x86_64"), args...)
	v.qemu.Stdout, v.qemu.Stderr = log, log
	v.qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := v.qemu.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { cmd.Wait(); close(ended) }(v.qemu, v.ended)
}

// cut takes the machine's power away, unasked.
func (v *vm) cut() {
	if v.qemu == nil {
		return
	}
	v.qemu.Process.Kill()
	<-v.ended
	v.qemu = nil
	v.agent.close()
}

// choose finds out what the machine can run on: KVM, or else TCG, on which all
// takes ten times as long. A host may have a /dev/kvm that does not run this
// kernel; then it says nothing on its console.
func (v *vm) choose() {
	v.t.Helper()
	v.accel, v.slow = "tcg", 10
	if _, err := os.Stat("/dev/kvm"); err != nil || os.Getenv("GB_VM") == "tcg" {
		return
	}
	v.power("kvm", false)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		select {
		case <-v.ended:
			deadline = time.Now()
		default:
		}
		if strings.Contains(v.said("console.log"), "Loading, please wait") { // the initrd's, which is a program
			v.accel, v.slow = "kvm", 1
			break
		}
	}
	v.cut()
	if v.accel == "tcg" && os.Getenv("GB_VM") == "kvm" {
		v.t.Fatalf("KVM does not run it\n%s", v.said("qemu.log"))
	}
}

// boot switches the machine on and waits until systemd has started everything.
func (v *vm) boot(card bool) {
	v.t.Helper()
	if v.accel == "" {
		v.choose()
	}
	v.bootID = ""
	v.power(v.accel, card)
	v.up("boot")
}

// ask is try for something that is answered at once: a question that the
// machine gets while it goes down is never answered, and QEMU stays connected.
func (v *vm) ask(argv ...string) (string, error) {
	return v.agent.run(v.within(2*time.Second), argv...)
}

// reboot has the machine boot again by itself.
func (v *vm) reboot() {
	v.t.Helper()
	v.ask("systemctl", "reboot") // which may end the agent before its answer
	v.up("reboot")
}

// up waits for the end of a boot that is another than the one before.
func (v *vm) up(what string) {
	v.t.Helper()
	v.starts++
	begin := time.Now()
	deadline := begin.Add(v.within(2 * time.Minute))
	wait := func(whatever string) {
		v.t.Helper()
		select {
		case <-v.ended:
			v.t.Fatalf("QEMU has ended: %s", v.said("qemu.log"))
		default:
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("the machine did not come to %s", whatever)
		}
		time.Sleep(v.within(200 * time.Millisecond))
	}
	for {
		if v.agent.ping(2 * time.Second) {
			if id, err := v.ask("cat", "/proc/sys/kernel/random/boot_id"); err == nil && id != v.bootID {
				v.bootID = id
				break
			}
		}
		wait("its agent")
	}
	v.reachable = time.Since(begin)
	for {
		out, _ := v.ask("systemctl", "is-system-running")
		if out == "running" || out == "degraded" {
			break
		}
		jobs, _ := v.ask("systemctl", "list-jobs", "--no-legend")
		wait("the end of its boot: " + out + "\n" + jobs)
	}
	v.booted = v.startup()
	v.t.Logf("%s %d: %s, of which user space %s", what, v.starts, time.Since(begin).Round(time.Second), v.booted.Round(100*time.Millisecond))
}

// off has the machine switch itself off.
func (v *vm) off() {
	v.t.Helper()
	v.ask("systemctl", "poweroff")
	select {
	case <-v.ended:
	case <-time.After(v.within(time.Minute)):
		v.t.Error("the machine did not switch itself off")
	}
	v.cut()
}

// login logs in as root on the console and has the shell answer.
func (v *vm) login() {
	v.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(v.dir, "console"))
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(v.within(20 * time.Second)))
	var said bytes.Buffer
	expect := func(text string) {
		v.t.Helper()
		for buf := make([]byte, 4096); !bytes.Contains(said.Bytes(), []byte(text)); {
			n, err := conn.Read(buf)
			said.Write(buf[:n])
			if err != nil {
				v.t.Fatalf("on the console, instead of %q: %q, %v", text, said.String(), err)
			}
		}
		said.Reset()
	}
	fmt.Fprint(conn, "\r")
	expect("login: ")
	fmt.Fprint(conn, "root\r")
	expect("# ")
	fmt.Fprint(conn, "echo here=$((6*7))\r")
	expect("here=42")
	fmt.Fprint(conn, "exit\r")
	expect("login: ")
}

// greeted waits until this host reaches the machine's SSH server by its
// network.
func (v *vm) greeted() {
	v.t.Helper()
	v.eventually("SSH", func() string {
		conn, err := net.DialTimeout("tcp4", v.ssh, 2*time.Second)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		greeting := make([]byte, 8)
		if _, err := conn.Read(greeting); err != nil || !strings.HasPrefix(string(greeting), "SSH-2.0-") {
			return fmt.Sprintf("%q, %v", greeting, err)
		}
		return ""
	})
}

// A wire is the network that the machine's card is on, where the test hears
// each frame and can send its own.
type wire struct {
	conn      *net.UnixConn
	near, far string // sockets, the test's and QEMU's

	mu    sync.Mutex
	heard map[string]int // frames by who says to have sent them: the MAC, and the address of IPv4 or ARP
	first map[string]string
}

// shout is the EtherType of frames that only the test sends (IEEE 802, local
// experimental).
const shout = 0x88b5

func newWire(t *testing.T, dir string) *wire {
	t.Helper()
	w := &wire{near: filepath.Join(dir, "wire"), far: filepath.Join(dir, "card"), heard: make(map[string]int), first: make(map[string]string)}
	var err error
	if w.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.near, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close() })
	go func() {
		for frame := make([]byte, 1<<16); ; {
			n, err := w.conn.Read(frame)
			if err != nil {
				return
			}
			w.mu.Lock()
			for _, who := range senders(frame[:n]) {
				if w.heard[who]++; w.heard[who] == 1 {
					w.first[who] = fmt.Sprintf("%s, first at %s: %x", who, time.Now().Format(time.TimeOnly), frame[:min(n, 64)])
				}
			}
			w.mu.Unlock()
		}
	}()
	return w
}

// senders is who a frame says that it comes from: its MAC, and the address in
// its IPv4 or ARP.
func senders(frame []byte) []string {
	if len(frame) < 14 {
		return nil
	}
	list := []string{net.HardwareAddr(frame[6:12]).String()}
	switch kind, rest := int(frame[12])<<8|int(frame[13]), frame[14:]; {
	case kind == 0x0800 && len(rest) >= 20:
		list = append(list, net.IP(rest[12:16]).String())
	case kind == 0x0806 && len(rest) >= 28:
		list = append(list, net.IP(rest[14:18]).String())
	}
	return list
}

// from is how many frames of somebody were heard.
func (w *wire) from(who string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[who]
}

// below describes those whose MAC or address begins with prefix.
func (w *wire) below(prefix string) (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for who, said := range w.first {
		if strings.HasPrefix(who, prefix) {
			list = append(list, fmt.Sprintf("%d frames of %s", w.heard[who], said))
		}
	}
	return list
}

// shouts sends a broadcast frame every period until it is told to stop, which
// returns how many.
func (w *wire) shouts(period time.Duration) (stop func() int) {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x99, shout >> 8, shout & 0xff}, bytes.Repeat([]byte("shout "), 9)...)
	ended, done := make(chan struct{}), make(chan int)
	go func() {
		sent := 0
		for {
			select {
			case <-ended:
				done <- sent
				return
			case <-time.After(period):
			}
			if _, err := w.conn.WriteToUnix(frame, &net.UnixAddr{Name: w.far, Net: "unixgram"}); err == nil {
				sent++
			} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	return func() int { close(ended); return <-done }
}
