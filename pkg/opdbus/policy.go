package opdbus

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An Effect is what a rule does.
type Effect string

// The effects.
const (
	Allow   Effect = "allow"
	Deny    Effect = "deny"
	Approve Effect = "approve" // a person has to approve each action
	DryRun  Effect = "dry-run" // it is recorded and not done
)

// NoPolkit, as a rule's polkit action, leaves polkit unasked.
const NoPolkit = "none"

// A Rule is one of a policy. What it leaves out matches everything; the lists
// match if one of their patterns does. In patterns * stands for any characters
// and ? for one.
type Rule struct {
	ID string `json:"id"`
	// Clients: cli, dbus, mcp, web, uid:N, user:NAME, group:NAME, unit:NAME,
	// mcp:TOKEN, web:LOGIN. "*" and a rule without clients mean cli and dbus:
	// an agent or a browser must be named.
	Clients   []string          `json:"clients,omitempty"`
	Kind      string            `json:"kind,omitempty"` // call or set
	Bus       string            `json:"bus,omitempty"`
	Name      string            `json:"name,omitempty"`
	Path      string            `json:"path,omitempty"`
	Interface string            `json:"interface,omitempty"`
	Members   []string          `json:"members,omitempty"`
	Args      map[string]string `json:"args,omitempty"` // index of an argument to a pattern
	Reads     bool              `json:"reads,omitempty"`
	Effect    Effect            `json:"effect"`
	Polkit    string            `json:"polkit,omitempty"`     // action to ask polkit about, or none
	PerMinute int               `json:"per_minute,omitempty"` // for each principal
	TTL       string            `json:"ttl,omitempty"`        // of an approval, like 10m
	FourEyes  bool              `json:"four_eyes,omitempty"`  // who approves has another uid

	ttl  time.Duration
	args map[int]string
}

// A Policy is ordered rules; the first that matches decides.
type Policy struct {
	Version   int    `json:"version"`
	Rules     []Rule `json:"rules"`
	PerMinute int    `json:"per_minute,omitempty"` // changes a principal may ask for; 60 if 0

	// Revision is the SHA-256 of the file, in hex.
	Revision string `json:"-"`
}

const (
	maxPolicy        = 1 << 20
	defaultPerMinute = 60
	defaultTTL       = 10 * time.Minute
	maxTTL           = 24 * time.Hour
)

// A PolicyError says what is wrong with a policy file: exit code 2.
type PolicyError struct {
	Path string
	Err  error
}

func (e *PolicyError) Error() string { return "policy " + e.Path + ": " + e.Err.Error() }
func (e *PolicyError) Unwrap() error { return e.Err }

// ExitCode is that of wrong configuration.
func (e *PolicyError) ExitCode() int { return 2 }

// LoadPolicy reads a policy file. It must belong to root, or to who runs this
// process, and nobody else may write it: who can write it can do everything.
// A file that does not exist is a policy without rules, which denies every
// change.
func LoadPolicy(path string) (*Policy, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return ParsePolicy([]byte(`{"version":1,"rules":[]}`))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return nil, &PolicyError{path, fmt.Errorf("it belongs to uid %d, not to root", st.Uid)}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, &PolicyError{path, fmt.Errorf("others may write it (mode %04o)", info.Mode().Perm())}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, &PolicyError{path, err}
	}
	return p, nil
}

// ParsePolicy reads a policy. Unknown keys are refused: a misspelt one would
// widen a rule.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("longer than %d bytes", maxPolicy)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON object")
	}
	if p.Version != 1 {
		return nil, fmt.Errorf("version %d, this program knows 1", p.Version)
	}
	ids := map[string]bool{}
	for i := range p.Rules {
		r := &p.Rules[i]
		if err := r.prepare(); err != nil {
			return nil, fmt.Errorf("rule %d (%s): %w", i, r.ID, err)
		}
		if ids[r.ID] {
			return nil, fmt.Errorf("rule %d: a second rule %q", i, r.ID)
		}
		ids[r.ID] = true
	}
	if p.PerMinute < 0 {
		return nil, fmt.Errorf("per_minute %d", p.PerMinute)
	}
	sum := sha256.Sum256(data)
	p.Revision = hex.EncodeToString(sum[:])
	return &p, nil
}

func (r *Rule) prepare() error {
	if r.ID == "" {
		return errors.New("it has no id")
	}
	switch r.Effect {
	case Allow, Deny, Approve, DryRun:
	default:
		return fmt.Errorf("effect %q: want allow, deny, approve or dry-run", r.Effect)
	}
	if r.Kind != "" && r.Kind != KindCall && r.Kind != KindSet {
		return fmt.Errorf("kind %q: want call or set", r.Kind)
	}
	if r.Reads && r.Effect != Deny && r.Effect != Allow {
		return errors.New("reads are allowed or denied, nothing else")
	}
	if r.PerMinute < 0 {
		return fmt.Errorf("per_minute %d", r.PerMinute)
	}
	for _, c := range r.Clients {
		kind, rest, named := strings.Cut(c, ":")
		switch kind {
		case "*", EntranceCLI, EntranceDBus, EntranceMCP, EntranceWeb:
		case "uid", "user", "group", "unit":
			if !named || rest == "" {
				return fmt.Errorf("client %q names nobody", c)
			}
		default:
			return fmt.Errorf("client %q: want cli, dbus, mcp, web, or uid, user, group or unit and whose", c)
		}
	}
	r.ttl = defaultTTL
	if r.TTL != "" {
		d, err := time.ParseDuration(r.TTL)
		if err != nil || d <= 0 || d > maxTTL {
			return fmt.Errorf("ttl %q: want a time up to %s", r.TTL, maxTTL)
		}
		r.ttl = d
	}
	r.args = map[int]string{}
	for k, pattern := range r.Args {
		n, err := strconv.Atoi(k)
		if err != nil || n < 0 {
			return fmt.Errorf("args: %q is no index", k)
		}
		r.args[n] = pattern
	}
	return nil
}

// glob says whether s matches pattern; an empty pattern matches everything.
func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	// The place to go back to: after the last star, and where it began.
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func (r *Rule) matches(p Principal, a Action) bool {
	if !r.matchesClient(p) || r.Kind != "" && r.Kind != a.Kind && (r.Kind != KindCall || a.Kind != kindOwn) || !glob(r.Bus, a.Bus) || !glob(r.Name, a.Name) || !glob(r.Path, a.Path) || !glob(r.Interface, a.Interface) {
		return false
	}
	if len(r.Members) > 0 {
		hit := false
		for _, m := range r.Members {
			hit = hit || glob(m, a.Member) && m != ""
		}
		if !hit {
			return false
		}
	}
	if len(r.args) > 0 {
		texts := a.texts()
		for i, pattern := range r.args {
			if i >= len(texts) || !glob(pattern, texts[i]) {
				return false
			}
		}
	}
	return true
}

func (r *Rule) matchesClient(p Principal) bool {
	stranger := p.Entrance == EntranceMCP || p.Entrance == EntranceWeb
	if len(r.Clients) == 0 {
		// What denies, denies everybody.
		return !stranger || r.Effect == Deny
	}
	for _, c := range r.Clients {
		if c == "*" {
			if !stranger || r.Effect == Deny {
				return true
			}
			continue
		}
		kind, _, _ := strings.Cut(c, ":")
		if stranger && kind != p.Entrance && r.Effect != Deny {
			continue // an agent is not its user
		}
		for _, id := range p.identities() {
			if glob(c, id) {
				return true
			}
		}
	}
	return false
}

// A Decision is what the policy says of an action.
type Decision struct {
	Effect   Effect        `json:"effect"`
	Read     bool          `json:"read"`           // nothing is changed, nothing is recorded
	Rule     string        `json:"rule,omitempty"` // that decided; "" if none did
	Reason   string        `json:"reason"`
	Polkit   string        `json:"polkit,omitempty"` // action to ask about
	Revision string        `json:"policy"`
	TTL      time.Duration `json:"-"`
	FourEyes bool          `json:"four_eyes,omitempty"`

	rule *Rule
}

// PolkitCall and its like are the actions that the package ships.
const (
	PolkitCall     = "org.freedesktop.opdbus.call"
	PolkitSet      = "org.freedesktop.opdbus.set-property"
	PolkitApply    = "org.freedesktop.opdbus.apply-state"
	PolkitRollback = "org.freedesktop.opdbus.rollback"
	PolkitApprove  = "org.freedesktop.opdbus.approve"
	PolkitNetwork  = "org.freedesktop.opdbus.network"
	PolkitTokens   = "org.freedesktop.opdbus.tokens"
	PolkitRead     = "org.freedesktop.opdbus.read-sensitive"
)

func (pol *Policy) perMinute() int {
	if pol.PerMinute == 0 {
		return defaultPerMinute
	}
	return pol.PerMinute
}

// Decide is the policy as a function: it asks nobody and changes nothing.
func (pol *Policy) Decide(p Principal, a Action) Decision {
	d := Decision{Effect: Deny, Revision: pol.Revision, TTL: defaultTTL}
	if reason := never(a); reason != "" {
		d.Reason = reason + ": never called, whatever the policy says"
		return d
	}
	d.Read = IsRead(a)
	for i := range pol.Rules {
		r := &pol.Rules[i]
		if r.Reads != d.Read || !r.matches(p, a) {
			continue
		}
		d.Effect, d.Rule, d.Reason, d.rule = r.Effect, r.ID, "rule "+r.ID, r
		d.Polkit, d.TTL, d.FourEyes = r.Polkit, r.ttl, r.FourEyes
		break
	}
	switch {
	case d.Read && d.rule == nil:
		d.Effect, d.Reason = Allow, "on the read list"
	case d.Read:
		d.Polkit = ""
	case d.rule == nil:
		// A browser's answers to approvals are by role; all else of it, and all
		// that agents do, needs a rule: polkit is not asked about them.
		if action := builtin(a); action != "" && p.Entrance != EntranceMCP && (p.Entrance != EntranceWeb || ownByPeople(a)) {
			d.Effect, d.Polkit, d.Reason = Allow, action, "polkit decides"
			return d
		}
		d.Reason = "no rule allows it"
		return d
	}
	if d.Read {
		return d
	}
	if by := personally(a); by != "" && (d.Effect == Allow || d.Effect == Approve) {
		// A rule may forbid it. What proves that there is a person is not its
		// to choose.
		d.Effect, d.Polkit = Allow, by
		return d
	}
	if d.Effect == Allow {
		if why := rootEquivalent(a); why != "" {
			d.Effect, d.Reason = Approve, d.Reason+"; "+why
		}
	}
	if d.Polkit == "" && (d.Effect == Allow || d.Effect == Approve) {
		d.Polkit = defaultPolkit(a)
	}
	return d
}

// withParts returns d, or what is stricter in the decisions about the parts,
// and what polkit is asked about for rules of theirs that name an action.
func (pol *Policy) withParts(p Principal, d Decision, parts []Action) (Decision, []string) {
	var also []string
	for _, a := range parts {
		part := pol.Decide(p, a)
		switch part.Effect {
		case Allow:
		case Approve:
			if d.Effect == Allow {
				d.Effect, d.Reason = Approve, a.String()+": "+part.Reason
				d.TTL = part.TTL
			}
			d.TTL = min(d.TTL, part.TTL)
			d.FourEyes = d.FourEyes || part.FourEyes
		default:
			if d.Effect == Allow || d.Effect == Approve {
				d.Effect, d.Reason = part.Effect, a.String()+": "+part.Reason
			}
		}
		if part.rule != nil && part.rule.Polkit != "" && part.rule.Polkit != NoPolkit && part.rule.Polkit != d.Polkit && !slices.Contains(also, part.rule.Polkit) {
			also = append(also, part.rule.Polkit)
		}
	}
	return d, also
}
