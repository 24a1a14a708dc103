package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// An Incoming is a call that somebody makes to us.
type Incoming struct {
	Sender      string // unique name, given by the bus
	Path        string
	Interface   string // may be empty
	Member      string
	Args        Body
	Err         error // why the arguments can't be read
	Interactive bool  // the caller allows to ask the user
}

// A Handler answers calls, several at once. An *Error goes to the caller as it
// is, one with a method DBusName under that name, another error as org.freedesktop.DBus.Error.Failed.
type Handler func(ctx context.Context, in Incoming) (Body, error)

// MaxIncoming is how many calls are handled at once; more are refused with
// org.freedesktop.DBus.Error.LimitsExceeded.
const MaxIncoming = 256

// MaxPerSender is how many of one sender's are, so that nobody takes all.
const MaxPerSender = 64

// A Server is a connection that serves calls.
type Server struct {
	*Conn
	handler Handler
	mu      sync.Mutex
	busy    int
	senders map[string]int // calls under way, by sender
	ready   chan struct{}
}

// NewServer connects to the bus at address and has h answer the calls that
// come. A panic of h becomes an error of its caller.
func NewServer(ctx context.Context, address string, h Handler) (*Server, error) {
	s := &Server{handler: h, senders: map[string]int{}, ready: make(chan struct{})}
	c, err := connect(ctx, address, s, discard{})
	if err != nil {
		return nil, err
	}
	s.Conn = c
	close(s.ready)
	return s, nil
}

// LookupObject implements godbus's Handler: all paths, interfaces and members
// lead to one place.
func (s *Server) LookupObject(dbus.ObjectPath) (dbus.ServerObject, bool) { return s, true }

// LookupInterface implements godbus's ServerObject.
func (s *Server) LookupInterface(string) (dbus.Interface, bool) { return s, true }

// LookupMethod implements godbus's Interface. A method is made for each call.
func (s *Server) LookupMethod(string) (dbus.Method, bool) { return &method{server: s}, true }

type method struct {
	server *Server
	msg    *dbus.Message
	serial uint32
}

func (m *method) NumArguments() int     { return 0 }
func (m *method) NumReturns() int       { return 0 }
func (m *method) ArgumentValue(int) any { return nil }
func (m *method) ReturnValue(int) any   { return nil }

// DecodeArguments implements godbus's ArgumentDecoder: it is the only one that
// gets the message.
func (m *method) DecodeArguments(_ *dbus.Conn, _ string, msg *dbus.Message, _ []any) ([]any, error) {
	m.msg, m.serial = msg, msg.Serial()
	return nil, nil
}

// Call implements godbus's Method. It sends the answer itself, since godbus
// would work out the signature from Go types.
func (m *method) Call(...any) ([]any, error) {
	noReply := m.msg.Flags&dbus.FlagNoReplyExpected != 0
	m.msg.Flags |= dbus.FlagNoReplyExpected // we answer, not godbus
	sender, _ := m.msg.Headers[dbus.FieldSender].Value().(string)
	body, err := m.server.handle(m.msg, sender)
	if noReply {
		return nil, nil
	}
	answer := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(m.serial), dbus.FieldDestination: dbus.MakeVariant(sender)}}
	if err == nil {
		err = setBody(answer, body)
	}
	if err != nil {
		name, text := errorName(err)
		answer.Type = dbus.TypeError
		answer.Headers[dbus.FieldErrorName] = dbus.MakeVariant(name)
		if serr := setBody(answer, NewBody("s", text)); serr != nil {
			setBody(answer, NewBody("s", "the error's text is not UTF-8"))
		}
	}
	m.server.c.Send(answer, nil)
	return nil, nil
}

func errorName(err error) (name, text string) {
	// Who refuses because of another's error refuses in its own name.
	var named interface{ DBusName() string }
	if errors.As(err, &named) {
		return named.DBusName(), err.Error()
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Name, e.Message
	}
	return "org.freedesktop.DBus.Error.Failed", err.Error()
}

func (s *Server) begin(sender string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy >= MaxIncoming || s.senders[sender] >= MaxPerSender {
		return false
	}
	s.busy++
	s.senders[sender]++
	return true
}

func (s *Server) end(sender string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if s.senders[sender]--; s.senders[sender] == 0 {
		delete(s.senders, sender)
	}
}

func (s *Server) handle(msg *dbus.Message, sender string) (b Body, err error) {
	if !s.begin(sender) {
		return Body{}, &Error{"org.freedesktop.DBus.Error.LimitsExceeded", fmt.Sprintf("more than %d calls at once, or %d of one sender", MaxIncoming, MaxPerSender)}
	}
	defer s.end(sender)
	defer func() {
		if p := recover(); p != nil {
			b, err = Body{}, &Error{"org.freedesktop.DBus.Error.Failed", fmt.Sprintf("internal error: %v", p)}
		}
	}()
	<-s.ready
	in := Incoming{Sender: sender, Interactive: msg.Flags&dbus.FlagAllowInteractiveAuthorization != 0}
	path, _ := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	in.Path = string(path)
	in.Interface, _ = msg.Headers[dbus.FieldInterface].Value().(string)
	in.Member, _ = msg.Headers[dbus.FieldMember].Value().(string)
	in.Args, in.Err = open(msg.Body)
	if in.Interface == peerAlias {
		return peer(in)
	}
	return s.handler(s.c.Context(), in)
}

const (
	peerInterface = "org.freedesktop.DBus.Peer"
	peerAlias     = "org.freedesktop.DBus.Peer_"
)

// peer answers org.freedesktop.DBus.Peer, which every object has.
func peer(in Incoming) (Body, error) {
	switch {
	case in.Member != "Ping" && in.Member != "GetMachineId":
		return Body{}, &Error{"org.freedesktop.DBus.Error.UnknownMethod", peerInterface + " has no method " + in.Member}
	case in.Err != nil || len(in.Args.Types) > 0:
		return Body{}, &Error{"org.freedesktop.DBus.Error.InvalidArgs", in.Member + " takes no argument"}
	case in.Member == "Ping":
		return Body{}, nil
	}
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if id, err := os.ReadFile(path); err == nil {
			return NewBody("s", strings.TrimSpace(string(id))), nil
		}
	}
	return Body{}, &Error{"org.freedesktop.DBus.Error.FileNotFound", "this machine has no machine-id"}
}

// Emit sends a signal. Signals of one caller arrive in their order.
func (s *Server) Emit(path, iface, member string, args Body) error {
	msg := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath(path)), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member)}}
	if !dbusjson.ValidPath(path) || !dbusjson.ValidInterface(iface) || !dbusjson.ValidMember(member) {
		return fmt.Errorf("signal %q %q %q", path, iface, member)
	}
	if err := setBody(msg, args); err != nil {
		return err
	}
	return s.c.Send(msg, nil).Err
}
