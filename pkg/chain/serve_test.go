//go:build linux

package chain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// serveLog runs s over a socket until the test ends; stop ends it earlier and
// returns what Serve has.
func serveLog(t testing.TB, s *Server) (socket string, stop func() error) {
	t.Helper()
	// An abstract name: file permissions keep no uid out, so that only the
	// daemon's own rules do.
	socket = fmt.Sprintf("@gb-chain-test-%d-%p", os.Getpid(), s)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	return socket, stop
}

func lineOf(source, message string) []byte {
	return fmt.Appendf(nil, `{"source":%q,"type":"t","message":%q}`, source, message)
}

// A gatedFile is a segment whose syncs wait, fail, and are counted.
type gatedFile struct {
	appender
	gate   atomic.Pointer[chan struct{}] // a sync waits until it is closed
	fail   atomic.Bool
	syncs  atomic.Int64
	writes atomic.Int64
}

func (f *gatedFile) Write(b []byte) (int, error) {
	f.writes.Add(1)
	return f.appender.Write(b)
}

func (f *gatedFile) Datasync() error {
	f.syncs.Add(1)
	if gate := f.gate.Load(); gate != nil {
		<-*gate
	}
	if f.fail.Load() {
		return &durable.SyncError{Err: errors.New("input/output error")}
	}
	return f.appender.Datasync()
}

// gated puts a gatedFile under l.
func gated(l *Log) *gatedFile {
	f := &gatedFile{appender: l.f}
	l.f = f
	return f
}

// Many producers at once: each batch is acknowledged with a range of its own
// and the hashes of its events, in the producer's order, and one sync serves
// many.
func TestManyProducers(t *testing.T) {
	l, dir := newLogIn(t)
	f := gated(l)
	socket, stop := serveLog(t, &Server{Log: l})
	const producers, batches = 60, 5
	var mu sync.Mutex
	acked := make(map[int64]string) // messages by index
	var wg sync.WaitGroup
	for n := range producers {
		wg.Go(func() {
			c, err := record.Dial(context.Background(), socket, record.Hello{Receipts: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for k := range batches {
				var lines [][]byte
				for i := range 1 + n%3 {
					lines = append(lines, lineOf("demo", fmt.Sprintf("%d/%d/%d", n, k, i)))
				}
				i := 0
				if err := c.Append(lines, func(a record.Ack) {
					mu.Lock()
					defer mu.Unlock()
					if int64(len(a.Leaves)) != a.Last-a.First+1 {
						t.Errorf("%d hashes for %d to %d", len(a.Leaves), a.First, a.Last)
					}
					for index := a.First; index <= a.Last; index++ {
						if acked[index] != "" {
							t.Errorf("index %d was given twice", index)
						}
						acked[index] = fmt.Sprintf("%d/%d/%d", n, k, i)
						i++
					}
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if f.syncs.Load() != f.writes.Load() || f.syncs.Load() >= producers*batches {
		t.Errorf("%d writes and %d syncs for %d batches", f.writes.Load(), f.syncs.Load(), producers*batches)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	events := eventsOf(t, dir)
	if len(events) != len(acked)+1 {
		t.Errorf("%d events, %d acknowledged", len(events), len(acked))
	}
	for _, e := range events[1:] {
		if e.Message != acked[e.Index] || e.Peer.UID != uint32(os.Getuid()) {
			t.Errorf("event %d is %q of uid %d, acknowledged was %q", e.Index, e.Message, e.Peer.UID, acked[e.Index])
		}
	}
}

// dialAs connects as another user: the kernel tells the daemon the effective
// uid of the thread that connects.
func dialAs(t *testing.T, uid int, socket string) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			done <- result{nil, err}
			return
		}
		// The raw call changes this thread only.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			done <- result{nil, err}
			return
		}
		f := os.NewFile(uintptr(fd), "conn")
		conn, err := net.FileConn(f)
		f.Close()
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.conn.Close() })
	return r.conn
}

// Which uid may write which source is the writers' file's to say, and what the
// kernel says of the peer is recorded.
func TestWriters(t *testing.T) {
	require.Root(t)
	l, dir := newLogIn(t)
	socket, stop := serveLog(t, &Server{Log: l, Writers: Writers{4001: {"ovs"}, 4002: {"*"}}})
	say := func(uid int, text string) string {
		conn := dialAs(t, uid, socket)
		io.WriteString(conn, text)
		conn.(*net.UnixConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		answer, _ := io.ReadAll(conn)
		return string(answer)
	}
	ovs, other := string(lineOf("ovs", "x"))+"\n", string(lineOf("other", "x"))+"\n"
	for _, row := range []struct {
		uid        int
		say, wants string
	}{
		{4001, ovs, `{"first":1,"last":1}`},
		{4001, ovs + other + ovs, `"error":"uid 4001 may not write events of source \"other\"","line":2`},
		{4002, other, `{"first":3,"last":3}`},
		{4003, ovs, `may not write`},
		{4001, `{"lost":{"count":3,"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:01Z","source":"ovs"}}` + "\n", `{"first":4,"last":4}`},
		{4001, `{"lost":{"count":3,"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:01Z","source":"other"}}` + "\n", `may not write`},
		{4001, `{"lost":{"count":3,"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:01Z"}}` + "\n", `may not write`},
		{4002, `{"rotate":{}}` + "\n", `may not rotate`},
	} {
		if have := say(row.uid, row.say); !strings.Contains(have, row.wants) {
			t.Errorf("uid %d says %.60q and is told %q, want %q", row.uid, row.say, have, row.wants)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var uids []uint32
	for _, e := range eventsOf(t, dir)[1:] {
		uids = append(uids, e.Peer.UID)
	}
	if fmt.Sprint(uids) != "[4001 4001 4002 4001]" {
		t.Errorf("recorded uids %v", uids)
	}
}

func TestLoadWriters(t *testing.T) {
	require.Root(t)
	file := t.TempDir() + "/writers.json"
	for _, row := range []struct {
		text string
		mode os.FileMode
		uid  int
		want string
	}{
		{`{"writers":[{"uid":7,"sources":["a","b"]},{"user":"root","sources":["*"]},{"user":"no-such-user","sources":["a"]}]}`, 0o644, 0, ""},
		{`{"writers":[]}`, 0o664, 0, "can be changed by others"},
		{`{"writers":[]}`, 0o646, 0, "can be changed by others"},
		{`{"writers":[]}`, 0o644, 4001, "can be changed by others"},
		{`{"writers":[{"sources":["a"]}]}`, 0o644, 0, "either uid or user"},
		{`{"writers":[{"uid":1,"user":"root","sources":["a"]}]}`, 0o644, 0, "either uid or user"},
		{`{"writers":[{"uid":1,"source":"a"}]}`, 0o644, 0, "unknown field"},
		{`{"writers"`, 0o644, 0, "unexpected EOF"},
	} {
		os.WriteFile(file, []byte(row.text), 0o600)
		if err := errors.Join(os.Chown(file, row.uid, 0), os.Chmod(file, row.mode)); err != nil {
			t.Fatal(err)
		}
		w, err := LoadWriters(file)
		if row.want == "" {
			if err != nil || !w.Allowed(7, "a") || w.Allowed(7, "c") || w.Allowed(8, "a") {
				t.Errorf("%s: %v, %v", row.text, w, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s, mode %o, owner %d: %v", row.text, row.mode, row.uid, err)
		}
	}
	if w, err := LoadWriters(file + "-not-there"); w != nil || err != nil {
		t.Errorf("no file: %v, %v", w, err)
	}
}

// While the disk hangs, what waits in the daemon is bounded, and the producers
// wait; then everything is stored.
func TestFullQueueMakesProducersWait(t *testing.T) {
	l, dir := newLogIn(t)
	f := gated(l)
	gate := make(chan struct{})
	f.gate.Store(&gate)
	const limit = 100_000
	s := &Server{Log: l, QueueBytes: limit}
	socket, stop := serveLog(t, s)
	const producers, batches = 20, 10
	line := lineOf("demo", strings.Repeat("x", 5000))
	var finished atomic.Int64
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			c, err := record.Dial(context.Background(), socket, record.Hello{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range batches {
				if err := c.Append([][]byte{line, line, line, line}, nil); err != nil {
					t.Error(err)
					return
				}
			}
			finished.Add(1)
		})
	}
	for deadline := time.Now().Add(20 * time.Second); f.syncs.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	queued := func() int64 { return s.room.inUse() }
	for deadline := time.Now().Add(20 * time.Second); queued() < limit/2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for range 50 {
		if q := queued(); q > limit {
			t.Fatalf("%d bytes are queued, the bound is %d", q, limit)
		}
		time.Sleep(time.Millisecond)
	}
	if finished.Load() != 0 || l.durable.Load() != 1 {
		t.Errorf("%d producers were answered, %d events are said to be durable, and the disk hangs", finished.Load(), l.durable.Load())
	}
	close(gate)
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if have := len(eventsOf(t, dir)); have != producers*batches*4+1 {
		t.Errorf("%d events", have)
	}
}

// A line may have 16 MiB: its data goes to a blob. One byte more is refused,
// and the producer is told.
func TestLargestLine(t *testing.T) {
	l, dir := newLogIn(t)
	socket, stop := serveLog(t, &Server{Log: l})
	line := func(size int) []byte {
		const head, tail = `{"source":"demo","type":"t","data":{"x":"`, `"}}`
		return []byte(head + strings.Repeat("x", size-len(head)-len(tail)) + tail)
	}
	c, err := record.Dial(context.Background(), socket, record.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Append([][]byte{line(event.MaxInput)}, nil); err != nil {
		t.Fatal(err)
	}
	var refused *record.RefusedError
	if err := c.Append([][]byte{line(event.MaxInput + 1)}, nil); err == nil { // the reason, or that it closed while we wrote
		t.Error("a byte more is taken")
	}
	// A message can't be moved out.
	c, err = record.Dial(context.Background(), socket, record.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Append([][]byte{lineOf("demo", strings.Repeat("m", 70000))}, nil); !errors.As(err, &refused) || refused.Line != 1 {
		t.Errorf("a message of 70,000 bytes: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	events := eventsOf(t, dir)
	if len(events) != 2 || events[1].Blob == nil {
		t.Fatalf("%d events", len(events))
	}
	info, err := os.Stat(dir + "/" + layout.BlobName(events[1].Blob.SHA256))
	if err != nil || info.Size() != events[1].Blob.Size {
		t.Errorf("blob: %v", err)
	}
}

// After a failed sync nothing is acknowledged and nothing written any more:
// the daemon ends.
func TestFailedSyncEndsTheDaemon(t *testing.T) {
	l, dir := newLogIn(t)
	f := gated(l)
	socket, stop := serveLog(t, &Server{Log: l})
	c, err := record.Dial(context.Background(), socket, record.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Append([][]byte{lineOf("demo", "stored")}, nil); err != nil {
		t.Fatal(err)
	}
	f.fail.Store(true)
	if err := c.Append([][]byte{lineOf("demo", "not known")}, nil); err == nil {
		t.Error("an event was acknowledged whose sync failed")
	}
	var s *durable.SyncError
	if err := stop(); !errors.As(err, &s) {
		t.Errorf("the daemon ends with %v", err)
	}
	writes := f.writes.Load()
	if err := l.Append(&Batch{}); !errors.As(err, &s) {
		t.Errorf("append: %v", err)
	}
	if err := l.Close(); !errors.As(err, &s) {
		t.Errorf("close: %v", err)
	}
	if f.writes.Load() != writes {
		t.Error("it wrote on")
	}
	data, err := os.ReadFile(dir + "/" + layout.Checkpoint)
	if err != nil || strings.Contains(string(data), "\n3\n") {
		t.Errorf("a checkpoint was signed over what may be lost: %s, %v", data, err)
	}
}

// One user's connections, with lines that never end, keep nobody else from
// writing, short lines or long.
func TestUnendingLinesOfAnother(t *testing.T) {
	require.Root(t)
	l, dir := newLogIn(t)
	s := &Server{Log: l, Writers: Writers{4001: {"*"}, 4002: {"*"}}, Connections: 400, lineTimeout: time.Hour}
	socket, stop := serveLog(t, s)
	if c, err := record.Dial(t.Context(), socket, record.Hello{}); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	const hostile = 100 // the quarter that a user may have
	for range hostile {
		conn := dialAs(t, 4001, socket)
		if _, err := io.WriteString(conn, `{"source":"demo","type":"t","message":"`+strings.Repeat("x", 2*connBuffer)); err != nil {
			t.Fatal(err)
		}
	}
	counted := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.users[4001]
	}
	for deadline := time.Now().Add(20 * time.Second); (counted() < hostile || s.large.inUse() < (largeLines-1)*event.MaxInput) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	conn := dialAs(t, 4001, socket)
	conn.SetDeadline(time.Now().Add(time.Minute))
	if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), "100 connections open") || !strings.Contains(string(answer), `"code":75`) {
		t.Errorf("one connection more is told %q", answer)
	}
	other := dialAs(t, 4002, socket)
	answers := bufio.NewReader(other)
	other.SetDeadline(time.Now().Add(time.Minute))
	for k, line := range []string{
		string(lineOf("demo", "short")),
		`{"source":"demo","type":"t","data":{"x":"` + strings.Repeat("x", 8<<20) + `"}}`,
		string(lineOf("demo", "short again")),
	} {
		if _, err := io.WriteString(other, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := answers.ReadString('\n'); err != nil || answer != fmt.Sprintf("{\"first\":%d,\"last\":%d}\n", k+1, k+1) {
			t.Fatalf("line %d: %q, %v", k, answer, err)
		}
	}
	if used := s.large.inUse(); used != (largeLines-1)*event.MaxInput {
		t.Errorf("%d bytes are held for long lines", used)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(eventsOf(t, dir)); n != 4 {
		t.Errorf("%d events", n)
	}
	if s.large.inUse() != 0 || s.room.inUse() != 0 || s.conns != 0 || len(s.users) != 0 {
		t.Errorf("left: %d, %d, %d connections, %v", s.large.inUse(), s.room.inUse(), s.conns, s.users)
	}
}

// A long line that does not come gives its memory back, and its producer is
// told; one that pauses between lines is not disturbed.
func TestSlowLine(t *testing.T) {
	l, dir := newLogIn(t)
	s := &Server{Log: l, lineTimeout: 200 * time.Millisecond}
	socket, stop := serveLog(t, s)
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(time.Minute))
		return conn, bufio.NewReader(conn)
	}
	slow, answers := dial()
	io.WriteString(slow, string(lineOf("demo", "before"))+"\n"+`{"source":"demo","message":"`+strings.Repeat("x", 2*connBuffer))
	all, err := io.ReadAll(answers)
	if err != nil || !strings.HasPrefix(string(all), "{\"first\":1,\"last\":1}\n") || !strings.Contains(string(all), "did not come within") || !strings.Contains(string(all), `"code":75`) {
		t.Errorf("a line that does not come is answered %q, %v", all, err)
	}
	fine, answers := dial()
	for range 2 {
		long := `{"source":"demo","type":"t","data":{"x":"` + strings.Repeat("x", 2*connBuffer) + `"}}` + "\n"
		io.WriteString(fine, long)
		if answer, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(answer, `{"first":`) {
			t.Fatalf("%q, %v", answer, err)
		}
		time.Sleep(2 * s.lineTimeout)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(eventsOf(t, dir)); n != 4 || s.large.inUse() != 0 {
		t.Errorf("%d events, %d bytes held", n, s.large.inUse())
	}
}

// Who reads no answers keeps the daemon from nothing, not from ending either.
func TestProducerThatReadsNoAnswers(t *testing.T) {
	l, dir := newLogIn(t)
	socket, stop := serveLog(t, &Server{Log: l})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.UnixConn).SetReadBuffer(1)
	// Its answers fill the socket; then the daemon reads no more of it.
	line := append(lineOf("demo", "x"), '\n')
	stuck := 0
	for k := 0; k < 100_000; k++ {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write(line); err != nil {
			stuck = k
			break
		}
		if k < 20_000 {
			runtime.Gosched() // many small batches
		}
	}
	t.Logf("stuck behind %d events", stuck)
	c, err := record.Dial(t.Context(), socket, record.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Append([][]byte{lineOf("demo", "another")}, nil); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(eventsOf(t, dir)); n < 3 {
		t.Errorf("%d events", n)
	}
}
