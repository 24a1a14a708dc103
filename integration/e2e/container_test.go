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
	machine
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
	c := &container{machine: machine{t: t}, disk: d}
	c.try = c.enter
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

// enter runs a program in the container, for try.
func (c *container) enter(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{"--target", strconv.Itoa(c.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = environment
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // killing nsenter leaves its child
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), err
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
