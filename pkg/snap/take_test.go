package snap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A rig is a store and a source on the double, with a clock that is set by
// hand.
type rig struct {
	*testing.T
	mem   *subvol.Memory
	store *Store
	taker *Taker
	now   time.Time
}

const src = "/source"

func newRig(t *testing.T, p Policy) *rig {
	r := &rig{T: t, mem: subvol.NewMemory(src), now: day0}
	r.mem.Now = func() time.Time { return r.now }
	dir := t.TempDir()
	var err error
	if r.store, err = OpenStore(r.mem, dir); err != nil {
		t.Fatal(err)
	}
	r.taker = &Taker{Store: r.store, Source: src, Policy: p, Limits: DefaultLimits, Now: func() time.Time { return r.now }}
	if err := r.taker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.taker.Stop() })
	return r
}

func (r *rig) take() (Outcome, error) {
	r.Helper()
	return r.taker.Take(r.Context(), false)
}

func (r *rig) taken() Outcome {
	r.Helper()
	o, err := r.take()
	if err != nil {
		r.Fatal(err)
	}
	return o
}

// step lets a second pass, writes, and takes.
func (r *rig) step() Outcome {
	r.Helper()
	r.now = r.now.Add(time.Second)
	r.mem.Write(src, false)
	r.mem.Clean(100)
	return r.taken()
}

func (r *rig) live() []Snapshot {
	r.Helper()
	list, err := r.store.List()
	if err != nil {
		r.Fatal(err)
	}
	return list
}

func TestTakeOnlyWhatChanged(t *testing.T) {
	r := newRig(t, Policy{})
	first := r.taken()
	if first.Snapshot == nil || first.Live != 1 {
		t.Fatalf("%+v", first)
	}
	if o := r.taken(); o.Snapshot != nil || o.Live != 1 || o.Newest.UUID != first.Snapshot.UUID {
		t.Errorf("without a change: %+v", o)
	}
	r.mem.Write(src, false)
	if o := r.taken(); o.Snapshot == nil || o.Live != 2 {
		t.Errorf("after a write: %+v", o)
	}
	// A write that has not reached the disk.
	r.mem.Write(src, true)
	if o := r.taken(); o.Snapshot == nil || o.Live != 3 {
		t.Errorf("after a write that was not synced: %+v", o)
	}
	if o := r.taken(); o.Snapshot != nil {
		t.Errorf("after it was taken: %+v", o)
	}
	if o, err := r.taker.Take(t.Context(), true); err != nil || o.Snapshot == nil {
		t.Errorf("forced: %+v, %v", o, err)
	}
}

// A name says the UTC time to the nanosecond, and two at one time differ.
func TestNamesNeverCollide(t *testing.T) {
	r := newRig(t, Policy{})
	for range 3 { // the clock stands still
		r.mem.Write(src, false)
		r.taken()
	}
	for i, sn := range r.live() {
		if want := Name(day0.Add(time.Duration(i))); sn.Name != want {
			t.Errorf("%d is called %s, want %s", i, sn.Name, want)
		}
	}
	for _, bad := range []string{"x", "20260304T050607Z", "20260304T050607.000000000", "20261304T050607.000000000Z", "20260304T050607.000000000Z.tmp"} {
		if _, ok := ParseName(bad); ok {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestCapIsNeverPassed(t *testing.T) {
	r := newRig(t, Policy{MaxCount: 5})
	most := 0
	r.mem.Fail = func(op, path string) error {
		if op == "snapshot" {
			// Not even for a moment.
			if names, err := r.mem.Names(r.store.Dir()); err != nil || len(names) >= 5 {
				t.Errorf("%d are there when one is taken, %v", len(names), err)
			}
		}
		return nil
	}
	for range 30 {
		o := r.step()
		most = max(most, o.Live, len(r.live()))
	}
	if most != 5 {
		t.Errorf("%d live at most", most)
	}
	// All held: no snapshot is taken, and that is said.
	for _, sn := range r.live() {
		if err := r.store.AddHold(t.Context(), "h", sn, r.now); err != nil {
			t.Fatal(err)
		}
	}
	r.mem.Write(src, false)
	var full *FullError
	if o, err := r.take(); !errors.As(err, &full) || o.Snapshot != nil || !o.Ahead || len(r.live()) != 5 {
		t.Errorf("%+v, %v", o, err)
	}
	if err := r.store.RemoveHold(t.Context(), "h", ""); err != nil {
		t.Fatal(err)
	}
	if o := r.taken(); o.Snapshot == nil || o.Live != 5 {
		t.Errorf("after the hold has gone: %+v", o)
	}
}

// 2,000 snapshots are there at the start: they go in bounded steps, and while
// they go the number never rises, though snapshots are taken.
func TestManyAtTheStart(t *testing.T) {
	r := newRig(t, Policy{})
	for range 2000 {
		r.now = r.now.Add(time.Second)
		r.mem.Write(src, false)
		if err := r.mem.Snapshot(src, filepath.Join(r.store.Dir(), Name(r.now))); err != nil {
			t.Fatal(err)
		}
	}
	r.taker.Policy = DefaultPolicy
	before := 2000
	r.taker.Limits.Deletes = 16
	for n := 0; before > 150 && n < 300; n++ {
		o := r.step()
		if o.Snapshot == nil || o.Live > before || len(o.Pruned.Deleted) > 2*16 {
			t.Fatalf("tick %d: %d live, %d before, %d deleted", n, o.Live, before, len(o.Pruned.Deleted))
		}
		before = o.Live
	}
	if before > 200 {
		t.Errorf("%d live", before)
	}
}

func TestDeletesWaitForTheCleaner(t *testing.T) {
	r := newRig(t, Policy{Keep: 1})
	r.taker.Limits = Limits{Deletes: 3, Backlog: 4}
	for range 20 {
		r.now = r.now.Add(time.Second)
		r.mem.Write(src, false)
		if err := r.mem.Snapshot(src, filepath.Join(r.store.Dir(), Name(r.now))); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{3, 3, 0, 0} {
		if o := r.taken(); len(o.Pruned.Deleted) != want || o.Pruned.Why == "" {
			t.Errorf("%d deleted, want %d: %+v", len(o.Pruned.Deleted), want, o.Pruned)
		}
	}
	r.mem.Clean(2)
	if o := r.taken(); len(o.Pruned.Deleted) != 3 || o.Pruned.Left != 10 {
		t.Errorf("after cleaning: %+v", o.Pruned)
	}
}

func TestFullFileSystem(t *testing.T) {
	r := newRig(t, Policy{})
	for range 10 {
		r.step()
	}
	full := true
	r.mem.Fail = func(op, _ string) error {
		if op == "snapshot" && full {
			return syscall.ENOSPC
		}
		return nil
	}
	r.mem.Write(src, false)
	o, err := r.take()
	if !errors.Is(err, syscall.ENOSPC) || !o.Ahead || len(o.Pruned.Deleted) != minFreeStep || o.Live != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "full") {
		t.Errorf("no hint: %v", err)
	}
	if v := o.Pruned.Deleted[0]; v.Reason != "the file system is full" {
		t.Errorf("reason %q", v.Reason)
	}
	full = false
	if o := r.taken(); o.Snapshot == nil {
		t.Error("nothing taken once there is room")
	}

	r = newRig(t, Policy{MinFree: 1 << 20})
	for range 5 {
		r.step()
	}
	r.mem.SetAvailable(1)
	if o := r.step(); o.Live != 1 || !strings.Contains(o.Pruned.Deleted[0].Reason, "1 B free, less than 1 MiB") {
		t.Errorf("%+v", o)
	}
}

func TestPlacesThatWillNotDo(t *testing.T) {
	mem := subvol.NewMemory(src)
	var place *PlaceError
	if _, err := OpenStore(mem, filepath.Join(t.TempDir(), "none")); !errors.As(err, &place) || place.Hint() == "" {
		t.Errorf("no directory: %v", err)
	}
	dir := t.TempDir()
	inside := subvol.NewMemory(dir)
	s, err := OpenStore(inside, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Taker{Store: s, Source: dir}).Start(); !errors.As(err, &place) || !strings.Contains(err.Error(), "lies in the source") {
		t.Errorf("inside: %v", err)
	}
	s, err = OpenStore(mem, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Taker{Store: s, Source: "/none"}).Start(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	one, two := &Taker{Store: s, Source: src}, &Taker{Store: s, Source: src}
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	defer one.Stop()
	var running *RunningError
	if err := two.Start(); !errors.As(err, &running) || running.ExitCode() != 75 {
		t.Errorf("a second instance: %v", err)
	}
}

// The loop ticks at absolute times, counts what it skips, goes on after an
// error, and ends when the source has gone.
func TestLoop(t *testing.T) {
	r := newRig(t, Policy{MaxCount: 10})
	r.taker.Now = time.Now
	const every = 20 * time.Millisecond
	n := 0
	var last Ticks
	begin := time.Now()
	l := &Loop{Taker: r.taker, Every: every, Each: func(k *Ticks, o Outcome, err error) {
		n++
		last = *k
		if n <= 10 {
			r.mem.Write(src, false)
		}
		switch n {
		case 3:
			time.Sleep(3 * every) // two ticks pass by
		case 5:
			r.mem.Fail = func(op, path string) error {
				if op == "snapshot" {
					return syscall.EROFS
				}
				return nil
			}
		case 6:
			if !errors.Is(err, syscall.EROFS) || k.Failed != 1 || k.AheadUptime == 0 {
				t.Errorf("a failed tick: %v, %+v", err, k)
			}
			r.mem.Fail = nil
		case 7:
			if err != nil || k.AheadUptime != 0 || k.Error != "" {
				t.Errorf("after it: %v, %+v", err, k)
			}
		case 10:
			r.mem.Remove(src)
		}
	}}
	err := l.Run(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), src) {
		t.Errorf("ended with %v", err)
	}
	if last.Good != 9 || last.Failed != 2 || last.Skipped < 2 || last.Taken != 9 {
		t.Errorf("%+v", last)
	}
	// The eleventh tick, and those skipped, at their times and not before.
	if d := time.Since(begin); d < time.Duration(10+last.Skipped)*every {
		t.Errorf("done after %v with %d skipped", d, last.Skipped)
	}
}

func TestTicksStatusAndMetrics(t *testing.T) {
	r := newRig(t, Policy{MaxCount: 10})
	file := TicksFile(t.TempDir(), r.store)
	if k, err := ReadTicks(file); k != nil || err != nil {
		t.Fatalf("%v, %v", k, err)
	}
	if _, err := r.store.Status("", nil, time.Second); err == nil {
		t.Error("status of a source that nobody named")
	}
	st, err := r.store.Status(src, nil, time.Second)
	if err != nil || st.Healthy || len(st.Faults) != 2 {
		t.Errorf("before the first tick: %+v, %v", st, err)
	}
	o := r.step()
	k := newTicks(r.taker, time.Second)
	k.count(r.now, 30*time.Millisecond, o, nil)
	k.count(r.now, 300*time.Millisecond, Outcome{Live: 1}, nil)
	if k.Good != 2 || k.Late != 1 || k.Taken != 1 || k.Unchanged != 1 || k.LatenessMax != 0.3 {
		t.Errorf("%+v", k)
	}
	if err := k.Publish(file); err != nil {
		t.Fatal(err)
	}
	back, err := ReadTicks(file)
	if err != nil || back.Good != 2 || back.Source != src || back.GoodUptime == 0 {
		t.Fatalf("%+v, %v", back, err)
	}
	st, err = r.store.Status("", back, time.Second)
	if err != nil || !st.Healthy || st.Live != 1 || st.Ahead || *st.GoodAge > 60 {
		t.Errorf("%+v, %v", st, err)
	}
	// The source changes now: ahead, and that is healthy for a while.
	r.now = time.Now()
	r.mem.Write(src, false)
	if st, err = r.store.Status("", back, time.Second); err != nil || !st.Healthy || !st.Ahead {
		t.Errorf("just changed: %+v, %v", st, err)
	}
	r.now = time.Now().Add(-time.Minute)
	r.mem.Write(src, false)
	if st, err = r.store.Status("", back, time.Second); err != nil || st.Healthy || !strings.Contains(st.Faults[0], "ahead") {
		t.Errorf("changed a minute ago: %+v, %v", st, err)
	}
	back.GoodUptime -= 4
	if st, err = r.store.Status("", back, time.Second); err != nil || st.Healthy || !strings.Contains(st.Faults[0], "last good tick was") {
		t.Errorf("stale: %+v, %v", st, err)
	}
	back.GoodUptime += 4
	back.AheadUptime = uptime() - 10
	if st, err = r.store.Status("", back, time.Second); err != nil || st.Healthy {
		t.Errorf("known to be ahead: %+v, %v", st, err)
	}
	// Processes that take once hand on what the one before has left.
	one := OneTick(r.taker, nil, o, nil)
	one.GoodUptime -= 2
	two := OneTick(r.taker, one, Outcome{Ahead: true}, syscall.ENOSPC)
	if two.Good != 1 || two.Failed != 1 || two.GoodUptime != one.GoodUptime || two.AheadUptime == 0 {
		t.Errorf("%+v", two)
	}
	if st, err = r.store.Status("", OneTick(r.taker, nil, o, nil), time.Second); err != nil || len(st.Faults) > 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTicks(file); err == nil {
		t.Error("garbage was read")
	}

	prom := filepath.Join(t.TempDir(), "snap.prom")
	k.Source = "/a\"b\\c\nd"
	if err := r.store.WriteMetrics(prom, k); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(prom)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`ghostbridge_snap_ticks_total{source="/a\"b\\c\nd"} 2` + "\n",
		"# TYPE ghostbridge_snap_live gauge\nghostbridge_snap_live{", "# TYPE ghostbridge_snap_taken_total counter\n",
		fmt.Sprintf("ghostbridge_snap_last_good_timestamp_seconds{source=\"/a\\\"b\\\\c\\nd\"} %d.000\n", k.LastGood.Unix()),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
