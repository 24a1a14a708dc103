package chain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// lostDraft is the log's own event that tells of events which a producer had
// to drop.
func lostDraft(l record.Lost) (event.Draft, error) {
	source := l.Source
	if source == "" {
		source = "?"
	}
	return event.Own(layout.TypeLost, event.Warning, fmt.Sprintf("%d events of source %s were lost", l.Count, source), layout.Lost{
		Count: l.Count, From: l.From.UTC().Format(event.TimeFormat), To: l.To.UTC().Format(event.TimeFormat), Source: l.Source,
	})
}

// An input is what Feed has read: a batch, the number of events that were
// dropped before it, or the error that ended reading behind it.
type input struct {
	batch *Batch
	lines []int64      // number of each draft's line
	lost  *record.Lost // stands alone
	err   error
}

// A lossyQueue takes what is read without ever waiting: batches for which it
// has no room are dropped and counted, in the place where they were.
type lossyQueue struct {
	limit int64 // bytes of drafts
	now   func() time.Time

	mu    sync.Mutex
	items []input
	bytes int64
	lost  []*record.Lost // dropped behind items, one for each source: who may write a source may say what was lost of it
	wake  chan struct{}
}

func newLossyQueue(limit int64) *lossyQueue {
	return &lossyQueue{limit: limit, now: time.Now, wake: make(chan struct{}, 1)}
}

// put queues in, or drops its batch.
func (q *lossyQueue) put(in input) {
	var size int64
	for _, d := range in.batch.Drafts {
		size += int64(d.Len())
	}
	q.mu.Lock()
	if size > 0 && q.bytes > 0 && q.bytes+size > q.limit {
		q.drop(in.batch.Drafts)
		in.batch.Drafts, in.lines, size = nil, nil, 0
	}
	if size > 0 || in.err != nil {
		q.flushLost()
		q.items = append(q.items, in)
		q.bytes += size
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// drop counts events as lost. mu is held.
func (q *lossyQueue) drop(drafts []event.Draft) {
	at := q.now()
	for _, d := range drafts {
		i := slices.IndexFunc(q.lost, func(l *record.Lost) bool { return l.Source == d.Source })
		if i < 0 {
			i = len(q.lost)
			q.lost = append(q.lost, &record.Lost{From: at, To: at, Source: strings.Clone(d.Source)})
		}
		l := q.lost[i]
		l.Count++
		if at.After(l.To) { // else the clock was put back
			l.To = at
		}
	}
}

// flushLost queues the count of what was dropped. mu is held.
func (q *lossyQueue) flushLost() {
	for _, l := range q.lost {
		q.items = append(q.items, input{batch: &Batch{}, lost: l})
	}
	q.lost = nil
}

// take returns the next input, waiting for one; ok is false when ctx ends.
func (q *lossyQueue) take(ctx context.Context) (in input, ok bool) {
	for {
		q.mu.Lock()
		if len(q.items) == 0 {
			q.flushLost()
		}
		if len(q.items) > 0 {
			in = q.items[0]
			q.items[0] = input{}
			q.items = q.items[1:]
			for _, d := range in.batch.Drafts {
				q.bytes -= int64(d.Len())
			}
			q.mu.Unlock()
			return in, true
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return in, false
		}
	}
}
