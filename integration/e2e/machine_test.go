//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A machine is a booted Debian with our package in it, or about to be, in a
// container or a virtual machine.
type machine struct {
	t *testing.T
	// try runs a program in the machine and returns what it printed, without
	// the last line break. The error has the program's exit code, if any.
	try  func(argv ...string) (string, error)
	slow int // how many times as long as on a host something may take here; 0 is once
}

// environment is that of the programs that try runs.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "DEBIAN_FRONTEND=noninteractive"}

// within is how long something may take that has d on a host.
func (m *machine) within(d time.Duration) time.Duration { return d * time.Duration(max(1, m.slow)) }

// run is try, where the program must succeed.
func (m *machine) run(argv ...string) string {
	m.t.Helper()
	out, err := m.try(argv...)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// property returns a property of a unit, or of the manager if unit is "".
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	argv := []string{"systemctl", "show", "--value", "--property=" + name}
	if unit != "" {
		argv = append(argv, unit)
	}
	return m.run(argv...)
}

// startup returns how long user space took to reach multi-user.target.
func (m *machine) startup() time.Duration {
	m.t.Helper()
	begin, err1 := strconv.ParseInt(m.property("", "UserspaceTimestampMonotonic"), 10, 64)
	end, err2 := strconv.ParseInt(m.property("multi-user.target", "ActiveEnterTimestampMonotonic"), 10, 64)
	if err1 != nil || err2 != nil || end < begin {
		m.t.Fatalf("how long the boot took: %d, %d, %v, %v", begin, end, err1, err2)
	}
	return time.Duration(end-begin) * time.Microsecond
}

// healthy complains about units in a failed state and about dead paths, timers
// and sockets. What was killed last has a while to be started again.
func (m *machine) healthy() {
	m.t.Helper()
	failing := func() string { return m.run("systemctl", "list-units", "--failed", "--plain", "--no-legend") }
	starting := func() bool {
		for _, u := range []string{"blockchain-log.service", "blockchain-journal.service", "blockchain-dbus.service", "op-dbus.service"} {
			if m.property(u, "ActiveState") != "active" {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(m.within(30 * time.Second)); (starting() || failing() != "") && time.Now().Before(deadline); {
		time.Sleep(m.within(200 * time.Millisecond))
	}
	if failed := failing(); failed != "" {
		m.t.Errorf("failed units:\n%s", failed)
	}
	for _, u := range []string{
		"blockchain-log.socket", "blockchain-search.socket", "gb-vecsync.socket",
		"btrfs-snapshot.timer", "blockchain-rotate.timer", "btrfs-vector-sync.path", "blockchain-log.service", "blockchain-journal.service",
		"blockchain-dbus.service", "op-dbus.service",
	} {
		if state := m.property(u, "ActiveState"); state != "active" {
			m.t.Errorf("%s is %s", u, state)
		}
	}
	// The tools say so too, as soon as the last disturbance is over.
	for _, argv := range [][]string{{"gb-chain", "status"}, {"gb-snap", "status"}, {"gb-vecsync", "stats"}} {
		for deadline := time.Now().Add(m.within(20 * time.Second)); ; time.Sleep(m.within(500 * time.Millisecond)) {
			out, err := m.try(argv...)
			if err == nil && strings.Contains(out, "good") {
				break
			}
			if time.Now().After(deadline) {
				m.t.Errorf("%v\n%s", err, out)
				break
			}
		}
	}
}

// journal returns what the journal has since a time, of our units.
func (m *machine) journal(since time.Time) string {
	out, err := m.try("journalctl", "--no-pager", "--output=short-precise", "--since=@"+strconv.FormatInt(since.Unix(), 10),
		"--unit=blockchain-*", "--unit=btrfs-*", "--unit=gb-vecsync*", "--unit=op-dbus*", "--unit=ovs-*")
	if err != nil {
		out += "\n" + err.Error()
	}
	return out
}

// A state is what must outlive whatever happens.
type state struct {
	key    string // the log's public key
	size   int64  // events that its checkpoint covers
	root   string
	events int64 // that the index has
	cursor string
	root2  string // of the index
}

// state asks log and index.
func (m *machine) state() state {
	m.t.Helper()
	s, err := m.tryState()
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *machine) tryState() (s state, err error) {
	var log struct {
		Size int64  `json:"size"`
		Root string `json:"root"`
	}
	var index struct {
		Events int64 `json:"events"`
		Cursor *struct {
			Snapshot string `json:"snapshot_uuid"`
			Root     string `json:"root"`
		} `json:"cursor"`
	}
	if s.key, err = m.try("gb-chain", "key"); err != nil {
		return s, err
	}
	for _, q := range []struct {
		into any
		argv []string
	}{{&index, []string{"gb-vecsync", "stats", "--json"}}, {&log, []string{"gb-chain", "checkpoint", "--json"}}} {
		out, err := m.try(q.argv...)
		if err != nil && out == "" {
			return s, err
		}
		if err := json.Unmarshal([]byte(out), q.into); err != nil {
			return s, fmt.Errorf("%v: %w: %s", q.argv, err, out)
		}
	}
	s.size, s.root, s.events = log.Size, log.Root, index.Events
	if index.Cursor != nil {
		s.cursor, s.root2 = index.Cursor.Snapshot, index.Cursor.Root
	}
	return s, nil
}

// converge waits until the index is what the log is, and verifies the log.
// Nobody lends a hand.
func (m *machine) converge() {
	m.t.Helper()
	begin := time.Now()
	for {
		s, err := m.tryState()
		if err == nil && s.size > 0 && s.events == s.size && s.root == s.root2 {
			break
		}
		if time.Since(begin) > m.within(90*time.Second) {
			stats, _ := m.try("gb-vecsync", "stats")
			units, _ := m.try("systemctl", "list-units", "--all", "--no-pager", "blockchain-*", "btrfs-*", "gb-vecsync*")
			socket, _ := m.try("systemctl", "show", "gb-vecsync.socket", "--property=NAccepted,NConnections,NRefused")
			m.t.Fatalf("the index did not become what the log is: %+v, %v\n%s\n%s\n%s", s, err, stats, units, socket)
		}
		time.Sleep(m.within(200 * time.Millisecond))
	}
	m.t.Logf("log and index agree after %s", time.Since(begin).Round(100*time.Millisecond))
	if out, err := m.try("gb-chain", "verify"); err != nil {
		m.t.Errorf("%v\n%s", err, out)
	}
}

// query returns how many events match.
func (m *machine) query(args ...string) int {
	m.t.Helper()
	return len(m.lines(args...))
}

// lines returns the events that match, as they are stored.
func (m *machine) lines(args ...string) []string {
	m.t.Helper()
	out := m.run(append([]string{"gb-chain", "query", "--json"}, args...)...)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// get is what a server on loopback in the machine answers.
func (m *machine) get(port int, path string) (status, body string) {
	m.t.Helper()
	script := `exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\nHost: localhost:%s\r\n\r\n' "$2" "$1" >&3 && cat <&3`
	out, err := m.try("bash", "-c", script, "-", fmt.Sprint(port), path)
	if err != nil {
		return err.Error(), ""
	}
	head, body, _ := strings.Cut(out, "\r\n\r\n")
	status, _, _ = strings.Cut(head, "\r\n")
	return status, body
}

// eventually wants a thing to be so within half a minute of a machine that is not slow; f says what is wrong.
func (m *machine) eventually(what string, f func() string) {
	m.t.Helper()
	wrong := ""
	for deadline := time.Now().Add(m.within(30 * time.Second)); ; time.Sleep(m.within(200 * time.Millisecond)) {
		if wrong = f(); wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			m.t.Errorf("%s: %s", what, wrong)
			return
		}
	}
}

// wants says what is wrong with the answer of a server on loopback, "" if it
// has the text.
func (m *machine) wants(port int, path, text string) string {
	status, body := m.get(port, path)
	if !strings.Contains(status, " 200 ") || !strings.Contains(body, text) {
		return fmt.Sprintf("%s: %s, %.300s", path, status, body)
	}
	return ""
}

// exitCode is that of a program that try has run, -1 where it could not.
func exitCode(err error) int {
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
