package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// A Daemon is opdbus, which acts for people who have logged in. It decides what
// they may, and records it.
type Daemon interface {
	// Call calls one of the daemon's methods for a login. assertion is of a
	// security key, or nil. A refusal is a *Refusal.
	Call(ctx context.Context, who access.Session, assertion json.RawMessage, c MethodCall) (results []json.RawMessage, err error)
	// Own calls a method of the daemon's entrance for logins: Keys, Challenge,
	// RegisterKey. It returns the JSON that it answers.
	Own(ctx context.Context, who access.Session, assertion json.RawMessage, member string, args ...string) (json.RawMessage, error)
}

// A MethodCall is one of the daemon's methods with its arguments.
type MethodCall struct {
	Path      string // of the object; the daemon's own if ""
	Interface string // without the daemon's prefix
	Member    string
	Signature string
	Args      []any // strings and numbers
}

// A Refusal is what the daemon answers where it does not do something.
type Refusal struct {
	Name     string
	Message  string
	Advice   string
	Approval json.RawMessage // that is needed, or nil
}

func (r *Refusal) Error() string { return r.Message }

// Hint says what to do.
func (r *Refusal) Hint() string { return r.Advice }

// keyNeeded says whether a security key must be touched.
func (r *Refusal) keyNeeded() bool { return strings.HasSuffix(r.Name, ".Error.KeyNeeded") }

// failure says how a refusal is answered.
func (r *Refusal) failure() *failure {
	f := fail(http.StatusForbidden, "%s", clean(r.Message)).hint(clean(r.Advice))
	switch r.Name[strings.LastIndexByte(r.Name, '.')+1:] {
	case "LimitsExceeded":
		f.Status = http.StatusTooManyRequests
	case "NotRecorded":
		f.Status = http.StatusServiceUnavailable
	case "InvalidArgs", "UnknownMethod", "UnknownInterface", "UnknownObject", "Approval", "NoChange", "Blocked", "PlanChanged", "Busy":
		f.Status = http.StatusUnprocessableEntity
	case "ServiceUnknown", "NameHasNoOwner", "NotSupported":
		f.Status = http.StatusNotFound
	case "NoReply", "Timeout", "TimedOut":
		f.Status = http.StatusGatewayTimeout
	}
	return f
}

// A BusLink is a connection to a bus that is made anew when it was lost.
type BusLink struct {
	Address string

	mu   sync.Mutex
	conn *bus.Conn
}

// Conn returns the connection.
func (l *BusLink) Conn(ctx context.Context) (*bus.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		select {
		case <-l.conn.Done():
			l.conn.Close()
			l.conn = nil
		default:
			return l.conn, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := bus.Connect(ctx, l.Address)
	if err != nil {
		return nil, fail(http.StatusServiceUnavailable, "the bus does not answer: %v", err).hint("systemctl start dbus.socket")
	}
	l.conn = c
	return c, nil
}

// A BusDaemon is the daemon on a bus.
type BusDaemon struct{ Link *BusLink }

func (d BusDaemon) call(ctx context.Context, member string, b bus.Body) (string, error) {
	conn, err := d.Link.Conn(ctx)
	if err != nil {
		return "", err
	}
	answer, err := conn.Call(ctx, bus.Call{Name: names.BusName, Path: names.BusObject, Interface: names.BusInterface + ".Logins", Member: member, Args: b})
	if err != nil {
		return "", daemonError(err)
	}
	text, ok := "", false
	if len(answer.Values) == 1 {
		text, ok = answer.Values[0].(string)
	}
	if !ok {
		return "", fmt.Errorf("the daemon opdbus answered %q", answer.Signature())
	}
	return text, nil
}

// daemonError tells a daemon that is not there from one that refuses.
func daemonError(err error) error {
	var e *bus.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.Spawn.ChildExited":
		return fail(http.StatusServiceUnavailable, "the daemon opdbus is not on the bus").hint("systemctl start op-dbus.service")
	}
	return &Refusal{Name: e.Name, Message: e.Message}
}

func claim(who access.Session, assertion json.RawMessage) string {
	text, err := json.Marshal(struct {
		UID       uint32          `json:"uid"`
		Role      string          `json:"role"`
		Session   string          `json:"session"`
		Assertion json.RawMessage `json:"assertion,omitempty"`
	}{who.UID, who.Role.String(), who.ID, assertion})
	if err != nil { // the assertion was read as JSON
		panic(err)
	}
	return string(text)
}

// Own implements Daemon.
func (d BusDaemon) Own(ctx context.Context, who access.Session, assertion json.RawMessage, member string, args ...string) (json.RawMessage, error) {
	values := []any{claim(who, assertion)}
	for _, a := range args {
		values = append(values, a)
	}
	text, err := d.call(ctx, member, bus.NewBody(strings.Repeat("s", len(values)), values...))
	return json.RawMessage(text), err
}

// Call implements Daemon.
func (d BusDaemon) Call(ctx context.Context, who access.Session, assertion json.RawMessage, c MethodCall) ([]json.RawMessage, error) {
	if c.Args == nil {
		c.Args = []any{}
	}
	args, err := json.Marshal(c.Args)
	if err != nil {
		return nil, err
	}
	if c.Path == "" {
		c.Path = names.BusObject
	}
	text, err := d.call(ctx, "Call", bus.NewBody("sossss", claim(who, assertion), dbusjson.Path(c.Path), names.BusInterface+"."+c.Interface, c.Member, c.Signature, string(args)))
	if err != nil {
		return nil, err
	}
	var answer struct {
		OK       bool
		Results  []json.RawMessage
		Approval json.RawMessage
		Error    *struct{ Name, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("the daemon opdbus: %w", err)
	}
	if answer.Error != nil {
		return nil, &Refusal{answer.Error.Name, answer.Error.Message, answer.Error.Hint, answer.Approval}
	}
	return answer.Results, nil
}

// daemon returns the daemon, or why there is none.
func (s *Server) daemon() (Daemon, error) {
	if s.Daemon == nil {
		return nil, fail(http.StatusServiceUnavailable, "there is no daemon opdbus here").hint("gb-web serve --bus names its bus")
	}
	return s.Daemon, nil
}

// ask calls a method of the daemon and decodes the text of its one answer,
// which is JSON, into out.
func (s *Server) ask(r *request, c MethodCall, out any) error {
	d, err := s.daemon()
	if err != nil {
		return err
	}
	results, err := d.Call(r.ctx, r.session, nil, c)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return fmt.Errorf("the daemon opdbus answered nothing to %s", c.Member)
	}
	var text string
	if err := json.Unmarshal(results[0], &text); err != nil {
		return json.Unmarshal(results[0], out)
	}
	return json.Unmarshal([]byte(text), out)
}
