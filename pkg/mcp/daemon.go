package mcp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A claim is for whom the daemon is asked (its Agents interface has the form).
type claim struct {
	Client  string   `json:"client,omitempty"`
	Scopes  []string `json:"scopes"`
	Call    string   `json:"call,omitempty"`
	Session string   `json:"session,omitempty"`
	Program string   `json:"program,omitempty"`
	Tool    string   `json:"tool,omitempty"`
	SHA256  string   `json:"arguments_sha256,omitempty"`
}

// A decision is what the policy has said.
type decision struct {
	Effect string `json:"effect"`
	Read   bool   `json:"read"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	Policy string `json:"policy"`
}

// An approval is one of the daemon's.
type approval struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Action struct {
		Kind      string          `json:"kind"`
		Name      string          `json:"name"`
		Path      string          `json:"path"`
		Interface string          `json:"interface"`
		Member    string          `json:"member"`
		Args      json.RawMessage `json:"args"`
	} `json:"action"`
	SHA256  string    `json:"sha256"`
	Rule    string    `json:"rule"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// An answer is the daemon's.
type answer struct {
	OK        bool              `json:"ok"`
	Signature string            `json:"signature"`
	Results   []json.RawMessage `json:"results"`
	Error     *callError        `json:"error"`
	ID        string            `json:"id"`
	Decision  *decision         `json:"decision"`
	Approval  *approval         `json:"approval"`
}

// A callError is what a call failed with.
type callError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

func (e *callError) Error() string {
	text := clean(e.Message, maxText)
	if text == "" {
		text = clean(e.Name, maxText)
	}
	return text
}

// refused says whether policy, a scope or a person said no.
func (e *callError) refused() bool {
	return strings.HasSuffix(e.Name, ".Error.AccessDenied") || strings.HasSuffix(e.Name, ".ApprovalNeeded") || strings.HasSuffix(e.Name, ".InteractiveAuthorizationRequired") ||
		strings.HasSuffix(e.Name, ".LimitsExceeded") || strings.HasSuffix(e.Name, ".NotRecorded") || strings.HasSuffix(e.Name, "opdbus.Error.Approval")
}

// A Daemon is a way to org.freedesktop.opdbus.
type Daemon interface {
	// Call calls a method of the daemon at its main object. An error is one of
	// the way to it; those of the call itself are in the answer.
	Call(ctx context.Context, c claim, iface, member string, args bus.Body) (*answer, error)
	// Report records what agents have done.
	Report(ctx context.Context, steps []string) error
}

// A Bus is the Daemon on a bus.
type Bus struct {
	Conn *bus.Conn
	// slots keep the calls of all agents below what the daemon takes of one
	// connection.
	slots chan struct{}
}

const maxCalls = 48

// NewBus returns the daemon behind a connection.
func NewBus(conn *bus.Conn) *Bus { return &Bus{Conn: conn, slots: make(chan struct{}, maxCalls)} }

const agentsInterface = names.BusInterface + ".Agents"

// The daemon itself gives up a little sooner.
const (
	callPatience  = 130 * time.Second
	applyPatience = 31 * time.Minute
)

// Call implements Daemon.
func (b *Bus) Call(ctx context.Context, c claim, iface, member string, args bus.Body) (*answer, error) {
	c.Call = rand.Text()
	who, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	text, err := args.JSON()
	if err != nil {
		return nil, err
	}
	patience := callPatience
	if member == "Apply" || member == "Rollback" {
		patience = applyPatience
	}
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var body bus.Body
	answered := make(chan struct{})
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	go func() {
		// The slot is taken until the daemon is done with the call, also where
		// the agent has gone before: it counts what it works at.
		defer func() { <-b.slots }()
		defer cancel()
		body, err = b.Conn.Call(within, bus.Call{Name: names.BusName, Path: names.BusObject, Interface: agentsInterface, Member: "Call",
			Args: bus.NewBody("sossss", string(who), dbusjson.Path(names.BusObject), names.BusInterface+"."+iface, member, args.Signature(), string(text))})
		close(answered)
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		b.Conn.Call(within, bus.Call{Name: names.BusName, Path: names.BusObject, Interface: agentsInterface, Member: "Cancel",
			Args: bus.NewBody("s", c.Call), NoReply: true})
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, unreachable(err)
	}
	out, ok := body.Values[0].(string)
	if !ok {
		return nil, fmt.Errorf("the daemon answered %q", body.Signature())
	}
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return nil, fmt.Errorf("the daemon's answer: %w", err)
	}
	if !a.OK && a.Error == nil {
		a.Error = &callError{Message: "the daemon gave no reason"}
	}
	return &a, nil
}

// unreachable explains errors of the way to the daemon.
func unreachable(err error) error {
	var e *bus.Error
	if errors.As(err, &e) {
		if strings.HasSuffix(e.Name, ".ServiceUnknown") || strings.HasSuffix(e.Name, ".NameHasNoOwner") {
			return fmt.Errorf("the daemon %s is not on the bus: systemctl start op-dbus.service", names.BusName)
		}
		return &callError{Name: e.Name, Message: e.Message}
	}
	return err
}

// Report implements Daemon.
func (b *Bus) Report(ctx context.Context, steps []string) error {
	list := make([]any, len(steps))
	for i, s := range steps {
		list[i] = s
	}
	types, err := dbusjson.ParseSignature("as")
	if err != nil {
		return err
	}
	_, err = b.Conn.Call(ctx, bus.Call{Name: names.BusName, Path: names.BusObject, Interface: agentsInterface, Member: "Report", Args: bus.Body{Types: types, Values: []any{list}}})
	return err
}
