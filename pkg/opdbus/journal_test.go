package opdbus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A logDaemon is a real log with its server.
type logDaemon struct {
	t                 *testing.T
	dir, keys, socket string
	stop              func()
}

func newLogDaemon(t *testing.T) *logDaemon {
	t.Helper()
	dir := t.TempDir()
	d := &logDaemon{t: t, dir: filepath.Join(dir, "log"), keys: filepath.Join(dir, "keys"), socket: filepath.Join(dir, "chain.sock")}
	if _, err := chain.Create(d.dir, "test.example/log", d.keys, chain.Options{}); err != nil {
		t.Fatal(err)
	}
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

func (d *logDaemon) start() {
	d.t.Helper()
	l, err := chain.Open(d.dir, d.keys, chain.Options{Wait: 10 * time.Second})
	if err != nil {
		d.t.Fatal(err)
	}
	os.Remove(d.socket)
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	srv := &chain.Server{Log: l, Writers: chain.Writers{uint32(os.Getuid()): {"*"}}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	go func() { ended <- srv.Serve(ctx, listener) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, l.Close()); err != nil {
			d.t.Error(err)
		}
	})
}

// messages returns the messages of the events of source opdbus, in order.
func (d *logDaemon) messages() (list []string) {
	d.t.Helper()
	d.stop()
	_, err := chain.Query(d.t.Context(), os.DirFS(d.dir), chain.QueryOptions{Filter: chain.Filter{Sources: []string{"opdbus"}}}, func(e *logevent.Event, _ []byte) error {
		list = append(list, e.Message)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	return list
}

func note(format string, args ...any) []byte {
	return eventLine(event{Time: time.Now(), Source: "opdbus", Type: "opdbus.note", Message: fmt.Sprintf(format, args...)})
}

// What many record at once is in the log when Record returns, and what was
// deferred before something is there before it.
func TestJournalKeepsOrder(t *testing.T) {
	d := newLogDaemon(t)
	j := &LogJournal{Socket: d.socket}
	const callers, each = 16, 50
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := range each {
				if err := j.Record(t.Context(), note("%d intent %d", c, n)); err != nil {
					t.Error(err)
				}
				j.Defer([][]byte{note("%d outcome %d", c, n)}, func(err error) { t.Error(err) })
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Record(t.Context(), note("late")); err == nil {
		t.Error("a closed journal records")
	}
	list := d.messages()
	if len(list) != 2*callers*each {
		t.Fatalf("%d events, want %d", len(list), 2*callers*each)
	}
	next := map[string]int{}
	for _, m := range list {
		f := strings.Fields(m)
		want := fmt.Sprintf("%s %s %d", f[0], []string{"intent", "outcome"}[next[f[0]]%2], next[f[0]]/2)
		if next[f[0]]++; m != want {
			t.Fatalf("%q stands where %q should", m, want)
		}
	}
}

// A line that the log refuses is refused to who recorded it and to nobody
// else.
func TestJournalRefusesOneAlone(t *testing.T) {
	d := newLogDaemon(t)
	j := &LogJournal{Socket: d.socket}
	defer j.Close()
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for n := range 200 {
				bad := n%7 == c%7
				line := note("%d %d", c, n)
				if bad {
					line = []byte(`{"no":"event"}`)
				}
				err := j.Record(t.Context(), note("before %d %d", c, n), line)
				var refused *record.RefusedError
				if bad != (err != nil) || bad && !errors.As(err, &refused) {
					t.Errorf("%d %d, bad %v: %v", c, n, bad, err)
				}
			}
		})
	}
	wg.Wait()
}

// The log's daemon is started anew again and again: what was recorded without
// an error is in the log.
func TestJournalOutlivesTheDaemon(t *testing.T) {
	d := newLogDaemon(t)
	j := &LogJournal{Socket: d.socket}
	recorded := map[string]bool{}
	var mu sync.Mutex
	done := make(chan struct{})
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				m := fmt.Sprintf("%d %d", c, n)
				if err := j.Record(t.Context(), note("%s", m)); err == nil {
					mu.Lock()
					recorded[m] = true
					mu.Unlock()
				}
			}
		})
	}
	for range 10 {
		time.Sleep(20 * time.Millisecond)
		d.stop()
		d.start()
	}
	close(done)
	wg.Wait()
	if err := j.Record(t.Context(), note("last")); err != nil {
		t.Error(err)
	}
	j.Close()
	for _, m := range d.messages() {
		delete(recorded, m)
	}
	if len(recorded) > 0 {
		t.Errorf("%d events are lost, among them %v", len(recorded), recorded)
	}
}

// A daemon that takes lines and says nothing does not hold up anybody for
// ever, and what it took is not sent again.
func TestJournalLosesPatience(t *testing.T) {
	socket, lines := silentDaemon(t)
	j := &LogJournal{Socket: socket, patience: 100 * time.Millisecond}
	var gone *record.UnavailableError
	if err := j.Record(t.Context(), note("x")); !errors.As(err, &gone) || !gone.Timeout() {
		t.Errorf("error %v", err)
	}
	failed := make(chan error, 1)
	j.Defer([][]byte{note("y")}, func(err error) { failed <- err })
	if err := <-failed; !errors.As(err, &gone) {
		t.Errorf("error %v", err)
	}
	j.Close()
	if len(lines) != 2 {
		t.Errorf("%d lines were sent, want 2", len(lines))
	}
}

// An outcome that comes late is written; one that the log does not take waits
// in the spool, and somebody is told.
func TestDeferredOutcome(t *testing.T) {
	d := newLogDaemon(t)
	j := &LogJournal{Socket: d.socket}
	g, _, _ := newGate(t, allowAll)
	var lost []error
	g.Journal, g.DeferOutcomes, g.Lost = j, true, func(err error) { lost = append(lost, err) }
	do := func() error {
		_, err := g.Do(t.Context(), alice, mustCall(t, "a.b", "/", "c.d", "M", "s", "x"), Options{}, func(context.Context, string) (json.RawMessage, error) { return nil, nil })
		return err
	}
	for range 3 {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	// The daemon goes while an action is under way.
	_, err := g.Do(t.Context(), alice, mustCall(t, "a.b", "/", "c.d", "M", "s", "x"), Options{}, func(context.Context, string) (json.RawMessage, error) {
		d.stop()
		os.Remove(d.socket)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if len(lost) != 1 || g.Spool.Size() == 0 {
		t.Errorf("lost %v, %d bytes in the spool", lost, g.Spool.Size())
	}
	if err := do(); err == nil {
		t.Error("an action is done without its intent")
	}
	if got := len(d.messages()); got != 7 {
		t.Errorf("%d events, want 4 intents and 3 outcomes", got)
	}
}

// silentDaemon greets who connects, takes lines, and says nothing.
func silentDaemon(t *testing.T) (socket string, lines chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines = make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewScanner(c)
				for r.Scan() {
					if strings.Contains(r.Text(), `"hello"`) {
						fmt.Fprintln(c, `{"welcome":{"version":1}}`)
					} else {
						lines <- r.Text()
					}
				}
			}()
		}
	}()
	return socket, lines
}

// The spool is flushed into a journal whose log does not answer, while outcomes
// that it did not take come into the spool: nobody waits for anybody for ever.
func TestSpoolAndJournalDoNotWaitForEachOther(t *testing.T) {
	socket, _ := silentDaemon(t)
	j := &LogJournal{Socket: socket, patience: 200 * time.Millisecond}
	spool := &Spool{Dir: t.TempDir()}
	if err := spool.Add(note("earlier")); err != nil {
		t.Fatal(err)
	}
	const outcomes = 20
	told := make(chan error, outcomes)
	for n := range outcomes {
		j.Defer([][]byte{note("outcome %d", n)}, func(error) { told <- spool.Add(note("outcome %d", n)) })
	}
	flushed := make(chan error, 1)
	go func() {
		_, err := spool.Flush(t.Context(), j)
		flushed <- err
	}()
	late := time.After(20 * time.Second)
	for range outcomes {
		select {
		case err := <-told:
			if err != nil {
				t.Error(err)
			}
		case <-late:
			t.Fatal("an outcome does not come into the spool")
		}
	}
	select {
	case err := <-flushed:
		if err == nil {
			t.Error("a log that does not answer has taken the spool")
		}
	case <-late:
		t.Fatal("the spool is being flushed for ever")
	}
	j.Close()
	data, err := os.ReadFile(filepath.Join(spool.Dir, spoolFile))
	if err != nil || strings.Count(string(data), "\n") != outcomes+1 {
		t.Errorf("%d events in the spool, %v", strings.Count(string(data), "\n"), err)
	}
}
