package chain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// A gateRig has users ask a gate, one request after another, and notes in which
// order they get in.
type gateRig struct {
	*gate
	t  *testing.T
	mu sync.Mutex
	in []string
	wg sync.WaitGroup
}

// ask has uid ask for bytes; it returns when the request is in or waits.
func (r *gateRig) ask(uid uint32, bytes int64, done <-chan struct{}) {
	r.t.Helper()
	r.gate.mu.Lock()
	before, used := r.waits(), r.used
	r.gate.mu.Unlock()
	name := fmt.Sprintf("%d:%d", uid, bytes)
	ended := make(chan struct{})
	r.wg.Go(func() {
		if r.enter(uid, bytes, done) == nil {
			r.mu.Lock()
			r.in = append(r.in, name)
			r.mu.Unlock()
		}
		close(ended)
	})
	for {
		r.gate.mu.Lock()
		moved := r.waits() != before || r.used != used
		r.gate.mu.Unlock()
		if moved {
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *gateRig) waits() (n int) {
	for _, list := range r.waiting {
		n += len(list)
	}
	return n
}

// entered waits until so many are in and returns them since the last call.
func (r *gateRig) entered(n int) []string {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		if len(r.in) >= n || time.Now().After(deadline) {
			in := r.in
			r.in = nil
			r.mu.Unlock()
			slices.Sort(in)
			return in
		}
		r.mu.Unlock()
	}
}

func (r *gateRig) want(in ...string) {
	r.t.Helper()
	if have := r.entered(len(in)); !slices.Equal(have, in) {
		r.t.Fatalf("%v are in, want %v", have, in)
	}
}

func TestGateTakesTurns(t *testing.T) {
	r := &gateRig{gate: newGate(10, 0), t: t}
	r.ask(1, 10, nil)
	r.want("1:10")
	for range 5 {
		r.ask(1, 5, nil)
	}
	r.ask(2, 6, nil) // came last, and its turn is second
	r.ask(3, 20, nil)
	r.leave(1, 10)
	r.want("1:5") // 6 more are too many, and nobody goes past 2
	r.leave(1, 5)
	r.want("2:6") // then it is 3's turn, for whom the gate must be empty
	r.leave(2, 6)
	r.want("3:20")
	r.leave(3, 20)
	r.want("1:5", "1:5")
	r.leave(1, 10)
	r.want("1:5", "1:5")
	r.leave(1, 10)
	r.wg.Wait()
	if r.used != 0 || len(r.held) != 0 || len(r.waiting) != 0 || len(r.turns) != 0 {
		t.Errorf("left: %d, %v, %v, %v", r.used, r.held, r.waiting, r.turns)
	}
}

func TestGateKeepsTheLastForOthers(t *testing.T) {
	r := &gateRig{gate: newGate(4, 1), t: t}
	for range 6 {
		r.ask(1, 1, nil)
	}
	r.want("1:1", "1:1", "1:1")
	r.ask(2, 1, nil)
	r.want("2:1")
	r.ask(3, 1, nil)
	r.leave(1, 1)
	r.want("3:1")
	r.leave(2, 1) // what is free now is the last, and 1 holds some already
	r.leave(1, 1)
	r.want("1:1")
	r.leave(3, 1)
	r.want("1:1")
	r.leave(1, 3)
	r.want("1:1")
	r.leave(1, 1)
	r.wg.Wait()
}

func TestGateForgetsWhoGivesUp(t *testing.T) {
	r := &gateRig{gate: newGate(4, 0), t: t}
	r.ask(1, 4, nil)
	done := make(chan struct{})
	r.ask(2, 4, done)
	r.ask(2, 1, nil)
	r.ask(3, 3, nil)
	close(done)
	r.want("1:4")
	r.leave(1, 4)
	r.want("2:1", "3:3")
	r.ask(1, 2, nil)
	r.close()
	r.wg.Wait()
	if err := r.enter(1, 1, nil); err == nil {
		t.Error("a closed gate lets in")
	}
}

// Whatever is asked for, no more than the size is out, but for one that is
// alone, and all get in.
func TestGateBounds(t *testing.T) {
	g := newGate(100, 20)
	var wg sync.WaitGroup
	for uid := range uint32(5) {
		for k := range 20 {
			rnd := rand.New(rand.NewPCG(uint64(uid), uint64(k)))
			wg.Go(func() {
				for range 50 {
					n := 1 + rnd.Int64N(60)
					if rnd.IntN(20) == 0 {
						n = 150
					}
					if err := g.enter(uid, n, nil); err != nil {
						t.Error(err)
						return
					}
					if used := g.inUse(); used > 100 && used != 150 {
						t.Errorf("%d are out", used)
					}
					g.leave(uid, n)
				}
			})
		}
	}
	wg.Wait()
	if g.inUse() != 0 {
		t.Errorf("%d are left", g.inUse())
	}
}
