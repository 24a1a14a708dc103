package local

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

func begin(t *testing.T, d *DB) index.Tx {
	t.Helper()
	x, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func add(t *testing.T, x index.Tx, from, to int64) {
	t.Helper()
	for i := from; i < to; i++ {
		e := &event.Event{Index: i, Time: time.Unix(1700000000+i, 0), Host: "h", Source: "s", Type: "t.t", Severity: event.Info,
			Message: fmt.Sprintf("number n%d of all", i), Data: []byte(fmt.Sprintf(`{"word":"w%d"}`, i))}
		if err := x.Add(e); err != nil {
			t.Fatal(err)
		}
	}
}

// found returns the indexes of the events that hold a word, the newest first;
// of all if it is "".
func found(t *testing.T, d *DB, word string) (list []int64) {
	t.Helper()
	var events []index.Event
	var err error
	if word == "" {
		events, err = d.Events(t.Context(), 0, 1<<40)
	} else {
		events, _, err = d.Holding(t.Context(), []string{word}, index.Filter{}, 100)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		list = append(list, e.Index)
	}
	return list
}

// Events and state change together or not at all, an event is there once, and
// what is removed is found no more.
func TestTransactions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()

	x := begin(t, d)
	add(t, x, 0, 5)
	if err := errors.Join(x.Set("a/1", []byte("one")), x.Set("a/2", []byte{}), x.Set("b", []byte{0xff, 0})); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Get("a/1"); v != nil || err != nil {
		t.Fatalf("before the commit: %q, %v", v, err)
	}
	if err := x.Rollback(); err != nil {
		t.Fatal(err)
	}
	if m := found(t, d, ""); len(m) != 0 {
		t.Fatalf("after a rollback: %d events", len(m))
	}

	x = begin(t, d)
	add(t, x, 0, 20)
	if err := errors.Join(x.Set("a/1", []byte("one")), x.Set("a/2", []byte{}), x.Set("b", []byte{0xff, 0}), x.Commit(), x.Rollback()); err != nil {
		t.Fatal(err)
	}
	x = begin(t, d)
	if err := x.Add(&event.Event{Index: 7, Message: "again"}); err == nil {
		t.Fatal("an event was added twice")
	}
	x.Rollback()

	x = begin(t, d)
	if err := errors.Join(x.Remove(3, 10), x.Set("a/2", nil), x.Commit()); err != nil {
		t.Fatal(err)
	}
	// All of that is there when the file is opened again.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Totals(); n.Events != 13 || n.Points != 1 || n.Templates != 1 || n.Newest.Unix() != 1700000019 || err != nil {
		t.Fatalf("%+v, %v", n, err)
	}
	for i := range int64(20) {
		for _, word := range []string{fmt.Sprint("n", i), fmt.Sprint("w", i)} {
			want := 1
			if i >= 3 && i < 10 {
				want = 0
			}
			if m := found(t, d, word); len(m) != want || want == 1 && m[0] != i {
				t.Errorf("%q: %v", word, m)
			}
		}
	}
	seq, failed := d.Scan("a/")
	got := ""
	for k, v := range seq {
		got += fmt.Sprintf("%s=%q ", k, v)
	}
	if got != `a/1="one" ` || failed() != nil {
		t.Errorf("state: %s, %v", got, failed())
	}
	if v, err := d.Get("b"); string(v) != "\xff\x00" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

// Whatever a question holds, it is data: nothing in it is an operator of the
// query language.
func TestTermsAreData(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "index"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	x := begin(t, d)
	add(t, x, 0, 3)
	if err := x.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`"`, `""`, "NOT n1", "n1 OR n2", "message:n1", "n1*", "^n1", "(", "NEAR(n1 n2)", "'; DROP TABLE event; --", "\x00", "n1\x00n2", "\xff", ""} {
		f := index.Filter{Hosts: []string{text, "h"}}
		if _, err := d.Lexical(t.Context(), []index.Term{{Stem: text, Weight: 1}, {Stem: "number", Weight: 1}}, f, 10); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if list, _, err := d.Holding(t.Context(), []string{text}, f, 10); err != nil || len(list) > 0 && text != "" && text != `"` && text != "(" && text != `""` {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
	if m := found(t, d, "n1"); len(m) != 1 {
		t.Error(m)
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := begin(t, d)
	if err := errors.Join(x.Set("key", []byte("value")), x.Commit(), d.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	raw.Close()
	var version *VersionError
	if _, err := Open(path, Options{}); !errors.As(err, &version) || version.Have != 99 || version.ExitCode() != 2 {
		t.Errorf("Open: %v", err)
	}
	if _, err := OpenReader(path); !errors.As(err, &version) {
		t.Errorf("OpenReader: %v", err)
	}
	// Its state can be read.
	d, err = OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if v, err := d.Get("key"); string(v) != "value" || err != nil {
		t.Errorf("Get: %q, %v", v, err)
	}
}
