package bus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A Match chooses signals; what is empty chooses all.
type Match struct {
	Sender, Path, PathNamespace, Interface, Member, Arg0 string
}

// rule returns the match rule (D-Bus Specification, "Match Rules").
func (m Match) rule() (string, error) {
	var b strings.Builder
	b.WriteString("type='signal'")
	for _, kv := range []struct {
		key, value string
		valid      func(string) bool
	}{
		{"sender", m.Sender, dbusjson.ValidBusName}, {"path", m.Path, dbusjson.ValidPath}, {"path_namespace", m.PathNamespace, dbusjson.ValidPath},
		{"interface", m.Interface, dbusjson.ValidInterface}, {"member", m.Member, dbusjson.ValidMember},
		{"arg0", m.Arg0, func(s string) bool { return !strings.ContainsAny(s, "\x00\n") }},
	} {
		if kv.value == "" {
			continue
		}
		if !kv.valid(kv.value) {
			return "", fmt.Errorf("match: %.260q is no %s", kv.value, kv.key)
		}
		fmt.Fprintf(&b, ",%s='%s'", kv.key, strings.ReplaceAll(kv.value, "'", `'\''`))
	}
	return b.String(), nil
}

// A Signal is one that a Watch received.
type Signal struct {
	Time      time.Time // of arrival
	Sender    string    // unique name
	Path      string
	Interface string
	Member    string
	Body      Body
	Err       error // why the body can't be read
	// Dropped is how many signals came between the one before and this one,
	// and found the queue full.
	Dropped uint64
}

// Bounds of a Watch's queue.
const (
	DefaultQueue  = 4096
	maxQueueBytes = 64 << 20
)

// A Watch receives signals in the order in which the bus sent them. The bus
// never waits for its reader: what finds the queue full is dropped and counted.
type Watch struct {
	conn *Conn

	mu      sync.Mutex
	queue   []queued
	limit   int
	bytes   int
	dropped uint64 // since the last one in the queue
	total   uint64 // dropped
	wake    chan struct{}
}

type queued struct {
	time    time.Time
	signal  *message
	bytes   int
	dropped uint64
}

// NewWatch connects to the bus at address and receives what one of matches
// chooses. queue is how many signals may wait for the reader, DefaultQueue if 0.
func NewWatch(ctx context.Context, address string, queue int, matches ...Match) (*Watch, error) {
	if queue <= 0 {
		queue = DefaultQueue
	}
	w := &Watch{limit: queue, wake: make(chan struct{}, 1)}
	c, err := connect(ctx, address, nil, w.deliver)
	if err != nil {
		return nil, err
	}
	w.conn = c
	for _, m := range matches {
		rule, err := m.rule()
		if err == nil {
			_, err = c.driver(ctx, "AddMatch", "s", rule)
		}
		if err != nil {
			c.Close()
			return nil, err
		}
	}
	return w, nil
}

// Conn returns the watch's connection, for reads.
func (w *Watch) Conn() *Conn { return w.conn }

// deliver is called by the connection's reader, one signal at a time.
func (w *Watch) deliver(m *message) {
	if m.sender == driverName && (m.member == "NameAcquired" || m.member == "NameLost") {
		return // about the watch itself
	}
	size := 400 + len(m.body)
	w.mu.Lock()
	if len(w.queue) >= w.limit || w.bytes+size > maxQueueBytes && len(w.queue) > 0 {
		w.dropped++
		w.total++
		w.mu.Unlock()
		return
	}
	w.queue = append(w.queue, queued{time.Now(), m, size, w.dropped})
	w.bytes += size
	w.dropped = 0
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next returns the next signal. It returns ErrClosed when the bus is lost and
// the queue is empty. It is for one goroutine.
func (w *Watch) Next(ctx context.Context) (Signal, error) {
	for {
		w.mu.Lock()
		if len(w.queue) > 0 {
			q := w.queue[0]
			w.queue[0] = queued{}
			if w.queue = w.queue[1:]; len(w.queue) == 0 {
				w.queue = nil
			}
			w.bytes -= q.bytes
			w.mu.Unlock()
			return q.open(), nil
		}
		w.mu.Unlock()
		select {
		case <-w.wake:
		case <-ctx.Done():
			return Signal{}, ctx.Err()
		case <-w.conn.Done():
			w.mu.Lock()
			empty := len(w.queue) == 0
			w.mu.Unlock()
			if empty {
				return Signal{}, ErrClosed
			}
		}
	}
}

func (q queued) open() Signal {
	m := q.signal
	s := Signal{Time: q.time, Sender: m.sender, Path: m.path, Interface: m.iface, Member: m.member, Dropped: q.dropped}
	s.Body, s.Err = m.open()
	return s
}

// Dropped returns how many signals have been dropped, those behind the last
// one in the queue included.
func (w *Watch) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// Close ends the watch.
func (w *Watch) Close() error { return w.conn.Close() }
