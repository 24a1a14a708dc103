package opdbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A Journal makes events durable. Record returns when they are, or an error;
// then they may or may not be.
type Journal interface {
	// Record appends lines, each an event without its newline, in order.
	Record(ctx context.Context, lines ...[]byte) error
	// Close ends the use of the journal.
	Close() error
}

// A Deferrer is a Journal that can record lines later, in order with what is
// recorded otherwise. failed is called if they could not be made durable.
type Deferrer interface {
	// Defer takes the lines and returns at once.
	Defer(lines [][]byte, failed func(error))
}

// A LogJournal appends to the log through its daemon. What several callers
// record goes out one behind the other on one connection, without waiting for
// what is under way: the daemon makes all that has come durable with one
// fdatasync. Lines are acknowledged in the order in which they were recorded.
type LogJournal struct {
	Socket string // of the daemon
	Key    string // of the log that is meant; "" for whatever it has

	mu       sync.Mutex
	waiting  []*recorded // not sent yet
	sent     []*recorded // on conn, not acknowledged yet
	conn     *record.Client
	sending  bool
	closed   bool
	deferred bool            // a timer will send what waits
	idle     []chan struct{} // closed when nothing waits any more
	failing  sync.WaitGroup  // of those who are told that it failed

	patience time.Duration // recordTimeout if 0; tests have less
}

func (j *LogJournal) timeout() time.Duration {
	if j.patience > 0 {
		return j.patience
	}
	return recordTimeout
}

// recorded is the lines of one caller.
type recorded struct {
	lines [][]byte
	acked int
	again bool // they were sent before, on a connection that was lost
	done  func(error)
}

// recordTimeout bounds how long the log may take to acknowledge something.
const recordTimeout = 10 * time.Second

var errJournalClosed = errors.New("the journal is closed")

// Record implements Journal.
func (j *LogJournal) Record(_ context.Context, lines ...[]byte) error {
	done := make(chan error, 1)
	if err := j.record(&recorded{lines: lines, done: func(err error) { done <- err }}); err != nil {
		return err
	}
	// The event is on its way whatever becomes of the caller's context: wait
	// for it, so that who acts knows.
	return <-done
}

// deferral is how long lines that were deferred may wait for others to go out
// with. A sync of the disk for each outcome would make the next intent wait.
const deferral = 10 * time.Millisecond

// Defer records lines soon, without waiting. What is recorded later is durable
// only after them. failed is called if they could not be made durable; it must
// not wait for the journal.
func (j *LogJournal) Defer(lines [][]byte, failed func(error)) {
	r := &recorded{lines: lines, done: func(err error) {
		if err != nil {
			// Not here, where j.mu is held: it may wait for a spool, which may
			// be being flushed into this journal.
			j.failing.Go(func() { failed(err) })
		}
	}}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		r.done(errJournalClosed)
		return
	}
	j.waiting = append(j.waiting, r)
	if !j.sending && !j.deferred {
		j.deferred = true
		time.AfterFunc(deferral, j.sendDeferred)
	}
}

func (j *LogJournal) sendDeferred() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.deferred = false
	if !j.sending {
		j.send()
	}
}

// record has r sent. While one goroutine sends, the others leave theirs to it.
func (j *LogJournal) record(r *recorded) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errJournalClosed
	}
	if len(r.lines) == 0 {
		r.done(nil)
		return nil
	}
	j.waiting = append(j.waiting, r)
	if !j.sending {
		j.send()
	}
	return nil
}

// send sends what waits. It is called with j.mu held, which it gives up in
// between.
func (j *LogJournal) send() {
	j.sending = true
	// What others are about to record goes out with it, into the same sync of
	// the disk.
	j.mu.Unlock()
	runtime.Gosched()
	j.mu.Lock()
	for len(j.waiting) > 0 {
		conn := j.conn
		if conn == nil {
			j.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), j.timeout())
			fresh, err := record.Dial(ctx, j.Socket, record.Hello{Key: j.Key})
			cancel()
			j.mu.Lock()
			if err != nil {
				left := j.waiting
				j.waiting = nil
				for _, r := range left {
					r.done(err)
				}
				continue
			}
			j.conn, conn = fresh, fresh
			go j.receive(fresh)
		}
		batch := j.waiting
		j.waiting = nil
		if len(j.sent) == 0 {
			conn.Patience(time.Now().Add(j.timeout()))
		}
		j.sent = append(j.sent, batch...)
		var lines [][]byte
		for _, r := range batch {
			lines = append(lines, r.lines...)
		}
		j.mu.Unlock()
		// An error means that the daemon has closed the connection. receive sees
		// to the batch then, after it has read what the daemon said before: why
		// a line was refused.
		conn.Send(lines...)
		j.mu.Lock()
	}
	j.sending = false
	j.settle()
}

// settle tells those who wait for it that nothing is under way. It is called
// with j.mu held.
func (j *LogJournal) settle() {
	if len(j.waiting) > 0 || len(j.sent) > 0 || j.sending {
		return
	}
	for _, c := range j.idle {
		close(c)
	}
	j.idle = nil
}

// receive reads the acknowledgements on a connection until it is lost.
func (j *LogJournal) receive(conn *record.Client) {
	for {
		ack, err := conn.Receive()
		j.mu.Lock()
		if err == nil {
			err = j.acknowledge(int(ack.Last - ack.First + 1))
		}
		if err != nil {
			j.lost(conn, err)
			j.mu.Unlock()
			return
		}
		if len(j.sent) > 0 {
			conn.Patience(time.Now().Add(j.timeout()))
		} else {
			conn.Patience(time.Time{})
		}
		j.settle()
		j.mu.Unlock()
	}
}

// acknowledge counts n lines as durable. It is called with j.mu held.
func (j *LogJournal) acknowledge(n int) error {
	for n > 0 {
		if len(j.sent) == 0 {
			return fmt.Errorf("log daemon at %s: it acknowledged %d events too many", j.Socket, n)
		}
		r := j.sent[0]
		k := min(n, len(r.lines)-r.acked)
		n -= k
		if r.acked += k; r.acked == len(r.lines) {
			j.sent[0] = nil
			j.sent = j.sent[1:]
			r.done(nil)
		}
	}
	return nil
}

// lost sees to what was under way on a connection that has ended because of
// err. It is called with j.mu held.
func (j *LogJournal) lost(conn *record.Client, err error) {
	conn.Close()
	left := j.sent
	j.conn, j.sent = nil, nil
	var gone *record.UnavailableError
	var refused *record.RefusedError
	var again []*recorded
	for i, r := range left {
		switch {
		case j.closed:
			r.done(err)
		case errors.As(err, &refused) && refused.Line > 0 && i > 0:
			// Another one's line was refused; this one was not looked at.
			again = append(again, r)
		case errors.As(err, &gone) && !gone.Timeout() && r.acked == 0 && !r.again:
			// The daemon may have been started anew; then nothing of this was
			// stored, as far as it said.
			r.again = true
			again = append(again, r)
		default:
			r.done(err)
		}
	}
	j.waiting = append(again, j.waiting...)
	if len(j.waiting) > 0 && !j.sending {
		j.send()
	}
	j.settle()
}

// Close waits for what is under way, at most recordTimeout, and ends the
// connection to the daemon.
func (j *LogJournal) Close() error {
	j.mu.Lock()
	j.closed = true
	if !j.sending {
		j.send()
	}
	idle := make(chan struct{})
	j.idle = append(j.idle, idle)
	j.settle()
	j.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(j.timeout()):
	}
	j.mu.Lock()
	var err error
	if j.conn != nil {
		err = j.conn.Close()
	}
	j.mu.Unlock()
	told := make(chan struct{})
	go func() { j.failing.Wait(); close(told) }()
	select {
	case <-told:
	case <-time.After(j.timeout()):
	}
	return err
}

// A FileJournal appends to a log that no daemon has, opening it for each
// batch: for a tool that makes a change and ends.
type FileJournal struct {
	Dir, Keys string
}

// Record implements Journal.
func (j *FileJournal) Record(ctx context.Context, lines ...[]byte) error {
	peer := logevent.Peer{UID: uint32(os.Getuid()), Unit: chain.UnitOf(os.Getpid())}
	l, err := chain.Open(j.Dir, j.Keys, chain.Options{Peer: peer, Wait: recordTimeout})
	if err != nil {
		return err
	}
	_, err = chain.Feed(ctx, bytes.NewReader(append(bytes.Join(lines, []byte("\n")), '\n')), chain.DirectSink{Log: l}, chain.FeedOptions{Peer: peer})
	return errors.Join(err, l.Close())
}

// Close implements Journal.
func (j *FileJournal) Close() error { return nil }

// OpenJournal returns the journal of the log in dir: through its daemon at
// socket if one answers, else directly.
func OpenJournal(ctx context.Context, dir, socket, keys string) (Journal, error) {
	created, err := chain.ReadCreated(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", dir, err)
	}
	key := created.LogKey.String()
	client, err := record.Dial(ctx, socket, record.Hello{Key: key})
	if err == nil {
		j := &LogJournal{Socket: socket, Key: key, conn: client}
		go j.receive(client)
		return j, nil
	}
	var gone *record.UnavailableError
	if !errors.As(err, &gone) {
		return nil, err
	}
	return &FileJournal{Dir: dir, Keys: keys}, nil
}
