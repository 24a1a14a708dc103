package opdbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// An Authorizer says whether a principal may. An error is a no.
type Authorizer interface {
	// Authorize returns nil if p may do the action, with details for whoever
	// is asked.
	Authorize(ctx context.Context, p Principal, action string, details map[string]string) error
}

// A NotAuthorizedError is polkit's no.
type NotAuthorizedError struct {
	Action    string
	Challenge bool  // polkit would say yes to somebody who proves who they are
	Err       error // why polkit could not be asked; nil if it was
}

func (e *NotAuthorizedError) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("polkit can't be asked about %s: %v", e.Action, e.Err)
	case e.Challenge:
		return "polkit wants a person's password for " + e.Action
	}
	return "polkit does not authorise " + e.Action
}

func (e *NotAuthorizedError) Unwrap() error { return e.Err }

// Hint says what a person can do.
func (e *NotAuthorizedError) Hint() string {
	switch {
	case e.Challenge:
		return "--interactive lets polkit ask, if an agent runs in the session"
	case e.Err != nil:
		return `without polkit nothing is authorised; a rule with "polkit":"none" does not ask it`
	}
	return "pkaction --verbose --action-id " + e.Action + " shows who may"
}

// DBusName is the error's name on the bus.
func (e *NotAuthorizedError) DBusName() string {
	if e.Challenge {
		return "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	}
	return "org.freedesktop.DBus.Error.AccessDenied"
}

// A Polkit asks polkitd on a system bus.
type Polkit struct{ Conn *bus.Conn }

const (
	polkitName  = "org.freedesktop.PolicyKit1"
	polkitPath  = "/org/freedesktop/PolicyKit1/Authority"
	polkitIface = "org.freedesktop.PolicyKit1.Authority"

	polkitTimeout = 10 * time.Second
	// polkitPatience is how long a person may take to type a password.
	polkitPatience = 2 * time.Minute
)

var checkTypes, _ = dbusjson.ParseSignature("(sa{sv})sa{ss}us")

// Authorize implements Authorizer. The subject is the principal's connection
// (system-bus-name): a process id can be taken over by another process.
func (k *Polkit) Authorize(ctx context.Context, p Principal, action string, details map[string]string) error {
	if p.Subject == "" {
		return &NotAuthorizedError{Action: action, Err: errors.New("the caller has no connection to the system bus")}
	}
	wait, flags := polkitTimeout, uint32(0)
	if p.Interactive {
		wait, flags = polkitPatience, 1 // AllowUserInteraction
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	d := dbusjson.Dict{}
	for k, v := range details {
		d = append(d, dbusjson.Entry{Key: k, Value: v})
	}
	id := newID()
	args := []any{
		[]any{"system-bus-name", dbusjson.Dict{{Key: "name", Value: dbusjson.Variant{Type: stringType, Value: p.Subject}}}},
		action, d, flags, id,
	}
	b, err := k.Conn.Call(ctx, bus.Call{Name: polkitName, Path: polkitPath, Interface: polkitIface, Member: "CheckAuthorization",
		Args: bus.Body{Types: checkTypes, Values: args}})
	if err != nil {
		if ctx.Err() != nil {
			// Take the dialog from the screen.
			cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			k.Conn.Call(cctx, bus.Call{Name: polkitName, Path: polkitPath, Interface: polkitIface, Member: "CancelCheckAuthorization", Args: bus.NewBody("s", id)})
			cancel()
		}
		return &NotAuthorizedError{Action: action, Err: err}
	}
	if b.Signature() != "(bba{ss})" {
		return &NotAuthorizedError{Action: action, Err: fmt.Errorf("it answered %q", b.Signature())}
	}
	r := b.Values[0].([]any)
	if r[0] != true {
		return &NotAuthorizedError{Action: action, Challenge: r[1] == true}
	}
	return nil
}

// NoAuthority is the Authorizer where no system bus can be reached: it says
// no, and why.
type NoAuthority struct{ Err error }

// Authorize implements Authorizer.
func (n NoAuthority) Authorize(_ context.Context, _ Principal, action string, _ map[string]string) error {
	return &NotAuthorizedError{Action: action, Err: n.Err}
}
