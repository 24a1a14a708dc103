package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// A callLine is what call - reads.
type callLine struct {
	Name      string          `json:"name"`
	Path      string          `json:"path"`
	Interface string          `json:"interface"`
	Member    string          `json:"member"`
	Args      json.RawMessage `json:"args"`
	Signature *string         `json:"signature"`
}

// changes says whether the call may change something.
func (l *callLine) changes() bool {
	return !opdbus.IsRead(opdbus.Action{Kind: opdbus.KindCall, Name: l.Name, Interface: l.Interface, Member: l.Member})
}

const (
	maxCallLine = 64 << 20
	callWindow  = 32       // calls that are not answered yet
	maxHeld     = 64 << 20 // bytes of their lines and answers
)

// runCalls is the persistent mode.
func runCalls(c *cli.Context) error {
	conn, err := bus.Connect(c.Context, c.String("bus"))
	if err != nil {
		return err
	}
	defer conn.Close()
	gate, self, closeGate, err := openGate(c)
	if err != nil {
		return err
	}
	defer closeGate()
	timeout := max(c.Duration("timeout"), time.Millisecond)
	return answerCalls(c.Context, c.App.Reader, c.App.Writer, maxHeld, func(ctx context.Context, l *callLine) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return oneCall(ctx, conn, gate, self, l)
	})
}

// answerCalls answers the lines of in on out, in their order, until in or ctx
// ends or a call or out fails for good. do makes a call and returns its answer,
// a line; it is called by several goroutines at once, but not while it makes a
// call that may change something. No call is begun while another one is there
// and their lines and answers are more than limit bytes. When answerCalls returns, no call is under
// way; one that waits for a line of in may be.
func answerCalls(ctx context.Context, in io.Reader, out io.Writer, limit int, do func(context.Context, *callLine) ([]byte, error)) error {
	q := &callQueue{ctx: ctx, out: out, limit: limit, do: do, jobs: make(chan *pendingCall, callWindow), failure: make(chan struct{})}
	q.moved = sync.NewCond(&q.mu)
	for range callWindow {
		go func() {
			for p := range q.jobs {
				q.run(p)
			}
		}()
	}
	read := make(chan error, 1)
	go func() {
		defer close(q.jobs)
		read <- q.read(in)
	}()
	var err error
	select {
	case err = <-read:
	case <-q.failure:
		err = q.failed
	case <-ctx.Done():
		err = ctx.Err()
		q.fail(err)
	}
	// A change that is under way leaves its outcome in the log.
	q.settle()
	return err
}

// A callQueue holds the calls that are not answered yet. What it holds is
// bounded by callWindow and limit, so that a reader who is slow to take the
// answers stops the reading of calls.
type callQueue struct {
	ctx   context.Context
	out   io.Writer
	do    func(context.Context, *callLine) ([]byte, error)
	jobs  chan *pendingCall
	limit int

	mu      sync.Mutex
	moved   *sync.Cond // on mu: something below has changed
	pending []*pendingCall
	held    int // bytes
	running int
	writing bool
	broken  bool // out takes nothing any more
	failed  error
	failure chan struct{} // closed when failed is set
}

// A pendingCall is a line of the input that is not answered yet.
type pendingCall struct {
	call   *callLine
	size   int    // of the line
	answer []byte // nil until the call has ended
}

// read begins the calls of in until it ends and all are answered.
func (q *callQueue) read(in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := readLine(r, maxCallLine)
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return errors.Join(err, q.answered())
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		l, err := parseCall(line)
		alone := err == nil && l.changes()
		p := &pendingCall{call: l, size: len(line)}
		if ferr := q.begin(p, alone); ferr != nil {
			return ferr
		}
		switch {
		case err != nil:
			q.end(p, failedCall(err))
		case alone:
			q.run(p)
		default:
			q.jobs <- p
		}
	}
}

func parseCall(line []byte) (*callLine, error) {
	var l callLine
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	return &l, dec.Decode(&l)
}

// begin waits until p may begin: for room, and alone for the end of all others.
func (q *callQueue) begin(p *pendingCall, alone bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.failed == nil && len(q.pending) > 0 && (len(q.pending) >= callWindow || q.held+p.size > q.limit || alone && q.running > 0) {
		q.moved.Wait()
	}
	if q.failed != nil {
		return q.failed
	}
	q.pending = append(q.pending, p)
	q.held += p.size
	q.running++
	return nil
}

func (q *callQueue) run(p *pendingCall) {
	answer, err := q.do(q.ctx, p.call)
	switch {
	case err == nil:
	case errors.Is(err, bus.ErrClosed) || q.ctx.Err() != nil:
		q.fail(err)
		answer = nil // what is behind it is not answered either
	default:
		answer = failedCall(err)
	}
	q.end(p, answer)
}

// end takes the answer of a call and writes it, if it is that one's turn, with
// those behind it that are there. While one goroutine writes, the others leave
// theirs to it; nothing stays behind in a buffer.
func (q *callQueue) end(p *pendingCall, answer []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	p.answer = answer
	q.held += len(answer)
	q.moved.Broadcast()
	if q.writing {
		return
	}
	q.writing = true
	for !q.broken && len(q.pending) > 0 && q.pending[0].answer != nil {
		lines, n, size := q.pending[0].answer, 1, q.pending[0].size
		for n < len(q.pending) && q.pending[n].answer != nil && len(lines)+len(q.pending[n].answer) <= 64<<10 {
			lines = append(lines, q.pending[n].answer...)
			size += q.pending[n].size
			n++
		}
		q.mu.Unlock()
		_, err := q.out.Write(lines)
		q.mu.Lock()
		clear(q.pending[:n])
		q.pending = q.pending[n:]
		q.held -= size + len(lines)
		if err != nil {
			q.broken = true
			q.failWith(err)
		}
		q.moved.Broadcast()
	}
	q.writing = false
	q.moved.Broadcast()
}

// fail has no more calls begun, because of err.
func (q *callQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failWith(err)
}

func (q *callQueue) failWith(err error) {
	if q.failed == nil {
		q.failed = err
		close(q.failure)
		q.moved.Broadcast()
	}
}

// answered waits until all calls are answered.
func (q *callQueue) answered() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.failed == nil && len(q.pending) > 0 {
		q.moved.Wait()
	}
	return q.failed
}

// settle waits until no call is under way and no answer is being written.
func (q *callQueue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running > 0 || q.writing {
		q.moved.Wait()
	}
}

func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case len(line) > limit:
			return nil, fmt.Errorf("a line of more than %d bytes", limit)
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(line) > 0:
			return line, nil
		default:
			return nil, err
		}
	}
}

// failedCall is the answer to a call that err came of.
func failedCall(err error) []byte {
	answer := map[string]any{"ok": false, "error": err.Error()}
	var named *bus.Error
	if errors.As(err, &named) {
		answer["name"] = named.Name
	}
	var b bytes.Buffer
	if err := cli.PrintJSON(&b, answer); err != nil { // strings and a bool
		panic(err)
	}
	return b.Bytes()
}

// oneCall makes a call and returns the line that answers it.
func oneCall(ctx context.Context, conn *bus.Conn, gate *opdbus.Gate, self opdbus.Principal, l *callLine) ([]byte, error) {
	types, err := methodTypes(ctx, conn, l.Name, l.Path, l.Interface, l.Member, l.Signature)
	if err != nil {
		return nil, err
	}
	args := l.Args
	if args == nil {
		args = json.RawMessage("[]")
	}
	values, err := dbusjson.UnmarshalArgs(args, types)
	if err != nil {
		return nil, err
	}
	call := bus.Call{Name: l.Name, Path: l.Path, Interface: l.Interface, Member: l.Member, Args: bus.Body{Types: types, Values: values}}
	answer, _, err := gate.Call(ctx, conn, self, call, opdbus.Options{})
	if err != nil {
		return nil, err
	}
	text, err := answer.JSON()
	if err != nil {
		return nil, err
	}
	line := append(append([]byte(`{"ok":true,"out":`), text...), `,"signature":`...)
	return append(dbusjson.AppendString(line, answer.Signature()), "}\n"...), nil
}
