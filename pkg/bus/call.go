package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"

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
	msg := &dbus.Message{Type: dbus.TypeMethodCall, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(call.Name),
		dbus.FieldPath:        dbus.MakeVariant(dbus.ObjectPath(call.Path)),
		dbus.FieldInterface:   dbus.MakeVariant(call.Interface),
		dbus.FieldMember:      dbus.MakeVariant(call.Member),
	}}
	if call.NoAutoStart {
		msg.Flags |= dbus.FlagNoAutoStart
	}
	if call.Interactive {
		msg.Flags |= dbus.FlagAllowInteractiveAuthorization
	}
	if call.NoReply {
		msg.Flags |= dbus.FlagNoReplyExpected
	}
	if err := setBody(msg, call.Args); err != nil {
		return Body{}, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	answer := c.c.SendWithContext(ctx, msg, make(chan *dbus.Call, 1))
	if call.NoReply {
		return Body{}, answer.Err
	}
	done := <-answer.Done // godbus ends it when ctx does
	if errors.Is(done.Err, context.DeadlineExceeded) {
		return Body{}, &TimeoutError{call}
	}
	if errors.Is(done.Err, context.Canceled) && ctx.Err() != nil {
		return Body{}, ctx.Err()
	}
	if done.Err != nil {
		return Body{}, c.failure(done.Err)
	}
	return open(done.Body)
}

func setBody(msg *dbus.Message, b Body) error {
	if len(b.Types) == 0 {
		return nil
	}
	sig, body, err := wrap(b)
	if err != nil {
		return err
	}
	msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(sig)
	msg.Body = body
	return nil
}

func (c *Conn) failure(err error) error {
	var e dbus.Error
	switch {
	case errors.As(err, &e):
		out := &Error{Name: e.Name}
		if b, berr := open(e.Body); berr == nil && len(b.Values) > 0 {
			out.Message, _ = b.Values[0].(string)
		}
		return out
	case errors.Is(err, dbus.ErrClosed), !c.c.Connected():
		return ErrClosed
	}
	return err
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
