package snap_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

func TestPending(t *testing.T) {
	dir := t.TempDir()
	marks := filepath.Join(dir, "run", "pending")
	cursor := filepath.Join(dir, "cursor.json")
	snapshots := filepath.Join(dir, "snapshots")
	if err := os.Mkdir(snapshots, 0o755); err != nil {
		t.Fatal(err)
	}
	m := subvol.NewMemory("/source", "/other")
	store, err := snap.OpenStore(m, snapshots)
	if err != nil {
		t.Fatal(err)
	}
	taker := &snap.Taker{Store: store, Source: "/source"}
	if err := taker.Start(); err != nil {
		t.Fatal(err)
	}
	defer taker.Stop()
	p := snap.Pending{Dir: marks, Cursor: cursor}
	take := func() *snap.Snapshot {
		t.Helper()
		m.Write("/source", false)
		o, err := taker.Take(context.Background(), false)
		if err != nil || o.Snapshot == nil {
			t.Fatal(o, err)
		}
		return o.Newest
	}
	apply := func(sn *snap.Snapshot) {
		t.Helper()
		if err := os.WriteFile(cursor, fmt.Appendf(nil, `{"snapshot_uuid":%q}`, sn.UUID), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		entries, err := os.ReadDir(marks)
		var have []string
		for _, e := range entries {
			have = append(have, e.Name())
		}
		if err != nil || fmt.Sprint(have) != fmt.Sprint(want) {
			t.Fatalf("%s: marks %v, want %v (%v)", what, have, want, err)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	check(p.Mark(nil))
	first := take()
	check(p.Mark(first))
	check(p.Mark(first))
	expect("never applied", first.Name)
	check(p.Clear(store, "/source"))
	expect("cleared before it was applied", first.Name)
	second := take()
	check(p.Mark(second))
	expect("one mark is enough", second.Name)
	apply(first)
	check(p.Clear(store, "/source"))
	expect("the first was applied, the second was not", second.Name)
	apply(second)
	check(p.Mark(second))
	expect("a mark is the sender's to remove", second.Name)
	check(p.Clear(store, "/source"))
	expect("all applied")
	check(p.Mark(second))
	expect("nothing new")
	// Whatever was lost, the next tick makes good.
	third := take()
	check(p.Mark(third))
	check(os.RemoveAll(marks))
	check(p.Mark(third))
	check(p.Mark(third))
	expect("after a boot", third.Name)
	// A mark that stands for nothing would trigger for ever.
	check(os.WriteFile(filepath.Join(marks, "20200101T000000.000000000Z"), nil, 0o644))
	check(os.WriteFile(filepath.Join(marks, "stray"), nil, 0o644))
	check(p.Clear(store, "/source"))
	expect("strays", third.Name)
	check(os.WriteFile(cursor, []byte("garbage"), 0o644))
	check(p.Mark(third))
	expect("a cursor that can't be read", third.Name)
}
