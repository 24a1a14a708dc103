package opdbus

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newApprovals(t *testing.T, now *time.Time) *Approvals {
	return &Approvals{Dir: filepath.Join(t.TempDir(), "approvals"), Now: func() time.Time { return *now }}
}

func TestApprovalIsOneUse(t *testing.T) {
	now := time.Now()
	s := newApprovals(t, &now)
	a := mustCall(t, "a.b", "/", "c.d", "M", "s", "x")
	other := mustCall(t, "a.b", "/", "c.d", "M", "s", "y")
	d := Decision{Effect: Approve, TTL: 10 * time.Minute, Revision: "r1"}
	asked, err := s.Request(agent, a, d)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Request(agent, a, d); err != nil || again.ID != asked.ID {
		t.Fatalf("asking again: %v, %v", again, err)
	}
	use := func(p Principal, a Action, revision string) bool {
		t.Helper()
		got, err := s.Use(p, a, revision)
		if err != nil {
			t.Fatal(err)
		}
		return got != nil
	}
	if use(agent, a, "r1") {
		t.Error("used before anybody has answered")
	}
	if _, err := s.Answer(asked.ID, agent, true); err == nil {
		t.Error("an agent approved its own")
	}
	if _, err := s.Answer(asked.ID, root, true); err != nil {
		t.Fatal(err)
	}
	if use(agent, other, "r1") || use(alice, a, "r1") || use(agent, a, "r2") {
		t.Error("used for another action, by somebody else or under another policy")
	}
	// Many at once: one gets it.
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := (&Approvals{Dir: s.Dir}).Use(agent, a, "r1"); err == nil && got != nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("used %d times", won.Load())
	}
	if _, err := s.Answer(asked.ID, root, true); err == nil {
		t.Error("a used one was approved again")
	}
}

func TestApprovalExpires(t *testing.T) {
	now := time.Now()
	s := newApprovals(t, &now)
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	d := Decision{Effect: Approve, TTL: 10 * time.Minute}
	first, err := s.Request(agent, a, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Answer(first.ID, root, true); err != nil {
		t.Fatal(err)
	}
	now = now.Add(11 * time.Minute)
	if got, err := s.Use(agent, a, ""); err != nil || got != nil {
		t.Errorf("used after its end: %v, %v", got, err)
	}
	if got, err := s.Get(first.ID); err != nil || got.State != StateExpired {
		t.Errorf("%v, %v", got, err)
	}
	now = now.Add(25 * time.Hour)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("old ones are kept: %v, %v", list, err)
	}
}

func TestFourEyes(t *testing.T) {
	now := time.Now()
	s := newApprovals(t, &now)
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	asked, err := s.Request(alice, a, Decision{TTL: time.Minute, FourEyes: true})
	if err != nil {
		t.Fatal(err)
	}
	self := alice
	self.Entrance = EntranceCLI
	if _, err := s.Answer(asked.ID, self, true); err == nil {
		t.Error("who asked has approved")
	}
	if _, err := s.Answer(asked.ID, root, true); err != nil {
		t.Error(err)
	}
}

// An approval whose action was exchanged on disk is none.
func TestExchangedAction(t *testing.T) {
	now := time.Now()
	s := newApprovals(t, &now)
	asked, err := s.Request(agent, mustCall(t, "a.b", "/", "c.d", "M", "s", "harmless"), Decision{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	path := s.path(asked.ID)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte("harmless"), []byte("harmful"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Answer(asked.ID, root, true); err == nil {
		t.Error("it was approved")
	}
}

// No principal can bury the one that matters under a thousand others.
func TestPendingAreBounded(t *testing.T) {
	now := time.Now()
	s := newApprovals(t, &now)
	for i := range maxPending + 1 {
		_, err := s.Request(agent, mustCall(t, "a.b", "/", "c.d", "M", "u", uint32(i)), Decision{TTL: time.Minute})
		if (err != nil) != (i >= maxPending) {
			t.Fatalf("%d: %v", i, err)
		}
	}
}
