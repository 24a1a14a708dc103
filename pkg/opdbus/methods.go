package opdbus

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

func variant(sig string, v any) dbusjson.Variant {
	t, err := dbusjson.ParseType(sig)
	if err != nil {
		panic(err)
	}
	return dbusjson.Variant{Type: t, Value: v}
}

func (d *Daemon) getStatus(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	s, policy := d.look(), d.Gate.CurrentPolicy()
	faults := make([]any, len(s.faults))
	for i, f := range s.faults {
		faults[i] = Clean(f)
	}
	spooled := int64(0)
	if d.Gate.Spool != nil {
		spooled = d.Gate.Spool.Size()
	}
	d.mu.Lock()
	drift := d.drift
	d.mu.Unlock()
	pending := ""
	if c, err := d.host.Engine.Store.Current(); err == nil && c != nil {
		pending = c.ID
	}
	return []any{dbusjson.Dict{
		{Key: "version", Value: variant("s", d.Version)}, {Key: "healthy", Value: variant("b", s.healthy())}, {Key: "faults", Value: variant("as", faults)},
		{Key: "log_size", Value: variant("t", uint64(s.size))}, {Key: "log_root", Value: variant("s", s.root)},
		{Key: "policy", Value: variant("s", policy.Revision)}, {Key: "rules", Value: variant("u", uint32(len(policy.Rules)))},
		{Key: "spooled", Value: variant("t", uint64(spooled))},
		{Key: "pending", Value: variant("s", pending)}, {Key: "drift", Value: variant("u", uint32(drift))},
	}}, nil
}

// Bounds of Query.
const (
	defaultQuery = 100
	maxQuery     = 1000
	maxAnswer    = 8 << 20 // bytes
)

// filter reads the argument of Query.
func filter(in dbusjson.Dict) (chain.QueryOptions, error) {
	o := chain.QueryOptions{Reverse: true, Last: defaultQuery}
	for _, e := range in {
		key, v := e.Key.(string), e.Value.(dbusjson.Variant)
		var list []string
		switch x := v.Value.(type) {
		case string:
			list = []string{x}
		case []any:
			for _, item := range x {
				s, ok := item.(string)
				if !ok {
					return o, unknown("InvalidArgs", "filter %q is of type %s, want s or as", key, v.Type)
				}
				list = append(list, s)
			}
		case uint32:
			if key != "limit" || x == 0 || x > maxQuery {
				return o, unknown("InvalidArgs", "filter %q: want limit from 1 to %d", key, maxQuery)
			}
			o.Last = int64(x)
			continue
		}
		if len(list) == 0 {
			return o, unknown("InvalidArgs", "filter %q of type %s says nothing", key, v.Type)
		}
		switch key {
		case "source":
			o.Sources = list
		case "type":
			o.Types = list
		case "actor":
			o.Actors = list
		case "subject":
			o.Subjects = list
		case "host":
			o.Hosts = list
		case "since", "until":
			t, err := chain.ParseTime(list[0], time.Now())
			if err != nil || len(list) != 1 {
				return o, unknown("InvalidArgs", "filter %q: want one time", key)
			}
			if key == "since" {
				o.Since = t
			} else {
				o.Until = t
			}
		default:
			return o, unknown("InvalidArgs", "filter %q is not known", key)
		}
	}
	return o, nil
}

func (d *Daemon) query(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	o, err := filter(in.Args.Values[0].(dbusjson.Dict))
	if err != nil {
		return nil, err
	}
	lines, size := []any{}, 0
	verdict, err := chain.Query(ctx, os.DirFS(d.LogDir), o, func(_ *logevent.Event, line []byte) error {
		if size += len(line); size > maxAnswer {
			return unknown("LimitsExceeded", "the answer is longer than %d bytes: ask for less", maxAnswer)
		}
		lines = append(lines, string(line))
		return nil
	})
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(verdict)
	return []any{lines, string(text)}, err
}

func (d *Daemon) verify(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	live, frozen, err := chain.Writing(d.LogDir)
	if err != nil {
		return nil, err
	}
	report, err := chain.Verify(ctx, os.DirFS(d.LogDir), chain.VerifyOptions{Live: live, Frozen: frozen})
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(report)
	return []any{report.OK, string(text)}, err
}

// UnresolvedSince is how far back open intents are looked for.
const UnresolvedSince = 7 * 24 * time.Hour

func (d *Daemon) unresolved(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	now := time.Now()
	list, err := Unresolved(ctx, os.DirFS(d.LogDir), now.Add(-UnresolvedSince), now)
	if err != nil {
		return nil, err
	}
	out := make([]any, len(list))
	for i, o := range list {
		out[i] = []any{uint64(o.Index), o.Time.Format(time.RFC3339Nano), o.Actor, o.Message}
	}
	return []any{out}, nil
}

// callOf reads the arguments that callArgs describes.
func callOf(in bus.Incoming) (bus.Call, error) {
	v := in.Args.Values
	c := bus.Call{Name: v[0].(string), Path: string(v[1].(dbusjson.Path)), Interface: v[2].(string), Member: v[3].(string), Interactive: in.Interactive}
	types, err := dbusjson.ParseSignature(v[4].(string))
	if err != nil {
		return c, unknown("InvalidArgs", "signature: %v", err)
	}
	values, err := dbusjson.UnmarshalArgs([]byte(v[5].(string)), types)
	if err != nil {
		return c, unknown("InvalidArgs", "arguments: %s", Clean(err.Error()))
	}
	c.Args = bus.Body{Types: types, Values: values}
	if !dbusjson.ValidBusName(c.Name) || !dbusjson.ValidInterface(c.Interface) || !dbusjson.ValidMember(c.Member) {
		return c, unknown("InvalidArgs", "%.260q %.260q %.260q: not the name of a service, an interface and a method", c.Name, c.Interface, c.Member)
	}
	return c, nil
}

func (d *Daemon) call(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	c, err := callOf(in)
	if err != nil {
		return nil, err
	}
	if c.Name == names.BusName {
		// It would come back as root's.
		return nil, unknown("AccessDenied", "call %s yourself", names.BusName)
	}
	a, err := NewCall(d.server.Address(), c)
	if err != nil {
		return nil, err
	}
	if IsRead(a) {
		// The service would answer root.
		if err := d.maySee(ctx, p); err != nil {
			return nil, err
		}
	}
	answer, _, err := d.Gate.makeCall(ctx, d.server.Conn, p, a, c, Options{})
	if err != nil {
		return nil, err
	}
	text, err := answer.JSON()
	return []any{answer.Signature(), string(text)}, err
}

func (d *Daemon) explain(_ context.Context, p Principal, in bus.Incoming) ([]any, error) {
	c, err := callOf(in)
	if err != nil {
		return nil, err
	}
	a, err := NewCall(d.server.Address(), c)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(d.Gate.CurrentPolicy().Decide(p, a))
	return []any{string(text)}, err
}

// maySeeApproval: an agent sees its own.
func maySeeApproval(p Principal, a *Approval) bool {
	return p.Entrance != EntranceMCP || a.Principal.key() == p.key()
}

func (d *Daemon) approvalsList(_ context.Context, p Principal, _ bus.Incoming) ([]any, error) {
	list, err := d.Gate.Approvals.List()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(a Approval) bool { return !maySeeApproval(p, &a) })
	out := make([]any, len(list))
	for i := range list {
		text, err := json.Marshal(list[i].shownTo(p))
		if err != nil {
			return nil, err
		}
		out[i] = string(text)
	}
	return []any{out}, nil
}

func (d *Daemon) approvalsGet(_ context.Context, p Principal, in bus.Incoming) ([]any, error) {
	id := in.Args.Values[0].(string)
	a, err := d.Gate.Approvals.Get(id)
	if err != nil {
		return nil, err
	}
	if !maySeeApproval(p, a) {
		return nil, &ApprovalError{id, "there is none of that name"}
	}
	text, err := json.Marshal(a.shownTo(p))
	return []any{string(text)}, err
}

// shownTo is an approval as somebody sees it: in a browser, where more people
// look than may answer, without the secrets in its arguments. Its hash stays that
// of the action with them.
func (a Approval) shownTo(p Principal) Approval {
	if p.Entrance == EntranceWeb {
		a.Action.Args = a.Action.shown(Options{})
	}
	return a
}

func (d *Daemon) approve(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	return d.answer(ctx, p, in, true)
}

func (d *Daemon) deny(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	return d.answer(ctx, p, in, false)
}

func (d *Daemon) answer(ctx context.Context, p Principal, in bus.Incoming, yes bool) ([]any, error) {
	a, err := d.Gate.Answer(ctx, p, d.server.Address(), in.Args.Values[0].(string), yes)
	if err != nil {
		return nil, err
	}
	d.emit("Approvals", "Answered", bus.NewBody("ss", a.ID, a.State))
	return []any{a.State}, nil
}

func (d *Daemon) search(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	limit := in.Args.Values[1].(uint32)
	if limit > maxQuery {
		return nil, unknown("InvalidArgs", "limit %d: want at most %d", limit, maxQuery)
	}
	return d.ask(ctx, search.Request{Question: in.Args.Values[0].(string), Limit: int(limit)})
}

func (d *Daemon) ask(ctx context.Context, r search.Request) ([]any, error) {
	hits, end, err := search.AskSocket(ctx, d.SearchSocket, r)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	out := make([]any, len(hits))
	for i := range hits {
		text, err := json.Marshal(hits[i])
		if err != nil {
			return nil, err
		}
		out[i] = string(text)
	}
	text, err := json.Marshal(end)
	return []any{out, string(text)}, err
}
