//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A host is everything that the story needs, and nothing of the machine's own.
type host struct {
	ctx        context.Context
	bin, units string

	dir      string // sockets, state, policy: others can enter it
	fs       string // the btrfs
	address  string // of the bus
	sw       *vswitch.Switch
	web, db  string // the network namespaces of two hosts on the bridge
	env      []string
	children []*child
	down     []func() error // last first
}

// A child runs as long as the host.
type child struct {
	name string
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan struct{}
	err  error
}

// The bridge is the README's: 10.0.1.0/24, with two hosts on it.
const (
	bridge = "ovsbr1"
	webIP  = "10.0.1.10"
	dbIP   = "10.0.1.20"
	agent  = "claude"
	mcpUID = 65534 // nobody
)

// policy is what the operator has written: an agent may ask for changes of the
// desired state, and a person says yes or no to each.
const policy = `{"version":1,"per_minute":600,"rules":[
  {"id":"operators-apply","clients":["cli","dbus"],"name":"org.freedesktop.opdbus","effect":"allow"},
  {"id":"agents-ask","clients":["mcp:` + agent + `"],"name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.*","members":["Apply"],"effect":"approve","ttl":"10m"}]}
`

// wanted is a desired state of the bridge, with the port of the database in a
// VLAN.
func wanted(tag int) string {
	return fmt.Sprintf(`{"version":1,"plugins":{"ovs":{"bridges":{%q:{"datapath_type":"netdev","ports":{"vnet-web":{"tag":10},"vnet-db":{"tag":%d}}}}}}}`, bridge, tag)
}

func (h *host) source() string    { return filepath.Join(h.fs, "@blockchain-timing") }
func (h *host) log() string       { return filepath.Join(h.source(), "log") }
func (h *host) snapshots() string { return filepath.Join(h.fs, "@blockchain-snapshots") }
func (h *host) index() string     { return filepath.Join(h.fs, "@blockchain-vectors", "index.db") }
func (h *host) cursor() string    { return filepath.Join(h.dir, "cursor") }
func (h *host) tool(name string) string {
	return filepath.Join(h.bin, name)
}

// setUp makes the host.
func (h *host) setUp() (err error) {
	if h.dir, err = os.MkdirTemp("", "gb-demo-"); err != nil {
		return err
	}
	h.down = append(h.down, func() error { return os.RemoveAll(h.dir) })
	for _, d := range []string{"run", "actions"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(h.dir, 0o755), os.Remove(filepath.Join(h.dir, "actions")), os.Chown(filepath.Join(h.dir, "run"), mcpUID, mcpUID)); err != nil {
		return err
	}
	mnt, unmount, err := loopbtrfs.Make(loopbtrfs.Options{MountOptions: "noatime,compress=zstd:9"})
	if err != nil {
		return err
	}
	h.fs = mnt
	h.down = append(h.down, unmount)
	for _, d := range []string{h.source(), h.snapshots(), filepath.Dir(h.index())} {
		if err := (subvol.System{}).Create(d); err != nil {
			return err
		}
	}
	if err := h.network(); err != nil {
		return err
	}
	speaker, err := user.LookupId(strconv.Itoa(mcpUID))
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(h.dir, name) }
	if err := os.WriteFile(path("policy.json"), []byte(policy), 0o644); err != nil {
		return err
	}
	daemon, stop, err := privatebus.Make(h.dir, privatebus.Options{Policies: []string{filepath.Join(h.units, "dbus-1", "system.d", names.BusName+".conf"), h.polkitPolicy()}})
	if err != nil {
		return err
	}
	h.address = daemon
	h.down = append(h.down, stop)
	h.env = []string{"PATH=" + h.bin + ":" + os.Getenv("PATH"), "TZ=UTC", "GB_BUS=" + h.address, "DBUS_SYSTEM_BUS_ADDRESS=" + h.address, "GB_LOG=" + h.log(), "GB_KEYS=" + path("keys"),
		"GB_POLICY=" + path("policy.json"), "GB_APPROVALS=" + path("approvals"), "GB_STATE=" + path("state"), "GB_SPOOL=" + path("spool"), "GB_CHAIN_SOCKET=" + path("chain.sock"),
		"GB_SEARCH_SOCKET=" + path("search.sock"), "GB_WITNESSES=", "GB_TOKENS=" + path("tokens.json"), "GB_MCP_USER=" + speaker.Username, "GB_WEB_USER=root", "GB_APPROVERS=" + path("approvers"),
		"GB_SNAPSHOTS=" + h.snapshots(), "GB_INDEX=" + h.index(), "GB_CURSOR=" + h.cursor(), "GB_RUN=" + path("take"),
		"GB_OVS_DB=" + h.sw.DB, "OVS_RUNDIR=" + h.sw.Dir, "GB_OVS_STATE=" + path("ovs"), "GB_OVS_CONFIG=" + path("ovs.json"), "GB_OVS_SOCKET=" + path("switch.sock"), "GB_ROOT=" + h.dir}
	polkit, err := polkitCommand(h.units, h.dir, h.address)
	if err != nil {
		return err
	}
	if err := h.start("polkitd", polkit); err != nil {
		return err
	}
	if _, err := h.run("gb-chain", "init", "--origin", "demo.example/log"); err != nil {
		return err
	}
	if err := h.daemon(0, "gb-chain", "serve", "--writers", ""); err != nil {
		return err
	}
	if err := h.await("the log's daemon", func() bool { return answers(path("chain.sock")) }); err != nil {
		return err
	}
	if err := h.daemon(0, "gb-snap", "take", "--every", "1s", h.source()); err != nil {
		return err
	}
	if err := h.daemon(0, "gb-vecsync", "search", "--listen", "--index", h.index(), "--socket", path("search.sock")); err != nil {
		return err
	}
	if err := h.await("the search", func() bool { return answers(path("search.sock")) }); err != nil {
		return err
	}
	if err := h.await("polkitd", func() bool { return h.owned("org.freedesktop.PolicyKit1") }); err != nil {
		return err
	}
	if err := h.daemon(0, "ip", "netns", "exec", h.sw.NS, h.tool("opdbus"), "serve"); err != nil {
		return err
	}
	if err := h.await("opdbus serve", func() bool { return h.owned(names.BusName) }); err != nil {
		return err
	}
	if err := h.daemon(mcpUID, "opdbus", "mcp", "--listen", "unix:"+path("run/mcp.sock")); err != nil {
		return err
	}
	return h.await("opdbus mcp", func() bool { return answers(path("run/mcp.sock")) })
}

// polkitPolicy is what Debian's polkitd may do on a bus, where it is installed.
func (h *host) polkitPolicy() string {
	return "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf"
}

// network makes the switch, and two hosts with a cable to it each.
func (h *host) network() error {
	sw, down, err := vswitch.Make(vswitch.Options{})
	if err != nil {
		return err
	}
	h.sw = sw
	h.down = append(h.down, down)
	for _, host := range []struct {
		ns       *string
		port, ip string
	}{{&h.web, "vnet-web", webIP}, {&h.db, "vnet-db", dbIP}} {
		if *host.ns, err = sw.Namespace(); err != nil {
			return err
		}
		if err := sw.Link(host.port, *host.ns, "eth0"); err != nil {
			return err
		}
		if err := sw.Script("-n " + *host.ns + " address add " + host.ip + "/24 dev eth0"); err != nil {
			return err
		}
		// The userspace datapath hands on what the kernel would have left to the
		// card: checksums, which nobody has filled in.
		if _, err := sw.In(*host.ns, "ethtool", "-K", "eth0", "tx", "off"); err != nil {
			return err
		}
	}
	return nil
}

func answers(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// owned says whether somebody has a name on the bus.
func (h *host) owned(name string) bool {
	conn, err := bus.Connect(h.ctx, h.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_, err = conn.Owner(h.ctx, name, false)
	return err == nil
}

// await waits until something is so.
func (h *host) await(what string, so func() bool) error {
	for deadline := time.Now().Add(30 * time.Second); !so(); {
		for _, c := range h.children {
			select {
			case <-c.done:
				return fmt.Errorf("%s has ended: %v: %s", c.name, c.err, strings.TrimSpace(c.said.String()))
			default:
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not come", what)
		}
		select {
		case <-h.ctx.Done():
			return context.Cause(h.ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// command is a program, one of ours by its name, with the host's environment.
func (h *host) command(argv ...string) *exec.Cmd {
	if !strings.Contains(argv[0], "/") {
		if _, err := os.Stat(h.tool(argv[0])); err == nil {
			argv[0] = h.tool(argv[0])
		}
	}
	cmd := exec.CommandContext(h.ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), h.env...)
	cmd.Dir = "/"
	// Ctrl-C in the terminal is for us, who stop the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// run runs a program to its end and returns what it printed.
func (h *host) run(argv ...string) (string, error) {
	cmd := h.command(argv...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(words.String()))
	}
	return out.String(), nil
}

// daemon starts a program of ours for as long as the host is there, as a user.
func (h *host) daemon(uid uint32, argv ...string) error {
	cmd := h.command(argv...)
	// What stops it is takeDown, in its order.
	plain := exec.Command(cmd.Path, cmd.Args[1:]...)
	plain.Env, plain.Dir, plain.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
	if uid != 0 {
		plain.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	return h.start(filepath.Base(argv[0])+" "+argv[1], plain)
}

func (h *host) start(name string, cmd *exec.Cmd) error {
	c := &child{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &c.said
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	h.children = append(h.children, c)
	h.down = append(h.down, func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-c.done:
		case <-time.After(15 * time.Second):
			cmd.Process.Kill()
			<-c.done
			return fmt.Errorf("%s did not end and was killed", name)
		}
		return nil
	})
	return nil
}

// takeDown undoes setUp, last first, as far as that came.
func (h *host) takeDown() error {
	var errs []error
	for len(h.down) > 0 {
		f := h.down[len(h.down)-1]
		h.down = h.down[:len(h.down)-1]
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
