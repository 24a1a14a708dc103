package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A Gate is the choke point. All fields are set before its first use; Policy
// may be replaced with SetPolicy.
type Gate struct {
	Journal   Journal
	Polkit    Authorizer
	Approvals *Approvals
	Spool     *Spool // where the events of a restoring action wait for the log

	// DeferOutcomes has Do return when the outcome is on its way to the log,
	// not when it is there, if the Journal can do that (Deferrer). The log
	// makes it durable before any intent that is recorded later: no action
	// begins while the outcome of one that has returned is not durable. A
	// crash in between leaves an intent without outcome, which is what the
	// log then says: it is not known whether it was done.
	DeferOutcomes bool
	// Lost is called with what became of an outcome that was deferred and
	// could not be recorded; may be nil.
	Lost func(error)

	policy atomic.Pointer[Policy]
	limits limits
}

// SetPolicy makes p the policy from now on.
func (g *Gate) SetPolicy(p *Policy) { g.policy.Store(p) }

// CurrentPolicy returns the policy, one that denies every change if none is
// set.
func (g *Gate) CurrentPolicy() *Policy {
	if p := g.policy.Load(); p != nil {
		return p
	}
	return &Policy{Version: 1}
}

// A DeniedError says that the policy, an approval or a rate limit forbids an
// action.
type DeniedError struct {
	Action   Action
	Decision Decision
	Approval *Approval     // that was asked for, or nil
	Wait     time.Duration // until the rate limit lets it through; 0 if that was not it
}

func (e *DeniedError) Error() string {
	switch {
	case e.Wait > 0:
		return fmt.Sprintf("%s: too many changes, try again in %s", e.Action, e.Wait.Round(time.Second))
	case e.Approval != nil:
		return fmt.Sprintf("%s: it needs a person's approval, which was asked for as %s (%s)", e.Action, e.Approval.ID, e.Decision.Reason)
	case e.Decision.Effect == DryRun:
		return fmt.Sprintf("%s: not done: %s allows a dry run only", e.Action, e.Decision.Reason)
	}
	return fmt.Sprintf("%s: denied: %s", e.Action, e.Decision.Reason)
}

// Hint says what a person can do.
func (e *DeniedError) Hint() string {
	switch {
	case e.Wait > 0:
		return ""
	case e.Approval != nil:
		return "opdbus approvals approve " + e.Approval.ID + ", then the same command again"
	case strings.Contains(e.Decision.Reason, "whatever the policy"):
		return ""
	}
	return "opdbus policy explain shows what the policy says; its file decides"
}

// ExitCode is 75 where the same again may work.
func (e *DeniedError) ExitCode() int {
	if e.Wait > 0 || e.Approval != nil {
		return 75
	}
	return 1
}

// DBusName is the error's name on the bus.
func (e *DeniedError) DBusName() string {
	switch {
	case e.Wait > 0:
		return "org.freedesktop.DBus.Error.LimitsExceeded"
	case e.Approval != nil:
		return "org.freedesktop.opdbus.Error.ApprovalNeeded"
	}
	return "org.freedesktop.DBus.Error.AccessDenied"
}

// A RecordError says that an intent could not be made durable; nothing was
// done.
type RecordError struct{ Err error }

func (e *RecordError) Error() string {
	return fmt.Sprintf("nothing was done: the intent can't be recorded: %v", e.Err)
}
func (e *RecordError) Unwrap() error { return e.Err }

// DBusName is the error's name on the bus.
func (e *RecordError) DBusName() string { return "org.freedesktop.opdbus.Error.NotRecorded" }

// Hint says what a person can do.
func (e *RecordError) Hint() string {
	return "is gb-chain serve running, and may this user write source opdbus?"
}

// Options are for Do.
type Options struct {
	// Restoring says that the action goes back to what was: it is not refused
	// for a log that can't take its intent.
	Restoring bool
	// Parent is the id of the intent that this one is a part of. The rules are
	// asked, but neither polkit nor a person again.
	Parent string
	// DryRun says that the caller wants to know whether it would be done.
	DryRun bool
	// Shown stands for the arguments in the events; nil for the action's.
	Shown json.RawMessage
	// About says in a few words what the action comes to, for the messages of its
	// events; "" for what it says itself.
	About string
	// Parts are the actions that this one is made of. If one of them is denied
	// so is all of it, and if one needs a person all of it does.
	Parts []Action

	// undo says that the action takes back a part of what was allowed: nobody
	// is asked.
	undo bool
}

// An Outcome is what came of an action.
type Outcome struct {
	ID       string        // of intent and outcome
	Decision Decision      // by which it was done
	Took     time.Duration // of act
	Owner    string        // unique name that was called, if it was a call
}

// Do authorises an action of p, records the intent, has act do it, and records
// the outcome. act gets the id of the intent. A read is neither authorised by
// polkit nor recorded.
func (g *Gate) Do(ctx context.Context, p Principal, a Action, o Options, act func(ctx context.Context, id string) (json.RawMessage, error)) (Outcome, error) {
	return g.do(ctx, p, a, o, func(ctx context.Context, out *Outcome) (json.RawMessage, error) { return act(ctx, out.ID) })
}

func (g *Gate) do(ctx context.Context, p Principal, a Action, o Options, act func(ctx context.Context, out *Outcome) (json.RawMessage, error)) (Outcome, error) {
	policy := g.CurrentPolicy()
	d := policy.Decide(p, a)
	var also []string // what polkit is asked about besides
	if o.undo {
		d = Decision{Effect: Allow, Reason: "it takes back what was done", Revision: policy.Revision}
	} else if len(o.Parts) > 0 {
		d, also = policy.withParts(p, d, o.Parts)
	}
	out := Outcome{Decision: d}
	if d.Read {
		traced(ctx, "", d)
		if d.Effect != Allow {
			return out, &DeniedError{Action: a, Decision: d}
		}
		start := time.Now()
		_, err := act(ctx, &out)
		out.Took = time.Since(start)
		return out, err
	}
	out.ID = newID()
	traced(ctx, out.ID, d)
	approval, err := g.authorise(ctx, policy, p, a, d, o, also)
	if err != nil {
		g.refused(ctx, p, a, d, out.ID, err, o)
		return out, err
	}
	if o.DryRun {
		return out, nil
	}
	spooled := false
	if err := g.record(ctx, g.intent(ctx, p, a, d, out.ID, approval, o)); err != nil {
		if !o.Restoring || g.Spool == nil {
			return out, &RecordError{err}
		}
		if err := g.Spool.Add(g.intent(ctx, p, a, d, out.ID, approval, o)); err != nil {
			// Even so: who restores is not stopped. What is left of it is the
			// outcome, and the error.
			out.Decision.Reason += "; the intent is lost: " + err.Error()
		}
		spooled = true
	}
	start := time.Now()
	result, aerr := act(ctx, &out)
	out.Took = time.Since(start)
	line := outcomeLine(p, a, out, result, aerr, spooled, o)
	if later, ok := g.Journal.(Deferrer); ok && g.DeferOutcomes && !o.Restoring {
		later.Defer([][]byte{line}, func(err error) { g.lost(line, err) })
		return out, aerr
	}
	if !spooled {
		if rerr := g.Journal.Record(context.WithoutCancel(ctx), line); rerr != nil {
			// It was done, and the log will show the intent as unresolved
			// until the outcome comes out of the spool.
			if g.Spool != nil {
				rerr = errors.Join(rerr, g.Spool.Add(line))
			}
			return out, errors.Join(aerr, fmt.Errorf("it was done, but the outcome is not recorded: %w", rerr))
		}
		return out, aerr
	}
	if err := g.Spool.Add(line); err != nil {
		return out, errors.Join(aerr, fmt.Errorf("spool: %w", err))
	}
	return out, aerr
}

// lost keeps a deferred outcome that the log did not take.
func (g *Gate) lost(line []byte, err error) {
	err = fmt.Errorf("an action was done, but its outcome is not recorded: %w", err)
	if g.Spool != nil {
		if serr := g.Spool.Add(line); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if g.Lost != nil {
		g.Lost(err)
	}
}

func (g *Gate) record(ctx context.Context, lines ...[]byte) error {
	if g.Journal == nil {
		return errors.New("this program has no log")
	}
	return g.Journal.Record(ctx, lines...)
}

// authorise returns nil if a may be done, and the approval by which it may.
func (g *Gate) authorise(ctx context.Context, policy *Policy, p Principal, a Action, d Decision, o Options, also []string) (*Approval, error) {
	switch d.Effect {
	case Allow, Approve:
	default:
		return nil, &DeniedError{Action: a, Decision: d}
	}
	if o.Parent != "" || o.undo {
		return nil, nil
	}
	if p.lacks(ScopeExecute) {
		return nil, &DeniedError{Action: a, Decision: Decision{Effect: Deny, Rule: d.Rule, Reason: "the client lacks the scope " + ScopeExecute, Revision: d.Revision}}
	}
	// The limit comes before everything that costs a person or polkit time.
	perMinute := policy.perMinute()
	if !o.Restoring {
		if ok, wait := g.limits.take(p.key(), perMinute, time.Now()); !ok {
			return nil, &DeniedError{Action: a, Decision: d, Wait: wait}
		}
		if d.rule != nil && d.rule.PerMinute > 0 {
			if ok, wait := g.limits.take("rule "+d.Rule+" "+p.key(), d.rule.PerMinute, time.Now()); !ok {
				return nil, &DeniedError{Action: a, Decision: d, Wait: wait}
			}
		}
	}
	if d.Polkit != "" && d.Polkit != NoPolkit {
		also = append([]string{d.Polkit}, also...)
	}
	if len(also) > 0 && (p.Entrance == EntranceDBus || p.Entrance == EntranceCLI || p.own()) {
		if g.Polkit == nil {
			return nil, &NotAuthorizedError{Action: also[0], Err: errors.New("this program has no connection to it")}
		}
		for _, action := range also {
			if err := g.Polkit.Authorize(ctx, p, action, details(p, a)); err != nil {
				return nil, err
			}
		}
	}
	if d.Effect != Approve {
		return nil, nil
	}
	if g.Approvals == nil {
		return nil, &DeniedError{Action: a, Decision: d}
	}
	if o.DryRun {
		return nil, nil
	}
	approval, err := g.Approvals.Use(p, a, d.Revision)
	if err != nil {
		return nil, err
	}
	if approval == nil {
		asked, err := g.Approvals.Request(p, a, d)
		if err != nil {
			return nil, err
		}
		return nil, &DeniedError{Action: a, Decision: d, Approval: asked}
	}
	return approval, nil
}

// details are what polkit's rules can look at.
func details(p Principal, a Action) map[string]string {
	return map[string]string{"bus": a.Bus, "name": a.Name, "path": a.Path, "interface": a.Interface, "member": a.Member,
		"kind": a.Kind, "sha256": a.Hash(), "client": p.Actor(), "entrance": p.Entrance}
}

// shown are the arguments as events have them.
func (a Action) shown(o Options) json.RawMessage {
	if o.Shown != nil {
		return o.Shown
	}
	c, err := a.call("x.y")
	if err != nil {
		return json.RawMessage(`"not readable"`)
	}
	args := c.Args
	if a.Kind == KindSet {
		args = bus.Body{Types: args.Types[2:], Values: args.Values[2:]}
		if isSecret(a.Member) {
			args.Values = []any{blank(args.Types[0])}
		}
	}
	return eventArgs(args)
}

type actionData struct {
	Kind      string          `json:"kind"`
	Bus       string          `json:"bus"`
	Name      string          `json:"name"`
	Path      string          `json:"path"`
	Interface string          `json:"interface"`
	Member    string          `json:"member"`
	Signature string          `json:"signature,omitempty"`
	Args      json.RawMessage `json:"args,omitempty"` // without secrets
	SHA256    string          `json:"sha256"`         // of the action with them
}

func (a Action) data(o Options) actionData {
	return actionData{a.Kind, a.Bus, a.Name, a.Path, a.Interface, a.Member, a.Signature, a.shown(o), a.Hash()}
}

// Types of the events of the choke point.
const (
	EventIntent  = "opdbus.intent"
	EventOutcome = "opdbus.outcome"
	EventRefused = "opdbus.refused"
)

func (g *Gate) intent(ctx context.Context, p Principal, a Action, d Decision, id string, approval *Approval, o Options) []byte {
	data := map[string]any{"id": id, "action": a.data(o), "principal": p, "decision": d}
	if o.Parent != "" {
		data["parent"] = o.Parent
	}
	if approval != nil {
		data["approval"] = map[string]any{"id": approval.ID, "approver": approval.Approver}
	}
	data["process"] = thisProcess()
	if deadline, ok := ctx.Deadline(); ok {
		data["deadline"] = deadline.UTC().Format(time.RFC3339Nano)
	}
	return eventLine(event{Time: time.Now(), Source: p.source(), Type: EventIntent, Subject: a.Name, Severity: "notice", Actor: p.Actor(),
		Message: a.told(o), Data: data})
}

// told is the action in the message of an event. Who looks for what happened to a
// bridge must find who asked for it: the name of a method does not say it.
func (a Action) told(o Options) string {
	about := o.About
	if about == "" {
		about = a.about()
	}
	if about == "" {
		return a.String()
	}
	return a.String() + " (" + short(about) + ")"
}

// Words is String, with what applying a plan comes to: for a person who is to
// approve it.
func (a Action) Words() string { return a.told(Options{}) }

// about is what applying a plan comes to, "" for any other action.
func (a Action) about() string {
	if a.Kind != kindOwn || a.Interface != names.BusInterface+".Manager" || a.Member != "Apply" {
		return ""
	}
	args := a.texts()
	var actions []struct{ Title string }
	if len(args) < 2 || json.Unmarshal([]byte(args[1]), &actions) != nil {
		return ""
	}
	var titles []string
	for _, action := range actions {
		titles = append(titles, action.Title)
	}
	return strings.Join(titles, ", ")
}

func outcomeLine(p Principal, a Action, out Outcome, result json.RawMessage, err error, spooled bool, o Options) []byte {
	data := map[string]any{"id": out.ID, "ok": err == nil, "milliseconds": float64(out.Took.Microseconds()) / 1000}
	severity, message := "notice", a.told(o)+": done"
	if err != nil {
		severity, message = "err", a.told(o)+": failed"
		data["error"] = Clean(err.Error())
		var timeout *bus.TimeoutError
		if errors.As(err, &timeout) || errors.Is(err, bus.ErrClosed) {
			data["unknown"] = true // no answer: it may have been done
		}
	}
	if out.Owner != "" {
		data["owner"] = out.Owner
	}
	if len(result) > 0 {
		data["result"] = result
	}
	if spooled {
		data["spooled"] = true
	}
	return eventLine(event{Time: time.Now(), Source: p.source(), Type: EventOutcome, Subject: a.Name, Severity: severity, Actor: p.Actor(), Message: message, Data: data})
}

// maxRefusals is how many refusals of an agent are recorded a minute.
const maxRefusals = 600

// refused records that something was asked for and not done. If that can't be
// recorded it is lost: there is nothing to undo.
func (g *Gate) refused(ctx context.Context, p Principal, a Action, d Decision, id string, why error, o Options) {
	var denied *DeniedError
	if errors.As(why, &denied) && denied.Wait > 0 {
		// A flood of refusals must not flood the log: one a minute.
		if ok, _ := g.limits.take("refused "+p.key(), 1, time.Now()); !ok {
			return
		}
	}
	if p.Entrance == EntranceMCP {
		// An agent that does not stop must not fill the log, either. What is left
		// out here the MCP server counts (Agents.Report).
		if ok, _ := g.limits.take("refusals "+p.key(), maxRefusals, time.Now()); !ok {
			return
		}
	}
	if g.Journal == nil {
		return
	}
	g.Journal.Record(ctx, eventLine(event{Time: time.Now(), Source: p.source(), Type: EventRefused, Subject: a.Name, Severity: "warning", Actor: p.Actor(),
		Message: a.told(o) + ": refused", Data: map[string]any{"id": id, "action": a.data(o), "principal": p, "decision": d, "error": Clean(why.Error())}}))
}

// Call makes a call, of p, on a bus: the only way to one that changes
// something. The owner of the name is looked up first, and the call goes to
// that owner: a name that changes hands in between does not get it. Services
// that can be started are.
func (g *Gate) Call(ctx context.Context, conn *bus.Conn, p Principal, c bus.Call, o Options) (bus.Body, Outcome, error) {
	a, err := NewCall(conn.Address(), c)
	if err != nil {
		return bus.Body{}, Outcome{}, err
	}
	return g.makeCall(ctx, conn, p, a, c, o)
}

// makeCall is Call for the action that NewCall has made of c.
func (g *Gate) makeCall(ctx context.Context, conn *bus.Conn, p Principal, a Action, c bus.Call, o Options) (bus.Body, Outcome, error) {
	read := IsRead(a)
	if !read && strings.HasPrefix(a.Name, ":") {
		return bus.Body{}, Outcome{}, &DeniedError{Action: a, Decision: Decision{Effect: Deny, Reason: "a unique name says nothing about who it is: use the well-known one"}}
	}
	if a.Kind == KindCall && o.Shown == nil && !read {
		o.Shown = eventArgs(c.Args) // as a.shown has it
	}
	var answer bus.Body
	out, err := g.do(ctx, p, a, o, func(ctx context.Context, out *Outcome) (json.RawMessage, error) {
		owner, err := conn.KnownOwner(ctx, a.Name, true)
		if err != nil {
			return nil, err
		}
		out.Owner = owner
		// c is what a was made of, and encodes to the same bytes
		// (TestCallIsAction); unless there is a descriptor in it, which only
		// reading a's JSON finds within variants.
		call := bus.Call{Name: owner, Path: c.Path, Interface: c.Interface, Member: c.Member, Args: c.Args, NoAutoStart: true}
		if strings.ContainsAny(a.Signature, "hv") {
			if call, err = a.call(owner); err != nil {
				return nil, err
			}
		}
		call.Interactive = c.Interactive
		call.NoReply = c.NoReply
		if answer, err = conn.Call(ctx, call); err != nil || read {
			return nil, err
		}
		return eventArgs(answer), nil
	})
	return answer, out, err
}

// Answer records a person's answer to an approval. It is a change itself, by
// which polkit must know the person; the answer of an agent is refused.
func (g *Gate) Answer(ctx context.Context, p Principal, busName, id string, yes bool) (*Approval, error) {
	member := "Deny"
	if yes {
		member = "Approve"
	}
	if p.Entrance == EntranceMCP {
		return nil, &ApprovalError{id, "only a person can answer"}
	}
	a := ownAction(busName, names.BusObject, "Approvals", member, bus.NewBody("s", id))
	var answered *Approval
	o := Options{}
	if asked, err := g.Approvals.Get(id); err == nil {
		o.About = asked.Action.told(o) + ", for " + asked.Principal.Actor()
	}
	_, err := g.Do(ctx, p, a, o, func(context.Context, string) (json.RawMessage, error) {
		var err error
		answered, err = g.Approvals.Answer(id, p, yes)
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]string{"action": answered.Action.String(), "sha256": answered.Hash, "state": answered.State})
	})
	return answered, err
}

// ownAction makes the action of one of our own interfaces' methods.
func ownAction(busName, path, iface, member string, args bus.Body) Action {
	text, err := args.JSON()
	if err != nil { // it came from the bus, or from here
		text = []byte("[]")
	}
	return Action{Kind: kindOwn, Bus: busName, Name: names.BusName, Path: path, Interface: names.BusInterface + "." + iface, Member: member,
		Signature: args.Signature(), Args: text}
}
