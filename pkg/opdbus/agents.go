package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// Scopes of an agent's token.
const (
	ScopeRead    = "read"    // look
	ScopePropose = "propose" // make plans, and ask for approvals
	ScopeExecute = "execute" // change what policy and people allow
)

// An Agent is what the MCP server says of the agent for which it calls. All of
// it is for the record; what may be done goes by the principal's Client and
// Scopes.
type Agent struct {
	Session string `json:"session,omitempty"` // of the protocol
	Program string `json:"program,omitempty"` // what the client calls itself: anybody's words
	Tool    string `json:"tool,omitempty"`
	SHA256  string `json:"arguments_sha256,omitempty"` // of the tool's arguments, as they came
}

// A Claim says for whom the MCP server calls.
type Claim struct {
	// Client is the name of the token. Only the MCP server's user may claim
	// one. Without it the agent is the caller's own: user:NAME.
	Client string   `json:"client,omitempty"`
	Scopes []string `json:"scopes"`
	Call   string   `json:"call,omitempty"` // by which Cancel names the call
	Agent
}

const (
	ownAgent = "user:" // begins the client of an agent without a token
	maxClaim = 4 << 10
	maxWord  = 200 // bytes of a text in a Claim
)

// clientName is how a token may be called.
var clientName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidClient says whether a token may have that name.
func ValidClient(name string) bool { return clientName.MatchString(name) }

// own says whether p is an agent that some user has started, without a token:
// it is asked for by polkit like that user.
func (p Principal) own() bool {
	return p.Entrance == EntranceMCP && strings.HasPrefix(p.Client, ownAgent)
}

// lacks says whether p is an agent whose token lacks a scope.
func (p Principal) lacks(scope string) bool {
	return p.Entrance == EntranceMCP && !slices.Contains(p.Scopes, scope)
}

// source is the source of the events about what p does.
func (p Principal) source() string {
	if p.Entrance == EntranceMCP {
		return "mcp"
	}
	return "opdbus"
}

// agent makes the principal of a claim out of who has made it.
func (d *Daemon) agent(caller Principal, text string) (Principal, Claim, error) {
	var c Claim
	if len(text) > maxClaim {
		return caller, c, unknown("InvalidArgs", "a claim of %d bytes", len(text))
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return caller, c, unknown("InvalidArgs", "claim: %s", Clean(err.Error()))
	}
	for _, s := range []*string{&c.Session, &c.Program, &c.Tool, &c.SHA256, &c.Call} {
		if *s = Clean(*s); len(*s) > maxWord {
			*s = strings.ToValidUTF8((*s)[:maxWord], "")
		}
	}
	p := caller
	p.Entrance, p.Scopes, p.Agent = EntranceMCP, c.Scopes, &c.Agent
	switch {
	case c.Client == "":
		name := p.User
		if name == "" {
			name = strconv.FormatUint(uint64(p.UID), 10)
		}
		p.Client = ownAgent + name
		return p, c, nil
	case !ValidClient(c.Client):
		return caller, c, unknown("InvalidArgs", "%.100q is no client's name", c.Client)
	case !d.isServer(caller.UID):
		return caller, c, unknown("AccessDenied", "uid %d may not speak for client %s: only the MCP server may", caller.UID, c.Client)
	}
	// The token stands for it: neither the server's groups nor its connection do.
	p.Client, p.Subject, p.Groups, p.Interactive = c.Client, "", nil, false
	return p, c, nil
}

// isServer says whether uid is the MCP server's user. Who that is is looked up
// once: a user that is made later needs a restart, as the package does one.
func (d *Daemon) isServer(uid uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mcpUID == "" {
		name := d.MCPUser
		if name == "" {
			name = names.MCPUser
		}
		u, err := user.Lookup(name)
		if err != nil {
			return false
		}
		d.mcpUID = u.Uid
	}
	return d.mcpUID == strconv.FormatUint(uint64(uid), 10)
}

// An agentTrace collects what the Gate decides during a call.
type agentTrace struct {
	mu       sync.Mutex
	id       string
	decision *Decision
}

type traceKey struct{}

func traced(ctx context.Context, id string, d Decision) {
	if t, ok := ctx.Value(traceKey{}).(*agentTrace); ok {
		t.mu.Lock()
		if t.decision == nil { // that of the call, not of its parts
			t.id, t.decision = id, &d
		}
		t.mu.Unlock()
	}
}

// An AgentAnswer is what Agents.Call answers, as JSON.
type AgentAnswer struct {
	OK        bool            `json:"ok"`
	Signature string          `json:"signature,omitempty"`
	Results   json.RawMessage `json:"results,omitempty"`
	Error     *ForwardedError `json:"error,omitempty"`
	ID        string          `json:"id,omitempty"`       // of intent and outcome, if it was a change
	Decision  *Decision       `json:"decision,omitempty"` // of the policy, if it was asked
	Approval  *Approval       `json:"approval,omitempty"` // that is needed
}

// scopeOf is what an agent needs for one of our methods. What Bus.Call needs
// is seen from what it calls, and changes are seen to by the Gate.
func scopeOf(f *iface, m *method) string {
	switch {
	case m.kind == proposing:
		return ScopePropose
	case m.kind == changing && f.name != names.BusInterface+".Bus":
		return ScopeExecute
	}
	return ScopeRead
}

// agentCall answers Agents.Call.
func (d *Daemon) agentCall(ctx context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	v := in.Args.Values
	p, c, err := d.agent(caller, v[0].(string))
	if err != nil {
		return nil, err
	}
	types, err := dbusjson.ParseSignature(v[4].(string))
	if err != nil {
		return nil, unknown("InvalidArgs", "signature: %v", err)
	}
	values, err := dbusjson.UnmarshalArgs([]byte(v[5].(string)), types)
	if err != nil {
		return nil, unknown("InvalidArgs", "arguments: %s", Clean(err.Error()))
	}
	inner := bus.Incoming{Sender: in.Sender, Path: string(v[1].(dbusjson.Path)), Interface: v[2].(string), Member: v[3].(string),
		Args: bus.Body{Types: types, Values: values}, Interactive: in.Interactive && p.own()}
	if !strings.HasPrefix(inner.Interface, names.BusInterface+".") || inner.Interface == agentsInterface {
		return nil, unknown("UnknownInterface", "an agent has nothing to do with interface %.260q", inner.Interface)
	}
	f, m, err := findMethod(inner)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.Call != "" {
		if err := d.running.add(in.Sender, c.Call, cancel); err != nil {
			return nil, err
		}
		defer d.running.remove(in.Sender, c.Call)
	}
	t := &agentTrace{}
	body, err := bus.Body{}, error(nil)
	if scope := scopeOf(f, m); p.lacks(scope) {
		a := Action{Kind: KindCall, Bus: d.Address, Name: names.BusName, Path: inner.Path, Interface: f.name, Member: m.Name, Signature: v[4].(string), Args: json.RawMessage(v[5].(string))}
		err = d.Gate.lacking(ctx, p, a, scope)
	} else {
		body, err = d.dispatch(context.WithValue(ctx, traceKey{}, t), p, f, m, inner)
	}
	answer := AgentAnswer{OK: err == nil, ID: t.id, Decision: t.decision}
	if err == nil {
		answer.Signature = body.Signature()
		answer.Results, err = body.JSON()
	}
	if err != nil {
		answer.OK, answer.Error = false, forwardedError(err)
		var denied *DeniedError
		if errors.As(err, &denied) {
			answer.Approval, answer.Decision = denied.Approval, &denied.Decision
		}
	}
	text, err := json.Marshal(answer)
	return []any{string(text)}, err
}

// lacking records that an agent's token lacks a scope, and returns that as an
// error.
func (g *Gate) lacking(ctx context.Context, p Principal, a Action, scope string) error {
	d := Decision{Effect: Deny, Reason: "the client lacks the scope " + scope, Revision: g.CurrentPolicy().Revision}
	id := newID()
	traced(ctx, id, d)
	err := &DeniedError{Action: a, Decision: d}
	g.refused(ctx, p, a, d, id, err, Options{Shown: json.RawMessage("[]")})
	return err
}

// running are the calls of agents that can be cancelled, by who has called and
// the name that the caller gave.
type running struct {
	mu    sync.Mutex
	calls map[[2]string]context.CancelFunc
}

func (r *running) add(sender, call string, cancel context.CancelFunc) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := [2]string{sender, call}
	if r.calls[key] != nil {
		return unknown("InvalidArgs", "a call %.100q is under way", call)
	}
	if r.calls == nil {
		r.calls = map[[2]string]context.CancelFunc{}
	}
	r.calls[key] = cancel
	return nil
}

func (r *running) remove(sender, call string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.calls, [2]string{sender, call})
}

func (r *running) cancel(sender, call string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cancel := r.calls[[2]string{sender, call}]
	if cancel != nil {
		cancel()
	}
	return cancel != nil
}

func (d *Daemon) agentCancel(_ context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	return []any{d.running.cancel(in.Sender, in.Args.Values[0].(string))}, nil
}

// A Step is something that an agent has done with the MCP server, as
// Agents.Report takes it: what it has seen, or was refused before it came to
// the Gate. Changes are recorded by the Gate, before and after, beside this.
type Step struct {
	Time    time.Time `json:"time"`
	Client  string    `json:"client,omitempty"` // as in a Claim
	Method  string    `json:"method"`           // of the protocol, like tools/call
	Subject string    `json:"subject,omitempty"`
	Outcome string    `json:"outcome"` // done, failed, refused, approval, cancelled
	Rule    string    `json:"rule,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Error   string    `json:"error,omitempty"`
	ID      string    `json:"id,omitempty"`       // of intent and outcome
	Count   int       `json:"count,omitempty"`    // of like ones, if there were several
	Took    float64   `json:"milliseconds"`       // the longest of them
	Expires string    `json:"expires,omitempty"`  // of an approval
	Request string    `json:"approval,omitempty"` // the approval's ID
	Agent
}

const (
	maxSteps        = 256
	reportPerMinute = 1200 // steps of a caller that is not the MCP server
)

var (
	stepMethod  = regexp.MustCompile(`^[a-z]+(/[a-zA-Z_]+){0,2}$`)
	stepOutcome = []string{"done", "failed", "refused", "approval", "cancelled", "dropped"}
)

// agentReport answers Agents.Report.
func (d *Daemon) agentReport(ctx context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	list := in.Args.Values[0].([]any)
	if len(list) == 0 || len(list) > maxSteps {
		return nil, unknown("InvalidArgs", "%d steps: want 1 to %d", len(list), maxSteps)
	}
	server := d.isServer(caller.UID)
	lines := make([][]byte, 0, len(list))
	for _, item := range list {
		var s Step
		if text := item.(string); len(text) > maxClaim {
			return nil, unknown("InvalidArgs", "a step of %d bytes", len(text))
		} else if err := json.Unmarshal([]byte(text), &s); err != nil {
			return nil, unknown("InvalidArgs", "step: %s", Clean(err.Error()))
		}
		if !stepMethod.MatchString(s.Method) || !slices.Contains(stepOutcome, s.Outcome) {
			return nil, unknown("InvalidArgs", "step: method %.50q, outcome %.50q", s.Method, s.Outcome)
		}
		switch {
		case s.Client == "" || !server:
			if s.Client = ownAgent + caller.User; caller.User == "" {
				s.Client += strconv.FormatUint(uint64(caller.UID), 10)
			}
		case !ValidClient(s.Client) && s.Client != "-":
			return nil, unknown("InvalidArgs", "%.100q is no client's name", s.Client)
		}
		if !server {
			if ok, _ := d.Gate.limits.take("report "+caller.key(), reportPerMinute, time.Now()); !ok {
				return nil, unknown("LimitsExceeded", "more than %d steps a minute", reportPerMinute)
			}
		}
		lines = append(lines, s.line(caller))
	}
	if d.Gate.Journal == nil {
		return []any{uint32(0)}, nil
	}
	if err := d.Gate.Journal.Record(ctx, lines...); err != nil {
		return nil, &RecordError{err}
	}
	return []any{uint32(len(lines))}, nil
}

func (s Step) line(caller Principal) []byte {
	for _, t := range []*string{&s.Subject, &s.Rule, &s.Reason, &s.Error, &s.ID, &s.Expires, &s.Request, &s.Session, &s.Program, &s.Tool, &s.SHA256} {
		if *t = Redact(stringType, *t).(string); len(*t) > 1<<10 {
			*t = strings.ToValidUTF8((*t)[:1<<10], "") + "..."
		}
	}
	severity := "info"
	switch s.Outcome {
	case "refused":
		severity = "warning"
	case "approval":
		severity = "notice"
	case "failed", "dropped":
		severity = "notice"
	}
	message := "agent " + s.Client + ": " + s.Method
	if s.Subject != "" {
		message += " " + s.Subject
	}
	message += ": " + s.Outcome
	at := s.Time
	if now := time.Now(); at.IsZero() || at.After(now) || now.Sub(at) > time.Hour {
		at = now
	}
	return eventLine(event{Time: at, Source: "mcp", Type: "mcp." + strings.ReplaceAll(s.Method, "/", "."), Subject: s.Subject, Severity: severity,
		Actor: EntranceMCP + ":" + s.Client, Message: message, Data: struct {
			Step
			UID uint32 `json:"uid"` // of the MCP server
		}{s, caller.UID}})
}

const agentsInterface = names.BusInterface + ".Agents"

// The interface refers to methods that look through all interfaces.
func init() {
	interfaces = append(interfaces, iface{
		path: names.BusObject, name: agentsInterface,
		doc: "The entrance of AI agents, for the MCP server: calls of this daemon's methods in an agent's name. Only the MCP server's user may name a client; of others the agent is user:NAME, and polkit is asked about them.",
		methods: []method{
			{Method: dbusjson.Method{Name: "Call", Doc: "Calls one of this daemon's methods for an agent. What the agent may is in the policy, under mcp and mcp:CLIENT.",
				In: args(arg("claim", "s", "JSON: client, scopes, call, session, program, tool, arguments_sha256."), arg("path", "o", "Object."), arg("interface", "s", ""), arg("member", "s", ""),
					arg("signature", "s", "Signature of the arguments."), arg("arguments", "s", "JSON array of them.")),
				Out: args(arg("answer", "s", "JSON: ok, signature, results, or error (name, message, hint); decision, id, approval."))}, kind: agents, do: (*Daemon).agentCall},
			{Method: dbusjson.Method{Name: "Cancel", Doc: "Cancels a call of this connection.", In: args(arg("call", "s", "As in the claim.")), Out: args(arg("found", "b", ""))}, kind: agents, do: (*Daemon).agentCancel},
			{Method: dbusjson.Method{Name: "Report", Doc: "Records what agents have seen or were refused, with source mcp.", In: args(arg("steps", "as", "JSON objects: time, client, method, subject, outcome and more.")),
				Out: args(arg("recorded", "u", ""))}, kind: agents, do: (*Daemon).agentReport},
		},
	})
}

// ask asks for an approval of what p means to do, without doing it.
func (g *Gate) ask(ctx context.Context, p Principal, a Action) (*Approval, Decision, error) {
	d := g.CurrentPolicy().Decide(p, a)
	id := newID()
	traced(ctx, id, d)
	fail := func(err error) (*Approval, Decision, error) {
		g.refused(ctx, p, a, d, id, err, Options{})
		return nil, d, err
	}
	switch {
	case d.Read:
		return nil, d, fmt.Errorf("%s: it changes nothing and needs no approval", a)
	case d.Effect == Allow:
		return nil, d, fmt.Errorf("%s: %s: it needs no approval", a, d.Reason)
	case d.Effect != Approve || g.Approvals == nil:
		return fail(&DeniedError{Action: a, Decision: d})
	}
	if ok, wait := g.limits.take(p.key(), g.CurrentPolicy().perMinute(), time.Now()); !ok {
		return fail(&DeniedError{Action: a, Decision: d, Wait: wait})
	}
	asked, err := g.Approvals.Request(p, a, d)
	if err != nil {
		return fail(err)
	}
	g.refused(ctx, p, a, d, id, &DeniedError{Action: a, Decision: d, Approval: asked}, Options{})
	return asked, d, nil
}

// approvalsRequest answers Approvals.Request.
func (d *Daemon) approvalsRequest(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	c, err := callOf(in)
	if err != nil {
		return nil, err
	}
	a, err := NewCall(d.server.Address(), c)
	if err != nil {
		return nil, err
	}
	if c.Name == names.BusName {
		return nil, unknown("AccessDenied", "%s is called itself", names.BusName)
	}
	asked, _, err := d.Gate.ask(ctx, p, a)
	if err != nil {
		return nil, err
	}
	d.emit("Approvals", "Requested", bus.NewBody("s", asked.ID))
	text, err := json.Marshal(asked)
	return []any{string(text)}, err
}

// tokensInterface is that of actions which let agents in; it is not on the bus.
const tokensInterface = names.BusInterface + ".Tokens"

// ChangeToken has do add a token or take one away (member is Add or Remove).
// It is a change for which polkit must know the person; which agent gets in is
// nothing that an agent has a say in.
func (g *Gate) ChangeToken(ctx context.Context, p Principal, busName, member, name string, scopes []string, dryRun bool, do func() error) error {
	if p.Entrance == EntranceMCP {
		return errors.New("only a person can change which agents are let in")
	}
	a := ownAction(busName, names.BusObject, "Tokens", member, bus.NewBody("ss", name, strings.Join(scopes, ",")))
	_, err := g.Do(ctx, p, a, Options{DryRun: dryRun}, func(context.Context, string) (json.RawMessage, error) { return nil, do() })
	return err
}
