package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// namesView is who is on the bus.
type namesView struct {
	Names []nameView `json:"names"`
	All   bool       `json:"all"` // with unique names
	Match string     `json:"-"`
	Error string     `json:"-"`
}

type nameView struct {
	Name        string `json:"name"`
	Owner       string `json:"owner,omitempty"`
	PID         uint32 `json:"pid,omitempty"`
	UID         uint32 `json:"uid"`
	Unit        string `json:"unit,omitempty"`
	Activatable bool   `json:"activatable"`
}

func (s *Server) link(ctx context.Context) (*bus.Conn, error) {
	if s.Bus == nil {
		return nil, fail(http.StatusServiceUnavailable, "there is no bus here").hint("gb-web serve --bus names one")
	}
	return s.Bus.Conn(ctx)
}

// busFailure says whose fault it is that a service does not answer.
func busFailure(err error) error {
	var e *bus.Error
	var timeout *bus.TimeoutError
	switch {
	case errors.As(err, &timeout):
		return fail(http.StatusGatewayTimeout, "the service does not answer").hint("it may be stuck: systemctl status of its unit says more")
	case errors.As(err, &e):
		status := http.StatusBadGateway
		switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
		case "ServiceUnknown", "NameHasNoOwner", "UnknownObject", "UnknownInterface", "UnknownMethod":
			status = http.StatusNotFound
		case "AccessDenied":
			status = http.StatusForbidden
		}
		return fail(status, "%s", clean(e.Error()))
	}
	return err
}

func (s *Server) busNames(r *request) (any, error) {
	conn, err := s.link(r.ctx)
	if err != nil {
		return nil, err
	}
	v := &namesView{Names: []nameView{}, All: r.FormValue("all") != ""}
	if v.Match, err = r.text("match", 200); err != nil {
		return nil, err
	}
	list, err := conn.Names(r.ctx, v.All)
	if err != nil {
		return nil, busFailure(err)
	}
	for _, n := range list {
		if v.Match != "" && !strings.Contains(strings.ToLower(n.Name), strings.ToLower(v.Match)) {
			continue
		}
		x := nameView{Name: n.Name, Owner: n.Owner, PID: n.PID, UID: n.UID, Activatable: n.Activatable}
		if n.PID != 0 {
			x.Unit = clean(chain.UnitOf(int(n.PID)))
		}
		v.Names = append(v.Names, x)
	}
	return v, nil
}

// objectView is an object of a service.
type objectView struct {
	Name       string          `json:"name"`
	Path       string          `json:"path"`
	Children   []string        `json:"children"`
	Interfaces []interfaceView `json:"interfaces"`
	Crumbs     []crumb         `json:"-"`
	Error      string          `json:"error,omitempty"`
	Standard   bool            `json:"-"`
}

type crumb struct{ Text, Path string }

type interfaceView struct {
	Name       string         `json:"name"`
	Doc        string         `json:"doc,omitempty"`
	Deprecated bool           `json:"deprecated,omitempty"`
	Methods    []methodView   `json:"methods"`
	Properties []propertyView `json:"properties"`
	Signals    []signalView   `json:"signals"`
	Open       bool           `json:"-"`
}

type methodView struct {
	Name       string    `json:"name"`
	Doc        string    `json:"doc,omitempty"`
	In         []argView `json:"in"`
	Out        []argView `json:"out"`
	Signature  string    `json:"signature"`
	Deprecated bool      `json:"deprecated,omitempty"`
	Decision   *decision `json:"decision,omitempty"` // of the policy about the login, for methods of the interface that is open
}

type argView struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Doc  string `json:"doc,omitempty"`
	Form string `json:"-"` // text, number, truth or json
	Hint string `json:"-"`
}

type propertyView struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Access string `json:"access"`
	Value  string `json:"value,omitempty"`
	Doc    string `json:"doc,omitempty"`
}

type signalView struct {
	Name string    `json:"name"`
	Args []argView `json:"args"`
}

// A decision is what the policy says of a call by a login.
type decision struct {
	Effect   string `json:"effect"` // allow, deny, approve or dry-run
	Read     bool   `json:"read"`
	Rule     string `json:"rule,omitempty"`
	Reason   string `json:"reason"`
	Polkit   string `json:"polkit,omitempty"`
	Policy   string `json:"policy"`
	FourEyes bool   `json:"four_eyes,omitempty"`
}

const (
	maxBadges    = 80 // methods whose policy is asked for at once
	maxValue     = 2000
	busPatience  = 5 * time.Second
	maxObjectSet = 2000
)

func argsOf(list []dbusjson.Arg) []argView {
	out := make([]argView, len(list))
	for i, a := range list {
		v := argView{Name: clean(a.Name), Type: clean(a.Type), Doc: clean(a.Doc)}
		if v.Name == "" {
			v.Name = fmt.Sprintf("argument %d", i)
		}
		switch a.Type {
		case "s", "o", "g":
			v.Form = "text"
			v.Hint = map[string]string{"o": "/an/object", "g": "a{sv}"}[a.Type]
		case "b":
			v.Form = "truth"
		case "y", "n", "q", "i", "u", "x", "t", "d":
			v.Form = "number"
		default:
			v.Form = "json"
			v.Hint = jsonHint(a.Type)
		}
		out[i] = v
	}
	return out
}

// jsonHint is an example of a type's JSON.
func jsonHint(sig string) string {
	switch {
	case sig == "v":
		return `{"t":"s","v":"text"}`
	case sig == "ay":
		return `{"b64":"AAE="}`
	case strings.HasPrefix(sig, "a{s"), strings.HasPrefix(sig, "a{o"):
		return `{}`
	}
	return "[]"
}

func variantText(v dbusjson.Variant) string {
	text, err := dbusjson.Marshal(v.Type, v.Value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *Server) object(r *request) (any, error) {
	conn, err := s.link(r.ctx)
	if err != nil {
		return nil, err
	}
	v := &objectView{Name: r.PathValue("name"), Children: []string{}, Interfaces: []interfaceView{}}
	if !dbusjson.ValidBusName(v.Name) {
		return nil, fail(http.StatusNotFound, "%.100q is no name of a bus", v.Name)
	}
	if v.Path, err = r.text("path", 2000); err != nil {
		return nil, err
	}
	if v.Path == "" {
		v.Path = "/"
	}
	if !dbusjson.ValidPath(v.Path) {
		return nil, fail(http.StatusBadRequest, "%.100q is no object", v.Path)
	}
	open, err := r.text("interface", 300)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, busPatience)
	defer cancel()
	node, err := conn.Introspect(ctx, v.Name, v.Path, false)
	if err != nil {
		return nil, busFailure(err)
	}
	at := ""
	v.Crumbs = append(v.Crumbs, crumb{"/", "/"})
	for _, part := range strings.Split(strings.Trim(v.Path, "/"), "/") {
		if part != "" {
			at += "/" + part
			v.Crumbs = append(v.Crumbs, crumb{part, at})
		}
	}
	for i, c := range node.Children {
		if i == maxObjectSet {
			break
		}
		v.Children = append(v.Children, c)
	}
	slices.Sort(v.Children)
	for i := range node.Interfaces {
		x := &node.Interfaces[i]
		one := interfaceView{Name: clean(x.Name), Doc: clean(x.Doc), Deprecated: x.Deprecated, Methods: []methodView{}, Properties: []propertyView{}, Signals: []signalView{}}
		one.Open = x.Name == open || open == "" && !strings.HasPrefix(x.Name, "org.freedesktop.DBus.") && !slices.ContainsFunc(v.Interfaces, func(o interfaceView) bool { return o.Open })
		for k, m := range x.Methods {
			mv := methodView{Name: clean(m.Name), Doc: clean(m.Doc), In: argsOf(m.In), Out: argsOf(m.Out), Signature: m.InSignature(), Deprecated: m.Deprecated}
			if one.Open && k < maxBadges && s.Daemon != nil {
				if d, err := s.explain(r, v.Name, v.Path, x.Name, m.Name, "", "[]"); err == nil {
					mv.Decision = d
				}
			}
			one.Methods = append(one.Methods, mv)
		}
		values := map[string]string{}
		if one.Open && len(x.Properties) > 0 {
			if all, err := conn.GetAll(ctx, v.Name, v.Path, x.Name); err == nil {
				for _, e := range all {
					name, ok1 := e.Key.(string)
					value, ok2 := e.Value.(dbusjson.Variant)
					if ok1 && ok2 {
						values[name] = variantText(value)
					}
				}
			}
		}
		for _, p := range x.Properties {
			one.Properties = append(one.Properties, propertyView{clean(p.Name), clean(p.Type), clean(p.Access), line(values[p.Name], maxValue), clean(p.Doc)})
		}
		for _, sg := range x.Signals {
			one.Signals = append(one.Signals, signalView{clean(sg.Name), argsOf(sg.Args)})
		}
		v.Interfaces = append(v.Interfaces, one)
	}
	return v, nil
}

func (s *Server) explain(r *request, name, path, iface, member, signature, args string) (*decision, error) {
	var d decision
	err := s.ask(r, MethodCall{Interface: "Policy", Member: "Explain", Signature: "sossss", Args: []any{name, path, iface, member, signature, args}}, &d)
	if err != nil {
		return nil, err
	}
	d.Reason, d.Rule = clean(d.Reason), clean(d.Rule)
	return &d, nil
}

// A callView is a call that somebody means to make, or has made.
type callView struct {
	Name      string    `json:"name"`
	Path      string    `json:"path"`
	Interface string    `json:"interface"`
	Member    string    `json:"member"`
	Signature string    `json:"signature"`
	Args      string    `json:"args"` // JSON array
	Decision  *decision `json:"decision,omitempty"`
	Done      bool      `json:"done"` // it was made
	Results   string    `json:"results,omitempty"`
	Approval  string    `json:"approval,omitempty"` // id of the one that is needed
	MayCall   bool      `json:"-"`
	Shown     string    `json:"-"` // arguments, indented
}

// call is a call of a service: looked at first, made when that is said. What is
// said is bound to the very arguments that were looked at.
func (s *Server) call(r *request) (any, error) {
	v := &callView{}
	for name, f := range map[string]*string{"name": &v.Name, "path": &v.Path, "interface": &v.Interface, "member": &v.Member, "signature": &v.Signature} {
		var err error
		if *f, err = r.text(name, 2000); err != nil {
			return nil, err
		}
	}
	if !dbusjson.ValidBusName(v.Name) || !dbusjson.ValidPath(v.Path) || !dbusjson.ValidInterface(v.Interface) || !dbusjson.ValidMember(v.Member) {
		return nil, fail(http.StatusBadRequest, "name, path, interface and member: not all are there, or one is not valid")
	}
	types, err := dbusjson.ParseSignature(v.Signature)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "signature: %v", err)
	}
	if v.Args = r.FormValue("args"); v.Args == "" {
		if v.Args, err = r.argsFromForm(types); err != nil {
			return nil, err
		}
	}
	values, err := dbusjson.UnmarshalArgs([]byte(v.Args), types)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "arguments: %s", clean(err.Error()))
	}
	canonical, err := dbusjson.MarshalArgs(types, values)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "arguments: %s", clean(err.Error()))
	}
	v.Args, v.Shown = string(canonical), indented(canonical)
	if v.Decision, err = s.explain(r, v.Name, v.Path, v.Interface, v.Member, v.Signature, v.Args); err != nil {
		return nil, err
	}
	v.MayCall = v.Decision.Effect == "allow" || v.Decision.Effect == "approve"
	if r.FormValue("step") != "call" {
		return v, nil
	}
	d, err := s.daemon()
	if err != nil {
		return nil, err
	}
	results, err := d.Call(r.ctx, r.session, nil, MethodCall{Interface: "Bus", Member: "Call", Signature: "sossss", Args: []any{v.Name, v.Path, v.Interface, v.Member, v.Signature, v.Args}})
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Approval != nil {
		var a approval
		if json.Unmarshal(refusal.Approval, &a) == nil && a.ID != "" {
			v.Approval = a.ID
			return v, nil
		}
	}
	if err != nil {
		return nil, err
	}
	v.Done = true
	if len(results) == 2 {
		var text string
		if json.Unmarshal(results[1], &text) == nil {
			v.Results = indented(json.RawMessage(text))
		}
	}
	return v, nil
}

// argsFromForm makes the array of arguments of a form's fields arg0, arg1, ...
func (r *request) argsFromForm(types []*dbusjson.Type) (string, error) {
	list := make([]json.RawMessage, len(types))
	for i, t := range types {
		text := r.FormValue("arg" + strconv.Itoa(i))
		if len(text) > 512<<10 {
			return "", fail(http.StatusBadRequest, "argument %d: too long", i)
		}
		switch sig := t.String(); sig {
		case "s", "o", "g":
			list[i] = dbusjson.AppendString(nil, text)
		default:
			text = strings.TrimSpace(text)
			if text == "" && sig == "b" {
				text = "false"
			}
			if !json.Valid([]byte(text)) {
				return "", fail(http.StatusBadRequest, "argument %d, of type %s: %.60q is no JSON", i, sig, text)
			}
			list[i] = json.RawMessage(text)
		}
	}
	out, err := json.Marshal(list)
	return string(out), err
}

// A policyView explains what the policy says.
type policyView struct {
	Rules    []policyRule `json:"rules"`
	Error    string       `json:"error,omitempty"` // why the file can't be shown
	File     string       `json:"file"`
	Call     *callView    `json:"call,omitempty"`
	PerMin   int          `json:"per_minute"`
	Failure  *failure     `json:"-"`
	Asked    bool         `json:"-"`
	Revision string       `json:"-"`
}

type policyRule struct {
	ID        string            `json:"id"`
	Clients   []string          `json:"clients"`
	Kind      string            `json:"kind"`
	Name      string            `json:"name"`
	Path      string            `json:"path"`
	Interface string            `json:"interface"`
	Members   []string          `json:"members"`
	Args      map[string]string `json:"args"`
	Reads     bool              `json:"reads"`
	Effect    string            `json:"effect"`
	TTL       string            `json:"ttl"`
	FourEyes  bool              `json:"four_eyes"`
	PerMinute int               `json:"per_minute"`
	Hit       bool              `json:"-"`
}

func (s *Server) policy(r *request) (any, error) {
	v := &policyView{Rules: []policyRule{}, File: s.PolicyFile}
	var file struct {
		Rules     []policyRule
		PerMinute int `json:"per_minute"`
	}
	data, err := os.ReadFile(s.PolicyFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		v.Error = "there is no policy file: every change is denied"
	case err != nil:
		v.Error = err.Error()
	default:
		if err := json.Unmarshal(data, &file); err != nil {
			v.Error = "it can't be read: " + clean(err.Error())
		} else if file.Rules != nil {
			v.Rules, v.PerMin = file.Rules, file.PerMinute
		}
	}
	name, err := r.text("name", 300)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return v, nil
	}
	v.Asked = true
	c := &callView{Name: name, Args: "[]"}
	v.Call = c
	for field, f := range map[string]*string{"path": &c.Path, "member": &c.Member, "signature": &c.Signature} {
		if *f, err = r.text(field, 2000); err != nil {
			return nil, err
		}
	}
	if args := strings.TrimSpace(r.FormValue("args")); args != "" {
		c.Args = args
	}
	if c.Interface, err = r.text("interface", 300); err != nil {
		return nil, err
	}
	if i := strings.LastIndexByte(c.Member, '.'); i > 0 {
		c.Interface, c.Member = c.Member[:i], c.Member[i+1:]
	}
	if !dbusjson.ValidBusName(c.Name) || !dbusjson.ValidPath(c.Path) || !dbusjson.ValidInterface(c.Interface) || !dbusjson.ValidMember(c.Member) {
		f := fail(http.StatusBadRequest, "name, object, interface and method: not all are there, or one is not valid").hint("like org.freedesktop.systemd1, /org/freedesktop/systemd1, org.freedesktop.systemd1.Manager.RestartUnit")
		if strings.HasPrefix(r.URL.Path, apiPrefix) {
			return nil, f
		}
		v.Failure = f
		return v, nil
	}
	c.Decision, err = s.explain(r, c.Name, c.Path, c.Interface, c.Member, c.Signature, c.Args)
	if err != nil {
		if strings.HasPrefix(r.URL.Path, apiPrefix) {
			return nil, err
		}
		v.Failure = failureOf(err)
		return v, nil
	}
	for i := range v.Rules {
		v.Rules[i].Hit = c.Decision.Rule != "" && v.Rules[i].ID == c.Decision.Rule
	}
	return v, nil
}
