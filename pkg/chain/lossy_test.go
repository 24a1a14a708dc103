package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// A slowSink is a log whose disk hangs until it is let go.
type slowSink struct {
	DirectSink
	entered chan struct{} // one for each append that has begun
	let     chan struct{}
}

func (s slowSink) Append(b *Batch) error {
	s.entered <- struct{}{}
	<-s.let
	return s.DirectSink.Append(b)
}

// newLogIn makes a log and opens it.
func newLogIn(t testing.TB) (l *Log, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log")
	keys := t.TempDir()
	if _, err := Create(dir, "serve.example/log", keys, Options{Host: "h"}); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, Options{Host: "h"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.release() })
	return l, dir
}

func eventsOf(t testing.TB, dir string) []*event.Event {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, layout.SegmentName(0)))
	if err != nil {
		t.Fatal(err)
	}
	var events []*event.Event
	for _, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		e, err := event.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// With a log that hangs, a producer under LossyBytes writes all it has without
// waiting; each event is then in the log or counted, for each source, in an
// event log.lost that stands where they would.
func TestLossyProducerNeverWaits(t *testing.T) {
	l, dir := newLogIn(t)
	sink := slowSink{DirectSink{l}, make(chan struct{}, 1000), make(chan struct{})}
	r, w := io.Pipe()
	type result struct {
		stored int64
		err    error
	}
	done := make(chan result)
	go func() {
		stored, err := Feed(context.Background(), r, sink, FeedOptions{LossyBytes: 20000})
		done <- result{stored, err}
	}()
	begin := time.Now()
	write := func(source string, k int) {
		if _, err := fmt.Fprintf(w, `{"source":%q,"type":"t","message":"event %d"}`+"\n", source, k); err != nil {
			t.Error(err)
		}
	}
	const each = 2000
	write("a", 0)
	<-sink.entered // and hangs
	for k := 1; k < each; k++ {
		write("a", k)
		write("b", k)
	}
	close(sink.let)
	w.Close()
	res := <-done
	if res.err != nil {
		t.Fatal(res.err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	stored, lost := map[string]int64{}, map[string]int64{}
	last := map[string]int{"a": -1, "b": 0}
	for _, e := range eventsOf(t, dir) {
		switch {
		case e.Type == layout.TypeLost:
			var data layout.Lost
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			from, ferr := time.Parse(event.TimeFormat, data.From)
			to, terr := time.Parse(event.TimeFormat, data.To)
			if ferr != nil || terr != nil || to.Before(from) || from.Before(begin.Add(-time.Second)) || to.After(time.Now()) {
				t.Errorf("lost from %s to %s", data.From, data.To)
			}
			lost[data.Source] += data.Count
			last[data.Source] += int(data.Count)
		case e.Source == "a" || e.Source == "b":
			stored[e.Source]++
			last[e.Source]++
			if want := fmt.Sprintf("event %d", last[e.Source]); e.Message != want {
				t.Fatalf("%s %q stands where %s should: what was lost before it is not told before it", e.Source, e.Message, want)
			}
		}
	}
	if stored["a"]+lost["a"] != each || stored["b"]+lost["b"] != each-1 {
		t.Errorf("stored %v, lost %v of %d and %d", stored, lost, each, each-1)
	}
	if lost["a"] == 0 || lost["b"] == 0 || stored["a"] < 100 {
		t.Errorf("stored %v, lost %v", stored, lost)
	}
	if res.stored != stored["a"]+stored["b"] {
		t.Errorf("says %d stored", res.stored)
	}
}
