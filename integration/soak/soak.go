//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/stepclock"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A soak is a run.
type soak struct {
	o      options
	h      *host
	ledger *ledger
	meter  *meter
	begin  time.Time

	roles map[string]*role
	names []string // of roles, in their order

	producers     []*producer
	file, qdrant  *shipper
	stopProducing context.CancelFunc
	stopDrain     context.CancelFunc
	stopDaemons   context.CancelFunc
	stopShipping  context.CancelFunc
	stopAsking    context.CancelFunc
	producing     sync.WaitGroup
	daemons       sync.WaitGroup
	shipping      sync.WaitGroup
	asking        sync.WaitGroup

	mu         sync.Mutex
	violations []string
	faults     map[faultKind]int
	bad        map[string]bool // what is wrong at the moment: full disks, Qdrant
	pruned     int64           // events
	asked      asked
}

// maxSnapshots is what gb-snap take is told never to pass.
const maxSnapshots = 60

func newSoak(o options, h *host) *soak {
	s := &soak{o: o, h: h, ledger: newLedger(), begin: time.Now(), roles: make(map[string]*role), faults: make(map[faultKind]int), bad: make(map[string]bool)}
	s.meter = newMeter(s)
	for _, name := range []string{"serve", "take", "search", "ask", "prune"} {
		s.newRole(name)
	}
	s.file = &shipper{s: s, send: s.newRole("send"), ingest: s.newRole("ingest"), cursor: h.cursor(), index: h.fileIndex(), every: time.Second}
	s.qdrant = &shipper{s: s, send: s.newRole("send to Qdrant"), ingest: s.newRole("ingest to Qdrant"), cursor: h.qdrantCursor(),
		index: append(h.qdrantIndex(), "--qdrant-patience", "5s"), every: 2 * time.Second}
	for n := range o.producers {
		rate := o.rate / o.producers
		if n < o.rate%o.producers {
			rate++
		}
		s.producers = append(s.producers, &producer{role: s.newRole(fmt.Sprint("append ", n+1)), rate: rate, rnd: rand.New(rand.NewPCG(o.seed, 100+uint64(n)))})
	}
	return s
}

// violate notes what must not be.
func (s *soak) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) < 100 {
		s.violations = append(s.violations, text)
		fmt.Fprintf(os.Stderr, "soak: at %s: VIOLATION: %s\n", time.Since(s.begin).Round(100*time.Millisecond), text)
	}
}

// start makes the log and starts all that runs.
func (s *soak) start() error {
	if err := s.h.begin(); err != nil {
		return err
	}
	h := s.h
	var producing, drain, daemons, shipping, asking context.Context
	producing, s.stopProducing = context.WithCancel(context.Background())
	drain, s.stopDrain = context.WithCancel(context.Background())
	daemons, s.stopDaemons = context.WithCancel(context.Background())
	shipping, s.stopShipping = context.WithCancel(context.Background())
	asking, s.stopAsking = context.WithCancel(context.Background())
	s.daemons.Go(func() {
		s.roles["serve"].supervise(daemons, names.GBChain, "serve", "--log", h.log(), "--writers", "")
	})
	s.daemons.Go(func() {
		s.roles["take"].supervise(daemons, names.GBSnap, "take", "--every", "1s", "--grid", "20x1s,10x10s,10x1m", "--max-count", strconv.Itoa(maxSnapshots),
			"--cursor", h.cursor(), "--cursor", h.qdrantCursor(), "--log", h.log(), h.source())
	})
	s.daemons.Go(func() {
		s.roles["search"].supervise(daemons, names.GBVecsync, "search", "--listen", "--index", h.index(), "--socket", h.search())
	})
	s.daemons.Go(func() { s.meter.loop(daemons) })
	s.daemons.Go(func() { s.prune(daemons) })
	for _, p := range s.producers {
		s.producing.Go(func() { p.run(producing, drain) })
	}
	for _, sh := range []*shipper{s.file, s.qdrant} {
		f, err := os.Create(filepath.Join(s.o.dir, "said", "shipped by "+sh.send.name))
		if err != nil {
			return err
		}
		sh.journal = f
		s.shipping.Go(func() { sh.loop(shipping) })
	}
	s.asking.Go(func() { s.ask(asking) })
	return nil
}

// halt ends all that still runs, for good or ill.
func (s *soak) halt() {
	if s.stopProducing == nil {
		return
	}
	for _, stop := range []context.CancelFunc{s.stopAsking, s.stopProducing, s.stopDrain, s.stopShipping, s.stopDaemons} {
		stop()
	}
	s.asking.Wait()
	s.producing.Wait()
	s.shipping.Wait()
	s.daemons.Wait()
}

// weather lets the faults come as they are scheduled, and shows how it goes. It
// returns early, with an error, if it is interrupted.
func (s *soak) weather(ctx context.Context) error {
	plan := schedule(s.o.seed, s.o.duration, s.names, stepclock.Supported)
	var mending sync.WaitGroup
	defer mending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is broken is mended at once
	progress := time.NewTicker(10 * time.Second)
	defer progress.Stop()
	end := time.After(s.o.duration)
	for {
		var next <-chan time.Time
		if len(plan) > 0 {
			next = time.After(plan[0].at - time.Since(s.begin))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end:
			return nil
		case <-progress.C:
			fmt.Println(s.status())
		case <-next:
			f := plan[0]
			plan = plan[1:]
			if err := s.happen(ctx, f, &mending); err != nil {
				return err
			}
		}
	}
}

// happen lets a fault happen.
func (s *soak) happen(ctx context.Context, f fault, mending *sync.WaitGroup) error {
	count := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults[f.kind]++
	}
	switch f.kind {
	case kill:
		if s.roles[f.victim].kill() {
			count()
		}
	case clockStep:
		count()
		return s.h.clock.Step(f.step)
	case fill:
		if !s.turn("disk "+f.victim, true) {
			return nil // it is full already
		}
		if _, err := s.h.fill(f.victim); err != nil {
			return err
		}
		count()
		mending.Go(func() {
			sleep(ctx, f.last)
			if err := s.h.release(f.victim); err != nil {
				s.violate("%v", err)
			}
			s.turn("disk "+f.victim, false)
		})
	case qdrantStop:
		if !s.turn("Qdrant", true) {
			return nil
		}
		s.h.proxy.Cut()
		count()
		mending.Go(func() {
			sleep(ctx, f.last)
			if err := s.h.proxy.Mend(); err != nil {
				s.violate("%v", err)
			}
			s.turn("Qdrant", false)
		})
	}
	return nil
}

// turn says that something is bad, or not any more; it returns false if it was so
// already.
func (s *soak) turn(what string, bad bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad[what] == bad {
		return false
	}
	s.bad[what] = bad
	return true
}

// status is a line of progress.
func (s *soak) status() string {
	acked, end := s.ledger.counts()
	file, _ := s.file.at()
	qdrant, _ := s.qdrant.at()
	s.mu.Lock()
	defer s.mu.Unlock()
	var bad []string
	for what, is := range s.bad {
		if is {
			bad = append(bad, what)
		}
	}
	weather := ""
	if len(bad) > 0 {
		weather = "  now: " + strings.Join(bad, ", ")
	}
	return fmt.Sprintf("%5.0f s  acknowledged %d  log %d, pruned %d  index %d behind, Qdrant %d  snapshots %d  kills %d, full disks %d, Qdrant stops %d, clock steps %d (%+.0f s)  violations %d%s",
		time.Since(s.begin).Seconds(), acked, end, s.pruned, max(end-file, 0), max(end-qdrant, 0), s.meter.snapshotsNow(),
		s.faults[kill], s.faults[fill], s.faults[qdrantStop], s.faults[clockStep], s.h.clock.Offset().Seconds(), len(s.violations), weather)
}

// prune holds full segments to the acknowledgements, and then lets gb-chain prune
// delete what is too old.
func (s *soak) prune(ctx context.Context) {
	r := s.roles["prune"]
	every := min(20*time.Second, s.o.duration/4)
	for {
		sleep(ctx, every)
		if ctx.Err() != nil {
			return
		}
		if err := s.ledger.check(s.h.log(), false); err != nil {
			s.violate("%v", err)
			return // keep what is wrong
		}
		cmd := s.h.command(names.GBChain, "prune", "--log", s.h.log(), "--keep-bytes", strconv.FormatInt(s.o.keep, 10), "--reason", "the soak keeps the newest only",
			"--cursor", s.h.cursor(), "--cursor", s.h.qdrantCursor(), "--json")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := r.start(cmd); err != nil {
			s.violate("prune: %v", err)
			return
		}
		if r.wait(cmd) != 0 {
			continue // the daemon or the disk is not there; again later
		}
		var p struct {
			Events int64 `json:"events"`
		}
		if err := json.Unmarshal(out.Bytes(), &p); err != nil {
			s.violate("prune prints %q: %v", out.String(), err)
			return
		}
		s.mu.Lock()
		s.pruned += p.Events
		s.mu.Unlock()
	}
}

// Asked is how the questions went.
type asked struct {
	answered, failed int
	took             []time.Duration
}

var questions = []string{"who failed to log in", "disk error", "port removed from the bridge", "what did the agent restart", "sessions that ended"}

// ask asks the search that listens.
func (s *soak) ask(ctx context.Context) {
	r := s.roles["ask"]
	for n := 0; ctx.Err() == nil; n++ {
		sleep(ctx, 2*time.Second)
		if conn, err := net.Dial("unix", s.h.search()); err != nil {
			continue // it is being started, or there is no index yet
		} else {
			conn.Close()
		}
		cmd := s.h.command(names.GBVecsync, "search", "--json", "-n", "3", questions[n%len(questions)])
		var out bytes.Buffer
		cmd.Stdout = &out
		begin := time.Now()
		if err := r.start(cmd); err != nil {
			s.violate("ask: %v", err)
			return
		}
		code := r.wait(cmd)
		s.mu.Lock()
		if code == 0 {
			s.asked.answered++
			s.asked.took = append(s.asked.took, time.Since(begin))
		} else {
			s.asked.failed++
		}
		s.mu.Unlock()
		for line := range bytes.Lines(out.Bytes()) {
			var hit struct {
				Message  string
				Verified *struct {
					Size int64 `json:"size"`
				}
			}
			if code == 0 && (json.Unmarshal(line, &hit) != nil || hit.Message == "") {
				s.violate("an answer is %.200q", line)
			}
		}
	}
}
