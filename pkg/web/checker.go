package web

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
)

// A checker verifies the log again and again: what has come since the last
// time, and all of it where somebody asks.
type checker struct {
	dir string

	mu       sync.Mutex
	report   *chain.Report // the latest, nil before the first
	at       time.Time     // when that was
	took     time.Duration
	full     time.Time // when all of it was read
	err      error     // of the latest attempt
	running  bool
	wanted   bool // somebody wants all of it
	done     int64
	size     int64
	wake     chan struct{}
	complete bool // the run that is on reads all of it
}

const checkEvery = 5 * time.Second

func (c *checker) run(ctx context.Context) {
	c.mu.Lock()
	c.wake = make(chan struct{}, 1)
	c.mu.Unlock()
	for {
		c.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkEvery):
		case <-c.wake:
		}
	}
}

func (c *checker) once(ctx context.Context) {
	c.mu.Lock()
	o := chain.VerifyOptions{Live: true, Workers: 1}
	if c.report != nil && !c.wanted {
		o.Since = c.report.State
	}
	c.complete = o.Since == nil
	c.wanted, c.running, c.done, c.size = false, true, 0, 0
	c.mu.Unlock()
	o.Progress = func(done, size int64) {
		c.mu.Lock()
		c.done, c.size = done, size
		c.mu.Unlock()
	}
	start := time.Now()
	report, err := chain.Verify(ctx, os.DirFS(c.dir), o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	if ctx.Err() != nil {
		return
	}
	c.err = err
	if err == nil {
		c.report, c.at, c.took = report, time.Now(), time.Since(start)
		if c.complete {
			c.full = c.at
		}
	}
}

// all asks for the whole log to be verified.
func (c *checker) all() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = true
	if c.wake != nil {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// A checkView is how far the log is verified.
type checkView struct {
	OK       bool      `json:"ok"`
	Known    bool      `json:"known"` // there is a verdict
	Size     int64     `json:"size"`  // events that are verified
	Root     string    `json:"root"`
	At       time.Time `json:"at,omitzero"`   // when
	Full     time.Time `json:"full,omitzero"` // when all of it was read
	Took     float64   `json:"took_seconds"`
	Error    string    `json:"error,omitempty"`
	Faults   []string  `json:"faults"`
	Tail     int64     `json:"tail"`    // events that are not signed yet
	Running  bool      `json:"running"` // a whole verification is on, or waits
	Done     int64     `json:"done"`    // of it
	Of       int64     `json:"of"`
	Segments int       `json:"segments"`
	Epochs   int64     `json:"epochs"`
	Pruned   int64     `json:"pruned"`
	Archived int       `json:"checkpoints"`
	Key      string    `json:"key"`
	Origin   string    `json:"origin"`
}

func (c *checker) view() *checkView {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &checkView{Faults: []string{}, Running: c.wanted || c.running && c.complete, Done: c.done, Of: c.size}
	if c.err != nil {
		v.Error = c.err.Error()
	}
	r := c.report
	if r == nil {
		return v
	}
	v.Known, v.OK, v.Size, v.Root, v.At, v.Full, v.Took = true, r.OK && c.err == nil, r.Size, r.Root.String(), c.at.UTC(), c.full.UTC(), c.took.Seconds()
	v.Tail, v.Segments, v.Epochs, v.Pruned, v.Archived, v.Key, v.Origin = r.Tail, r.Segments, r.Epochs, r.Pruned, r.Archived, r.Key, r.Origin
	for i, f := range r.Faults {
		if i == 50 {
			break
		}
		v.Faults = append(v.Faults, clean(f.String()))
	}
	return v
}
