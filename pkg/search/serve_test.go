package search

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
)

// serveIndex serves an index of a few events until the test ends, and returns
// the socket and a channel with what Serve returned.
func serveIndex(t *testing.T, idle time.Duration) (socket string, done chan error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "index.db")
	db, err := local.Open(path, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i, message := range []string{"bridge ovsbr0 created", "bridge ovsbr1 created", "port vnet0 added"} {
		e := &event.Event{Index: int64(i), Time: time.Unix(int64(1700000000+i), 0).UTC(), Source: "ovs", Type: "x", Message: message}
		if err := tx.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Logger: slog.New(slog.DiscardHandler), Idle: idle,
		Open: func() (index.Reader, State, error) {
			ix, err := local.OpenReader(path)
			return ix, State{Verified: &Verified{TreeSize: 3, Root: "r"}}, err
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done = make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("Serve did not end")
		}
	})
	return socket, done
}

func TestServe(t *testing.T) {
	socket, _ := serveIndex(t, 0)
	hits, end, err := AskSocket(t.Context(), socket, Request{Question: "what about the bridge", Limit: 1})
	if err != nil || len(hits) != 1 || end.Hits != 1 || end.Verified == nil || end.Verified.TreeSize != 3 {
		t.Fatal(hits, end, err)
	}
	since := time.Unix(1700000001, 0)
	hits, _, err = AskSocket(t.Context(), socket, Request{Question: "created", Since: &since})
	if err != nil || len(hits) == 0 || hits[0].Message != "bridge ovsbr1 created" || hits[0].Count != 1 {
		t.Error(hits, err)
	}
	hits, end, err = AskSocket(t.Context(), socket, Request{Question: "nonsense"})
	if err != nil || len(hits) != 0 || end.Hits != 0 {
		t.Error(hits, end, err)
	}
	for _, bad := range []Request{{Question: "?"}, {Question: "x", Limit: -1}, {Question: "x", Limit: 1 << 30}, {Question: "x", Severity: "bad"}} {
		var f *Failure
		if _, _, err := AskSocket(t.Context(), socket, bad); !errors.As(err, &f) || f.Code != 2 {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	var none *UnavailableError
	if _, _, err := AskSocket(t.Context(), socket+"x", Request{Question: "x"}); !errors.As(err, &none) {
		t.Error(err)
	}

	// Several requests on one connection; garbage is answered, too much ends it.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, "{\"question\":\"port\"}\nnonsense\n{\"question\":\"port\",\"extra\":1}\n{\"question\":\"port\"}\n"+strings.Repeat("x", maxRequest+1))
	var got []string
	for r := bufio.NewScanner(conn); r.Scan(); {
		key, _, _ := strings.Cut(r.Text(), ":")
		got = append(got, key)
	}
	if want := `{"hit" {"end" {"error" {"error" {"hit" {"end" {"error"`; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func TestServeIdle(t *testing.T) {
	socket, done := serveIndex(t, 100*time.Millisecond)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatal("ended with a connection open:", err)
	case <-time.After(2500 * time.Millisecond):
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	done <- nil // for the cleanup
}
