package snap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A logbook takes events like a log that is on the source: each append is a
// write, and the checkpoint that the log signs a moment later is another.
type logbook struct {
	r        *rig
	lines    []string
	batches  int
	unsigned bool
	fail     error
}

func (l *logbook) append(_ context.Context, lines [][]byte) error {
	if l.fail != nil {
		return l.fail
	}
	var p event.Parser
	for _, line := range lines {
		if _, err := p.Parse(line); err != nil {
			l.r.Errorf("%s: %v", line, err)
		}
		l.lines = append(l.lines, string(line))
	}
	l.batches++
	l.r.mem.Write(src, false)
	l.unsigned = true
	return nil
}

// sign is what the log does within a second.
func (l *logbook) sign() {
	if l.unsigned {
		l.r.mem.Write(src, false)
		l.unsigned = false
	}
}

func recorded(t *testing.T, p Policy) (*rig, *logbook) {
	r := newRig(t, p)
	l := &logbook{r: r}
	sp, err := OpenSpool(filepath.Join(t.TempDir(), "spool"), r.store, src)
	if err != nil {
		t.Fatal(err)
	}
	sp.Append = l.append
	r.taker.Recorder = sp
	return r, l
}

// Recording is never the change that causes the next snapshot: after one
// change of the source, days pass with at most an append an hour, and the two
// snapshots that it takes, of the append and of the log's signature.
func TestRecordingComesToRest(t *testing.T) {
	r, l := recorded(t, DefaultPolicy)
	r.mem.Write(src, false)
	snapshots := 0
	const hours = 6
	for range hours * 3600 / 5 {
		r.now = r.now.Add(5 * time.Second)
		r.mem.Clean(10)
		l.sign()
		if r.taken().Snapshot != nil {
			snapshots++
		}
	}
	if snapshots > 2+2*hours || l.batches > 1+hours {
		t.Errorf("%d snapshots and %d appends in %d idle hours", snapshots, l.batches, hours)
	}
}

// Five idle minutes at a tick a second: at most 2 snapshots and 10 events.
func TestFiveIdleMinutes(t *testing.T) {
	r, l := recorded(t, DefaultPolicy)
	for range 90 { // a busy time before
		r.step()
		l.sign()
	}
	snapshots, events := 0, len(l.lines)
	for range 300 {
		r.now = r.now.Add(time.Second)
		r.mem.Clean(10)
		l.sign()
		// Under the timer each tick is a process of its own.
		sp, err := OpenSpool(filepath.Dir(r.taker.Recorder.path), r.store, src)
		if err != nil {
			t.Fatal(err)
		}
		sp.Append = l.append
		r.taker.Recorder = sp
		if r.taken().Snapshot != nil {
			snapshots++
		}
	}
	if snapshots > 2 || len(l.lines)-events > 10 {
		t.Errorf("%d snapshots, %d events", snapshots, len(l.lines)-events)
	}
}

// Every snapshot that was taken and every one that was deleted, with its
// reason, is in the log in the end, once, and in few events.
func TestEverythingIsRecordedOnce(t *testing.T) {
	r, l := recorded(t, Policy{MaxCount: 20})
	taken, deleted := map[string]bool{}, map[string]string{}
	for range 400 {
		o := r.step()
		l.sign()
		taken[o.Snapshot.UUID.String()] = true
		for _, v := range o.Pruned.Deleted {
			deleted[v.UUID.String()] = v.Reason
		}
	}
	if err := r.taker.Recorder.FlushNow(t.Context(), r.now, Alive(r.live())); err != nil {
		t.Fatal(err)
	}
	if n := len(l.lines); n > 40 {
		t.Errorf("%d events", n)
	}
	for _, line := range l.lines {
		var e struct {
			Type, Message string
			Data          struct {
				Reason    string
				Snapshots []struct{ UUID, Name string }
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		for _, s := range e.Data.Snapshots {
			switch e.Type {
			case "snapshot.taken":
				if !taken[s.UUID] {
					t.Errorf("%s taken twice or never", s.Name)
				}
				delete(taken, s.UUID)
			case "snapshot.pruned":
				if deleted[s.UUID] != e.Data.Reason {
					t.Errorf("%s deleted for %q, recorded %q", s.Name, deleted[s.UUID], e.Data.Reason)
				}
				delete(deleted, s.UUID)
			}
		}
	}
	if len(taken) > 0 || len(deleted) > 0 {
		t.Errorf("not recorded: %d taken, %d deleted", len(taken), len(deleted))
	}
}

// The log is away: snapshots go on, events wait, and all arrive later; also
// through another process.
func TestLogIsAway(t *testing.T) {
	r, l := recorded(t, Policy{MaxCount: 10})
	l.fail = errors.New("no daemon")
	for range 200 {
		if r.step().Snapshot == nil {
			t.Fatal("no snapshot")
		}
	}
	if len(l.lines) != 0 || r.taker.Recorder.Empty() {
		t.Fatal("recorded without a log")
	}
	sp, err := OpenSpool(filepath.Dir(r.taker.Recorder.path), r.store, src)
	if err != nil || sp.Empty() {
		t.Fatalf("opened again: %v", err)
	}
	l.fail, sp.Append = nil, l.append
	if err := sp.Flush(t.Context(), r.now, Alive(r.live())); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(l.lines[0], "200 snapshots of /source taken") {
		t.Errorf("%.200s", l.lines[0])
	}
}

// A process that is killed between writing down a deletion and deleting leaves
// a line that is no deletion; half a line is passed over.
func TestSpoolAfterKill(t *testing.T) {
	r, l := recorded(t, Policy{})
	for range 3 {
		r.step()
	}
	list := r.live()
	sp := r.taker.Recorder
	if err := sp.Deleting(r.now, []Verdict{{Snapshot: list[0], Reason: "a"}, {Snapshot: list[1], Reason: "a"}}); err != nil {
		t.Fatal(err)
	}
	r.mem.Remove(r.store.Path(list[0]))
	f, err := os.OpenFile(sp.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, `{"op":"pruned","na`)
	f.Close()
	// Also twice, as the next process tries again.
	if err := sp.Deleting(r.now, []Verdict{{Snapshot: list[0], Reason: "b"}}); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * time.Minute)
	if err := sp.FlushNow(t.Context(), r.now, Alive(r.live())); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(l.lines, "\n")
	if strings.Count(text, list[0].UUID.String()) != 1+1 || strings.Count(text, list[1].UUID.String()) != 1 {
		t.Errorf("want the first taken and deleted once, the second only taken:\n%s", text)
	}
	if !sp.Empty() {
		t.Error("not empty")
	}
}

// A log that is away for good does not fill the disk, and what had no room is
// said when it is back.
func TestSpoolIsBounded(t *testing.T) {
	r, l := recorded(t, Policy{})
	sp := r.taker.Recorder
	sp.limit = 1 << 20
	long := make([]Verdict, 1000)
	for i := range long {
		long[i] = Verdict{Snapshot: at(i, 1, day0), Reason: strings.Repeat("r", 200)}
	}
	var err error
	for range 10 {
		err = errors.Join(err, sp.Deleting(day0, long))
	}
	if st, serr := os.Stat(sp.path); err == nil || serr != nil || st.Size() > sp.limit {
		t.Fatalf("%v %v %v", err, st, serr)
	}
	if err := sp.FlushNow(t.Context(), day0, func(subvol.UUID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if last := l.lines[len(l.lines)-1]; !strings.Contains(last, "had no room") {
		t.Errorf("%.300s", last)
	}
}
