//go:build linux

package e2e

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each process of ours is killed, at random and often.
func kills(t *testing.T, c *container) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := startWriter(t, c)
	killed := make(map[string]int)
	for end := time.Now().Add(span(2*time.Minute, 20*time.Second)); time.Now().Before(end); {
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		// Half of the time one that lives for a moment only: a tick, a sender,
		// an ingester.
		brief := random.IntN(2) == 0
		for try := 0; try < 100; try++ {
			var pids []int
			all := c.processes()
			for pid, p := range all {
				if p.ours() && (!brief || !strings.HasPrefix(p.unit, "blockchain-") && !strings.HasPrefix(p.unit, "dbus-mcp-")) {
					pids = append(pids, pid)
				}
			}
			if len(pids) > 0 {
				pid := pids[random.IntN(len(pids))]
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed[all[pid].name+" of "+strings.SplitN(all[pid].unit, "@", 2)[0]]++
				}
				break
			}
		}
	}
	w.stop()
	t.Log("killed:", killed)
	if len(killed) < 4 {
		t.Errorf("only these were killed: %v", killed)
	}
	c.has(w)
	c.converge()
	c.healthy()
}

// While the index can't be reached nothing is lost, and nothing piles up.
func ingestStopped(t *testing.T, c *container) {
	c.run("systemctl", "stop", "gb-vecsync.socket")
	w := startWriter(t, c)
	time.Sleep(span(time.Minute, 13*time.Second))
	w.stop()
	s := c.state()
	if s.events >= s.size {
		t.Errorf("the index has come along without its socket: %+v", s)
	}
	out, err := c.try("gb-vecsync", "stats")
	if err == nil || !strings.Contains(out, "FAULT") || !strings.Contains(out, "gb-vecsync.socket") {
		t.Errorf("gb-vecsync stats does not say what is wrong: %v\n%s", err, out)
	}
	if path := c.property("btrfs-vector-sync.path", "ActiveState"); path != "active" {
		t.Errorf("btrfs-vector-sync.path is %s", path)
	}
	c.run("systemctl", "start", "gb-vecsync.socket")
	c.has(w)
	c.converge()
	c.healthy()
}

// fill fills the file system to the last block, with files that drain removes.
func (c *container) fill() {
	c.t.Helper()
	for _, size := range []string{"256M", "16M", "1M", "64K", "4K"} {
		for n := 0; n < 64; n++ {
			if _, err := c.try("fallocate", "--length", size, "/work/fill-"+size+"-"+string(rune('a'+n/26))+string(rune('a'+n%26))); err != nil {
				break
			}
		}
	}
	c.t.Log(c.run("df", "--human-readable", "/work"))
}

func (c *container) drain() {
	c.t.Helper()
	c.run("find", "/work", "-name", "fill-*", "-delete")
}

// The file system is filled to the last block, and freed.
func full(t *testing.T, c *container) {
	w := startWriter(t, c)
	c.fill()
	time.Sleep(span(20*time.Second, 8*time.Second))
	w.mu.Lock()
	t.Logf("the last answer to the writer on the full disk: %v", w.err)
	w.mu.Unlock()
	c.drain()
	time.Sleep(5 * time.Second)
	w.stop()
	if w.err != nil {
		t.Errorf("after the disk was freed: %v", w.err)
	}
	c.has(w)
	c.converge()
	c.healthy()
}
