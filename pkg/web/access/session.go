// Package access says who may use the web interface, and as what: logins by a
// one-time URL that a Unix socket gives to those whom the kernel names, the
// sessions that come of them, and the checks that every request passes.
package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Role is what a login may do; each may what the one before may.
type Role int

// The roles.
const (
	Nobody   Role = iota
	Viewer        // sees everything
	Operator      // asks for changes, which the policy decides about
	Approver      // answers what others asked for
)

var roleNames = [...]string{"nobody", "viewer", "operator", "approver"}

func (r Role) String() string {
	if r < 0 || int(r) >= len(roleNames) {
		return "nobody"
	}
	return roleNames[r]
}

// ParseRole takes a role's name.
func ParseRole(s string) (Role, error) {
	for r, name := range roleNames {
		if name == s && r > 0 {
			return Role(r), nil
		}
	}
	return Nobody, fmt.Errorf("role %q: want viewer, operator or approver", s)
}

// MarshalText gives the name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes a name.
func (r *Role) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRole(string(b))
	return err
}

// A Login is who has logged in.
type Login struct {
	ID      string    `json:"id"` // public: it names the session in lists and logs
	UID     uint32    `json:"uid"`
	User    string    `json:"user"`
	Role    Role      `json:"role"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
}

// Lifetimes.
const (
	TicketLife  = 2 * time.Minute
	SessionLife = 12 * time.Hour
)

const (
	maxTickets  = 100
	maxSessions = 1000
	tokenBytes  = 32
)

// Sessions are the logins that are in force, and the tickets, one-time URLs,
// that become one. A session is a file in Dir, named by the hash of its token,
// so that it outlives a restart of the process; Dir is to be on a file system
// that a boot empties. Tickets are in memory.
type Sessions struct {
	Dir string           // none is kept if ""
	Now func() time.Time // time.Now if nil

	mu       sync.Mutex
	tickets  map[[32]byte]ticket
	sessions map[[32]byte]Login
}

type ticket struct {
	login   Login
	expires time.Time
}

func (s *Sessions) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func newToken() (string, [32]byte) {
	var b [tokenBytes]byte
	rand.Read(b[:])
	token := base64.RawURLEncoding.EncodeToString(b[:])
	return token, sha256.Sum256([]byte(token))
}

// Ticket returns a token that Redeem takes once.
func (s *Sessions) Ticket(l Login) (token string, expires time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for h, t := range s.tickets {
		if !now.Before(t.expires) {
			delete(s.tickets, h)
		}
	}
	if len(s.tickets) >= maxTickets {
		return "", time.Time{}, fmt.Errorf("%d logins wait already; they expire within %s", len(s.tickets), TicketLife)
	}
	if s.tickets == nil {
		s.tickets = map[[32]byte]ticket{}
	}
	token, h := newToken()
	expires = now.Add(TicketLife)
	s.tickets[h] = ticket{l, expires}
	return token, expires, nil
}

// Peek says whose ticket a token is, without using it up.
func (s *Sessions) Peek(token string) (Login, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tickets[sha256.Sum256([]byte(token))]
	return t.login, ok && s.now().Before(t.expires)
}

// ErrTicket says that a ticket is not good.
var ErrTicket = errors.New("this link was used already, or is older than two minutes")

// Redeem makes a session of a ticket and returns the session's token.
func (s *Sessions) Redeem(token string) (string, Login, error) {
	h := sha256.Sum256([]byte(token))
	s.mu.Lock()
	t, ok := s.tickets[h]
	delete(s.tickets, h)
	s.mu.Unlock()
	if !ok || !s.now().Before(t.expires) {
		return "", Login{}, ErrTicket
	}
	return s.Begin(t.login)
}

// Begin makes a session and returns its token.
func (s *Sessions) Begin(l Login) (string, Login, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return "", l, err
	}
	if len(s.sessions) >= maxSessions {
		return "", l, fmt.Errorf("%d sessions are open already", len(s.sessions))
	}
	token, h := newToken()
	l.ID = hex.EncodeToString(h[:6])
	l.Since = s.now().UTC().Truncate(time.Second)
	l.Expires = l.Since.Add(SessionLife)
	if s.Dir != "" {
		data, err := json.Marshal(l)
		if err != nil {
			return "", l, err
		}
		// A half-written file is none: it does not parse.
		if err := os.WriteFile(s.path(h), data, 0o600); err != nil {
			return "", l, fmt.Errorf("session: %w", err)
		}
	}
	s.sessions[h] = l
	return token, l, nil
}

func (s *Sessions) path(h [32]byte) string {
	return filepath.Join(s.Dir, hex.EncodeToString(h[:])+".session")
}

// load reads the sessions of an earlier process, and drops what has expired. It
// is called with mu held.
func (s *Sessions) load() error {
	now := s.now()
	if s.sessions != nil {
		for h, l := range s.sessions {
			if !now.Before(l.Expires) {
				s.drop(h)
			}
		}
		return nil
	}
	s.sessions = map[[32]byte]Login{}
	if s.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".session")
		b, err := hex.DecodeString(name)
		if !ok || err != nil || len(b) != 32 {
			continue
		}
		h := [32]byte(b)
		var l Login
		data, err := os.ReadFile(s.path(h))
		if err != nil {
			return fmt.Errorf("sessions: %w", err)
		}
		if json.Unmarshal(data, &l) != nil || !now.Before(l.Expires) {
			os.Remove(s.path(h))
			continue
		}
		s.sessions[h] = l
	}
	return nil
}

func (s *Sessions) drop(h [32]byte) {
	delete(s.sessions, h)
	if s.Dir != "" {
		os.Remove(s.path(h))
	}
}

// Find returns the login that a token is of.
func (s *Sessions) Find(token string) (Login, bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return Login{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return Login{}, false
	}
	l, ok := s.sessions[sha256.Sum256([]byte(token))]
	return l, ok
}

// End ends the session of a token.
func (s *Sessions) End(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.load() == nil {
		s.drop(sha256.Sum256([]byte(token)))
	}
}

// FormToken returns what a form of a session must bring with it.
func FormToken(token string) string {
	m := hmac.New(sha256.New, []byte(token))
	m.Write([]byte("form"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:18])
}

// CheckForm says whether a form's token is the session's.
func CheckForm(session, form string) bool {
	return subtle.ConstantTimeCompare([]byte(FormToken(session)), []byte(form)) == 1
}
