package opdbus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/webauthn"
)

// Roles of a login. Each may what the one before may.
const (
	RoleViewer   = "viewer"
	RoleOperator = "operator"
	RoleApprover = "approver"
)

var roles = []string{RoleViewer, RoleOperator, RoleApprover}

// A LoginClaim says for which login the web interface calls. That such a login
// is there is its word; that the user may have the role is looked up.
type LoginClaim struct {
	UID       uint32              `json:"uid"`
	Role      string              `json:"role"`
	Session   string              `json:"session,omitempty"`
	Assertion *webauthn.Assertion `json:"assertion,omitempty"` // of a security key, for what Challenge was asked for
}

const (
	loginsInterface = names.BusInterface + ".Logins"
	maxLoginClaim   = 64 << 10
	challengeLife   = 2 * time.Minute
	maxChallenges   = 256
	maxKeys         = 16 // of a user
)

// The methods of this entrance look among the interfaces themselves.
func init() { interfaces = append(interfaces, loginsEntrance()) }

// loginsEntrance is the entrance of people who have logged in to gb-web.
func loginsEntrance() iface {
	login := arg("login", "s", "JSON: uid, role, session; assertion, where a security key was touched.")
	return iface{
		path: names.BusObject, name: loginsInterface,
		doc: "The entrance of people who have logged in to gb-web: calls of this daemon's methods in their names. Only the user of gb-web may use it.",
		methods: []method{
			{Method: dbusjson.Method{Name: "Call", Doc: "Calls a method of this daemon for a login.",
				In:  append(args(login), args(arg("path", "o", ""), arg("interface", "s", "One of this daemon's."), arg("member", "s", ""), arg("signature", "s", "Of the arguments."), arg("arguments", "s", "JSON array of them."))...),
				Out: args(arg("answer", "s", "JSON: ok, signature, results; or error (name, message, hint), approval."))}, kind: changing, do: (*Daemon).loginCall},
			{Method: dbusjson.Method{Name: "Keys", Doc: "The security keys of the login's user.", In: args(login), Out: args(arg("keys", "s", "JSON array: id, name, added, rp."))}, kind: proposing, do: (*Daemon).loginKeys},
			{Method: dbusjson.Method{Name: "Challenge", Doc: "What a security key of the user's has to sign to approve or deny something, or to register another key.",
				In: append(args(login), arg("about", "s", "approve:ID, deny:ID or register")), Out: args(arg("challenge", "s", "JSON: challenge (base64url), keys (their ids), needed."))}, kind: proposing, do: (*Daemon).loginChallenge},
			{Method: dbusjson.Method{Name: "RegisterKey", Doc: "Registers a security key for the login's user. One who has keys already must touch one of them for it.",
				In: append(args(login), arg("key", "s", "JSON: id, public_key, authenticator_data, client_data (base64url), name.")), Out: args(arg("key", "s", "JSON"))}, kind: changing, do: (*Daemon).registerKey},
		},
	}
}

// logins is what the daemon knows of people's logins.
type logins struct {
	// Dir holds the security keys, a file for each uid.
	Dir string
	// User is the user that gb-web runs as.
	User string

	mu         sync.Mutex
	challenges map[[2]string]challenge // by uid, and what it is about
	keyFiles   sync.Mutex
}

type challenge struct {
	bytes   []byte
	expires time.Time
}

// login makes the principal of a claim.
func (d *Daemon) login(caller Principal, text string) (Principal, *LoginClaim, error) {
	web := d.Logins.User
	if web == "" {
		web = names.WebUser
	}
	u, err := user.Lookup(web)
	if err != nil || caller.Entrance != EntranceDBus || u.Uid != strconv.FormatUint(uint64(caller.UID), 10) {
		return caller, nil, unknown("AccessDenied", "uid %d may not speak for logins: only gb-web's user, %s, may", caller.UID, web)
	}
	if len(text) > maxLoginClaim {
		return caller, nil, unknown("InvalidArgs", "a login of %d bytes", len(text))
	}
	var c LoginClaim
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return caller, nil, unknown("InvalidArgs", "login: %s", Clean(err.Error()))
	}
	c.Session = Clean(c.Session)
	if len(c.Session) > 64 {
		return caller, nil, unknown("InvalidArgs", "login: the session's name is too long")
	}
	p := Principal{Entrance: EntranceWeb, UID: c.UID, PID: caller.PID, Unit: caller.Unit}.named()
	p.Client = p.User
	if p.Client == "" {
		p.Client = strconv.FormatUint(uint64(c.UID), 10)
	}
	if !slices.Contains(roles, c.Role) {
		return caller, nil, unknown("InvalidArgs", "login: role %.40q: want viewer, operator or approver", c.Role)
	}
	if highest := d.highestRole(p); slices.Index(roles, c.Role) > slices.Index(roles, highest) {
		return caller, nil, unknown("AccessDenied", "%s may not be %s", p.Client, c.Role)
	}
	return p, &c, nil
}

// highestRole is what a user may be at most.
func (d *Daemon) highestRole(p Principal) string {
	switch {
	case p.UID == 0 || slices.Contains(p.Groups, names.ApproversGroup):
		return RoleApprover
	case slices.Contains(p.Groups, names.OperatorsGroup):
		return RoleOperator
	}
	return RoleViewer
}

// A LoginAnswer is what Logins.Call answers, as JSON.
type LoginAnswer struct {
	OK        bool            `json:"ok"`
	Signature string          `json:"signature,omitempty"`
	Results   json.RawMessage `json:"results,omitempty"`
	Error     *ForwardedError `json:"error,omitempty"`
	Approval  *Approval       `json:"approval,omitempty"` // that is needed
}

// loginCall answers Logins.Call.
func (d *Daemon) loginCall(ctx context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	v := in.Args.Values
	p, c, err := d.login(caller, v[0].(string))
	if err != nil {
		return nil, err
	}
	body, err := d.callFor(ctx, p, c, bus.Incoming{Sender: in.Sender, Path: string(v[1].(dbusjson.Path)), Interface: v[2].(string), Member: v[3].(string)}, v[4].(string), v[5].(string))
	answer := LoginAnswer{OK: err == nil}
	if err == nil {
		answer.Signature = body.Signature()
		answer.Results, err = body.JSON()
	}
	if err != nil {
		answer.OK, answer.Error = false, forwardedError(err)
		var denied *DeniedError
		if errors.As(err, &denied) && denied.Approval != nil {
			shown := denied.Approval.shownTo(p)
			answer.Approval = &shown
			d.emit("Approvals", "Requested", bus.NewBody("s", denied.Approval.ID))
		}
	}
	text, err := json.Marshal(answer)
	return []any{string(text)}, err
}

func (d *Daemon) callFor(ctx context.Context, p Principal, c *LoginClaim, in bus.Incoming, signature, arguments string) (bus.Body, error) {
	types, err := dbusjson.ParseSignature(signature)
	if err != nil {
		return bus.Body{}, unknown("InvalidArgs", "signature: %v", err)
	}
	values, err := dbusjson.UnmarshalArgs([]byte(arguments), types)
	if err != nil {
		return bus.Body{}, unknown("InvalidArgs", "arguments: %s", Clean(err.Error()))
	}
	in.Args = bus.Body{Types: types, Values: values}
	if !strings.HasPrefix(in.Interface, names.BusInterface+".") || in.Interface == loginsInterface || in.Interface == names.BusInterface+".Agents" {
		return bus.Body{}, unknown("UnknownInterface", "a login has nothing to do with interface %.260q", in.Interface)
	}
	f, m, err := findMethod(in)
	if err != nil {
		return bus.Body{}, err
	}
	if have := in.Args.Signature(); have != m.in {
		return bus.Body{}, unknown("InvalidArgs", "%s takes %q, not %q", in.Member, m.in, have)
	}
	answers := f.name == names.BusInterface+".Approvals" && m.kind == changing
	switch {
	case answers && c.Role != RoleApprover:
		return bus.Body{}, unknown("AccessDenied", "only an approver answers approvals")
	case answers:
		if err := d.stepUp(&p, c, in.Member, in.Args.Values[0].(string)); err != nil {
			return bus.Body{}, err
		}
	case m.kind != reading && m.kind != sensitive && c.Role == RoleViewer && m.Name != "Call":
		return bus.Body{}, unknown("AccessDenied", "a viewer changes nothing")
	case m.Name == "Call" && c.Role == RoleViewer:
		call, err := callOf(in)
		if err != nil {
			return bus.Body{}, err
		}
		if a, err := NewCall(d.server.Address(), call); err != nil || !IsRead(a) {
			return bus.Body{}, unknown("AccessDenied", "a viewer changes nothing")
		}
	}
	d.reload()
	results, err := m.do(d, ctx, p, in)
	if err != nil {
		return bus.Body{}, err
	}
	return bus.Body{Types: m.out, Values: results}, nil
}

// A StepUpError says that a security key must be touched.
type StepUpError struct{ Reason, Advice string }

func (e *StepUpError) Error() string { return e.Reason }

// DBusName is the error's name on the bus.
func (e *StepUpError) DBusName() string { return names.BusName + ".Error.KeyNeeded" }

// Hint says what to do.
func (e *StepUpError) Hint() string { return e.Advice }

// stepUp sees to it that an answer of a login comes with a touch of a security
// key, where the user has one, and where the one who asks has the same uid: then
// the key is what tells the person from a program of theirs.
func (d *Daemon) stepUp(p *Principal, c *LoginClaim, member, id string) error {
	keys, err := d.Logins.keys(p.UID)
	if err != nil {
		return err
	}
	if c.Assertion != nil {
		k, err := d.Logins.check(p.UID, strings.ToLower(member)+":"+id, *c.Assertion)
		if err != nil {
			return &StepUpError{"the security key was not accepted: " + err.Error(), "try again"}
		}
		p.Key = k.Name
		return nil
	}
	if member != "Approve" { // to say no, nobody need prove anything
		return nil
	}
	a, err := d.Gate.Approvals.Get(id)
	if err != nil {
		return err
	}
	switch {
	case len(keys) > 0:
		return &StepUpError{"a security key has to be touched for this", ""}
	case a.Principal.UID == p.UID:
		return &StepUpError{"who asks has the same user as who approves: a security key has to tell them apart", "register one under Approvals, or approve with opdbus approvals approve"}
	}
	return nil
}

func (l *logins) path(uid uint32) string {
	return filepath.Join(l.Dir, strconv.FormatUint(uint64(uid), 10)+".json")
}

// keys returns a user's security keys.
func (l *logins) keys(uid uint32) ([]webauthn.Key, error) {
	if l.Dir == "" {
		return nil, nil
	}
	data, err := os.ReadFile(l.path(uid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("security keys: %w", err)
	}
	var keys []webauthn.Key
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("security keys of uid %d: %w", uid, err)
	}
	return keys, nil
}

func (l *logins) save(uid uint32, keys []webauthn.Key) error {
	data, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return fmt.Errorf("security keys: %w", err)
	}
	return durable.Replace(l.path(uid), append(data, '\n'), 0o600)
}

// issue makes a challenge, which is bound to what it is about.
func (l *logins) issue(uid uint32, about string) []byte {
	var nonce [32]byte
	rand.Read(nonce[:])
	sum := sha256.Sum256(append(nonce[:], about...))
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for k, c := range l.challenges {
		if now.After(c.expires) {
			delete(l.challenges, k)
		}
	}
	if l.challenges == nil || len(l.challenges) >= maxChallenges {
		l.challenges = map[[2]string]challenge{}
	}
	l.challenges[[2]string{strconv.FormatUint(uint64(uid), 10), about}] = challenge{sum[:], now.Add(challengeLife)}
	return sum[:]
}

// take returns the challenge that was made for it, once.
func (l *logins) take(uid uint32, about string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := [2]string{strconv.FormatUint(uint64(uid), 10), about}
	c, ok := l.challenges[key]
	delete(l.challenges, key)
	if !ok || time.Now().After(c.expires) {
		return nil, errors.New("there is no challenge for it, or it is older than two minutes")
	}
	return c.bytes, nil
}

// check checks an assertion about something, and remembers the key's counter.
func (l *logins) check(uid uint32, about string, a webauthn.Assertion) (*webauthn.Key, error) {
	l.keyFiles.Lock()
	defer l.keyFiles.Unlock()
	keys, err := l.keys(uid)
	if err != nil {
		return nil, err
	}
	c, err := l.take(uid, about)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		if slices.Equal(keys[i].ID, a.ID) {
			if err := keys[i].Check(a, c); err != nil {
				return nil, err
			}
			return &keys[i], l.save(uid, keys)
		}
	}
	return nil, errors.New("it is not registered")
}

func (d *Daemon) loginKeys(_ context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	p, _, err := d.login(caller, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	keys, err := d.Logins.keys(p.UID)
	if err != nil {
		return nil, err
	}
	if keys == nil {
		keys = []webauthn.Key{}
	}
	text, err := json.Marshal(keys)
	return []any{string(text)}, err
}

func (d *Daemon) loginChallenge(_ context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	p, c, err := d.login(caller, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	about := in.Args.Values[1].(string)
	verb, id, _ := strings.Cut(about, ":")
	if c.Role != RoleApprover || about != "register" && (verb != "approve" && verb != "deny" || !validID(id)) {
		return nil, unknown("InvalidArgs", "about %.60q: want approve:ID, deny:ID or register, as an approver", about)
	}
	keys, err := d.Logins.keys(p.UID)
	if err != nil {
		return nil, err
	}
	ids := []webauthn.Bytes{}
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	out := struct {
		Challenge webauthn.Bytes   `json:"challenge"`
		Touch     webauthn.Bytes   `json:"touch,omitempty"` // to register another key: for one that is there
		Keys      []webauthn.Bytes `json:"keys"`
	}{Challenge: d.Logins.issue(p.UID, about), Keys: ids}
	if about == "register" && len(keys) > 0 {
		out.Touch = d.Logins.issue(p.UID, "another")
	}
	text, err := json.Marshal(out)
	return []any{string(text)}, err
}

// registerKey is a change like others: intent and outcome are recorded. The
// first key of a user is taken on the login's word.
//
// BUG: so whoever has gb-web in hand can register the first key of an approver
// who has none yet; the event opdbus.outcome in the log tells of it.
func (d *Daemon) registerKey(ctx context.Context, caller Principal, in bus.Incoming) ([]any, error) {
	p, c, err := d.login(caller, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	if c.Role != RoleApprover {
		return nil, unknown("AccessDenied", "only an approver registers security keys")
	}
	if d.Logins.Dir == "" {
		return nil, unknown("NotSupported", "this daemon keeps no security keys")
	}
	var r webauthn.Registration
	text := in.Args.Values[1].(string)
	if len(text) > maxLoginClaim {
		return nil, unknown("InvalidArgs", "a key of %d bytes", len(text))
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, unknown("InvalidArgs", "key: %s", Clean(err.Error()))
	}
	if r.Name = Clean(strings.TrimSpace(r.Name)); r.Name == "" || len(r.Name) > 60 {
		return nil, unknown("InvalidArgs", "the key needs a name of at most 60 bytes")
	}
	keys, err := d.Logins.keys(p.UID)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		if c.Assertion == nil {
			return nil, &StepUpError{"a key that is registered already has to be touched to register another", ""}
		}
		if _, err := d.Logins.check(p.UID, "another", *c.Assertion); err != nil {
			return nil, &StepUpError{"the security key was not accepted: " + err.Error(), "try again"}
		}
	}
	challenge, err := d.Logins.take(p.UID, "register")
	if err != nil {
		return nil, unknown("AccessDenied", "%v", err)
	}
	k, err := webauthn.Register(r, challenge, time.Now())
	if err != nil {
		return nil, unknown("AccessDenied", "%s", Clean(err.Error()))
	}
	a := ownAction(d.server.Address(), names.BusObject, "Logins", "RegisterKey", bus.NewBody("ss", p.Client, k.Name))
	_, err = d.Gate.Do(ctx, p, a, Options{}, func(context.Context, string) (json.RawMessage, error) {
		d.Logins.keyFiles.Lock()
		defer d.Logins.keyFiles.Unlock()
		keys, err := d.Logins.keys(p.UID)
		if err != nil {
			return nil, err
		}
		if len(keys) >= maxKeys {
			return nil, fmt.Errorf("there are %d keys already", len(keys))
		}
		for _, other := range keys {
			if slices.Equal(other.ID, k.ID) {
				return nil, errors.New("the key is registered already")
			}
		}
		if err := d.Logins.save(p.UID, append(keys, *k)); err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"user": p.Client, "key": k.Name, "id": k.ID})
	})
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(k)
	return []any{string(out)}, err
}
