package ovsdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
)

// A Client is a connection to a server. Its methods may be called from several
// goroutines.
type Client struct {
	remote string
	conn   net.Conn
	write  sync.Mutex // covers writes to conn

	mu      sync.Mutex // covers what follows
	next    int
	calls   map[int]chan answer
	monitor chan Changes
	failed  error // why the connection has ended

	ended chan struct{} // closed when the reader has ended
}

type answer struct {
	result json.RawMessage
	err    error
}

type message struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	Result json.RawMessage   `json:"result"`
	Error  json.RawMessage   `json:"error"`
}

// A DialError says that no server answers: exit code 1, with what to do.
type DialError struct {
	Remote string
	Err    error
}

func (e *DialError) Error() string { return fmt.Sprintf("database at %s: %v", e.Remote, e.Err) }
func (e *DialError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *DialError) Hint() string {
	return "is ovsdb-server running? systemctl status openvswitch-switch; or name another database with --db unix:PATH"
}

// A SilentError says that a server took a request and did not answer in time.
type SilentError struct {
	Remote, Method string
	Err            error
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("database at %s: no answer to %s: %v", e.Remote, e.Method, e.Err)
}
func (e *SilentError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *SilentError) Hint() string {
	return "is ovsdb-server well? systemctl status openvswitch-switch; or give it longer with --timeout"
}

// Dial connects to a server: "unix:PATH" or "tcp:HOST:PORT".
func Dial(ctx context.Context, remote string) (*Client, error) {
	network, address, ok := strings.Cut(remote, ":")
	if !ok || network != "unix" && network != "tcp" {
		return nil, fmt.Errorf("database %q: want unix:PATH or tcp:HOST:PORT", remote)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, &DialError{remote, err}
	}
	c := &Client{remote: remote, conn: conn, calls: make(map[int]chan answer), ended: make(chan struct{})}
	go c.read()
	return c, nil
}

// Close ends the connection and waits for the reader.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.ended
	return err
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Err says why the connection has ended, once Done is closed.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *Client) read() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	var err error
	for err == nil {
		var b []byte
		if b, err = frame(r, MaxMessage); err != nil {
			break
		}
		var m message
		if err = json.Unmarshal(b, &m); err == nil {
			err = c.dispatch(m)
		}
	}
	c.conn.Close()
	c.mu.Lock()
	c.failed = fmt.Errorf("database at %s: connection ended: %w", c.remote, err)
	for _, ch := range c.calls {
		ch <- answer{err: c.failed}
	}
	c.calls = nil
	if c.monitor != nil {
		close(c.monitor)
	}
	c.mu.Unlock()
	close(c.ended)
}

func (c *Client) dispatch(m message) error {
	switch m.Method {
	case "":
		var id int
		if err := json.Unmarshal(m.ID, &id); err != nil {
			return fmt.Errorf("an answer's id is %.40s", m.ID)
		}
		c.mu.Lock()
		ch := c.calls[id]
		delete(c.calls, id)
		c.mu.Unlock()
		if ch == nil {
			return nil // its caller has given up
		}
		a := answer{result: m.Result}
		if len(m.Error) > 0 && string(m.Error) != "null" {
			a.err = refusal(m.Error)
		}
		ch <- a
	case "echo":
		return c.send(map[string]any{"id": m.ID, "result": m.Params, "error": nil})
	case "update":
		if len(m.Params) != 2 {
			return errors.New("an update without two parameters")
		}
		var u Changes
		if err := json.Unmarshal(m.Params[1], &u); err != nil {
			return fmt.Errorf("update: %w", err)
		}
		c.mu.Lock()
		ch := c.monitor
		c.mu.Unlock()
		if ch != nil {
			select {
			case ch <- u:
			default: // a reader that is so far behind must begin anew
				return errors.New("updates were not read in time")
			}
		}
	}
	return nil
}

// refusal makes an error of the server's error object.
func refusal(data json.RawMessage) error {
	var e struct{ Error, Details string }
	if err := json.Unmarshal(data, &e); err != nil || e.Error == "" {
		return fmt.Errorf("the database refuses: %.200s", data)
	}
	return &OperationError{Code: e.Error, Details: e.Details}
}

func (c *Client) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	_, err = c.conn.Write(b)
	return err
}

// call sends a request and returns its result, or when ctx ends.
func (c *Client) call(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.failed != nil {
		defer c.mu.Unlock()
		return nil, c.failed
	}
	id := c.next
	c.next++
	c.calls[id] = ch
	c.mu.Unlock()
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetWriteDeadline(deadline)
	}
	if err := c.send(map[string]any{"id": id, "method": method, "params": params}); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) { // ctx's, before ctx knows
			err = &SilentError{c.remote, method, context.DeadlineExceeded}
		} else {
			err = fmt.Errorf("database at %s: %w", c.remote, err)
		}
		return nil, err
	}
	select {
	case a := <-ch:
		return a.result, a.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
		return nil, &SilentError{c.remote, method, context.Cause(ctx)}
	}
}

// Transact runs operations as one transaction and returns their results. If
// one fails, nothing was done, and the error is an *OperationError.
func (c *Client) Transact(ctx context.Context, db string, ops ...Operation) ([]Result, error) {
	params := make([]any, 0, len(ops)+1)
	params = append(params, db)
	for _, o := range ops {
		params = append(params, o)
	}
	data, err := c.call(ctx, "transact", params...)
	if err != nil {
		return nil, err
	}
	return results(ops, data)
}

// Changes are of monitored rows: by table, by row, what it was and
// what it is. The first one has every row as new.
type Changes map[string]map[UUID]RowUpdate

// A RowUpdate is one row's: Old has the columns that changed, as they were;
// New is the whole row, nil for one that is gone.
type RowUpdate struct {
	Old Row `json:"old"`
	New Row `json:"new"`
}

// Monitor returns the rows of the given columns by table, and then every
// change, until the connection ends and the channel is closed. A client has
// one monitor.
func (c *Client) Monitor(ctx context.Context, db string, tables map[string][]string) (Changes, <-chan Changes, error) {
	requests := make(map[string]any, len(tables))
	for table, columns := range tables {
		requests[table] = map[string]any{"columns": columns}
	}
	ch := make(chan Changes, 1024)
	c.mu.Lock()
	if c.monitor != nil {
		c.mu.Unlock()
		return nil, nil, errors.New("there is a monitor already")
	}
	c.monitor = ch
	c.mu.Unlock()
	data, err := c.call(ctx, "monitor", db, "gb", requests)
	if err != nil {
		return nil, nil, err
	}
	var first Changes
	if err := json.Unmarshal(data, &first); err != nil {
		return nil, nil, fmt.Errorf("monitor: %w", err)
	}
	return first, ch, nil
}

// A Schema says what tables and columns a database has.
type Schema struct {
	Name    string           `json:"name"`
	Version string           `json:"version"`
	Tables  map[string]Table `json:"tables"`
}

// A Table is one of a schema's.
type Table struct {
	Columns map[string]Column `json:"columns"`
	IsRoot  bool              `json:"isRoot"` // its rows live without being referred to
}

// A Column is one of a table's.
type Column struct {
	Type      json.RawMessage `json:"type"`
	Ephemeral bool            `json:"ephemeral"` // does not outlive the server
}

// Refers returns the tables that the column's values name rows of.
func (c Column) Refers() []string {
	type base struct {
		RefTable string `json:"refTable"`
	}
	var t struct{ Key, Value json.RawMessage }
	if json.Unmarshal(c.Type, &t) != nil {
		return nil
	}
	var tables []string
	for _, part := range []json.RawMessage{t.Key, t.Value} {
		var b base
		if json.Unmarshal(part, &b) == nil && b.RefTable != "" {
			tables = append(tables, b.RefTable)
		}
	}
	return tables
}

// ColumnNames returns the names of a table's columns, sorted.
func (t Table) ColumnNames() []string {
	names := make([]string, 0, len(t.Columns))
	for n := range t.Columns {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Schema returns a database's schema.
func (c *Client) Schema(ctx context.Context, db string) (*Schema, error) {
	data, err := c.call(ctx, "get_schema", db)
	if err != nil {
		return nil, err
	}
	s := new(Schema)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", db, err)
	}
	return s, nil
}
