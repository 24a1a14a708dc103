//go:build linux

// Package vswitch gives a test an Open vSwitch of its own: an ovsdb-server
// with a fresh database and an ovs-vswitchd with the userspace datapath in a
// network namespace that no other test sees.
//
// It guarantees: all sockets, files and namespaces carry the test process's
// number; they are taken down when the test ends, however it ends. The daemons
// die with the test process (PDEATHSIG); namespaces that a killed one left
// behind are deleted by the next.
package vswitch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

const schema = "/usr/share/openvswitch/vswitch.ovsschema"

// Options say what to make. The zero value is a database and a switch.
type Options struct {
	NoSwitch bool // only the database server, no namespace
	NoDB     bool // neither: for namespaces and links alone
}

// A Switch is a database server, and a switch unless that was not wanted.
type Switch struct {
	Dir string // of sockets and the database; OVS_RUNDIR
	DB  string // "unix:PATH", for --db
	NS  string // the switch's network namespace

	db, switchd *exec.Cmd
	namespaces  []string
}

var (
	count  atomic.Int64
	adding sync.Mutex // covers ip netns add, whose first runs make /run/netns
)

// Start makes a switch for a test, and skips the test where it can't.
func Start(t testing.TB, o Options) *Switch {
	t.Helper()
	Need(t, o)
	s, down, err := Make(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, log := range []string{"switch.log", "db.log"} {
				if data, err := os.ReadFile(filepath.Join(s.Dir, log)); err == nil && len(data) > 0 {
					t.Logf("%s ends:\n%s", log, data[max(0, len(data)-3000):])
				}
			}
		}
		if err := down(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Need skips the test where a switch can't be had.
func Need(t testing.TB, o Options) {
	t.Helper()
	if o.NoDB {
		require.Root(t)
		require.Tool(t, "ip")
		return
	}
	for _, tool := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vsctl"} {
		require.Tool(t, tool)
	}
	if _, err := os.Stat(schema); err != nil {
		require.Skip(t, "needs the schema of Open vSwitch: "+err.Error())
	}
	if o.NoSwitch {
		return
	}
	require.Root(t)
	for _, tool := range []string{"ovs-vswitchd", "ovs-ofctl", "ovs-appctl", "ip", "ethtool", "ping"} {
		require.Tool(t, tool)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		require.Skip(t, "needs /dev/net/tun: "+err.Error())
	}
}

// Make makes a switch; the function takes it down again.
func Make(o Options) (s *Switch, down func() error, err error) {
	sweep()
	dir, err := os.MkdirTemp("", "gb-ovs-")
	if err != nil {
		return nil, nil, err
	}
	s = &Switch{Dir: dir, DB: "unix:" + filepath.Join(dir, "db.sock")}
	made := s
	defer func() {
		if err != nil {
			err = errors.Join(err, made.down())
		}
	}()
	if o.NoDB {
		return s, s.down, nil
	}
	if _, err := s.Run("ovsdb-tool", "create", s.path("conf.db"), schema); err != nil {
		return nil, nil, err
	}
	if err := s.StartDB(); err != nil {
		return nil, nil, err
	}
	if _, err := s.Vsctl("--no-wait", "--", "init"); err != nil {
		return nil, nil, err
	}
	if o.NoSwitch {
		return s, s.down, nil
	}
	if s.NS, err = s.Namespace(); err != nil {
		return nil, nil, err
	}
	return s, s.down, s.StartSwitch()
}

func (s *Switch) path(name string) string { return filepath.Join(s.Dir, name) }

// Env is the environment in which OVS tools find this switch.
func (s *Switch) Env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+s.Dir, "OVS_LOGDIR="+s.Dir, "OVS_DBDIR="+s.Dir)
}

func (s *Switch) daemon(argv ...string) (*exec.Cmd, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = s.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

// StartDB starts the database server and waits until it answers.
func (s *Switch) StartDB() (err error) {
	s.db, err = s.daemon("ovsdb-server", s.path("conf.db"), "--remote=p"+s.DB, "--unixctl="+s.path("db.ctl"),
		"--log-file="+s.path("db.log"), "-vconsole:off")
	if err != nil {
		return err
	}
	return s.await("db.sock")
}

// StartSwitch starts ovs-vswitchd in the namespace and waits until it answers.
func (s *Switch) StartSwitch() (err error) {
	s.switchd, err = s.daemon("ip", "netns", "exec", s.NS, "ovs-vswitchd", s.DB, "--unixctl="+s.path("switch.ctl"),
		"--log-file="+s.path("switch.log"), "-vconsole:off")
	if err != nil {
		return err
	}
	if err := s.await("switch.ctl"); err != nil {
		return err
	}
	_, err = s.Run("ovs-vsctl", "--timeout=10", "--db="+s.DB, "init") // waits until the switch has taken it
	return err
}

func (s *Switch) await(name string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		// A socket is there a moment before somebody listens.
		if conn, err := net.Dial("unix", s.path(name)); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("%s did not come", s.path(name))
}

func end(cmd **exec.Cmd, signal os.Signal) {
	if *cmd == nil || (*cmd).Process == nil {
		return
	}
	(*cmd).Process.Signal(signal)
	(*cmd).Wait()
	*cmd = nil
}

// KillSwitch ends ovs-vswitchd with SIGKILL. What it left of its socket is
// removed, so that StartSwitch waits for the new one.
func (s *Switch) KillSwitch() {
	end(&s.switchd, syscall.SIGKILL)
	os.Remove(s.path("switch.ctl"))
}

// StopSwitch stops ovs-vswitchd without ending it, until ContinueSwitch: a
// switch that is dead without anybody noticing.
func (s *Switch) StopSwitch() { s.switchd.Process.Signal(syscall.SIGSTOP) }

// ContinueSwitch lets a stopped ovs-vswitchd go on.
func (s *Switch) ContinueSwitch() { s.switchd.Process.Signal(syscall.SIGCONT) }

// StopDB stops ovsdb-server without ending it, until ContinueDB.
func (s *Switch) StopDB() { s.db.Process.Signal(syscall.SIGSTOP) }

// ContinueDB lets a stopped ovsdb-server go on.
func (s *Switch) ContinueDB() { s.db.Process.Signal(syscall.SIGCONT) }

// KillDB ends ovsdb-server with SIGKILL.
func (s *Switch) KillDB() {
	end(&s.db, syscall.SIGKILL)
	os.Remove(s.path("db.sock"))
}

func (s *Switch) down() error {
	if s.switchd != nil {
		s.ContinueSwitch()
	}
	if s.db != nil {
		s.ContinueDB()
	}
	end(&s.switchd, syscall.SIGTERM)
	end(&s.db, syscall.SIGTERM)
	var errs []error
	for _, ns := range s.namespaces {
		errs = append(errs, deleteNamespace(ns))
	}
	return errors.Join(append(errs, os.RemoveAll(s.Dir))...)
}

// Namespace makes another network namespace, with lo up, that goes with the
// switch.
func (s *Switch) Namespace() (string, error) {
	name := fmt.Sprintf("gbt-%d-%d", os.Getpid(), count.Add(1))
	adding.Lock()
	_, err := s.Run("ip", "netns", "add", name)
	adding.Unlock()
	if err != nil {
		return "", err
	}
	s.namespaces = append(s.namespaces, name)
	_, err = s.Run("ip", "-n", name, "link", "set", "lo", "up")
	return name, err
}

// Boot replaces the switch's namespace by a fresh one and starts the daemons
// in it on the old database, as a boot does.
func (s *Switch) Boot() error {
	end(&s.switchd, syscall.SIGKILL)
	end(&s.db, syscall.SIGKILL)
	for _, name := range []string{"switch.ctl", "db.sock", "db.ctl"} {
		os.Remove(s.path(name))
	}
	if err := deleteNamespace(s.NS); err != nil {
		return err
	}
	s.namespaces = s.namespaces[1:]
	ns, err := s.Namespace()
	if err != nil {
		return err
	}
	s.NS = ns
	s.namespaces = append([]string{ns}, s.namespaces[:len(s.namespaces)-1]...)
	return s.StartDB()
}

// Link makes a veth pair: near in the switch's namespace, far in ns. Both are
// up.
func (s *Switch) Link(near, ns, far string) error {
	return s.Script(
		"link add "+near+" netns "+s.NS+" type veth peer name "+far+" netns "+ns,
		"-n "+s.NS+" link set "+near+" up",
		"-n "+ns+" link set "+far+" up",
	)
}

// Script runs ip(8) with each line's words.
func (s *Switch) Script(lines ...string) error {
	for _, l := range lines {
		if _, err := s.Run("ip", strings.Fields(l)...); err != nil {
			return err
		}
	}
	return nil
}

// Vsctl runs ovs-vsctl on the database, for at most 10 s.
func (s *Switch) Vsctl(args ...string) (string, error) {
	return s.Run("ovs-vsctl", append([]string{"--timeout=10", "--db=" + s.DB}, args...)...)
}

// In runs a program in the namespace ns.
func (s *Switch) In(ns string, argv ...string) (string, error) {
	return s.Run("ip", append([]string{"netns", "exec", ns}, argv...)...)
}

// Run runs a program with Env, for at most 60 s, and returns what it printed.
func (s *Switch) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.Env()
	cmd.WaitDelay = 10 * time.Second // a busy machine may stand still for a while
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

func deleteNamespace(name string) error {
	out, err := exec.Command("ip", "netns", "del", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("delete the network namespace %s: %w: %s", name, err, out)
	}
	return nil
}

// sweep deletes namespaces of test processes that are no more.
func sweep() {
	list, _ := filepath.Glob("/run/netns/gbt-*")
	for _, path := range list {
		parts := strings.Split(filepath.Base(path), "-")
		pid, err := strconv.Atoi(parts[1])
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			deleteNamespace(filepath.Base(path))
		}
	}
}
