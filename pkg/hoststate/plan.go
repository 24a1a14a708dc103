package hoststate

import (
	"context"
	"encoding/json"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// An Operation is what a Gate is asked about: a call of a D-Bus service, or one
// of the host's own switch and files, which has the form of a call.
type Operation struct {
	Own       bool            `json:"own,omitempty"` // no service is called
	Name      string          `json:"name"`
	Path      string          `json:"path"`
	Interface string          `json:"interface"`
	Member    string          `json:"member"`
	Signature string          `json:"signature"`
	Args      json.RawMessage `json:"args"`
}

// Send makes the call of an Operation, to the owner that was looked up when it
// was allowed.
type Send func(ctx context.Context) (bus.Body, error)

// A Gate authorises an operation, records the intent, has act do it, and
// records the outcome. Undo does the same for going back, which is never
// refused.
type Gate interface {
	// Do authorises op and does it by act.
	Do(ctx context.Context, op Operation, act func(ctx context.Context, send Send) (json.RawMessage, error)) error
	// Undo takes op's opposite to the host by act.
	Undo(ctx context.Context, op Operation, act func(ctx context.Context, send Send) (json.RawMessage, error)) error
}

// A Bus is where state is read.
type Bus interface {
	// Call makes a call and returns what it answered.
	Call(ctx context.Context, c bus.Call) (bus.Body, error)
}

// A Stream is signals in order; *bus.Watch is one.
type Stream interface {
	// Next waits for the next signal.
	Next(ctx context.Context) (bus.Signal, error)
	// Close ends the stream.
	Close() error
}

// An Action is one step of a plan. It is all that is needed to do it and to
// take it back, also by another process.
type Action struct {
	Plugin string          `json:"plugin"`
	Object string          `json:"object"` // unit, property, bridge
	Verb   string          `json:"verb"`   // start, stop, enable, set, ...
	Before json.RawMessage `json:"before"` // of the object
	After  json.RawMessage `json:"after"`
	Do     Operation       `json:"do"`
	Undo   *Operation      `json:"undo,omitempty"` // nil if there is nothing to take back, or no way
	// Irreversible says why there is no way back, "" if there is one.
	Irreversible string `json:"irreversible,omitempty"`
	// Runtime says that a boot forgets what was done.
	Runtime bool   `json:"runtime,omitempty"`
	Note    string `json:"note,omitempty"` // what a person should know of it
}

// Title is the action for people.
func (a *Action) Title() string { return a.Verb + " " + a.Object }

// A Difference is a value that is not as it should be.
type Difference struct {
	Plugin string          `json:"plugin"`
	Path   string          `json:"path"` // in the plugin's part of the document
	Have   json.RawMessage `json:"have"`
	Want   json.RawMessage `json:"want"`
}

// A Blocked is a difference that an apply can't mend here.
type Blocked struct {
	Plugin string `json:"plugin"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Nix    string `json:"nix,omitempty"`  // what to write in the host's NixOS configuration instead
	Hint   string `json:"hint,omitempty"` // what else to do
}

// A Plan is the difference between a document and the host, and what an apply
// would do.
type Plan struct {
	Version     int          `json:"version"`
	Hash        string       `json:"hash"`     // of all of this, of the document and of what was read
	Document    string       `json:"document"` // its hash
	Actions     []Action     `json:"actions"`
	Differences []Difference `json:"differences"`
	Blocked     []Blocked    `json:"blocked,omitempty"`
	Warnings    []string     `json:"warnings,omitempty"`

	// Basis is what was read, by plugin.
	Basis map[string]json.RawMessage `json:"basis"`
}

// Empty says whether nothing is to be done.
func (p *Plan) Empty() bool { return len(p.Actions) == 0 && len(p.Blocked) == 0 }

// Irreversible returns the titles of the actions that have no way back.
func (p *Plan) Irreversible() (list []string) {
	for i := range p.Actions {
		if p.Actions[i].Irreversible != "" {
			list = append(list, p.Actions[i].Title())
		}
	}
	return list
}

func (p *Plan) seal() {
	p.Hash = ""
	p.Hash = hashOf(mustJSON(p))
}

func (p *Plan) differs(plugin, path string, have, want any) {
	p.Differences = append(p.Differences, Difference{plugin, path, mustJSON(have), mustJSON(want)})
}

func (p *Plan) block(b Blocked) { p.Blocked = append(p.Blocked, b) }

// An About is what a plugin says of itself.
type About struct {
	Name     string   `json:"name"`
	Doc      string   `json:"doc"`
	ReadOnly bool     `json:"read_only"`
	After    []string `json:"after,omitempty"` // plugins whose actions come before
}

// A Plugin is a part of the host.
type Plugin interface {
	// About says what the plugin is called and what it is for.
	About() About
	// Available returns why the plugin can't be used on this host, "" if it can.
	Available(ctx context.Context) string
	// Read returns the state of what d names, or if d is nil all of it, in the
	// form that a document has.
	Read(ctx context.Context, d *Document) (any, error)
	// Plan adds to p what d wants of this plugin and the host has not, and what
	// it has read.
	Plan(ctx context.Context, d *Document, p *Plan) error
	// Do does an action through g. What it returns is kept for Undo.
	Do(ctx context.Context, g Gate, a *Action, o DoOptions) (kept json.RawMessage, err error)
	// Undo takes an action back; kept is what Do returned, nil if it never
	// did. It is done once or twice, and after a Do that failed, or was cut
	// off, too.
	Undo(ctx context.Context, g Gate, a *Action, kept json.RawMessage) error
}

// A settler has something to do after actions of its were taken back.
type settler interface {
	Settle(ctx context.Context, g Gate, undone []*Action) error
}

// A committer has something to do when a change stays.
type committer interface {
	Commit(ctx context.Context, a *Action, kept json.RawMessage) error
}
