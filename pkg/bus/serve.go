package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

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

// MaxAnswer bounds the body of an answer. A bus ends the connection of who sends
// a message that is too long for it, 32 MiB on the system bus: then a caller
// could end the daemon with a question.
const MaxAnswer = 16 << 20

const maxErrorText = 64 << 10

// A Server is a connection that serves calls.
type Server struct {
	*Conn
	handler Handler
	mu      sync.Mutex
	busy    int
	senders map[string]int // calls under way, by sender
	ready   chan struct{}
	lost    context.Context // of the handler: ends with the bus

	// Goroutines that have answered a call wait for the next one, some of them:
	// their stacks are as large as a call needs.
	work    chan *message
	waiting atomic.Int32
}

// maxWorkers is how many goroutines wait for calls.
const maxWorkers = 64

// NewServer connects to the bus at address and has h answer the calls that
// come. A panic of h becomes an error of its caller.
func NewServer(ctx context.Context, address string, h Handler) (*Server, error) {
	lost, cancel := context.WithCancel(context.Background())
	s := &Server{handler: h, senders: map[string]int{}, ready: make(chan struct{}), lost: lost, work: make(chan *message)}
	c, err := connect(ctx, address, s.take, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	s.Conn = c
	go func() {
		<-c.done
		cancel()
	}()
	close(s.ready)
	return s, nil
}

// take is called by the connection's reader with each call. A goroutine
// answers it; above the bounds it is refused at once.
func (s *Server) take(m *message) {
	if !s.begin(m.sender) {
		go func() {
			<-s.ready
			s.answer(m, Body{}, &Error{"org.freedesktop.DBus.Error.LimitsExceeded", fmt.Sprintf("more than %d calls at once, or %d of one sender", MaxIncoming, MaxPerSender)})
		}()
		return
	}
	select {
	case s.work <- m:
	default:
		go s.serve(m)
	}
}

// serve answers a call, and then those that come while few others wait for them.
func (s *Server) serve(m *message) {
	<-s.ready
	for {
		b, err := s.handle(m)
		s.answer(m, b, err)
		s.end(m.sender)
		if s.waiting.Add(1) > maxWorkers {
			s.waiting.Add(-1)
			return
		}
		select {
		case m = <-s.work:
			s.waiting.Add(-1)
		case <-s.lost.Done():
			return
		}
	}
}

// answer answers a call, if its caller waits.
func (c *Conn) answer(call *message, b Body, err error) {
	if call.flags&flagNoReply != 0 {
		return
	}
	m := &message{kind: typeReturn, replySerial: call.serial, destination: call.sender}
	if err == nil {
		err = m.setBody(b)
	}
	if len(m.body) > MaxAnswer {
		err = &Error{"org.freedesktop.DBus.Error.LimitsExceeded", fmt.Sprintf("the answer is %d bytes long, more than %d", len(m.body), MaxAnswer)}
	}
	if err != nil {
		name, text := errorName(err)
		if !dbusjson.ValidInterface(name) {
			name = "org.freedesktop.DBus.Error.Failed"
		}
		if len(text) > maxErrorText {
			text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
		}
		m.kind, m.errorName = typeError, name
		if serr := m.setBody(NewBody("s", text)); serr != nil {
			m.setBody(NewBody("s", "the error's text is not UTF-8"))
		}
	}
	c.wire.send(m, nil) // who has gone needs no answer
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

func (s *Server) handle(m *message) (b Body, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = Body{}, &Error{"org.freedesktop.DBus.Error.Failed", fmt.Sprintf("internal error: %v", p)}
		}
	}()
	in := Incoming{Sender: m.sender, Path: m.path, Interface: m.iface, Member: m.member, Interactive: m.flags&flagInteractive != 0}
	in.Args, in.Err = m.open()
	if in.Interface == peerInterface {
		return peer(in)
	}
	return s.handler(s.lost, in)
}

const peerInterface = "org.freedesktop.DBus.Peer"

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
	if !dbusjson.ValidPath(path) || !dbusjson.ValidInterface(iface) || !dbusjson.ValidMember(member) {
		return fmt.Errorf("signal %q %q %q", path, iface, member)
	}
	m := &message{kind: typeSignal, flags: flagNoReply, path: path, iface: iface, member: member}
	if err := m.setBody(args); err != nil {
		return err
	}
	return s.wire.send(m, nil)
}
