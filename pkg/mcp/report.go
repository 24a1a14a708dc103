package mcp

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// A step is a request that was answered.
type step struct {
	who     claim
	note    note
	method  string
	subject string
	start   time.Time
	took    time.Duration
	count   int
}

// A stepKey is what is the same in like steps.
type stepKey struct {
	client, session, program, method, subject string
	note                                      note
}

// A reporter has the daemon record what agents do. It is behind, by up to a
// second, and keeps nobody waiting: changes have been recorded by the daemon
// before they were made. Like steps of a second become one with a count; what
// is beyond maxKinds of them becomes a number.
type reporter struct {
	daemon Daemon
	log    *slog.Logger

	mu      sync.Mutex
	steps   map[stepKey]*step
	order   []*step
	dropped int

	stop chan struct{}
	done chan struct{}
	once sync.Once
}

const (
	maxKinds      = 200 // a second
	reportEvery   = time.Second
	reportTimeout = 15 * time.Second
	maxReport     = 100 // steps a message
)

func newReporter(d Daemon, log *slog.Logger) *reporter {
	r := &reporter{daemon: d, log: log, steps: map[stepKey]*step{}, stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

func (r *reporter) add(s step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := stepKey{s.who.Client, s.who.Session, s.who.Program, s.method, s.subject, s.note}
	if have := r.steps[key]; have != nil {
		have.count++
		have.took = max(have.took, s.took)
		return
	}
	if len(r.order) >= maxKinds {
		r.dropped++
		return
	}
	s.count = 1
	r.steps[key] = &s
	r.order = append(r.order, &s)
}

func (r *reporter) run() {
	defer close(r.done)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flush()
		case <-r.stop:
			r.flush()
			return
		}
	}
}

// flush has what waits recorded. What can't be is lost, and said to be.
func (r *reporter) flush() {
	r.mu.Lock()
	order, dropped := r.order, r.dropped
	clear(r.steps)
	r.order, r.dropped = nil, 0
	r.mu.Unlock()
	if len(order) == 0 {
		return
	}
	var lines []string
	for _, s := range order {
		lines = append(lines, s.line())
	}
	if dropped > 0 {
		lines = append(lines, (&step{who: order[0].who, method: "steps", note: note{outcome: "dropped", reason: "too many different steps in a second"}, start: time.Now(), count: dropped}).line())
	}
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	for len(lines) > 0 {
		n := min(len(lines), maxReport)
		if err := r.daemon.Report(ctx, lines[:n]); err != nil {
			r.log.Warn("what agents have seen is not recorded", "steps", len(lines), "error", err)
			return
		}
		lines = lines[n:]
	}
}

// line is the step as the daemon's Agents.Report takes it.
func (s *step) line() string {
	cut := func(s string) string {
		if len(s) > 400 {
			return clean(s, 400)
		}
		return s
	}
	count := 0
	if s.count > 1 {
		count = s.count
	}
	b, err := json.Marshal(map[string]any{"time": s.start.UTC(), "client": s.who.Client, "method": s.method, "subject": s.subject, "outcome": s.note.outcome,
		"rule": s.note.rule, "reason": cut(s.note.reason), "error": cut(s.note.failure), "id": s.note.id, "approval": s.note.approval, "count": count,
		"milliseconds": float64(s.took.Microseconds()) / 1000, "session": s.who.Session, "program": s.who.Program, "tool": s.note.tool, "arguments_sha256": s.note.sha256})
	if err != nil { // strings and numbers
		panic(err)
	}
	return string(b)
}

// close records what waits and ends.
func (r *reporter) close() {
	r.once.Do(func() { close(r.stop) })
	<-r.done
}
