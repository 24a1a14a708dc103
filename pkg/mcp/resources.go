package mcp

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

//go:embed guide.md
var guide string

const (
	guideURI   = "doc://ghostbridge/agents"
	policyURI  = "policy://effective"
	eventsURI  = "audit://events"
	jsonType   = "application/json"
	systemName = "system"
)

func (s *Server) addResources(srv *mcp.Server) {
	srv.AddResource(&mcp.Resource{URI: guideURI, Name: "guide", Title: "Guide for agents", MIMEType: "text/markdown", Description: "How policy, approvals and the log work, and how to go about a change."},
		func(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: guideURI, MIMEType: "text/markdown", Text: guide}}}, nil
		})
	srv.AddResource(&mcp.Resource{URI: policyURI, Name: "policy", Title: "Policy in force", MIMEType: jsonType, Description: "The rules of the host's policy that can match this client, in their order."}, s.readResource)
	srv.AddResource(&mcp.Resource{URI: eventsURI, Name: "events", Title: "Newest events", MIMEType: jsonType, Description: "The newest events of the log. It can be subscribed to."}, s.readResource)
	for _, t := range []mcp.ResourceTemplate{
		{URITemplate: "dbus://{bus}/{name}{+path}", Name: "object", Title: "D-Bus object", Description: "What an object on a bus (system) says of itself: interfaces, methods, properties, signals, children."},
		{URITemplate: "audit://events/{index}", Name: "event", Title: "Event", Description: "One event of the log, and whether it is proved to be in it."},
		{URITemplate: "state://units/{unit}", Name: "unit", Title: "State of a unit", Description: "What systemd knows of a unit. It can be subscribed to."},
	} {
		t.MIMEType = jsonType
		srv.AddResourceTemplate(&t, s.readResource)
	}
}

// readResource reads a resource that is made of what the daemon says.
func (s *Server) readResource(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	who := s.who(req)
	c := &call{claim: &who, s: s, req: &mcp.CallToolRequest{Session: req.Session, Params: &mcp.CallToolParamsRaw{}}, note: noteOf(ctx)}
	v, err := c.resource(ctx, req.Params.URI)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("%s is %d bytes long, more than %d", clean(req.Params.URI, 200), len(b), maxAnswer)
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: jsonType, Text: string(b)}}}, nil
}

func (c *call) resource(ctx context.Context, uri string) (any, error) {
	missing := mcp.ResourceNotFoundError(clean(uri, 300))
	if len(uri) > 1024 {
		return nil, missing
	}
	switch {
	case uri == policyURI:
		results, err := c.daemon(ctx, "Policy", "Effective", bus.Body{})
		if err != nil {
			return nil, asWire(err)
		}
		said, err := text(results, 0)
		return json.RawMessage(said), err
	case uri == eventsURI:
		return orWire(searchLog(ctx, c, searchIn{}))
	case strings.HasPrefix(uri, eventsURI+"/"):
		i, err := strconv.ParseInt(strings.TrimPrefix(uri, eventsURI+"/"), 10, 64)
		if err != nil || i < 0 {
			return nil, missing
		}
		return orWire(readEvent(ctx, c, eventIn{Index: i, Proof: true}))
	case strings.HasPrefix(uri, "state://units/"):
		unit, err := url.PathUnescape(strings.TrimPrefix(uri, "state://units/"))
		if err != nil || checkUnit(unit) != nil {
			return nil, missing
		}
		return orWire(unitStatus(ctx, c, unitIn{Unit: unit}))
	case strings.HasPrefix(uri, "dbus://"):
		where, rest, _ := strings.Cut(strings.TrimPrefix(uri, "dbus://"), "/")
		name, path, _ := strings.Cut(rest, "/")
		if path = "/" + path; where != systemName || !dbusjson.ValidBusName(name) || !dbusjson.ValidPath(path) {
			return nil, missing
		}
		node, err := c.introspect(ctx, name, path)
		if err != nil {
			return nil, asWire(err)
		}
		b, err := json.Marshal(node)
		if err != nil {
			return nil, err
		}
		if len(b) > maxAnswer {
			return nil, fmt.Errorf("%s is %d bytes long", clean(uri, 200), len(b))
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		return map[string]any{"name": name, "path": path, "object": cleanAny(v), "untrusted": true}, nil
	}
	return nil, missing
}

func orWire[T any](v T, err error) (any, error) { return v, asWire(err) }

// asWire makes an error of a call one of the protocol.
func asWire(err error) error {
	if err == nil {
		return nil
	}
	return &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: clean(err.Error(), maxText)}
}

// subscriptions look at what clients have subscribed to, and say when it is
// another than before.
type subscriptions struct {
	s *Server

	mu   sync.Mutex
	seen map[string]*watched // by client and URI
	stop context.CancelFunc
	done chan struct{}
}

type watched struct {
	uri   string
	who   claim
	users int

	mu    sync.Mutex
	last  [sha256.Size]byte
	known bool
}

const (
	lookEvery        = 2 * time.Second
	maxSubscriptions = 256
)

func newSubscriptions(s *Server) *subscriptions {
	ctx, stop := context.WithCancel(context.Background())
	b := &subscriptions{s: s, seen: map[string]*watched{}, stop: stop, done: make(chan struct{})}
	go b.run(ctx)
	return b
}

func (b *subscriptions) close() {
	b.stop()
	<-b.done
}

// canSubscribe says whether a resource changes and may be subscribed to.
func canSubscribe(uri string) bool {
	return fixtures != nil || uri == policyURI || uri == eventsURI || strings.HasPrefix(uri, "state://units/") && len(uri) < 300
}

func (b *subscriptions) subscribe(ctx context.Context, req *mcp.SubscribeRequest) error {
	uri := req.Params.URI
	if !canSubscribe(uri) {
		return mcp.ResourceNotFoundError(clean(uri, 300))
	}
	// The SDK makes a request of its own for subscriptions/listen, which does not
	// say who it is from.
	who, ok := ctx.Value(whoKey{}).(claim)
	if !ok {
		who = b.s.who(req)
	}
	w, err := b.add(who, uri, req.Session)
	if err != nil {
		return err
	}
	b.changed(ctx, w) // how it is now: what changes from here on is told
	return nil
}

func (b *subscriptions) add(who claim, uri string, session *mcp.ServerSession) (*watched, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := who.Client + " " + uri
	w := b.seen[key]
	if w == nil {
		if len(b.seen) >= maxSubscriptions {
			return nil, fmt.Errorf("there are %d subscriptions already", len(b.seen))
		}
		who.Tool, who.Call = "", ""
		w = &watched{uri: uri, who: who}
		b.seen[key] = w
	}
	w.users++
	if session != nil {
		// A session that ends does not unsubscribe.
		go func() {
			session.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			b.drop(key, w)
		}()
	}
	return w, nil
}

// drop is called with b.mu held.
func (b *subscriptions) drop(key string, w *watched) {
	if w.users--; w.users <= 0 && b.seen[key] == w {
		delete(b.seen, key)
	}
}

func (b *subscriptions) unsubscribe(_ context.Context, req *mcp.UnsubscribeRequest) error {
	// What is looked at goes by the sessions: the end of each takes it away.
	return nil
}

func (b *subscriptions) run(ctx context.Context) {
	defer close(b.done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		var list []*watched
		for _, w := range b.seen {
			list = append(list, w)
		}
		b.mu.Unlock()
		for _, w := range list {
			if b.changed(ctx, w) {
				for _, srv := range b.s.protocolServers() {
					srv.ResourceUpdated(ctx, &mcp.ResourceUpdatedNotificationParams{URI: w.uri})
				}
			}
		}
	}
}

// changed says whether a resource is another than it was the last time.
func (b *subscriptions) changed(ctx context.Context, w *watched) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &call{claim: &w.who, s: b.s, req: &mcp.CallToolRequest{Params: &mcp.CallToolParamsRaw{}}, note: &note{}}
	v, err := c.resource(ctx, w.uri)
	if err != nil {
		return false
	}
	if u, ok := v.(unitOut); ok {
		// Counters change all the time, and say nothing of the unit's state.
		for _, k := range []string{"MemoryCurrent", "MemoryPeak", "CPUUsageNSec", "TasksCurrent"} {
			delete(u.Properties, k)
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := w.known && sum != w.last
	w.last, w.known = sum, true
	return changed
}

// complete answers completion/complete: names of the bus, objects, units and
// indexes of events, for templates and prompts.
func (s *Server) complete(ctx context.Context, req *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
	who := s.who(req)
	res := &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: []string{}}}
	if req.Params.Ref == nil || !contains(who.Scopes, ScopeRead) {
		return res, nil
	}
	c := &call{claim: &who, s: s, req: &mcp.CallToolRequest{Session: req.Session, Params: &mcp.CallToolParamsRaw{}}, note: noteOf(ctx)}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	given := req.Params.Argument.Value
	known := map[string]string{}
	if req.Params.Context != nil {
		known = req.Params.Context.Arguments
	}
	var list []string
	var err error
	switch req.Params.Argument.Name {
	case "bus":
		list = []string{systemName}
	case "name", "service":
		var out findOut
		out, err = findServices(ctx, c, findIn{page: page{Limit: 5000}})
		for _, s := range out.Services {
			list = append(list, s.Name)
		}
	case "path":
		name := known["name"]
		if name == "" {
			name = known["service"]
		}
		if dbusjson.ValidBusName(name) {
			list, _, err = c.objects(ctx, name)
		}
	case "interface", "member":
		var node *dbusjson.Node
		if target(known["name"], known["path"], "", "") == nil && known["path"] != "" {
			if node, err = c.introspect(ctx, known["name"], known["path"]); err == nil {
				for _, i := range node.Interfaces {
					if req.Params.Argument.Name == "interface" {
						list = append(list, i.Name)
					} else if i.Name == known["interface"] {
						for _, m := range i.Methods {
							list = append(list, m.Name)
						}
					}
				}
			}
		}
	case "unit":
		var out listUnitsOut
		out, err = listUnits(ctx, c, listUnitsIn{page: page{Limit: 5000}})
		for _, u := range out.Units {
			list = append(list, u.Unit)
		}
	case "index":
		var out searchOut
		out, err = searchLog(ctx, c, searchIn{Limit: 50})
		for _, e := range out.Events {
			list = append(list, fmt.Sprint(e["i"]))
		}
	}
	if err != nil {
		return res, nil // there is nothing to offer
	}
	for _, v := range list {
		if v = clean(v, 300); strings.HasPrefix(strings.ToLower(v), strings.ToLower(given)) {
			res.Completion.Total++
			if len(res.Completion.Values) < 100 {
				res.Completion.Values = append(res.Completion.Values, v)
			}
		}
	}
	res.Completion.HasMore = res.Completion.Total > len(res.Completion.Values)
	return res, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
