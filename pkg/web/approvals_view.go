package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// An approval is what the daemon says of one.
type approval struct {
	ID     string `json:"id"`
	State  string `json:"state"` // pending, approved, denied, used or expired
	Action struct {
		Kind      string          `json:"kind"`
		Bus       string          `json:"bus"`
		Name      string          `json:"name"`
		Path      string          `json:"path"`
		Interface string          `json:"interface"`
		Member    string          `json:"member"`
		Signature string          `json:"signature"`
		Args      json.RawMessage `json:"args"`
	} `json:"action"`
	Hash      string     `json:"sha256"` // of the action
	Principal principal  `json:"principal"`
	Policy    string     `json:"policy"`
	Rule      string     `json:"rule,omitempty"`
	Reason    string     `json:"reason"`
	FourEyes  bool       `json:"four_eyes,omitempty"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	Approver  *principal `json:"approver,omitempty"`
	Answered  *time.Time `json:"answered,omitempty"`
}

type principal struct {
	Entrance string `json:"entrance"`
	UID      uint32 `json:"uid"`
	User     string `json:"user,omitempty"`
	Unit     string `json:"unit,omitempty"`
	Client   string `json:"client,omitempty"`
	Key      string `json:"key,omitempty"`
}

func (p principal) String() string {
	who := p.User
	if who == "" {
		who = fmt.Sprintf("uid %d", p.UID)
	}
	if p.Client != "" && p.Client != who {
		who = p.Client
		if p.Entrance == "mcp" {
			who = "agent " + p.Client
		}
	}
	text := who + " through " + p.Entrance
	if p.Unit != "" {
		text += ", " + p.Unit
	}
	if p.Key != "" {
		text += ", with the key " + p.Key
	}
	return clean(text)
}

// approvalView is an approval as it is shown.
type approvalView struct {
	approval
	Title   string       `json:"title"`
	Risk    string       `json:"risk"` // high or ordinary
	Why     string       `json:"why,omitempty"`
	Args    string       `json:"-"`
	Changes []difference `json:"changes,omitempty"` // what it would change, where that can be told
	Left    float64      `json:"left_seconds"`
	MayYes  bool         `json:"-"`
	Note    string       `json:"-"`
	Hidden  bool         `json:"secrets_hidden,omitempty"`
}

// A difference is something that would become another.
type difference struct {
	What string `json:"what"`
	Have string `json:"have"`
	Want string `json:"want"`
}

// An approvalsView is what waits for a person, and what was answered.
type approvalsView struct {
	Pending   int            `json:"pending"`
	Approvals []approvalView `json:"approvals"`
	Older     int            `json:"older"` // that are not shown
	State     string         `json:"-"`
	Keys      []keyView      `json:"-"`
	KeyError  string         `json:"-"`
	Waiting   []approvalView `json:"-"`
	Answered  []approvalView `json:"-"`
}

type keyView struct {
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	Added time.Time `json:"added"`
	RP    string    `json:"rp"`
}

const maxApprovals = 200

func (s *Server) readApprovals(r *request) ([]approval, error) {
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	results, err := d.Call(r.ctx, r.session, nil, MethodCall{Interface: "Approvals", Member: "List"})
	if err != nil {
		return nil, err
	}
	var texts []string
	if len(results) != 1 || json.Unmarshal(results[0], &texts) != nil {
		return nil, errors.New("the daemon's approvals can't be read")
	}
	list := make([]approval, len(texts))
	for i, t := range texts {
		if err := json.Unmarshal([]byte(t), &list[i]); err != nil {
			return nil, fmt.Errorf("approval: %w", err)
		}
	}
	return list, nil
}

func (s *Server) approvals(r *request) (any, error) {
	state, err := r.text("state", 20)
	if err != nil {
		return nil, err
	}
	if state != "" && state != "pending" && state != "all" {
		return nil, fail(http.StatusBadRequest, "state %.20q: want pending or all", state)
	}
	list, err := s.readApprovals(r)
	if err != nil {
		return nil, err
	}
	v := &approvalsView{Approvals: []approvalView{}, State: state}
	page := !strings.HasPrefix(r.URL.Path, apiPrefix)
	for _, a := range list {
		pending := a.State == "pending"
		if pending {
			v.Pending++
		} else if state == "pending" {
			continue
		}
		if len(v.Approvals) == maxApprovals {
			v.Older++
			continue
		}
		one := s.show(r, a, pending && (page || state != "pending"))
		v.Approvals = append(v.Approvals, one)
		if pending {
			v.Waiting = append(v.Waiting, one)
		} else {
			v.Answered = append(v.Answered, one)
		}
	}
	if page && r.session.Role >= access.Approver {
		if v.Keys, err = s.keys(r); err != nil {
			v.KeyError = err.Error()
		}
	}
	return v, nil
}

func (s *Server) keys(r *request) ([]keyView, error) {
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	text, err := d.Own(r.ctx, r.session, nil, "Keys")
	if err != nil {
		return nil, err
	}
	var keys []keyView
	return keys, json.Unmarshal(text, &keys)
}

// show makes an approval's view; looking is whether to look at what it would
// change.
func (s *Server) show(r *request, a approval, looking bool) approvalView {
	v := approvalView{approval: a, Risk: "ordinary", Left: max(time.Until(a.Expires).Seconds(), 0), Args: indented(a.Action.Args)}
	x := &v.Action
	v.Hidden = bytes.Contains(x.Args, []byte(redact.Mark))
	switch x.Kind {
	case "set":
		v.Title = fmt.Sprintf("set %s of %s", x.Member, x.Name)
	default:
		v.Title = fmt.Sprintf("%s.%s of %s", x.Interface, x.Member, x.Name)
	}
	v.Title = line(v.Title, messageInList)
	if _, why, ok := strings.Cut(a.Reason, "; "); ok {
		v.Risk, v.Why = "high", clean(why)
	}
	switch {
	case a.FourEyes && a.Principal.UID == r.session.UID:
		v.Note = "another person than the one who asks has to approve this"
	case r.session.Role < access.Approver:
		v.Note = "to answer, log in as approver: gb-web login --role approver"
	default:
		v.MayYes = true
	}
	if looking {
		v.Changes = s.changes(r, &a)
	}
	return v
}

// changes says what an action would change, where that can be told.
func (s *Server) changes(r *request, a *approval) []difference {
	x := &a.Action
	var args []json.RawMessage
	if json.Unmarshal(x.Args, &args) != nil {
		return nil
	}
	switch {
	case x.Kind == "set" && len(args) == 1 && s.Bus != nil:
		conn, err := s.Bus.Conn(r.ctx)
		if err != nil {
			return nil
		}
		have := "not readable"
		if v, err := conn.Get(r.ctx, x.Name, x.Path, x.Interface, x.Member); err == nil {
			if text, err := dbusjson.Marshal(v.Type, v.Value); err == nil {
				have = string(text)
			}
		}
		want := string(args[0])
		var lossless struct {
			V json.RawMessage `json:"v"`
		}
		if json.Unmarshal(args[0], &lossless) == nil && lossless.V != nil {
			want = string(lossless.V)
		}
		return []difference{{clean(x.Interface + "." + x.Member), line(have, messageInList), line(want, messageInList)}}
	case x.Member == "Apply" && strings.HasSuffix(x.Interface, ".Manager") && len(args) > 0:
		var state string
		if json.Unmarshal(args[0], &state) != nil || state == "" {
			return nil
		}
		var list []struct {
			Plugin, Path string
			Have, Want   json.RawMessage
		}
		if s.ask(r, MethodCall{Interface: "Manager", Member: "Diff", Signature: "s", Args: []any{state}}, &list) != nil {
			return nil
		}
		var out []difference
		for _, d := range list {
			out = append(out, difference{line(d.Plugin+" "+d.Path, messageInList), line(string(d.Have), messageInList), line(string(d.Want), messageInList)})
		}
		return out
	}
	return nil
}

var approvalID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// approvalID is the path's.
func (r *request) approvalID() (string, error) {
	id := r.PathValue("id")
	if !approvalID.MatchString(id) {
		return "", fail(http.StatusNotFound, "%.40q is no approval", id)
	}
	return id, nil
}

func (s *Server) approval(r *request) (any, error) {
	var a approval
	id, err := r.approvalID()
	if err != nil {
		return nil, err
	}
	if err := s.ask(r, MethodCall{Interface: "Approvals", Member: "Get", Signature: "s", Args: []any{id}}, &a); err != nil {
		return nil, err
	}
	v := s.show(r, a, a.State == "pending")
	return &v, nil
}

// answer approves or denies.
func (s *Server) answer(r *request) (any, error) {
	verb := r.PathValue("answer")
	member := map[string]string{"approve": "Approve", "deny": "Deny"}[verb]
	if member == "" {
		return nil, fail(http.StatusNotFound, "%.40q is no answer", verb)
	}
	assertion, err := r.json("assertion")
	if err != nil {
		return nil, err
	}
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	id, err := r.approvalID()
	if err != nil {
		return nil, err
	}
	results, err := d.Call(r.ctx, r.session, assertion, MethodCall{Interface: "Approvals", Member: member, Signature: "s", Args: []any{id}})
	if err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) && refusal.keyNeeded() && refusal.Advice == "" {
			refusal.Advice = "with JavaScript on, gb-web asks for the key when you approve"
		}
		return nil, err
	}
	state := ""
	if len(results) != 1 || json.Unmarshal(results[0], &state) != nil {
		return nil, errors.New("the daemon's answer can't be read")
	}
	s.Logger.Info("answered", "approval", id, "state", state, "user", r.session.User, "session", r.session.ID)
	return &goTo{"/approvals", answered{id, state}}, nil
}

// json returns a parameter that is JSON, nil if it is not there.
func (r *request) json(name string) (json.RawMessage, error) {
	text := r.FormValue(name)
	if text == "" {
		return nil, nil
	}
	if len(text) > 64<<10 || !json.Valid([]byte(text)) {
		return nil, fail(http.StatusBadRequest, "%s: no JSON, or too much", name)
	}
	return json.RawMessage(text), nil
}

// challenge asks the daemon what a security key has to sign.
func (s *Server) challenge(r *request) (any, error) {
	about, err := r.text("about", 80)
	if err != nil {
		return nil, err
	}
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	text, err := d.Own(r.ctx, r.session, nil, "Challenge", about)
	if err != nil {
		return nil, err
	}
	return text, nil
}

func (s *Server) registerKey(r *request) (any, error) {
	key, err := r.json("key")
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fail(http.StatusBadRequest, "there is no key").hint("with JavaScript on, gb-web asks for the key")
	}
	assertion, err := r.json("assertion")
	if err != nil {
		return nil, err
	}
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	text, err := d.Own(r.ctx, r.session, assertion, "RegisterKey", string(key))
	if err != nil {
		return nil, err
	}
	s.Logger.Info("security key registered", "user", r.session.User, "session", r.session.ID)
	return &goTo{"/approvals#keys", text}, nil
}
