//go:build linux

// Package e2e boots a container with our Debian package in it and asks
// whether the pipeline works. The tests write events and read answers;
// everything between is started by the package's own units.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// A container is a booted disk.
type container struct {
	t      *testing.T
	disk   *disk
	nspawn *exec.Cmd
	init   int // the container's PID 1, as the host counts
	said   bytes.Buffer
	booted time.Duration // from the start of its PID 1 to multi-user.target, as that says
}

// boot boots a disk and waits until systemd has started everything. The
// container's network is empty, or a namespace that ip-netns(8) has a name for.
func boot(t *testing.T, d *disk, namespace string) *container {
	t.Helper()
	c := &container{t: t, disk: d}
	network := "--private-network"
	if namespace != "" {
		network = "--network-namespace-path=/run/netns/" + namespace
	}
	args := []string{
		"--quiet", "--keep-unit", "--register=no", network, "--console=pipe",
		// The clock is the host's. A first change of the time zone, which the
		// kernel is told of, would put it forward or back.
		"--capability=all", "--drop-capability=CAP_SYS_TIME",
		"--machine=gbe2e", "--hostname=gbe2e", "--directory=" + d.root, "--bind=" + d.device, "--boot",
	}
	// In a pid namespace around the container's, that ends with this process
	// whatever happens: else a container outlives its nspawn.
	around := []string{"--pid", "--mount-proc", "--fork", "--kill-child=SIGKILL", "--", require.Tool(t, "systemd-nspawn")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	around = append([]string{require.Tool(t, "unshare")}, around...)
	c.nspawn = exec.Command(self, append(around, args...)...)
	c.nspawn.Env = append(os.Environ(), enterVariable+"="+strings.Join(newCgroups(t), ":"))
	c.nspawn.Stdout, c.nspawn.Stderr = &c.said, &c.said
	c.nspawn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	deadline := time.Now().Add(4 * time.Minute) // Open vSwitch hangs twice, a minute each
	for c.init == 0 {
		c.init = findInit(c.nspawn.Process.Pid)
		c.patience(deadline, "its PID 1")
	}
	// What hangs and is started again leaves its queue of jobs never empty.
	reached := time.Time{}
	for reached.IsZero() || time.Since(reached) < 3*time.Second {
		out, _ := c.try("systemctl", "is-system-running")
		if out == "running" || out == "degraded" {
			break
		}
		if active, _ := c.try("systemctl", "is-active", "multi-user.target"); reached.IsZero() && active == "active" {
			reached = time.Now()
		}
		c.patience(deadline, "the end of its boot: "+out)
	}
	c.booted = c.startup()
	return c
}

// patience waits a little, or gives up on what.
func (c *container) patience(deadline time.Time, what string) {
	c.t.Helper()
	if c.nspawn.ProcessState != nil || time.Now().After(deadline) {
		c.t.Fatalf("the container did not come to %s\n%s", what, c.said.Bytes())
	}
	time.Sleep(50 * time.Millisecond)
}

// findInit returns the descendant of pid that is PID 1 of the container, 0 if
// there is none yet.
func findInit(pid int) int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for _, f := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		if found := findInit(pid); found != 0 {
			return found
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ns, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(ns), "\t1") {
				if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
					return pid
				}
			}
		}
	}
	return 0
}

// kill takes the container's power away: its PID 1 dies, and with it every
// process, at once and unasked.
func (c *container) kill() {
	if c.nspawn == nil {
		return
	}
	if c.init != 0 {
		syscall.Kill(c.init, syscall.SIGKILL)
	}
	done := make(chan struct{})
	go func() { c.nspawn.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		c.nspawn.Process.Kill()
		<-done
	}
	c.nspawn = nil
}

// path returns where the host sees a path of the container.
func (c *container) path(p string) string { return fmt.Sprintf("/proc/%d/root%s", c.init, p) }

// try runs a program in the container and returns what it printed, without the
// last line break.
func (c *container) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{"--target", strconv.Itoa(c.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "DEBIAN_FRONTEND=noninteractive"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // killing nsenter leaves its child
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), err
}

// run is try, where the program must succeed.
func (c *container) run(argv ...string) string {
	c.t.Helper()
	out, err := c.try(argv...)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// property returns a property of a unit, or of the manager if unit is "".
func (c *container) property(unit, name string) string {
	c.t.Helper()
	argv := []string{"systemctl", "show", "--value", "--property=" + name}
	if unit != "" {
		argv = append(argv, unit)
	}
	return c.run(argv...)
}

// startup returns how long user space took to reach multi-user.target.
func (c *container) startup() time.Duration {
	c.t.Helper()
	begin, err1 := strconv.ParseInt(c.property("", "UserspaceTimestampMonotonic"), 10, 64)
	end, err2 := strconv.ParseInt(c.property("multi-user.target", "ActiveEnterTimestampMonotonic"), 10, 64)
	if err1 != nil || err2 != nil || end < begin {
		c.t.Fatalf("how long the boot took: %d, %d, %v, %v", begin, end, err1, err2)
	}
	return time.Duration(end-begin) * time.Microsecond
}

// healthy complains about units in a failed state and about dead paths, timers
// and sockets. What was killed last has a while to be started again.
func (c *container) healthy() {
	c.t.Helper()
	failing := func() string { return c.run("systemctl", "list-units", "--failed", "--plain", "--no-legend") }
	starting := func() bool {
		for _, u := range []string{"blockchain-log.service", "blockchain-journal.service", "blockchain-dbus.service", "op-dbus.service"} {
			if c.property(u, "ActiveState") != "active" {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(30 * time.Second); (starting() || failing() != "") && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
	}
	if failed := failing(); failed != "" {
		c.t.Errorf("failed units:\n%s", failed)
	}
	for _, u := range []string{
		"blockchain-log.socket", "blockchain-search.socket", "gb-vecsync.socket",
		"btrfs-snapshot.timer", "blockchain-rotate.timer", "btrfs-vector-sync.path", "blockchain-log.service", "blockchain-journal.service",
		"blockchain-dbus.service", "op-dbus.service",
	} {
		if state := c.property(u, "ActiveState"); state != "active" {
			c.t.Errorf("%s is %s", u, state)
		}
	}
	// The tools say so too, as soon as the last disturbance is over.
	for _, argv := range [][]string{{"gb-chain", "status"}, {"gb-snap", "status"}, {"gb-vecsync", "stats"}} {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(500 * time.Millisecond) {
			out, err := c.try(argv...)
			if err == nil && strings.Contains(out, "good") {
				break
			}
			if time.Now().After(deadline) {
				c.t.Errorf("%v\n%s", err, out)
				break
			}
		}
	}
}

// journal returns what the journal has since a time, of our units.
func (c *container) journal(since time.Time) string {
	out, err := c.try("journalctl", "--no-pager", "--output=short-precise", "--since=@"+strconv.FormatInt(since.Unix(), 10),
		"--unit=blockchain-*", "--unit=btrfs-*", "--unit=gb-vecsync*", "--unit=op-dbus*")
	if err != nil {
		out += "\n" + err.Error()
	}
	return out
}

// processes returns the processes of the container, by their pid on the host.
func (c *container) processes() map[int]process {
	c.t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.init))
	if err != nil {
		c.t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		c.t.Fatal(err)
	}
	list := make(map[int]process)
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if n, err := os.Readlink(dir + "/ns/pid"); err != nil || n != ns {
			continue
		}
		p, err := readProcess(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			c.t.Fatal(err)
		}
		list[pid] = p
	}
	return list
}

// A process is what /proc says of one.
type process struct {
	name     string
	args     []string
	unit     string
	cpu      time.Duration // of its own
	children time.Duration // of those that it has waited for
	pss      int64         // bytes: its memory, shared pages divided by their users
}

func readProcess(dir string) (process, error) {
	var p process
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, err
	}
	// The name, in brackets, may hold anything.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < 0 {
		return p, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	p.name = string(stat[open+1 : end])
	f := strings.Fields(string(stat[end+2:]))
	tick := func(i int) time.Duration { // USER_HZ is 100 on every Linux that Go knows
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return time.Duration(n) * 10 * time.Millisecond
	}
	p.cpu, p.children = tick(11)+tick(12), tick(13)+tick(14)
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	p.args = strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	cgroup, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(cgroup)) {
		base := filepath.Base(strings.TrimSpace(line))
		if strings.HasSuffix(base, ".service") {
			p.unit = base
		}
	}
	rollup, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(rollup)) {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			p.pss = n << 10
		}
	}
	return p, nil
}

// ours says whether a process belongs to a unit of ours.
func (p process) ours() bool {
	for _, prefix := range []string{"blockchain-", "btrfs-snapshot", "btrfs-vector-sync", "gb-vecsync", "op-dbus", "dbus-mcp-", "ovs-bridge-", "ovs-switch"} {
		if strings.HasPrefix(p.unit, prefix) {
			return true
		}
	}
	return false
}
