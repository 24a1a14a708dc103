package snap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// writeCursor is what an index does when it has applied a snapshot.
func writeCursor(t *testing.T, file string, id subvol.UUID) {
	t.Helper()
	b, err := json.Marshal(Cursor{SourceUUID: id, SnapshotUUID: id, CTransID: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(file, b); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) sender(cursor string) *Sender {
	return &Sender{Store: r.store, Source: src, Cursor: cursor, Replay: DefaultReplay, Now: func() time.Time { return r.now }}
}

func (r *rig) held() []string {
	r.Helper()
	by, err := r.store.Holders(r.live(), nil)
	if err != nil {
		r.Fatal(err)
	}
	var names []string
	for _, sn := range r.live() {
		if len(by[sn.UUID]) > 0 {
			names = append(names, sn.Name)
		}
	}
	return names
}

func TestReadCursor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	if c, err := ReadCursor(file); c != nil || err != nil {
		t.Errorf("no file: %v, %v", c, err)
	}
	id := subvol.UUID{1: 7}
	for text, good := range map[string]bool{
		`{"source_uuid":"","snapshot_uuid":"","ctransid":0}`: true,
		fmt.Sprintf(`{"snapshot_uuid":"%s"}`+"\n", id):       true,
		fmt.Sprintf(`{"snapshot_uuid":"%s","new":[1]}`, id):  true,
		``:                                  false,
		`{}`:                                false,
		`null`:                              false,
		`[]`:                                false,
		`{"snapshot_uuid":"x"}`:             false,
		`{"snapshot_uuid":""} {}`:           false,
		"{" + strings.Repeat(" ", 1<<17):    false,
		`{"snapshot_uuid":7}`:               false,
		`{"snapshot_uuid":"","ctransid":-}`: false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ReadCursor(file)
		var ce *CursorError
		if good != (err == nil) || err != nil && (!errors.As(err, &ce) || ce.ExitCode() != 2) {
			t.Errorf("%.60q: %v", text, err)
		}
		if want := strings.Contains(text, id.String()); good && (c != nil) != want {
			t.Errorf("%.60q: %v", text, c)
		}
	}
}

// What is sent from and to is held until the cursor names it or a later one,
// across many attempts that fail, and no more than a few then.
func TestHoldsOfACursor(t *testing.T) {
	r := newRig(t, Policy{Keep: 1})
	r.taker.Limits = Limits{}
	cursor := filepath.Join(t.TempDir(), "cursor")
	s := r.sender(cursor)
	if _, err := s.Choose(t.Context()); !errors.Is(err, ErrNothing) {
		t.Fatalf("without a snapshot: %v", err)
	}
	r.step()
	legs, err := s.Choose(t.Context())
	if err != nil || len(legs) != 1 || legs[0].Parent != nil {
		t.Fatalf("%+v, %v", legs, err)
	}
	first := legs[0].Target
	writeCursor(t, cursor, first.UUID)
	if _, err := s.Choose(t.Context()); !errors.Is(err, ErrNothing) {
		t.Fatalf("nothing new: %v", err)
	}
	var second Snapshot
	for n := range 30 { // the receiver fails each time
		r.step()
		legs, err = s.Choose(t.Context())
		if err != nil || legs[0].Parent.UUID != first.UUID {
			t.Fatalf("attempt %d: %+v, %v", n, legs, err)
		}
		if n == 0 {
			second = legs[0].Target
		}
		if live := r.live(); live[0].UUID != first.UUID || len(live) > heldTargets+3 { // the parent, the target, and a newer one
			t.Fatalf("attempt %d: %d live", n, len(live))
		}
	}
	if held := r.held(); !slices.Contains(held, second.Name) || !slices.Contains(held, legs[0].Target.Name) {
		t.Errorf("held: %v", held)
	}
	// A slow receiver has applied the first that it was sent.
	writeCursor(t, cursor, second.UUID)
	r.step()
	if live := r.live(); live[0].UUID != second.UUID {
		t.Errorf("the parent of what comes next has gone: %v", live[0].Name)
	}
	if legs, err = s.Choose(t.Context()); err != nil || legs[0].Parent.UUID != second.UUID {
		t.Fatalf("%+v, %v", legs, err)
	}
	// It has applied all.
	writeCursor(t, cursor, legs[0].Target.UUID)
	r.step()
	if live := r.live(); len(live) != 2 || live[0].UUID != legs[0].Target.UUID {
		t.Errorf("%d live", len(live))
	}
	// The cursor file is lost: the hold stays.
	if err := os.Remove(cursor); err != nil {
		t.Fatal(err)
	}
	legs, err = r.sender(cursor).Choose(t.Context())
	if err != nil || legs[0].Parent != nil {
		t.Fatalf("%+v, %v", legs, err)
	}
	r.step()
	r.step()
	if !slices.Contains(r.held(), legs[0].Target.Name) {
		t.Errorf("held: %v", r.held())
	}
}

func TestLostParent(t *testing.T) {
	r := newRig(t, Policy{})
	cursor := filepath.Join(t.TempDir(), "cursor")
	first := *r.step().Snapshot
	r.step()
	r.mem.Remove(r.store.Path(first))
	var lost *LostParentError
	writeCursor(t, cursor, first.UUID)
	if _, err := r.sender(cursor).Choose(t.Context()); !errors.As(err, &lost) || lost.ExitCode() != 5 || !strings.Contains(err.Error(), cursor) {
		t.Errorf("%v", err)
	}
	s := r.sender("")
	s.Parent = &first.UUID
	if _, err := s.Choose(t.Context()); !errors.As(err, &lost) {
		t.Errorf("%v", err)
	}
	// Snapshots of another subvolume are nobody's parent.
	if err := r.mem.Create("/other"); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(r.store.Dir(), Name(r.now.Add(time.Hour)))
	if err := r.mem.Snapshot("/other", other); err != nil {
		t.Fatal(err)
	}
	info, err := r.mem.Info(other)
	if err != nil {
		t.Fatal(err)
	}
	s.Parent = &info.UUID
	if _, err := s.Choose(t.Context()); !errors.As(err, &lost) {
		t.Errorf("%v", err)
	}
	// It goes between being chosen and being sent.
	list := Of(r.live(), r.live()[0].Source())
	r.step()
	s.Parent = &list[0].UUID
	legs, err := s.Choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.mem.Remove(r.store.Path(list[0]))
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := s.Send(t.Context(), legs, null); !errors.As(err, &lost) {
		t.Errorf("%v", err)
	}
	// The target goes.
	s.Parent = &subvol.UUID{}
	if legs, err = s.Choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mem.Remove(r.store.Path(legs[0].Target))
	var temporary *TemporaryError
	if err := s.Send(t.Context(), legs, null); !errors.As(err, &temporary) || temporary.ExitCode() != 75 {
		t.Errorf("%v", err)
	}
}

// After a gap of more than ten minutes the snapshots between are sent too, a
// minute apart or more, each against the one before, and all are held.
func TestReplay(t *testing.T) {
	r := newRig(t, Policy{})
	cursor := filepath.Join(t.TempDir(), "cursor")
	first := *r.step().Snapshot
	writeCursor(t, cursor, first.UUID)
	minutes := func(n int) {
		for range n * 10 {
			r.now = r.now.Add(5 * time.Second)
			r.step()
		}
	}
	minutes(9)
	s := r.sender(cursor)
	legs, err := s.Choose(t.Context())
	if err != nil || len(legs) != 1 {
		t.Fatalf("%d legs after 9 minutes, %v", len(legs), err)
	}
	minutes(2)
	s = r.sender(cursor)
	if legs, err = s.Choose(t.Context()); err != nil || len(legs) != 11 {
		t.Fatalf("%d legs after 11 minutes, %v", len(legs), err)
	}
	want := first.UUID
	for _, leg := range legs {
		if leg.Parent.UUID != want {
			t.Errorf("%s against %s", leg.Target.Name, leg.Parent.Name)
		}
		want = leg.Target.UUID
		if !slices.Contains(r.held(), leg.Target.Name) {
			t.Errorf("%s is not held", leg.Target.Name)
		}
	}
	if live := r.live(); want != live[len(live)-1].UUID {
		t.Error("the newest is not the last")
	}
	s.Replay = 0
	if legs, err = s.Choose(t.Context()); err != nil || len(legs) != 1 {
		t.Errorf("%d legs without replay, %v", len(legs), err)
	}
	if _, err := os.Stat(cursor); err != nil {
		t.Error(err)
	}
}

// A receiver that never acknowledges gets a few streams ahead of its cursor
// and no more; when the cursor moves it goes on.
func TestStreamWaitsForTheCursor(t *testing.T) {
	r := newRig(t, Policy{Keep: 1})
	cursor := filepath.Join(t.TempDir(), "cursor")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s := r.sender(cursor)
	sent := 0
	var last subvol.UUID
	for range 50 {
		r.step()
		legs, err := s.Stream(t.Context(), out)
		if errors.Is(err, ErrNothing) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent > 0 && legs[0].Parent.UUID != last {
			t.Fatal("not against the one before")
		}
		last = legs[0].Target.UUID
		sent++
	}
	if sent != heldTargets || !s.Waiting {
		t.Errorf("%d sent", sent)
	}
	writeCursor(t, cursor, last)
	legs, err := s.Stream(t.Context(), out)
	if err != nil || legs[0].Parent.UUID != last || s.Waiting {
		t.Errorf("%+v, %v", legs, err)
	}
}

// The protocol of a socket: send, half-close, wait for the end, and believe
// only the cursor file.
func TestDeliver(t *testing.T) {
	r := newRig(t, Policy{})
	dir := t.TempDir()
	cursor, socket := filepath.Join(dir, "cursor"), filepath.Join(dir, "s")
	var temporary *TemporaryError
	s := r.sender(cursor)
	r.step()
	if _, err := s.Deliver(t.Context(), socket); !errors.As(err, &temporary) || len(r.held()) != 0 {
		t.Errorf("nobody there: %v, held %v", err, r.held())
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	apply := make(chan func(conn net.Conn, target subvol.UUID))
	go func() {
		for f := range apply {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var to, from string
			b, _ := io.ReadAll(conn) // ends, as the sender closes its side
			fmt.Sscanf(string(b), "%s from %s", &to, &from)
			id, _ := subvol.ParseUUID(to)
			f(conn, id)
			conn.Close()
		}
	}()
	defer close(apply)
	apply <- func(_ net.Conn, id subvol.UUID) { writeCursor(t, cursor, id) }
	legs, err := s.Deliver(t.Context(), socket)
	if err != nil || len(legs) != 1 {
		t.Fatalf("%+v, %v", legs, err)
	}
	first := legs[0].Target
	// The receiver fails: it closes, and its cursor stands where it was.
	r.step()
	apply <- func(conn net.Conn, _ subvol.UUID) { conn.Write([]byte("words of a receiver are nothing")) }
	var not *NotAppliedError
	if _, err := s.Deliver(t.Context(), socket); !errors.As(err, &not) || not.ExitCode() != 75 {
		t.Errorf("%v", err)
	}
	if !slices.Contains(r.held(), first.Name) {
		t.Error("the parent is not held")
	}
	// The next time it goes on.
	apply <- func(_ net.Conn, id subvol.UUID) { writeCursor(t, cursor, id) }
	if legs, err = s.Deliver(t.Context(), socket); err != nil || legs[0].Parent.UUID != first.UUID {
		t.Errorf("%+v, %v", legs, err)
	}
	// Follow goes on with each new one until it is stopped.
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	go func() { apply <- func(_ net.Conn, id subvol.UUID) { writeCursor(t, cursor, id) } }()
	r.step()
	err = s.Follow(ctx, func(ctx context.Context) ([]Leg, error) {
		legs, err := s.Deliver(ctx, socket)
		return legs, err
	}, func(legs []Leg) {
		if n++; n == 1 {
			cancel()
		}
	})
	if err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestHoldsOfPeople(t *testing.T) {
	r := newRig(t, Policy{Keep: 1})
	sn := *r.step().Snapshot
	for _, bad := range []string{"", "a/b", "../x", ".x", "cursor-x", strings.Repeat("x", 65), "a\nb"} {
		var place *PlaceError
		if err := r.store.AddHold(t.Context(), bad, sn, r.now); !errors.As(err, &place) {
			t.Errorf("hold %q: %v", bad, err)
		}
	}
	for range 2 { // twice is once
		if err := r.store.AddHold(t.Context(), "audit", sn, r.now); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		r.step()
	}
	if live := r.live(); len(live) != 2 || live[0].UUID != sn.UUID {
		t.Errorf("%d live", len(live))
	}
	holds, err := r.store.Holds()
	if err != nil || len(holds) != 1 || len(holds[0].Snapshots) != 1 || holds[0].Snapshots[0].Since.IsZero() {
		t.Errorf("%+v, %v", holds, err)
	}
	var place *PlaceError
	if err := r.store.RemoveHold(t.Context(), "other", ""); !errors.As(err, &place) {
		t.Errorf("%v", err)
	}
	if err := r.store.RemoveHold(t.Context(), "audit", "x"); !errors.As(err, &place) {
		t.Errorf("%v", err)
	}
	if err := r.store.RemoveHold(t.Context(), "audit", sn.Name); err != nil {
		t.Error(err)
	}
	r.step()
	if live := r.live(); len(live) != 1 {
		t.Errorf("%d live", len(live))
	}
	if entries, err := os.ReadDir(filepath.Join(r.store.Dir(), holdsDir)); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	// A hold that can't be read stops all deleting, and taking goes on.
	if err := os.WriteFile(filepath.Join(r.store.Dir(), holdsDir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.mem.Write(src, false)
	if o, err := r.take(); err == nil || o.Snapshot == nil || len(o.Pruned.Deleted) != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// The receiver is gone for a day at a snapshot a second: there is never more
// than the cap, its parent stays, and one catch-up brings it to the newest
// through what the grid has left.
func TestReceiverGoneForADay(t *testing.T) {
	r := newRig(t, DefaultPolicy)
	cursor := filepath.Join(t.TempDir(), "cursor")
	s := r.sender(cursor)
	first := *r.step().Snapshot
	if _, err := s.Choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeCursor(t, cursor, first.UUID)
	const step = time.Minute
	for range int(24 * time.Hour / step) {
		r.now = r.now.Add(step - time.Second)
		if o := r.step(); o.Snapshot == nil || o.Live > DefaultPolicy.MaxCount {
			t.Fatalf("%+v", o)
		}
	}
	legs, err := s.Choose(t.Context())
	if err != nil || len(legs) < 24+50 || len(legs) > 24+62 {
		t.Fatalf("%d legs, %v", len(legs), err)
	}
	if legs[0].Parent.UUID != first.UUID || legs[len(legs)-1].Target.UUID != r.live()[len(r.live())-1].UUID {
		t.Error("the way has no beginning or no end")
	}
	writeCursor(t, cursor, legs[len(legs)-1].Target.UUID)
	if _, err := s.Choose(t.Context()); !errors.Is(err, ErrNothing) {
		t.Errorf("after the catch-up: %v", err)
	}
	if held := r.held(); len(held) != 1 {
		t.Errorf("held after the catch-up: %v", held)
	}
}
