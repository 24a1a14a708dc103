//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// snapshots returns the names of those that are there.
func (c *container) snapshots() []string {
	c.t.Helper()
	entries, err := os.ReadDir(c.path(names.SnapshotsDir))
	if err != nil {
		c.t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "Z") {
			list = append(list, e.Name())
		}
	}
	return list
}

// While events come, there is a snapshot each second, and each event is found
// soon.
func searchable(t *testing.T, c *container) {
	lasting := span(60*time.Second, 20*time.Second)
	before := c.snapshots()
	taken := make(map[string]bool)
	w := startWriter(t, c)
	found := startWatch(t, c, w.run)
	for end := time.Now().Add(lasting); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, s := range c.snapshots() {
			taken[s] = true
		}
	}
	w.stop()
	for _, s := range before {
		delete(taken, s)
	}
	seconds := int(lasting / time.Second)
	t.Logf("%d snapshots in %d s", len(taken), seconds)
	if len(taken) < seconds*95/100 {
		t.Errorf("%d snapshots in %d s", len(taken), seconds)
	}
	// The last events have ten seconds.
	time.Sleep(10 * time.Second)
	found.stop()
	if found.err != nil {
		t.Errorf("search: %v", found.err)
	}
	for word, written := range map[string]map[int]time.Time{"eventmarker": w.acked, "journalmarker": w.sent} {
		if len(written) == 0 {
			t.Fatalf("no %s was written: %v", word, w.err)
		}
		seen := found.seen[word]
		if len(seen) != len(written) {
			t.Errorf("%s: %d written, %d found", word, len(written), len(seen))
		}
		var late []time.Duration
		for k, n := range slices.Sorted(maps.Keys(written)) {
			if k < len(seen) {
				late = append(late, seen[k].Sub(written[n]))
			}
		}
		if len(late) == 0 {
			continue
		}
		slices.Sort(late)
		at := func(percent int) time.Duration {
			return late[min(len(late)*percent/100, len(late)-1)].Round(10 * time.Millisecond)
		}
		t.Logf("%s: %d found, half within %s, 95%% within %s, all within %s", word, len(late), at(50), at(95), at(100))
		if at(100) > 10*time.Second {
			t.Errorf("%s: the last one took %s", word, at(100))
		}
		if long && at(95) > 3*time.Second {
			t.Errorf("%s: 95%% within %s", word, at(95))
		}
	}
	c.converge()
	c.has(w)
	// What becomes of snapshots is recorded as well, by way of the spool.
	if c.query("--source", "snap") == 0 {
		t.Error("there is no event of a snapshot")
	}
	c.healthy()
}

// usage is what the pipeline has used so far.
type usage struct {
	at      time.Time
	init    time.Duration         // of PID 1 and of what it has waited for
	daemons map[int]time.Duration // of each process that runs, by pid
	called  map[int]string        // what each is called
	pss     map[string]int64      // bytes of each
	written int64                 // to the disk
	events  int                   // in the log
	names   map[string]bool       // snapshots
}

func (c *container) usage() usage {
	c.t.Helper()
	u := usage{
		at: time.Now(), daemons: make(map[int]time.Duration), called: make(map[int]string), pss: make(map[string]int64), names: make(map[string]bool),
		written: c.disk.written(), events: int(c.state().size),
	}
	for pid, p := range c.processes() {
		if pid == c.init {
			u.init = p.cpu + p.children
		} else if p.ours() {
			u.daemons[pid] = p.cpu + p.children
			u.called[pid] = p.name + " " + strings.Join(p.args[1:min(2, len(p.args))], " ")
			u.pss[u.called[pid]] += p.pss
		}
	}
	for _, s := range c.snapshots() {
		u.names[s] = true
	}
	return u
}

// spent returns how much of one core was used between two usages.
func (u usage) spent(later usage) float64 {
	used := later.init - u.init
	for pid, cpu := range later.daemons {
		used += cpu - u.daemons[pid]
	}
	return used.Seconds() / later.at.Sub(u.at).Seconds()
}

// shares says how much of it was whose.
func (u usage) shares(later usage) string {
	share := func(d time.Duration) string {
		return fmt.Sprintf("%.2f%%", 100*d.Seconds()/later.at.Sub(u.at).Seconds())
	}
	list := []string{"PID 1 and what it started: " + share(later.init-u.init)}
	for _, pid := range slices.Sorted(maps.Keys(later.daemons)) {
		list = append(list, later.called[pid]+": "+share(later.daemons[pid]-u.daemons[pid]))
	}
	return strings.Join(list, ", ")
}

// While nothing happens, hardly anything is done: by all daemons together, those
// that somebody has asked for too, and by PID 1 for them.
func idle(t *testing.T, c *container) {
	for _, u := range []string{"dbus-mcp-server.service", "dbus-mcp-web.service", "ovs-bridge-watch.service", "blockchain-ovs.service", "op-dbus.service"} {
		if state := c.property(u, "ActiveState"); state != "active" {
			t.Errorf("%s is %s", u, state)
		}
	}
	// What the phases before have left is recorded with the next snapshot. A
	// minute later the last of their snapshots, one a second, is thinned out.
	c.converge()
	time.Sleep(span(70*time.Second, 3*time.Second))
	first := c.usage()
	time.Sleep(span(5*time.Minute, 20*time.Second))
	last := c.usage()

	taken := 0
	for s := range last.names {
		if !first.names[s] {
			taken++
		}
	}
	own := 0
	for _, line := range c.lines()[first.events:] {
		var e struct {
			Source  string `json:"source"`
			Subject string `json:"subject"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Source != "journald" || (process{unit: e.Subject}).ours() {
			own++
			t.Log(line)
		}
	}
	seconds := last.at.Sub(first.at).Seconds()
	rate := float64(last.written-first.written) / seconds / 1024
	var memory int64
	for name, pss := range last.pss {
		t.Logf("%s: %.1f MB", name, float64(pss)/1e6)
		memory += pss
	}
	t.Logf("%.0f s: %d snapshots, %d events of our own, %.2f%% of a core, %.1f KiB/s written, %.0f MB in all",
		seconds, taken, own, 100*first.spent(last), rate, float64(memory)/1e6)
	t.Log(first.shares(last))
	if taken > 2 || own > 10 {
		t.Errorf("%d snapshots and %d events of our own making", taken, own)
	}
	if rate > 20 && long {
		t.Errorf("%.1f KiB/s written", rate)
	}
	if memory > 200e6 {
		t.Errorf("%.0f MB", float64(memory)/1e6)
	}
	// A busy machine makes the same work cost more.
	slack := 1.0
	if !long {
		slack = 4
	}
	if s := first.spent(last); s > 0.03*slack {
		t.Errorf("%.2f%% of a core", 100*s)
	}
	c.run("systemctl", "stop", "btrfs-snapshot.timer")
	first = c.usage()
	time.Sleep(span(2*time.Minute, 20*time.Second))
	last = c.usage()
	s := first.spent(last)
	t.Logf("without the timer %.2f%% of a core; %s", 100*s, first.shares(last))
	if s > 0.01*slack {
		t.Errorf("without the timer %.2f%% of a core", 100*s)
	}
	c.run("systemctl", "start", "btrfs-snapshot.timer")
	c.healthy()
}
