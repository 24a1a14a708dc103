package timeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Frame renders an event for those who follow the log: a whole message of a
// stream of server-sent events, its id included.
type Frame func(Row) []byte

// A Tail follows a log for many readers at once. It looks for new events Every
// so often, renders each once, and keeps the newest, so that a reader who keeps
// up costs one write. A reader who does not reads on from the log itself.
type Tail struct {
	Log   *Log
	Frame Frame
	Every time.Duration // 200 ms if 0; while nobody reads, five times that
	Fresh func(Row)     // called with each event that was appended, may be nil

	mu    sync.Mutex
	ring  []item        // of the newest events, oldest first
	bytes int           // of their frames
	next  int64         // the index that follows them
	grown chan struct{} // closed when there are more
	err   error         // of the last look
	live  int
	wake  chan struct{} // has something when a first reader has come
}

type item struct {
	index int64
	event *event.Event // nil if damaged
	frame []byte
}

// Bounds of what a Tail keeps.
const (
	keepEvents = 8192
	keepBytes  = 16 << 20
	batch      = 1024 // events that are read at a time
)

// Run follows the log until ctx ends. It is called once, before Stream.
func (t *Tail) Run(ctx context.Context) {
	every := t.Every
	if every == 0 {
		every = 200 * time.Millisecond
	}
	for {
		more, err := t.look(ctx)
		t.mu.Lock()
		t.err = err
		wait := every
		if t.live == 0 {
			wait *= 5
		}
		t.mu.Unlock()
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-time.After(wait):
		}
	}
}

// Start makes next the log's end, so that Run tells what comes after.
func (t *Tail) Start() error {
	_, end, err := t.Log.Bounds()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next, t.grown, t.wake = end, make(chan struct{}), make(chan struct{}, 1)
	return err
}

// look reads what was appended and says whether there may be more at once.
func (t *Tail) look(ctx context.Context) (more bool, err error) {
	t.mu.Lock()
	next := t.next
	t.mu.Unlock()
	var rows []Row
	err = t.Log.Read(ctx, next, next+batch, func(r Row) error {
		rows = append(rows, r)
		return nil
	})
	if err != nil || len(rows) == 0 {
		return false, err
	}
	items := make([]item, len(rows))
	for k, r := range rows {
		if t.Fresh != nil {
			t.Fresh(r)
		}
		items[k] = item{r.Index, light(r.Event), t.Frame(r)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, it := range items {
		t.bytes += len(it.frame)
	}
	t.ring = append(t.ring, items...)
	drop := 0
	for len(t.ring)-drop > keepEvents || t.bytes > keepBytes && len(t.ring)-drop > 1 {
		t.bytes -= len(t.ring[drop].frame)
		drop++
	}
	if drop > 0 {
		t.ring = append(t.ring[:0:0], t.ring[drop:]...)
	}
	t.next = rows[len(rows)-1].Index + 1
	close(t.grown)
	t.grown = make(chan struct{})
	return len(rows) == batch, nil
}

// light is an event without what only its own page shows: a ring holds thousands.
func light(e *event.Event) *event.Event {
	if e == nil {
		return nil
	}
	c := *e
	c.Data, c.Message = nil, ""
	return &c
}

// Next returns the index that the next event will have.
func (t *Tail) Next() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// Live returns how many readers there are.
func (t *Tail) Live() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

// Err says why the log can't be followed right now.
func (t *Tail) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Quiet is after how long without an event a stream says where it stands.
const Quiet = 5 * time.Second

// Stream calls write with the frames of the events from index from on which
// choose chooses, nil for all, and with those that come, until ctx ends or
// write fails. Where nothing that is chosen came for a while it writes an id
// alone, so that who comes back need not look at the same events again. An
// error of the log ends the stream.
func (t *Tail) Stream(ctx context.Context, from int64, choose func(Row) bool, write func([]byte) error) error {
	t.mu.Lock()
	if t.live++; t.live == 1 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.live--
		t.mu.Unlock()
	}()
	if from < 0 {
		from = t.Next()
	}
	quiet := time.NewTicker(Quiet)
	defer quiet.Stop()
	var buf []byte
	said := from // the index up to which the reader knows
	for {
		buf = buf[:0]
		t.mu.Lock()
		grown, next := t.grown, t.next
		var items []item
		if len(t.ring) > 0 && from >= t.ring[0].index && from < next {
			items = t.ring[from-t.ring[0].index:]
		}
		t.mu.Unlock()
		switch {
		case items != nil:
			for _, it := range items {
				if choose == nil || it.event != nil && choose(Row{Index: it.index, Event: it.event}) {
					buf = append(buf, it.frame...)
					said = it.index + 1
				}
			}
			from = items[len(items)-1].index + 1
		case from < next:
			// Behind the ring.
			start := from
			err := t.Log.Read(ctx, from, min(next, from+batch), func(r Row) error {
				from = r.Index + 1
				if choose == nil || r.Event != nil && choose(r) {
					buf = append(buf, t.Frame(r)...)
					said = from
				}
				return nil
			})
			if err != nil {
				return err
			}
			if from == start {
				// Pruned meanwhile.
				first, _, err := t.Log.Bounds()
				if err != nil {
					return err
				}
				if first <= from {
					return errors.New("the log lost events")
				}
				from = first
			}
		}
		if len(buf) > 0 {
			if err := write(buf); err != nil {
				return err
			}
			quiet.Reset(Quiet)
		}
		if from < next {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		case <-quiet.C:
			// The id of the last event that was looked at.
			msg := []byte(": \n\n")
			if from > said {
				msg = fmt.Appendf(nil, "id: %d\n\n", from-1)
				said = from
			}
			if err := write(msg); err != nil {
				return err
			}
		}
	}
}
