package snap

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

// writers append 10 KB a hundred times a second to twenty files of the source
// in turn, each synced: 1 MB/s. It ends with stop, and counts the appends.
func (r *rig) writer() (appends *atomic.Int64, stop func()) {
	r.Helper()
	files := make([]*os.File, 20)
	for i := range files {
		f, err := os.OpenFile(filepath.Join(r.src, fmt.Sprintf("w%02d", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		r.must(err)
		files[i] = f
	}
	block := make([]byte, 10<<10)
	rand.Read(block)
	appends = new(atomic.Int64)
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			f := files[n%len(files)]
			if _, err := f.Write(block); err != nil {
				r.Errorf("writer: %v", err)
				return
			}
			if err := f.Sync(); err != nil {
				r.Errorf("writer: %v", err)
				return
			}
			appends.Add(1)
		}
	})
	return appends, func() {
		close(done)
		ended.Wait()
		for _, f := range files {
			f.Close()
		}
	}
}

// A snapshot a second under a writer of 1 MB/s: each second of change has its
// snapshot, and there are never more than the cap, whenever one looks.
// Cadence is one of the three things that time decides (at least 95 %); the
// other figures are printed.
func TestCadence(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{Size: 4 << 30})
	long := 12 * time.Second
	if torture {
		long = 120 * time.Second
	}
	const most = 60
	appends, stop := r.writer()
	defer stop()
	r.await("a write", func() bool { return appends.Load() > 0 })
	d := r.take(time.Second, "--json", "--grid", "40x1s,60x1m", "--max-count", fmt.Sprint(most))
	peak := 0
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		entries, err := os.ReadDir(r.snapshots)
		r.must(err)
		n := 0
		for _, e := range entries {
			if _, ok := snap.ParseName(e.Name()); ok {
				n++
			}
		}
		peak = max(peak, n)
	}
	st, code := r.status()
	if code != 0 {
		t.Errorf("status: %v", st.Faults)
	}
	d.stop()
	var times []time.Time
	for _, line := range d.lines() {
		var o struct {
			Snapshot *struct{ Time time.Time }
		}
		r.must(json.Unmarshal([]byte(line), &o))
		if o.Snapshot != nil {
			times = append(times, o.Snapshot.Time)
		}
	}
	want := int(long / time.Second)
	if len(times) < 2 || float64(len(times)) < 0.95*float64(want) {
		t.Fatalf("%d snapshots in %v", len(times), long)
	}
	mean := times[len(times)-1].Sub(times[0]).Seconds() / float64(len(times)-1)
	gap := time.Duration(0)
	for i := range times[1:] {
		gap = max(gap, times[i+1].Sub(times[i]))
	}
	if peak > most {
		t.Errorf("%d live at most, the cap is %d", peak, most)
	}
	t.Logf("%d snapshots in %v: mean period %.4f s, longest gap %v, %d skipped, lateness mean %.1f ms, max %.1f ms, at most %d live, %d appends",
		len(times), long, mean, gap, st.Ticks.Skipped, 1e3*st.Ticks.LatenessSum/float64(st.Ticks.Good+st.Ticks.Failed), 1e3*st.Ticks.LatenessMax, peak, appends.Load())
}

// Nothing happens: nothing is written, over many ticks.
func TestIdleWritesNothing(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	long := 10 * time.Second
	if torture {
		long = 60 * time.Second
	}
	r.write("a", "x")
	metrics := filepath.Join(r.state, "snap.prom")
	d := r.take(time.Second, "--metrics", metrics)
	r.await("a snapshot", func() bool { return len(r.live()) == 1 })
	r.must(exec.Command("sync", "-f", r.fs).Run())
	time.Sleep(2 * time.Second)
	before, err := sys.Written(r.fs)
	r.must(err)
	time.Sleep(long)
	r.must(exec.Command("sync", "-f", r.fs).Run())
	after, err := sys.Written(r.fs)
	r.must(err)
	rate := float64(after-before) / long.Seconds() / 1024
	if n := len(r.live()); n != 1 || rate > 16 {
		t.Errorf("%d snapshots, %.1f KiB/s", n, rate)
	}
	if st, code := r.status(); code != 0 || st.Ahead {
		t.Errorf("an unchanged source is healthy: %+v", st)
	}
	if text, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(text), "ghostbridge_snap_live{") {
		t.Errorf("metrics: %.100s, %v", text, err)
	}
	d.kill()
	r.await("a status that says that it is dead", func() bool { _, code := r.status(); return code == 1 })
	t.Logf("%.2f KiB/s over %v", rate, long)
}

// The log is in the source and records what gb-snap does: five idle minutes
// make at most 2 snapshots and 10 events.
func TestIdleWithTheLogInTheSource(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	long := 15 * time.Second
	if torture {
		long = 5 * time.Minute
	}
	log, keys, socket := filepath.Join(r.src, "log"), filepath.Join(r.state, "keys"), filepath.Join(r.state, "chain.sock")
	r.ok("gb-chain", "init", "--log", log, "--keys", keys, "--origin", "idle.example/log")
	serve := r.start("gb-chain", nil, "serve", "--log", log, "--keys", keys, "--socket", socket, "--writers", "")
	r.await("the daemon", func() bool { _, err := os.Stat(socket); return err == nil })
	d := r.take(time.Second, "--log", log, "--socket", socket, "--grid", "5x1s")
	event := `{"source":"demo","type":"note","message":"hello"}` + "\n"
	for range 4 { // something happens
		cmd := exec.Command(tools.Path(t, "gb-chain"), "append", "--socket", socket, "-")
		cmd.Stdin = strings.NewReader(event)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		time.Sleep(time.Second)
	}
	time.Sleep(2 * time.Second)
	count := func() (events int, newest uint64, taken int64) {
		st, _ := r.status()
		list := r.live()
		return strings.Count(r.ok("gb-chain", "query", "--log", log, "--json"), "\n"), list[len(list)-1].ID, st.Ticks.Taken
	}
	events, _, taken := count()
	time.Sleep(long)
	events2, _, taken2 := count()
	if events2-events > 10 || taken2-taken > 2 {
		t.Errorf("%d events and %d snapshots in %v of nothing", events2-events, taken2-taken, long)
	}
	t.Logf("%d events and %d snapshots in %v; %d events and %d snapshots before", events2-events, taken2-taken, long, events, taken)
	d.stop()
	serve.stop()
	if out := r.ok("gb-chain", "query", "--log", log, "--type", "snapshot.taken", "--json"); out == "" {
		t.Error("nothing was recorded")
	}
}

// The receiver is gone for a day, at a snapshot every five minutes on a clock
// of the test's own: the number of snapshots stays below the cap, and so does
// the space; then one catch-up brings everything that was ever written.
func TestReceiverGoneForADay(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	store, err := snap.OpenStore(sys, r.snapshots)
	r.must(err)
	now := time.Now().Add(-25 * time.Hour)
	taker := &snap.Taker{Store: store, Source: r.src, Policy: snap.Policy{Grid: snap.Grid{{Count: 60, Every: time.Second}, {Count: 60, Every: time.Minute}, {Count: 24, Every: time.Hour}}, MaxCount: 40},
		Limits: snap.Limits{Deletes: 8}, Now: func() time.Time { return now }}
	r.must(taker.Start())
	defer taker.Stop()
	cursor := filepath.Join(r.state, "cursor")
	sender := &snap.Sender{Store: store, Source: r.src, Cursor: cursor, Replay: snap.DefaultReplay, Now: func() time.Time { return now }}
	received := filepath.Join(r.fs, "received")
	r.must(os.Mkdir(received, 0o755))
	catchUp := func() []snap.Leg {
		t.Helper()
		pr, pw, err := os.Pipe()
		r.must(err)
		receive := exec.Command("btrfs", "-q", "receive", received)
		var words strings.Builder
		receive.Stdin, receive.Stderr = pr, &words
		r.must(receive.Start())
		pr.Close()
		legs, err := sender.Choose(t.Context())
		if err == nil {
			err = sender.Send(t.Context(), legs, pw)
		}
		pw.Close()
		if werr := receive.Wait(); err != nil || werr != nil {
			t.Fatalf("send: %v, receive: %v: %s", err, werr, words.String())
		}
		last := legs[len(legs)-1].Target.UUID
		text := fmt.Sprintf(`{"source_uuid":"%[1]s","snapshot_uuid":"%[1]s","ctransid":1,"tree_size":0,"root":""}`, last)
		r.must(errors.Join(os.WriteFile(cursor, []byte(text), 0o600)))
		return legs
	}
	r.write("log", "line 0\n")
	_, err = taker.Take(t.Context(), false)
	r.must(err)
	catchUp()
	space, err := sys.Space(r.fs)
	r.must(err)
	most, ticks := 0, int(24*time.Hour/(5*time.Minute))
	for n := range ticks {
		now = now.Add(5 * time.Minute)
		r.write("log", fmt.Sprintf("line %d\n", n+1))
		r.write("hour", strings.Repeat(fmt.Sprint(n%10), 64<<10))
		if n%12 == 11 {
			r.must(os.Remove(filepath.Join(r.src, "hour")))
		}
		o, err := taker.Take(t.Context(), false)
		r.must(err)
		most = max(most, o.Live)
	}
	after, err := sys.Space(r.fs)
	r.must(err)
	legs := catchUp()
	if most > 40 || len(legs) < 20 || len(legs) > 40 {
		t.Errorf("%d live at most, %d streams", most, len(legs))
	}
	newest := legs[len(legs)-1].Target.Name
	for _, name := range []string{"log", "hour"} {
		want, werr := os.ReadFile(filepath.Join(r.src, name))
		got, gerr := os.ReadFile(filepath.Join(received, newest, name))
		if string(want) != string(got) || fmt.Sprint(werr) == "" || (werr == nil) != (gerr == nil) {
			t.Errorf("%s: %d bytes received, %d there: %v, %v", name, len(got), len(want), gerr, werr)
		}
	}
	t.Logf("at most %d snapshots, metadata %d KiB -> %d KiB, data %d KiB -> %d KiB, caught up in %d streams", most,
		space.MetadataUsed>>10, after.MetadataUsed>>10, space.DataUsed>>10, after.DataUsed>>10, len(legs))
	_, err = taker.Take(t.Context(), false)
	r.must(err)
	held := 0
	holders, err := store.Holders(r.live(), nil)
	r.must(err)
	for range holders {
		held++
	}
	if held != 1 {
		t.Errorf("%d held after the catch-up", held)
	}
}
