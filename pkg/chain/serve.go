package chain

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A Server lets many producers append to one log through a Unix socket; the
// protocol is that of package record. Batches that arrive while another one is
// being synced go out together with the next write, so that one fdatasync
// serves many producers and none waits for a timer.
type Server struct {
	Log     *Log
	Writers Writers
	Logger  *slog.Logger

	// QueueBytes bounds what waits to be written; producers above it wait,
	// users in turns. 16 MiB if 0.
	QueueBytes int64

	// Connections bounds the connections; one above it is told to come back
	// later (code 75). A user other than root and the daemon's own may have a
	// quarter of them. 1,280 if 0.
	Connections int

	// Signed is called after each checkpoint, on the committer's goroutine;
	// it must not block. May be nil.
	Signed func(size int64)

	// Alive is called once a second by the committer, which is thereby known
	// not to hang in a write; it must not block. May be nil.
	Alive func()

	room  *gate      // what is in queue
	large *gate      // lines that are longer than a connection's buffer
	parse sync.Mutex // one very long line at a time

	mu     sync.Mutex
	conns  int                // connections
	users  map[uint32]int     // connections of each uid
	open   map[*producer]bool // connections whose peer is known
	queue  []*request
	wake   chan struct{}
	alone  chan alone
	ended  chan struct{} // closed when the committer has ended
	closed bool

	lineTimeout time.Duration // the constant, unless a test says otherwise
}

// alone is a call that needs the Log to itself, without a checkpoint being
// published at the same time.
type alone struct {
	do   func() error
	done chan error
}

// A request is one batch of one connection on its way to the log.
type request struct {
	batch *Batch
	uid   uint32
	bytes int64
	done  chan error
}

// What the daemon has in memory is bounded whatever its producers send, in
// each connection by two buffers of connBuffer (what was read, and the batch
// made of it), in all by Connections of them, by largeLines lines that are
// longer than that, and by what one of these needs while it is parsed: all in
// all not much more than MemoryLimit.
const (
	defaultQueueBytes  = 16 << 20
	defaultConnections = 1280     // a thousand, and some
	connStart          = 4 << 10  // what an idle connection has
	connBuffer         = 64 << 10 // what one may come to
	largeLines         = 4
	veryLong           = 1 << 20          // bytes of a line of which one is parsed at a time
	lineTimeout        = 10 * time.Second // in which a line longer than connBuffer must come

	checkpointEvery = time.Second
	groupEvents     = 4096
)

// MemoryLimit is what a daemon should give the garbage collector as its limit
// (runtime/debug.SetMemoryLimit).
const MemoryLimit = 384 << 20

// Serve accepts producers on ls until ctx is cancelled; then it stops reading,
// writes what has been read, and returns. It also returns, with an error, when
// the log can't be written any more. The caller closes the Log.
func (s *Server) Serve(ctx context.Context, ls ...net.Listener) error {
	if s.QueueBytes <= 0 {
		s.QueueBytes = defaultQueueBytes
	}
	if s.Connections <= 0 {
		s.Connections = defaultConnections
	}
	if s.lineTimeout <= 0 {
		s.lineTimeout = lineTimeout
	}
	s.room = newGate(s.QueueBytes, 0)
	s.large = newGate(largeLines*event.MaxInput, event.MaxInput)
	s.users = make(map[uint32]int)
	s.wake = make(chan struct{}, 1)
	s.alone = make(chan alone)
	s.ended = make(chan struct{})
	// stop ends the committer after the producers have ended, drop ends the
	// producers.
	reading, drop := context.WithCancel(ctx)
	defer drop()
	stop := make(chan struct{})
	committed := make(chan error, 1)
	go func() {
		err := s.commitLoop(stop)
		drop()
		committed <- err
	}()
	var conns sync.WaitGroup
	var accepting sync.WaitGroup
	for _, l := range ls {
		accepting.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					if reading.Err() != nil {
						return
					}
					s.Logger.Error("accept", "error", err)
					if !passes(err) {
						drop()
						return
					}
					select {
					case <-reading.Done():
					case <-time.After(100 * time.Millisecond):
					}
					continue
				}
				conns.Go(func() { s.serveConn(reading, conn) })
			}
		})
	}
	<-reading.Done()
	for _, l := range ls {
		l.Close()
	}
	accepting.Wait()
	conns.Wait()
	close(stop)
	return <-committed
}

// passes says whether an error of accept is of a moment: another connection
// may be accepted later.
func passes(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// commitLoop is the only user of the Log. It ends after stop is closed and the
// queue is empty, or when the log can't be written.
func (s *Server) commitLoop(stop <-chan struct{}) error {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	published := make(chan func() error, 1)
	publishing := false
	finish := func(err error) error {
		s.mu.Lock()
		s.closed = true
		left := s.queue
		s.queue = nil
		s.mu.Unlock()
		s.room.close()
		s.large.close()
		for _, r := range left {
			r.done <- errLogClosed
		}
		if publishing {
			err = errors.Join(err, (<-published)())
		}
		close(s.ended)
		return err
	}
	for {
		select {
		case <-s.wake:
			if err := s.commit(); err != nil {
				return finish(err)
			}
		case <-tick.C:
			if s.Alive != nil {
				s.Alive()
			}
			if publishing {
				continue
			}
			p, err := s.Log.sign(false)
			if err != nil {
				return finish(err)
			}
			if p == nil {
				continue
			}
			// Events go on being appended while the files are written.
			publishing = true
			go func() {
				err := p.publish(s.Log.st, s.Log.keys.last)
				published <- func() error { return s.Log.published(p, err) }
			}()
		case f := <-published:
			publishing = false
			if err := f(); err != nil {
				if s.Log.failed != nil {
					return finish(err)
				}
				s.Logger.Error("checkpoint", "error", err)
				continue
			}
			if s.Signed != nil {
				s.Signed(s.Log.last.Size)
			}
		case call := <-s.alone:
			if publishing {
				publishing = false
				if err := (<-published)(); err != nil {
					call.done <- err
					if s.Log.failed != nil {
						return finish(err)
					}
					continue
				}
			}
			err := call.do()
			call.done <- err
			if s.Log.failed != nil {
				return finish(s.Log.failed)
			}
			if err == nil && s.Signed != nil {
				s.Signed(s.Log.last.Size)
			}
		case <-stop:
			return finish(s.commit())
		}
	}
}

// commit writes what is queued. It returns an error only if the log can't be
// written any more; a full disk is told to the producers.
func (s *Server) commit() error {
	for {
		s.mu.Lock()
		n, events := 0, 0
		var bytes int64
		for n < len(s.queue) && (n == 0 || events < groupEvents && bytes < maxWrite) {
			events += len(s.queue[n].batch.Drafts)
			bytes += s.queue[n].bytes
			n++
		}
		group := s.queue[:n:n]
		s.queue = s.queue[n:]
		if len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		batches := make([]*Batch, n)
		for i, r := range group {
			batches[i] = r.batch
		}
		err := s.Log.Append(batches...)
		for _, r := range group {
			s.room.leave(r.uid, r.bytes)
			if r.batch.Stored < len(r.batch.Drafts) && r.batch.Err == nil && err != nil {
				r.done <- err
			} else {
				r.done <- nil
			}
		}
		if s.Log.failed != nil {
			return s.Log.failed
		}
		if err != nil {
			s.Logger.Error("append", "error", err)
		}
	}
}

// submit queues a batch of size bytes and returns when it is written. It waits
// while the queue is full.
func (s *Server) submit(b *Batch, size int64) error {
	uid := b.Peer.UID
	if err := s.room.enter(uid, size, nil); err != nil {
		return err
	}
	r := &request{batch: b, uid: uid, bytes: size, done: make(chan error, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errLogClosed
	}
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return <-r.done
}

// serveConn serves one producer.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	// When the server ends, reading ends; what was read is still answered, to
	// who reads the answers.
	stop := context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	})
	defer stop()
	peer, err := peerOf(conn)
	if err != nil {
		s.Logger.Error("producer", "error", err)
		return
	}
	p := &producer{server: s, peer: peer, conn: conn, w: bufio.NewWriterSize(conn, 512), ctx: ctx, ended: make(chan struct{})}
	if err := s.count(peer.UID); err != nil {
		p.answer(record.Ack{Error: err.Error(), Code: 75})
		return
	}
	defer s.uncount(peer.UID)
	p.feed = feeder{r: bufio.NewReaderSize(conn, connStart), src: conn, o: FeedOptions{Peer: peer}, control: p.control, long: p.long, parsing: &s.parse}
	s.enter(p)
	defer s.leave(p)
	err = p.run()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return
	}
	ack := record.Ack{Error: err.Error(), Code: 1}
	var line *LineError
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &line):
		ack.Error, ack.Line = line.Err.Error(), line.Line
	case errors.As(err, &coded):
		ack.Code = coded.ExitCode()
	}
	p.answer(ack)
}

// count counts a connection of uid, unless there are too many.
func (s *Server) count(uid uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.Connections {
		return fmt.Errorf("%d connections are open, and more are not taken", s.conns)
	}
	if n := s.users[uid]; uid != 0 && int(uid) != os.Getuid() && n >= s.Connections/4 {
		return fmt.Errorf("uid %d has %d connections open, and more are not taken", uid, n)
	}
	s.conns++
	s.users[uid]++
	return nil
}

func (s *Server) uncount(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
	}
}

func (s *Server) enter(p *producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[*producer]bool)
	}
	s.open[p] = true
}

func (s *Server) leave(p *producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p)
	close(p.ended)
}

// awaitOthers waits for the end of the connections that p's uid and unit has
// besides p. Processes that no unit tells apart are not waited for.
func (s *Server) awaitOthers(p *producer) error {
	if p.peer.Unit == "" {
		return nil
	}
	s.mu.Lock()
	var others []*producer
	for o := range s.open {
		if o != p && o.peer == p.peer {
			others = append(others, o)
		}
	}
	s.mu.Unlock()
	for _, o := range others {
		select {
		case <-o.ended:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
	return nil
}

// A producer is one connection.
type producer struct {
	server   *Server
	peer     event.Peer
	conn     net.Conn
	w        *bufio.Writer
	ctx      context.Context
	ended    chan struct{} // closed when all that it sent is stored or refused
	feed     feeder
	receipts bool
	pending  []func() error // controls that stand behind the batch being read
	holds    bool           // of the memory for long lines, until the batch is stored
}

// long is called when a line turns out longer than connBuffer, before more of
// it is read, and waits until there is memory for it. From then on the line
// must come, since others wait for its memory.
func (p *producer) long() error {
	if !p.server.Writers.any(p.peer.UID) {
		return &configError{fmt.Errorf("uid %d may not write events", p.peer.UID), ""}
	}
	if err := p.server.large.enter(p.peer.UID, event.MaxInput, p.ctx.Done()); err != nil {
		return err
	}
	p.holds = true
	p.deadline(time.Now().Add(p.server.lineTimeout))
	return nil
}

// deadline sets until when something must be read, unless the server ends.
func (p *producer) deadline(t time.Time) {
	p.conn.SetReadDeadline(t)
	if p.ctx.Err() != nil {
		p.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// release gives the memory of a long line back.
func (p *producer) release() {
	if p.holds {
		p.holds = false
		p.server.large.leave(p.peer.UID, event.MaxInput)
	}
}

func (p *producer) run() error {
	defer p.release()
	for {
		b, lines, err := p.feed.next()
		if errors.Is(err, os.ErrDeadlineExceeded) && p.ctx.Err() == nil {
			return &busyError{fmt.Errorf("a line longer than %d bytes did not come within %s", connBuffer, p.server.lineTimeout), ""}
		}
		if p.holds {
			p.deadline(time.Time{})
		}
		if len(b.Drafts) > 0 {
			if serr := p.store(b, lines); serr != nil {
				return serr
			}
		}
		b = nil
		p.release()
		for _, c := range p.pending {
			if cerr := c(); cerr != nil {
				return cerr
			}
		}
		p.pending = p.pending[:0]
		if err != nil {
			return err
		}
	}
}

func (p *producer) store(b *Batch, lines []int64) error {
	var size int64
	for i, d := range b.Drafts {
		if !p.server.Writers.Allowed(p.peer.UID, d.Source) {
			b.Drafts, b.Err = b.Drafts[:i], &LineError{lines[i], &configError{fmt.Errorf("uid %d may not write events of source %q", p.peer.UID, d.Source), ""}}
			break
		}
		size += int64(d.Len())
	}
	refused := b.Err
	b.WantLeaves = p.receipts
	if len(b.Drafts) > 0 {
		if err := p.server.submit(b, size); err != nil {
			return err
		}
		if b.Stored > 0 {
			ack := record.Ack{First: b.First, Last: b.First + int64(b.Stored) - 1}
			for _, leaf := range b.Leaves {
				ack.Leaves = append(ack.Leaves, leaf.String())
			}
			if err := p.answer(ack); err != nil {
				return err
			}
		}
		if b.Err != nil {
			return &LineError{lines[b.Stored], b.Err}
		}
	}
	return refused
}

// control takes a line that is no event. It is called while a batch is read
// and acts when that batch is stored.
func (p *producer) control(line []byte) (taken bool, err error) {
	if !bytes.HasPrefix(line, []byte(`{"hello":`)) && !bytes.HasPrefix(line, []byte(`{"lost":`)) && !bytes.HasPrefix(line, []byte(`{"rotate":`)) && !bytes.HasPrefix(line, []byte(`{"prune":`)) {
		return false, nil
	}
	var c record.Control
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return true, err
	}
	switch {
	case c.Hello != nil:
		p.pending = append(p.pending, func() error { return p.hello(*c.Hello) })
	case c.Lost != nil:
		p.pending = append(p.pending, func() error { return p.lost(*c.Lost) })
	case c.Rotate != nil:
		p.pending = append(p.pending, p.rotateKey)
	case c.Prune != nil:
		p.pending = append(p.pending, func() error { return p.prune(*c.Prune) })
	}
	return true, nil
}

func (p *producer) hello(h record.Hello) error {
	created := p.server.Log.ring.Created // written once, before Serve
	if h.Version != record.Version {
		return &configError{fmt.Errorf("protocol version %d, this daemon speaks %d", h.Version, record.Version), ""}
	}
	if h.Key != "" && h.Key != created.LogKey.String() {
		return &configError{fmt.Errorf("this daemon has the log %s, not %s", created.LogKey, h.Key), ""}
	}
	p.receipts = h.Receipts
	if h.Sole {
		if err := p.server.awaitOthers(p); err != nil {
			return err
		}
	}
	return p.write(struct {
		Welcome record.Welcome `json:"welcome"`
	}{record.Welcome{Version: record.Version, Origin: created.Origin, Key: created.LogKey.String(), Size: p.server.size()}})
}

// size returns the number of events as of the last commit.
func (s *Server) size() int64 {
	return s.Log.durable.Load()
}

func (p *producer) lost(l record.Lost) error {
	if l.Count <= 0 || l.To.Before(l.From) {
		return &configError{errors.New("lost: want a count and a time from and to"), ""}
	}
	if l.Source != "" && !p.server.Writers.Allowed(p.peer.UID, l.Source) || l.Source == "" && !p.server.Writers.Allowed(p.peer.UID, "*") {
		return &configError{fmt.Errorf("uid %d may not write events of source %q", p.peer.UID, l.Source), ""}
	}
	d, err := lostDraft(l)
	if err != nil {
		return err
	}
	b := &Batch{Drafts: []event.Draft{d}, Peer: p.peer}
	if err := p.server.submit(b, int64(d.Len())); err != nil {
		return err
	}
	if b.Err != nil {
		return b.Err
	}
	return p.answer(record.Ack{First: b.First, Last: b.First})
}

func (p *producer) rotateKey() error {
	if p.peer.UID != 0 && int(p.peer.UID) != os.Getuid() {
		return &configError{fmt.Errorf("uid %d may not rotate the key", p.peer.UID), ""}
	}
	var epoch int64
	err := p.server.callAlone(func() error {
		err := p.server.Log.RotateKey()
		epoch = p.server.Log.ring.Epochs() - 1
		return err
	})
	if err != nil {
		return err
	}
	return p.write(map[string]any{"rotated": map[string]int64{"epoch": epoch}})
}

func (p *producer) prune(r record.Prune) error {
	if p.peer.UID != 0 && int(p.peer.UID) != os.Getuid() {
		return &configError{fmt.Errorf("uid %d may not prune", p.peer.UID), ""}
	}
	root, err := merkle.ParseHash(r.Root)
	if err != nil {
		return &configError{err, ""}
	}
	plan := &PrunePlan{First: r.First, Last: r.Last, Root: root}
	if err := p.server.callAlone(func() error { return p.server.Log.Prune(plan, r.Reason) }); err != nil {
		return err
	}
	return p.write(map[string]any{"pruned": map[string]int64{"events": plan.Events()}})
}

// callAlone has the committer call do between two batches.
func (s *Server) callAlone(do func() error) error {
	call := alone{do, make(chan error, 1)}
	select {
	case s.alone <- call:
		return <-call.done
	case <-s.ended:
		return errors.New("the log is closed")
	}
}

func (p *producer) answer(a record.Ack) error {
	if a.Error != "" {
		return p.write(struct {
			Error string `json:"error"`
			Line  int64  `json:"line,omitempty"`
			Code  int    `json:"code"`
		}{a.Error, a.Line, a.Code})
	}
	if len(a.Leaves) == 0 { // nearly all that a daemon with many producers says
		line := strconv.AppendInt(append(p.w.AvailableBuffer(), `{"first":`...), a.First, 10)
		line = strconv.AppendInt(append(line, `,"last":`...), a.Last, 10)
		if _, err := p.w.Write(append(line, "}\n"...)); err != nil {
			return err
		}
		return p.w.Flush()
	}
	return p.write(a)
}

func (p *producer) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := p.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return p.w.Flush()
}

// peerOf asks the kernel who is at the other end.
func peerOf(conn net.Conn) (event.Peer, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return event.Peer{}, fmt.Errorf("connection over %s has no peer credentials", conn.LocalAddr().Network())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return event.Peer{}, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return event.Peer{}, err
	}
	if cerr != nil {
		return event.Peer{}, fmt.Errorf("peer credentials: %w", cerr)
	}
	return event.Peer{UID: cred.Uid, Unit: UnitOf(int(cred.Pid))}, nil
}
