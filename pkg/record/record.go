// Package record is the client of the log's daemon: it appends events through
// chain.sock and returns when they are durable.
//
// The protocol is lines of JSON over a Unix stream socket. A client sends
// events, one a line, exactly as gb-chain append reads them; the daemon
// answers a line for each batch that it has made durable, in order:
//
//	{"first":12,"last":15}
//
// A client may send a Hello as its first line, which the daemon answers with a
// Welcome before anything else. Where a line is refused, the daemon answers
// {"error":"…","line":N} (N counts the client's event lines from 1), after the
// acknowledgements of the lines before it, and closes. The kernel tells the
// daemon who the client is (SO_PEERCRED); nothing that a client says about
// itself is believed.
package record

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Version is the version of the protocol.
const Version = 1

// A Hello is what a client may send first, as {"hello":{…}}.
type Hello struct {
	Version  int    `json:"version"`
	Key      string `json:"key,omitempty"`      // the log key that the client means, to be refused if it is another
	Receipts bool   `json:"receipts,omitempty"` // put leaf hashes into the acknowledgements
	Sole     bool   `json:"sole,omitempty"`     // answer only when what earlier connections of this uid and unit sent is stored, and they are closed
}

// A Welcome is the daemon's answer to a Hello.
type Welcome struct {
	Version int    `json:"version"`
	Origin  string `json:"origin"`
	Key     string `json:"key"`
	Size    int64  `json:"size"` // durable events
}

// A Lost stands for events that a producer which can't wait had to drop, as
// {"lost":{…}} among the event lines; the log makes a log.lost event of it.
type Lost struct {
	Count  int64     `json:"count"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Source string    `json:"source,omitempty"`
}

// A Rotate asks the daemon to begin a new epoch, as {"rotate":{}}; root and
// the daemon's own user may. The answer is {"rotated":{"epoch":N}}.
type Rotate struct{}

// A Prune asks the daemon to delete the oldest full segments, as {"prune":{…}};
// root and the daemon's own user may. The answer is {"pruned":{"events":N}}.
type Prune struct {
	First  int64  `json:"first"` // segments
	Last   int64  `json:"last"`
	Root   string `json:"root"` // of the tree of all events before the end of Last, base64
	Reason string `json:"reason"`
}

// A Control is a line that is no event. Exactly one field is set.
type Control struct {
	Hello  *Hello  `json:"hello,omitempty"`
	Lost   *Lost   `json:"lost,omitempty"`
	Rotate *Rotate `json:"rotate,omitempty"`
	Prune  *Prune  `json:"prune,omitempty"`
}

// An Ack is a line of the daemon: the events from First to Last are durable,
// or Error says why line Line was refused.
type Ack struct {
	First  int64    `json:"first"`
	Last   int64    `json:"last"`
	Leaves []string `json:"leaves,omitempty"` // base64 leaf hashes, if asked for
	Error  string   `json:"error,omitempty"`
	Line   int64    `json:"line,omitempty"`
	Code   int      `json:"code,omitempty"` // exit code that fits Error
}

// A RefusedError is the daemon's refusal of a line.
type RefusedError struct {
	Line   int64 // that was refused, from 1 on this connection
	Reason string
	Code   int // exit code that fits
}

func (e *RefusedError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return e.Reason
}

// ExitCode is what the daemon said, 1 if nothing.
func (e *RefusedError) ExitCode() int { return max(e.Code, 1) }

// An UnavailableError says that no daemon answers: exit code 75.
type UnavailableError struct {
	Socket string
	Err    error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("log daemon at %s: %v", e.Socket, e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// Timeout says whether it is there, but did not answer in time.
func (e *UnavailableError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// ExitCode is EX_TEMPFAIL.
func (e *UnavailableError) ExitCode() int { return 75 }

// A Client is a connection to the daemon. It is for one goroutine, but that one
// may Send while another one Receives.
type Client struct {
	socket string
	conn   net.Conn
	r      *bufio.Reader
	w      *bufio.Writer

	// Welcome is what the daemon said of itself.
	Welcome Welcome
}

// Dial connects to the daemon at the Unix socket and greets it.
func Dial(ctx context.Context, socket string, hello Hello) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, &UnavailableError{socket, err}
	}
	c := &Client{socket: socket, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriterSize(conn, 64<<10)}
	hello.Version = Version
	if err := c.control(Control{Hello: &hello}); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	line, err := c.r.ReadBytes('\n')
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	conn.SetReadDeadline(time.Time{})
	if err != nil {
		conn.Close()
		return nil, &UnavailableError{socket, err}
	}
	var answer struct {
		Welcome *Welcome `json:"welcome"`
		Ack
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		conn.Close()
		return nil, fmt.Errorf("log daemon at %s: answer %.80q: %w", socket, line, err)
	}
	if answer.Welcome == nil {
		conn.Close()
		return nil, &RefusedError{0, answer.Error, answer.Code}
	}
	c.Welcome = *answer.Welcome
	return c, nil
}

func (c *Client) control(v Control) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.send(append(b, '\n'))
}

func (c *Client) send(lines ...[]byte) error {
	for _, l := range lines {
		if _, err := c.w.Write(l); err != nil {
			return &UnavailableError{c.socket, err}
		}
	}
	if err := c.w.Flush(); err != nil {
		return &UnavailableError{c.socket, err}
	}
	return nil
}

// Append sends event lines, without newlines, and returns when all are
// durable. acks is called with each acknowledgement and may be nil. After an
// error the connection is of no more use; acks has been called for what is
// durable, as far as the daemon said.
func (c *Client) Append(lines [][]byte, acks func(Ack)) error {
	if len(lines) == 0 {
		return nil
	}
	size := 0
	for _, l := range lines {
		size += len(l) + 1
	}
	if size < c.w.Size() {
		// The socket takes it whole.
		if err := c.Send(lines...); err != nil {
			return err
		}
		return c.await(int64(len(lines)), acks)
	}
	// The daemon may answer a part before it has read all: write beside.
	sent := make(chan error, 1)
	go func() { sent <- c.Send(lines...) }()
	err := c.await(int64(len(lines)), acks)
	if err != nil {
		c.conn.Close() // ends the writer
	}
	if werr := <-sent; err == nil && werr != nil {
		err = werr
	}
	return err
}

// Send sends event lines, without newlines, and waits for nothing: for a
// program that reads the acknowledgements with Receive, in another goroutine.
func (c *Client) Send(lines ...[]byte) error {
	for _, l := range lines {
		if _, err := c.w.Write(l); err != nil {
			return &UnavailableError{c.socket, err}
		}
		if err := c.w.WriteByte('\n'); err != nil {
			return &UnavailableError{c.socket, err}
		}
	}
	if err := c.w.Flush(); err != nil {
		return &UnavailableError{c.socket, err}
	}
	return nil
}

// Receive returns the next acknowledgement of what Send sent; its Last is not
// before its First.
func (c *Client) Receive() (Ack, error) {
	var a Ack
	line, err := c.r.ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it closed the connection; what was not acknowledged may or may not be stored")
		}
		return a, &UnavailableError{c.socket, err}
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("log daemon at %s: answer %.80q: %w", c.socket, line, err)
	}
	if a.Error != "" {
		return a, &RefusedError{a.Line, a.Error, a.Code}
	}
	if a.Last < a.First {
		return a, fmt.Errorf("log daemon at %s: answer %.80q", c.socket, line)
	}
	return a, nil
}

// Patience bounds how long Receive may wait, until t; not at all if t is zero.
func (c *Client) Patience(t time.Time) error { return c.conn.SetReadDeadline(t) }

// ReportLost tells the log of events that were dropped, and returns when that
// is durable.
func (c *Client) ReportLost(l Lost) error {
	if err := c.control(Control{Lost: &l}); err != nil {
		return err
	}
	return c.await(1, nil)
}

// RotateKey has the daemon begin a new epoch and returns its number.
func (c *Client) RotateKey() (epoch int64, err error) {
	var answer struct {
		Rotated *struct {
			Epoch int64 `json:"epoch"`
		} `json:"rotated"`
		Ack
	}
	if err := c.ask(Control{Rotate: &Rotate{}}, &answer); err != nil {
		return 0, err
	}
	if answer.Rotated == nil {
		return 0, &RefusedError{0, answer.Error, answer.Code}
	}
	return answer.Rotated.Epoch, nil
}

// Prune has the daemon delete segments and returns the number of events that
// were in them.
func (c *Client) Prune(p Prune) (events int64, err error) {
	var answer struct {
		Pruned *struct {
			Events int64 `json:"events"`
		} `json:"pruned"`
		Ack
	}
	if err := c.ask(Control{Prune: &p}, &answer); err != nil {
		return 0, err
	}
	if answer.Pruned == nil {
		return 0, &RefusedError{0, answer.Error, answer.Code}
	}
	return answer.Pruned.Events, nil
}

// ask sends a control and reads the line that answers it.
func (c *Client) ask(q Control, answer any) error {
	if err := c.control(q); err != nil {
		return err
	}
	line, err := c.r.ReadBytes('\n')
	if err != nil {
		return &UnavailableError{c.socket, err}
	}
	if err := json.Unmarshal(line, answer); err != nil {
		return fmt.Errorf("log daemon at %s: answer %.80q: %w", c.socket, line, err)
	}
	return nil
}

// await reads acknowledgements of n events.
func (c *Client) await(n int64, acks func(Ack)) error {
	for n > 0 {
		a, err := c.Receive()
		if err != nil {
			return err
		}
		if a.Last-a.First >= n {
			return fmt.Errorf("log daemon at %s: it acknowledged %d events of %d", c.socket, a.Last-a.First+1, n)
		}
		n -= a.Last - a.First + 1
		if acks != nil {
			acks(a)
		}
	}
	return nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
