package opdbus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// States of an approval.
const (
	StatePending  = "pending"
	StateApproved = "approved"
	StateDenied   = "denied"
	StateUsed     = "used"
	StateExpired  = "expired"
)

// An Approval is a person's answer to one action of one principal. It is bound
// to the hash of the action, used once, and ends at Expires.
type Approval struct {
	ID        string     `json:"id"`
	State     string     `json:"state"`
	Action    Action     `json:"action"` // the very bytes that are done
	Hash      string     `json:"sha256"` // of the action
	Principal Principal  `json:"principal"`
	Policy    string     `json:"policy"` // revision of the policy that asked
	Rule      string     `json:"rule,omitempty"`
	Reason    string     `json:"reason"`
	FourEyes  bool       `json:"four_eyes,omitempty"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	Approver  *Principal `json:"approver,omitempty"`
	Answered  *time.Time `json:"answered,omitempty"`
}

// Approvals is a directory of approvals, a file each, which several processes
// may use. Each change is under a lock and durable before it is answered: one
// that was used stays used after a power cut.
type Approvals struct {
	Dir string
	Now func() time.Time // time.Now if nil
}

const (
	maxPending   = 100            // of all principals; approval fatigue is a way in
	keepApproval = 24 * time.Hour // after its end
)

var errApproval = errors.New("approval")

// An ApprovalError says why an approval can't be given or used.
type ApprovalError struct{ ID, Reason string }

func (e *ApprovalError) Error() string { return fmt.Sprintf("approval %s: %s", e.ID, e.Reason) }
func (e *ApprovalError) Unwrap() error { return errApproval }

// DBusName is the error's name on the bus.
func (e *ApprovalError) DBusName() string { return "org.freedesktop.opdbus.Error.Approval" }

func (s *Approvals) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// locked calls do while no other process uses the directory.
func (s *Approvals) locked(do func() error) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("approvals: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("approvals: %w", err)
	}
	defer f.Close()
	if err := durable.WaitLock(f); err != nil {
		return fmt.Errorf("approvals: %w", err)
	}
	return do()
}

func (s *Approvals) path(id string) string { return filepath.Join(s.Dir, id+".json") }

func validID(id string) bool {
	_, err := hex.DecodeString(id)
	return err == nil && len(id) == 16
}

func (s *Approvals) read(id string) (*Approval, error) {
	if !validID(id) {
		return nil, &ApprovalError{id, "there is none of that name"}
	}
	data, err := os.ReadFile(s.path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &ApprovalError{id, "there is none of that name"}
	}
	if err != nil {
		return nil, err
	}
	var a Approval
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("approval %s: %w", id, err)
	}
	if a.Action.Hash() != a.Hash {
		return nil, &ApprovalError{id, "its action is not what was asked for"}
	}
	if (a.State == StatePending || a.State == StateApproved) && !s.now().Before(a.Expires) {
		a.State = StateExpired
	}
	return &a, nil
}

func (s *Approvals) write(a *Approval) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return durable.Replace(s.path(a.ID), append(data, '\n'), 0o600)
}

// List returns all approvals, newest first.
func (s *Approvals) List() ([]Approval, error) {
	var list []Approval
	err := s.locked(func() error {
		var err error
		list, err = s.list()
		return err
	})
	return list, err
}

func (s *Approvals) list() ([]Approval, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, err
	}
	list := []Approval{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !validID(id) {
			continue
		}
		a, err := s.read(id)
		if err != nil {
			return nil, err
		}
		if s.now().After(a.Expires.Add(keepApproval)) {
			if err := os.Remove(s.path(id)); err != nil {
				return nil, err
			}
			continue
		}
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Approval) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// Get returns one.
func (s *Approvals) Get(id string) (*Approval, error) {
	var a *Approval
	err := s.locked(func() error {
		var err error
		a, err = s.read(id)
		return err
	})
	return a, err
}

// Request asks for an approval of what p wants to do, or returns the one that
// waits already.
func (s *Approvals) Request(p Principal, a Action, d Decision) (*Approval, error) {
	var out *Approval
	err := s.locked(func() error {
		list, err := s.list()
		if err != nil {
			return err
		}
		pending := 0
		for i := range list {
			x := &list[i]
			if x.State != StatePending {
				continue
			}
			pending++
			if x.Hash == a.Hash() && x.Principal.key() == p.key() && x.Policy == d.Revision {
				out = x
				return nil
			}
		}
		if pending >= maxPending {
			return &ApprovalError{"-", fmt.Sprintf("%d wait already", pending)}
		}
		now := s.now().UTC()
		out = &Approval{ID: newID(), State: StatePending, Action: a, Hash: a.Hash(), Principal: p, Policy: d.Revision, Rule: d.Rule,
			Reason: d.Reason, FourEyes: d.FourEyes, Created: now, Expires: now.Add(d.TTL)}
		return s.write(out)
	})
	return out, err
}

// Answer records a person's answer.
func (s *Approvals) Answer(id string, approver Principal, yes bool) (*Approval, error) {
	var a *Approval
	err := s.locked(func() error {
		var err error
		if a, err = s.read(id); err != nil {
			return err
		}
		switch {
		case a.State != StatePending:
			return &ApprovalError{id, "it is " + a.State}
		case approver.Entrance != EntranceCLI && approver.Entrance != EntranceDBus && approver.Entrance != EntranceWeb:
			return &ApprovalError{id, "only a person can answer"}
		case yes && a.FourEyes && approver.UID == a.Principal.UID:
			return &ApprovalError{id, "the rule wants another person than the one who asks"}
		}
		a.State = StateDenied
		if yes {
			a.State = StateApproved
		}
		now := s.now().UTC()
		a.Approver, a.Answered = &approver, &now
		return s.write(a)
	})
	return a, err
}

// Use takes the approval of what p wants to do, and ends it. It returns nil if
// there is none.
func (s *Approvals) Use(p Principal, a Action, revision string) (*Approval, error) {
	var out *Approval
	err := s.locked(func() error {
		list, err := s.list()
		if err != nil {
			return err
		}
		for i := range list {
			x := &list[i]
			if x.State == StateApproved && x.Hash == a.Hash() && x.Principal.key() == p.key() && x.Policy == revision {
				x.State = StateUsed
				out = x
				return s.write(x)
			}
		}
		return nil
	})
	return out, err
}
