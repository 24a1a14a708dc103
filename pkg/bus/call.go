package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A Call is a method call.
type Call struct {
	Name      string // of the bus: well known, or unique
	Path      string
	Interface string
	Member    string
	Args      Body

	NoAutoStart bool // don't start a service for it
	Interactive bool // the service may ask the user (ALLOW_INTERACTIVE_AUTHORIZATION)
	NoReply     bool // don't wait
}

// An Error is an error that the bus or a service has answered.
type Error struct {
	Name    string
	Message string // the first argument, if it is a string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Message + " (" + e.Name + ")"
}

// Hint says what a person can do about the commonest errors.
func (e *Error) Hint() string {
	switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
	case "ServiceUnknown", "NameHasNoOwner":
		return "opdbus names lists who is there, and who can be started"
	case "UnknownObject":
		return "opdbus tree NAME lists the objects"
	case "UnknownMethod", "UnknownInterface", "UnknownProperty":
		return "opdbus introspect NAME PATH lists the members"
	case "AccessDenied", "InteractiveAuthorizationRequired":
		return "the bus's policy or the service refuses; --interactive lets it ask"
	case "InvalidArgs", "InvalidSignature":
		return "opdbus describe NAME PATH INTERFACE.MEMBER shows the arguments"
	}
	return ""
}

// A TimeoutError says that no answer came in time; whether the call was done is
// unknown.
type TimeoutError struct{ Call Call }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s.%s of %s: no answer in time", e.Call.Interface, e.Call.Member, e.Call.Name)
}
func (e *TimeoutError) Hint() string { return "--timeout gives it longer; it may have been done" }

// ErrClosed says that the connection to the bus is lost.
var ErrClosed = errors.New("the connection to the bus is lost")

// check refuses what the bus would end the connection for.
func (c *Call) check() error {
	switch {
	case !dbusjson.ValidBusName(c.Name):
		return fmt.Errorf("%.260q is no bus name", c.Name)
	case !dbusjson.ValidPath(c.Path):
		return fmt.Errorf("%.260q is no object path", c.Path)
	case !dbusjson.ValidInterface(c.Interface):
		return fmt.Errorf("%.260q is no name of an interface", c.Interface)
	case !dbusjson.ValidMember(c.Member):
		return fmt.Errorf("%.260q is no name of a member", c.Member)
	}
	return nil
}

// Call makes a call and waits for its answer; without a deadline in ctx for
// DefaultTimeout.
func (c *Conn) Call(ctx context.Context, call Call) (Body, error) {
	if err := call.check(); err != nil {
		return Body{}, err
	}
	msg := &message{kind: typeCall, destination: call.Name, path: call.Path, iface: call.Interface, member: call.Member}
	if call.NoAutoStart {
		msg.flags |= flagNoAutoStart
	}
	if call.Interactive {
		msg.flags |= flagInteractive
	}
	if err := msg.setBody(call.Args); err != nil {
		return Body{}, err
	}
	if err := ctx.Err(); err != nil {
		return Body{}, err
	}
	if call.NoReply {
		msg.flags |= flagNoReply
		return Body{}, c.wire.send(msg, nil)
	}
	answer := make(chan *message, 1)
	var serial uint32
	if err := c.wire.send(msg, func(n uint32) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if serial = n; c.calls != nil {
			c.calls[n] = answer
		} else {
			close(answer)
		}
	}); err != nil {
		c.forget(serial)
		return Body{}, err
	}
	// A context's deadline passes for other calls too; a timer of one's own is
	// for those without.
	var patience <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		timer := time.NewTimer(DefaultTimeout)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case m := <-answer:
		if m == nil {
			return Body{}, ErrClosed
		}
		if m.kind == typeError {
			return Body{}, m.failure()
		}
		return m.open()
	case <-patience:
		c.forget(serial)
		return Body{}, &TimeoutError{call}
	case <-ctx.Done():
		c.forget(serial)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return Body{}, &TimeoutError{call}
		}
		return Body{}, ctx.Err()
	}
}

// forget waits for the answer to a call no more.
func (c *Conn) forget(serial uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, serial)
}

// failure is the error that the message is.
func (m *message) failure() error {
	e := &Error{Name: m.errorName}
	if b, err := m.open(); err == nil && len(b.Values) > 0 {
		e.Message, _ = b.Values[0].(string)
	}
	return e
}

// driver calls the bus itself.
func (c *Conn) driver(ctx context.Context, member, sig string, args ...any) (Body, error) {
	return c.Call(ctx, Call{Name: driverName, Path: driverPath, Interface: driverName, Member: member, Args: NewBody(sig, args...)})
}

// RequestName makes the connection the owner of name; it is an error if
// somebody else is.
func (c *Conn) RequestName(ctx context.Context, name string) error {
	const doNotQueue = 4
	b, err := c.driver(ctx, "RequestName", "su", name, uint32(doNotQueue))
	if err != nil {
		return fmt.Errorf("name %s: %w", name, err)
	}
	if r := b.Values[0].(uint32); r != 1 && r != 4 { // primary owner, already owner
		return fmt.Errorf("name %s: somebody else has it", name)
	}
	return nil
}

// Owner returns the unique name of name's owner. With start a service that can
// be is started.
func (c *Conn) Owner(ctx context.Context, name string, start bool) (string, error) {
	if strings.HasPrefix(name, ":") || name == driverName {
		return name, nil
	}
	b, err := c.driver(ctx, "GetNameOwner", "s", name)
	var e *Error
	if start && errors.As(err, &e) && strings.HasSuffix(e.Name, ".NameHasNoOwner") {
		if _, err := c.driver(ctx, "StartServiceByName", "su", name, uint32(0)); err != nil {
			return "", err
		}
		b, err = c.driver(ctx, "GetNameOwner", "s", name)
	}
	if err != nil {
		return "", err
	}
	return b.Values[0].(string), nil
}
