package chain

import (
	"errors"
	"sync"
)

// A gate gives out a bounded number of bytes of memory. Who asks for more than
// is free waits: users (uids) take turns, and one's own requests are served in
// their order, so that neither many requests of one user nor small ones of all
// keep another or a large one out for ever.
type gate struct {
	size int64 // a request for more than this is alone
	last int64 // of size: only for a user who holds nothing

	mu      sync.Mutex
	used    int64
	held    map[uint32]int64 // by uid, of used
	waiting map[uint32][]*entry
	turns   []uint32 // uids that wait, the next one first
	closed  bool
}

type entry struct {
	bytes int64
	in    chan error // has nil when it is in
}

var errLogClosed = errors.New("the log is closed")

func newGate(size, last int64) *gate {
	return &gate{size: size, last: last, held: make(map[uint32]int64), waiting: make(map[uint32][]*entry)}
}

// enter takes bytes for uid. It waits, but not longer than until done.
func (g *gate) enter(uid uint32, bytes int64, done <-chan struct{}) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errLogClosed
	}
	if len(g.turns) == 0 && g.used+bytes <= g.size-g.last { // nearly always
		g.take(uid, bytes)
		g.mu.Unlock()
		return nil
	}
	e := &entry{bytes, make(chan error, 1)}
	if len(g.waiting[uid]) == 0 {
		g.turns = append(g.turns, uid)
	}
	g.waiting[uid] = append(g.waiting[uid], e)
	g.admit()
	g.mu.Unlock()
	select {
	case err := <-e.in:
		return err
	case <-done:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-e.in: // at the same moment
		if err == nil {
			g.take(uid, -bytes)
			g.admit()
		}
	default:
		for i, w := range g.waiting[uid] {
			if w == e {
				g.forget(uid, i)
				break
			}
		}
		g.admit() // it may have stood in the way
	}
	return errLogClosed
}

// leave gives bytes of uid back.
func (g *gate) leave(uid uint32, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.take(uid, -bytes)
	g.admit()
}

// inUse returns how many bytes are given out.
func (g *gate) inUse() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

// close refuses all who wait or come later.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, list := range g.waiting {
		for _, e := range list {
			e.in <- errLogClosed
		}
	}
	clear(g.waiting)
	g.turns = nil
}

// admit lets in who is next, as long as there is room. mu is held, as in all
// below.
func (g *gate) admit() {
	for next := g.next(); next >= 0; next = g.next() {
		uid := g.turns[next]
		e := g.waiting[uid][0]
		g.take(uid, e.bytes)
		g.forget(uid, 0)
		if len(g.waiting[uid]) > 0 { // behind the others
			g.turns = append(append(g.turns[:next:next], g.turns[next+1:]...), uid)
		}
		e.in <- nil
	}
}

// next returns whose turn it is, -1 for nobody's. A user who may not have the
// last bytes is passed over; one whose request is too large for what is free
// is waited for.
func (g *gate) next() int {
	for i, uid := range g.turns {
		e := g.waiting[uid][0]
		if g.used == 0 || g.used+e.bytes <= g.size-g.last {
			return i
		}
		if g.held[uid] > 0 && g.used+e.bytes <= g.size {
			continue // it would be the last bytes
		}
		if g.used+e.bytes <= g.size {
			return i
		}
		return -1
	}
	return -1
}

func (g *gate) take(uid uint32, bytes int64) {
	g.used += bytes
	if g.held[uid] += bytes; g.held[uid] == 0 {
		delete(g.held, uid)
	}
}

// forget takes the i'th entry of uid out of the waiting ones, and uid out of
// the turns if it was its only one.
func (g *gate) forget(uid uint32, i int) {
	list := g.waiting[uid]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	g.waiting[uid] = list[:len(list)-1]
	if len(g.waiting[uid]) > 0 {
		return
	}
	delete(g.waiting, uid)
	for k, u := range g.turns {
		if u == uid {
			g.turns = append(g.turns[:k:k], g.turns[k+1:]...)
			return
		}
	}
}
