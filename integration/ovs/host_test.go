//go:build linux

package ovs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

func TestMain(m *testing.M) { tools.Main(m) }

// A host is a switch with an uplink ens1, which has the address 192.0.2.2 and
// a default route by 192.0.2.1 in the namespace wan, and a log's daemon.
type host struct {
	*vswitch.Switch
	t      *testing.T
	wan    string
	dir    string
	daemon *exec.Cmd
	guests map[string]string // namespaces of vms, by port
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Switch: vswitch.Start(t, vswitch.Options{}), t: t, dir: t.TempDir(), guests: make(map[string]string)}
	wan, err := h.Namespace()
	h.must(err)
	h.wan = wan
	h.uplink()
	h.startLog()
	return h
}

// in is the host for a part of its test.
func (h *host) in(t *testing.T) *host {
	part := *h
	part.t = t
	return &part
}

// uplink makes ens1 as the host's own configuration does at a boot.
func (h *host) uplink() {
	h.t.Helper()
	h.must(h.Link("ens1", h.wan, "wan0"))
	h.must(h.Script(
		"-n "+h.wan+" addr add 192.0.2.1/24 dev wan0",
		"-n "+h.NS+" addr add 192.0.2.2/24 dev ens1",
		"-n "+h.NS+" route add default via 192.0.2.1 metric 100",
		"-n "+h.NS+" route add 198.51.100.0/24 via 192.0.2.1 src 192.0.2.2 mtu 1400",
	))
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// tool is the path of one of our binaries.
func (h *host) tool(name string) string { return tools.Path(h.t, name) }

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) startLog() {
	h.t.Helper()
	if _, err := os.Stat(h.path("log")); err != nil {
		_, err := h.Run(h.tool("gb-chain"), "init", "--log", h.path("log"), "--keys", h.path("keys"), "--origin", "test.example/log")
		h.must(err)
	}
	h.daemon = exec.Command(h.tool("gb-chain"), "serve", "--log", h.path("log"), "--keys", h.path("keys"), "--socket", h.path("chain.sock"))
	h.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.must(h.daemon.Start())
	h.t.Cleanup(h.stopLog)
	h.eventually(func() error { _, err := os.Stat(h.path("chain.sock")); return err })
}

func (h *host) stopLog() {
	if h.daemon != nil {
		h.daemon.Process.Signal(syscall.SIGTERM)
		h.daemon.Wait()
		h.daemon = nil
	}
}

// events returns the log's lines.
func (h *host) events() string {
	out, err := h.Run(h.tool("gb-chain"), "query", "--log", h.path("log"), "--json")
	h.must(err)
	return out
}

// eventually waits, for at most a minute, until check is content.
func (h *host) eventually(check func() error) {
	h.t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	h.t.Fatalf("did not come: %v", err)
}

func (h *host) config(text string) {
	h.t.Helper()
	h.must(os.WriteFile(h.path("ovs.json"), []byte(text), 0o644))
}

// command is gb-ovs-setup in the switch's namespace.
func (h *host) command(args ...string) *exec.Cmd {
	argv := []string{"netns", "exec", h.NS, h.tool("gb-ovs-setup"), args[0]}
	if args[0] == "plan" || args[0] == "apply" || args[0] == "status" || args[0] == "watch" {
		argv = append(argv, "--config", h.path("ovs.json"))
	}
	argv = append(argv, "--db", h.DB, "--state", h.path("state"), "--socket", h.path("chain.sock"), "--spool", h.path("spool"))
	cmd := exec.Command("ip", append(argv, args[1:]...)...)
	cmd.Env = h.Env()
	return cmd
}

// setup runs gb-ovs-setup and wants the exit code.
func (h *host) setup(code int, args ...string) (stdout, stderr string) {
	h.t.Helper()
	return h.wants(code, h.command(args...))
}

func (h *host) wants(code int, cmd *exec.Cmd) (stdout, stderr string) {
	h.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	if have := cmd.ProcessState.ExitCode(); have != code {
		h.t.Fatalf("%v: exit code %d, want %d\n%s%s", cmd.Args[4:], have, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// contains fails unless text has every part.
func (h *host) contains(text string, parts ...string) {
	h.t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			h.t.Fatalf("want %q in:\n%s", p, text)
		}
	}
}

// situation is what a rollback must bring back: the configuration in the
// database, addresses, routes and offloads of ens1.
func (h *host) situation() string {
	h.t.Helper()
	db := dial(h.t, h.Switch)
	defer db.Close()
	var b strings.Builder
	b.WriteString(normalised(h.t, db))
	for _, argv := range [][]string{
		{"ip", "-o", "-4", "addr", "show", "scope", "global"},
		{"ip", "route", "show", "table", "main"},
		{"ethtool", "-k", "ens1"},
	} {
		out, err := h.In(h.NS, argv...)
		h.must(err)
		for line := range strings.Lines(out) { // without interface numbers
			if i := strings.Index(line, ": "); i > 0 && argv[1] == "-o" {
				line = line[i+2:]
			}
			b.WriteString(line)
		}
	}
	return b.String()
}

// reachable pings the host from outside.
func (h *host) reachable() error {
	_, err := h.In(h.wan, "ping", "-c", "1", "-W", "1", "192.0.2.2")
	return err
}

// nextCfg counts transactions of the switch's configuration.
func (h *host) nextCfg() string {
	out, err := h.Vsctl("get", "Open_vSwitch", ".", "next_cfg")
	h.must(err)
	return strings.TrimSpace(out)
}
