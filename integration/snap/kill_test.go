package snap

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

// gb-snap is killed at any point, again and again, while it takes, prunes and
// records, and while a sender holds what it sends: what is held is never
// deleted, the cap is never passed, every file can be read, and in the end
// each deletion is in the log, with its reason.
func TestKilledAtAnyPoint(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{MountOptions: "noatime,commit=1"})
	rounds := 25
	if torture {
		rounds = 400
	}
	log, keys := filepath.Join(r.fs, "log"), filepath.Join(r.state, "keys")
	r.ok("gb-chain", "init", "--log", log, "--keys", keys, "--origin", "kill.example/log")
	record := []string{"--log", log, "--keys", keys, "--socket", filepath.Join(r.state, "none.sock")}
	const most = 12
	cursor := filepath.Join(r.state, "cursor")
	r.write("a", "first")
	r.ok("gb-snap", "take", r.src)
	r.ok("gb-snap", "hold", "add", "audit", "newest")
	audit := r.live()[0]
	store, err := snap.OpenStore(sys, r.snapshots)
	r.must(err)
	seed := time.Now().UnixNano()
	rnd := rand.New(rand.NewPCG(uint64(seed), 1<<32))
	seen := map[string]bool{}
	for n := range rounds {
		d := r.take(50*time.Millisecond, append(record, "--grid", "4x1s", "--max-count", fmt.Sprint(most))...)
		stop := make(chan struct{})
		senders := make(chan struct{})
		go func() {
			defer close(senders)
			rnd := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				send := exec.Command(tools.Path(t, "gb-snap"), "send", "--cursor", cursor, r.src)
				send.Env = r.env()
				send.Start()
				time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond)
				send.Process.Kill()
				send.Wait()
			}
		}()
		for end := time.Now().Add(time.Duration(100+rnd.IntN(300)) * time.Millisecond); time.Now().Before(end); {
			r.write("a", "x")
			for _, sn := range r.live() {
				seen[sn.UUID.String()] = true
			}
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		}
		d.kill()
		close(stop)
		<-senders
		list := r.live()
		if len(list) == 0 || len(list) > most || list[0].UUID != audit.UUID {
			t.Fatalf("seed %d, round %d: %d live, the first is held as audit: %v", seed, n, len(list), list[0].UUID == audit.UUID)
		}
		for _, sn := range list {
			seen[sn.UUID.String()] = true
			if _, err := os.Stat(filepath.Join(r.snapshots, sn.Name, "a")); err != nil {
				t.Errorf("seed %d, round %d: %v", seed, n, err)
			}
		}
		// Not what stands in the hold files: the cursor may have released it
		// meanwhile.
		holders, err := store.Holders(list, nil)
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, n, err)
		}
		live := snap.Alive(list)
		for id, by := range holders {
			if !live(id) {
				t.Fatalf("seed %d, round %d: %s is held by %s and gone", seed, n, id, by)
			}
		}
		// The receiver comes along with some.
		if n%3 == 0 {
			text := fmt.Sprintf(`{"source_uuid":"%[1]s","snapshot_uuid":"%[1]s","ctransid":1,"tree_size":0,"root":""}`, list[len(list)-1].UUID)
			r.must(errors.Join(os.WriteFile(cursor+".tmp", []byte(text), 0o600), os.Rename(cursor+".tmp", cursor)))
		}
	}
	// What waits in the spool goes to the log with what a person does.
	r.must(os.Remove(cursor))
	r.ok("gb-snap", append([]string{"hold", "add", "last", "newest"}, record...)...)
	recorded := map[string]int{}
	for line := range strings.Lines(r.ok("gb-chain", "query", "--log", log, "--type", "snapshot.pruned", "--json")) {
		var e struct {
			Data struct {
				Reason    string
				Snapshots []struct{ UUID string }
			}
		}
		r.must(json.Unmarshal([]byte(line), &e))
		if e.Data.Reason == "" {
			t.Errorf("no reason: %s", line)
		}
		for _, s := range e.Data.Snapshots {
			recorded[s.UUID]++
		}
	}
	for _, sn := range r.live() {
		delete(seen, sn.UUID.String())
		if recorded[sn.UUID.String()] > 0 {
			t.Errorf("%s is there and recorded as deleted", sn.Name)
		}
	}
	for id := range seen {
		if recorded[id] == 0 {
			t.Errorf("seed %d: the deletion of %s is not recorded", seed, id)
		}
	}
	if len(recorded) < rounds {
		t.Errorf("only %d deletions", len(recorded))
	}
	r.ok("gb-chain", "verify", "--log", log)
	t.Logf("%d rounds, %d snapshots seen and deleted, %d deletions recorded", rounds, len(seen), len(recorded))
}

// Thousands of snapshots are there when it starts: it comes up at once, takes
// one each tick, and the number only falls.
func TestManyAtTheStart(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{Size: 2 << 30, MountOptions: "noatime,commit=1"})
	many := 300
	if torture {
		many = 2000
	}
	begin := time.Now().Add(-time.Duration(many) * time.Second)
	r.write("a", "x")
	for i := range many {
		r.must(sys.Snapshot(r.src, filepath.Join(r.snapshots, snap.Name(begin.Add(time.Duration(i)*time.Second)))))
	}
	r.ok("gb-snap", "hold", "add", "audit", r.live()[0].Name)
	const most = 100
	r.write("a", "y")
	start := time.Now()
	d := r.take(100*time.Millisecond, "--json", "--max-count", fmt.Sprint(most))
	r.await("the first tick", func() bool { r.write("a", "z"); return len(d.lines()) > 0 })
	t.Logf("first tick with %d snapshots done %v after the start", many, time.Since(start))
	r.await("the cap", func() bool { r.write("a", "z"); return len(r.live()) <= most })
	t.Logf("at the cap after %v", time.Since(start))
	st, code := r.status()
	if code != 0 {
		t.Errorf("status: %+v", st)
	}
	d.stop()
	last := many
	for _, line := range d.lines() {
		var o struct {
			Snapshot *struct{ UUID string }
			Live     int
			Deleted  []struct{ Reason string }
		}
		r.must(json.Unmarshal([]byte(line), &o))
		if o.Live > last || len(o.Deleted) > 2*snap.DefaultLimits.Deletes {
			t.Errorf("from %d to %d live, %d deleted", last, o.Live, len(o.Deleted))
		}
		last = max(o.Live, most)
	}
	if r.live()[0].Name != snap.Name(begin) {
		t.Error("what was held is gone")
	}
}
