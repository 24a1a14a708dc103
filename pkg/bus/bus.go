// Package bus is a connection to a D-Bus message bus, with the values of
// package dbusjson. It is the only package that knows godbus.
//
// A Conn calls, and if it was made with a Handler serves calls; it may be used
// by several goroutines. A Watch is a connection of its own that receives
// signals, in order, into a bounded queue whose reader learns how many were
// dropped. None of them reconnects: a lost bus ends them (Done), and the
// process had best end too and be started anew by systemd.
//
// Whether a call may be made is not decided here. Package opdbus is the only
// caller of Call and Set that are not reads, and a test holds it to that.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

const (
	driverName = "org.freedesktop.DBus"
	driverPath = "/org/freedesktop/DBus"

	// DefaultTimeout bounds a call whose context has no deadline.
	DefaultTimeout = 25 * time.Second
)

// Addresses of the two buses that every host knows.
const (
	System  = "system"
	Session = "session"
)

// A Conn is a connection to a bus.
type Conn struct {
	address string
	wire    *wire
	unique  string
	done    chan struct{}

	// Both are called by the connection's reader, one message at a time, and
	// must not block; nil is for nobody.
	onCall, onSignal func(*message)

	mu    sync.Mutex
	calls map[uint32]chan *message // that wait for an answer, by serial; nil when the bus is lost

	cache  introspectionCache
	owners ownerCache
}

// Connect connects to the bus at address: system, session or a D-Bus address
// (unix:path=... or unix:abstract=..., several separated by semicolons).
func Connect(ctx context.Context, address string) (*Conn, error) {
	return connect(ctx, address, nil, nil)
}

// Resolve returns the D-Bus address that system and session stand for.
func Resolve(address string) (string, error) {
	switch address {
	case System:
		if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
			return a, nil
		}
		return "unix:path=/run/dbus/system_bus_socket", nil
	case Session:
		if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
			return a, nil
		}
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return "unix:path=" + dir + "/bus", nil
		}
		return "", &hintedError{errors.New("session bus: DBUS_SESSION_BUS_ADDRESS and XDG_RUNTIME_DIR are not set"), "log in, or name the bus by its address", 2}
	}
	return address, nil
}

func connect(ctx context.Context, address string, onCall, onSignal func(*message)) (*Conn, error) {
	resolved, err := Resolve(address)
	if err != nil {
		return nil, err
	}
	socket, err := dial(ctx, resolved)
	if err != nil {
		return nil, &hintedError{fmt.Errorf("bus %s: %w", address, err), "is a bus running there? --bus takes system, session or an address like unix:path=/run/dbus/system_bus_socket", 1}
	}
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	c := &Conn{address: address, wire: newWire(socket), done: make(chan struct{}), onCall: onCall, onSignal: onSignal, calls: map[uint32]chan *message{}}
	failed := func(err error) (*Conn, error) {
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("bus %s: %w", address, err)
	}
	if err := c.wire.authenticate(); err != nil {
		return failed(err)
	}
	go c.read()
	b, err := c.driver(ctx, "Hello", "")
	if err != nil {
		return failed(err)
	}
	unique, ok := first[string](b)
	if !ok || ctx.Err() != nil {
		return failed(errProtocol)
	}
	c.unique = unique
	return c, nil
}

// read takes what the bus sends until it is lost.
func (c *Conn) read() {
	defer c.end()
	for {
		m, err := c.wire.read()
		if err != nil {
			return
		}
		switch m.kind {
		case typeReturn, typeError:
			c.mu.Lock()
			answer := c.calls[m.replySerial]
			delete(c.calls, m.replySerial)
			c.mu.Unlock()
			if answer != nil {
				answer <- m
			}
		case typeSignal:
			if m.sender == driverName && m.member == "NameOwnerChanged" {
				c.owners.changed(m)
			}
			if c.onSignal != nil {
				c.onSignal(m)
			}
		case typeCall:
			switch {
			case c.onCall != nil:
				c.onCall(m)
			case m.flags&flagNoReply == 0:
				c.answer(m, Body{}, &Error{"org.freedesktop.DBus.Error.UnknownObject", "there are no objects here"})
			}
		}
	}
}

// end is called once, when the bus is lost or was closed.
func (c *Conn) end() {
	c.wire.close()
	c.wire.fds.drop()
	c.mu.Lock()
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, answer := range calls {
		close(answer)
	}
	close(c.done)
}

func dial(ctx context.Context, addresses string) (*net.UnixConn, error) {
	var errs []error
	for _, a := range strings.Split(addresses, ";") {
		if a == "" {
			continue
		}
		path, err := socketPath(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("the address is empty"))
	}
	return nil, errors.Join(errs...)
}

// socketPath returns the path of a unix: address, with @ before an abstract one.
func socketPath(address string) (string, error) {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("address %q: only unix: addresses are supported", address)
	}
	for _, kv := range strings.Split(rest, ",") {
		key, value, _ := strings.Cut(kv, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return "", fmt.Errorf("address %q: %w", address, err)
		}
		switch key {
		case "path":
			return value, nil
		case "abstract":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("address %q has neither path nor abstract", address)
}

// Unique returns the connection's unique name.
func (c *Conn) Unique() string { return c.unique }

// Address returns what Connect was given.
func (c *Conn) Address() string { return c.address }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection.
func (c *Conn) Close() error { return c.wire.close() }

type hintedError struct {
	error
	hint string
	code int
}

func (e *hintedError) Unwrap() error { return e.error }
func (e *hintedError) Hint() string  { return e.hint }
func (e *hintedError) ExitCode() int { return e.code }

// A Body is typed values.
type Body struct {
	Types  []*dbusjson.Type
	Values []any
}

// JSON returns the values as a JSON array.
func (b Body) JSON() ([]byte, error) { return dbusjson.MarshalArgs(b.Types, b.Values) }

// Signature returns the joined types.
func (b Body) Signature() string { return dbusjson.JoinSignature(b.Types) }

// NewBody makes a body of basic values, strings above all.
func NewBody(sig string, values ...any) Body {
	types, err := dbusjson.ParseSignature(sig)
	if err != nil || len(types) != len(values) {
		panic(fmt.Sprintf("bus: %q and %d values", sig, len(values)))
	}
	return Body{types, values}
}

// introspectionCache keeps what objects said of themselves, by the unique name
// of who said it: a new owner is a new entry.
type introspectionCache struct {
	mu    sync.Mutex
	nodes map[[2]string]*dbusjson.Node
}

const maxCached = 20_000 // objects

func (c *introspectionCache) get(owner, path string) *dbusjson.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[[2]string{owner, path}]
}

func (c *introspectionCache) put(owner, path string, n *dbusjson.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil || len(c.nodes) >= maxCached {
		c.nodes = make(map[[2]string]*dbusjson.Node)
	}
	c.nodes[[2]string{owner, path}] = n
}
