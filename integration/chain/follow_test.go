package chain_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// follow follows a log from what a query of it says, in the background. It
// returns what ends it and waits for the outcome, and the events of seen.
func (l *testLog) follow(seen chan<- int64) (end func() (chain.Verdict, error)) {
	l.t.Helper()
	fsys := os.DirFS(l.dir)
	v, err := chain.Query(context.Background(), fsys, chain.QueryOptions{}, func(*event.Event, []byte) error { return nil })
	if err != nil || !v.Verified {
		l.t.Fatal(v, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	type outcome struct {
		v   chain.Verdict
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		v, err := chain.Follow(ctx, fsys, v, chain.Filter{Types: []string{"t.*"}}, time.Millisecond, func(e *event.Event, _ []byte) error {
			seen <- e.Index
			return nil
		})
		close(seen)
		ended <- outcome{v, err}
	}()
	return func() (chain.Verdict, error) {
		stop()
		o := <-ended
		return o.v, o.err
	}
}

// Following goes on over the end of a segment and over rotations of the key,
// misses nothing, repeats nothing, and its verdict is about all of it.
func TestFollowSurvivesRotation(t *testing.T) {
	l := newTestLog(t)
	l.fill(segment - 700)
	l.keep()
	l.fill(segment - 500) // behind the checkpoint when the following begins
	seen := make(chan int64, segment)
	end := l.follow(seen)
	want := l.log.Size()
	for _, n := range []int64{segment - 100, segment - 1, segment, segment + 1, segment + 300} {
		l.fill(n)
		if err := l.log.RotateKey(); err != nil {
			t.Fatal(err)
		}
	}
	l.fill(segment + 2000)
	l.keep()
	last := l.log.Size() - 1
	for i := range seen {
		// The rotations' own events are not chosen.
		for ; want < i; want++ {
			if line := l.line(want); !bytes.Contains(line, []byte(`"type":"log.epoch"`)) {
				t.Fatalf("event %d was passed over: %s", want, line)
			}
		}
		if i != want {
			t.Fatalf("event %d, want %d", i, want)
		}
		if want++; i == last {
			break
		}
	}
	v, err := end()
	if err != nil || !v.Verified || v.Size != last+1 || v.Newer != 0 || v.Time.IsZero() {
		t.Errorf("%+v %v", v, err)
	}
	l.close()
}

func (l *testLog) line(index int64) []byte {
	l.t.Helper()
	data, err := os.ReadFile(filepath.Join(l.dir, layout.SegmentName(index/segment)))
	if err != nil {
		l.t.Fatal(err)
	}
	return bytes.Split(data, []byte("\n"))[index%segment]
}

// A line that was printed and is not what is signed later ends the following.
func TestFollowFindsTampering(t *testing.T) {
	l := newTestLog(t)
	l.fill(10)
	l.keep()
	seen := make(chan int64, 100)
	end := l.follow(seen)
	// Behind the log's back, with a right checksum, as the next event; the log
	// then appends its own over it.
	file := filepath.Join(l.dir, layout.SegmentName(0))
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Replace(l.line(9), []byte(`{"i":9,`), []byte(`{"i":10,`), 1)
	line = bytes.Replace(line, []byte("event 9"), []byte("event xx"), 1) // as long as the log's
	line = event.Close(bytes.Clone(line[:bytes.LastIndex(line, []byte(`,"c":"`))]))
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if i := <-seen; i != 10 {
		t.Fatalf("event %d", i)
	}
	if err := f.Truncate(info.Size()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.fill(11)
	l.keep()
	for range seen { // until it ends by itself
	}
	v, err := end()
	if err != nil || v.Verified || !strings.Contains(v.Reason, "do not have the root") {
		t.Errorf("%+v %v", v, err)
	}
	l.close()
}
