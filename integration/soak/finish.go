//go:build linux

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// finish lets all come to rest and holds it to what it has promised. The error is
// what can't go on; what is found to be wrong is a violation.
func (s *soak) finish(ctx context.Context) error {
	say := func(format string, args ...any) {
		fmt.Printf("%5.0f s  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
	}
	// Producers are answered for all that they have sent.
	s.stopProducing()
	drained := make(chan struct{})
	go func() { s.producing.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(2 * time.Minute):
		for _, p := range s.producers {
			if n := p.waiting(); n > 0 {
				s.violate("%s: %d events are not acknowledged two minutes after the last fault; see %s", p.name, n, p.said)
			}
		}
	}
	s.stopDrain()
	s.stopAsking()
	s.asking.Wait()
	s.stopShipping()
	s.shipping.Wait()
	s.stopDaemons()
	s.daemons.Wait()
	acked, _ := s.ledger.counts()
	say("all producers are answered: %d events acknowledged", acked)

	if _, err := s.h.output(names.GBSnap, "take", "--force", "--grid", "20x1s,10x10s,10x1m", "--max-count", strconv.Itoa(maxSnapshots), "--cursor", s.h.cursor(), "--cursor", s.h.qdrantCursor(), s.h.source()); err != nil {
		return err
	}
	note, err := os.ReadFile(filepath.Join(s.h.log(), layout.Checkpoint))
	if err != nil {
		return err
	}
	checkpoint, err := merkle.ParseNote(note)
	if err != nil {
		return err
	}
	for _, sh := range []*shipper{s.file, s.qdrant} {
		for try := 0; ; try++ {
			ok, err := sh.ship()
			if err != nil {
				return err
			}
			at, err := sh.at()
			if err != nil {
				return err
			}
			if at == checkpoint.Size {
				break
			}
			if try == 5 {
				return fmt.Errorf("%s: the index has %d of %d events, and the last stream was taken: %t; see %s", sh.ingest.name, at, checkpoint.Size, ok, sh.ingest.said)
			}
		}
	}
	say("both indexes are at %d events", checkpoint.Size)

	if out, err := s.h.output(names.GBChain, "verify", "--log", s.h.log()); err != nil {
		s.violate("the log does not verify: %v: %s", err, out)
	} else {
		line, _, _ := strings.Cut(string(out), "\n")
		say("gb-chain verify: %s", line)
	}
	if err := s.ledger.check(s.h.log(), true); err != nil {
		s.violate("%v", err)
	}
	l := s.ledger
	if l.confirmed != l.acked {
		s.violate("%d events were acknowledged, %d of them were seen in the log", l.acked, l.confirmed)
	}
	if l.stored != checkpoint.Size || l.root.Root() != checkpoint.Root {
		s.violate("the log was read as %d events with root %s, its checkpoint says %d and %s", l.stored, l.root.Root(), checkpoint.Size, checkpoint.Root)
	}
	say("each of %d acknowledged events was in the log where its receipt says; %d of the log's %d events were not acknowledged to a producer, or are the log's own", l.confirmed, l.stored-l.confirmed, l.stored)
	s.compareIndexes(ctx, say)
	for _, name := range s.names {
		if err := s.roles[name].crashes(); err != nil {
			s.violate("%v", err)
		}
	}
	return nil
}

// compareIndexes holds each index to one that is made from the log.
func (s *soak) compareIndexes(ctx context.Context, say func(string, ...any)) {
	rebuilt := filepath.Join(s.h.data, vectors, "rebuilt.db")
	if _, err := s.h.output(names.GBVecsync, "rebuild", "--log", s.h.log(), "--index", rebuilt, "--cursor", rebuilt+".cursor", "--socket", ""); err != nil {
		s.violate("%v", err)
		return
	}
	err := func() error {
		want, err := local.OpenReader(rebuilt)
		if err != nil {
			return err
		}
		defer want.Close()
		have := map[string]index.Reader{}
		for _, path := range []string{s.h.index(), s.h.qdrantState()} {
			db, err := local.OpenReader(path)
			if err != nil {
				return err
			}
			defer db.Close()
			have[filepath.Base(path)] = db
			if f, err := vecsync.Standing(db); f != nil || err != nil {
				s.violate("%s has a finding: %v, %v", filepath.Base(path), f, err)
			}
			if err := samePoints(rebuilt, path); err != nil {
				s.violate("%s is not what the log gives: %v", filepath.Base(path), err)
			}
		}
		host, port, err := net.SplitHostPort(s.h.proxy.Address())
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return err
		}
		client, err := qdrant.Dial(qdrant.Options{Host: host, Port: number, Alias: names.QdrantAlias, Patience: 10 * time.Second})
		if err != nil {
			return err
		}
		defer client.Close()
		r, err := qdrant.OpenReader(ctx, client, s.h.tenant)
		if err != nil {
			return err
		}
		defer r.Close()
		have["Qdrant"] = r
		n, err := s.same(ctx, want, have)
		if err == nil {
			say("index, Qdrant and its state were compared with what rebuild makes of the log: %d events", n)
		}
		return err
	}()
	if err != nil {
		s.violate("compare the indexes: %v", err)
	}
}

// same compares all that indexes answer from with what want does: what describes
// their templates and points, and each event.
func (s *soak) same(ctx context.Context, want index.Reader, have map[string]index.Reader) (events int64, err error) {
	a, err := indextest.Describe(ctx, want)
	if err != nil {
		return 0, err
	}
	for name, x := range have {
		b, err := indextest.Describe(ctx, x)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if d := firstDifference(a, b); d != "" {
			s.violate("%s is not what the log gives: %d lines describe it, want %d; the first that differ are\n%s", name, len(b), len(a), d)
		}
	}
	totals, err := want.Totals()
	if err != nil {
		return 0, err
	}
	bad := make(map[string]bool)
	const step = 10000
	for first := int64(0); events < totals.Events; first += step {
		if first > s.ledger.stored {
			return events, fmt.Errorf("%d events of %d were found", events, totals.Events)
		}
		x, err := want.Events(ctx, first, first+step)
		if err != nil {
			return events, err
		}
		events += int64(len(x))
		for name, r := range have {
			y, err := r.Events(ctx, first, first+step)
			if err != nil {
				return events, fmt.Errorf("%s: %w", name, err)
			}
			for i := range min(len(x), len(y)) {
				if y[i].Log = x[i].Log; !reflect.DeepEqual(x[i], y[i]) && !bad[name] { // one of several logs names its own
					bad[name] = true
					s.violate("%s: event %d is %+v, want %+v", name, x[i].Index, y[i], x[i])
				}
			}
			if len(x) != len(y) && !bad[name] {
				bad[name] = true
				s.violate("%s has %d events from %d to %d, want %d", name, len(y), first, first+step, len(x))
			}
		}
	}
	return events, nil
}

// firstDifference is what two lists differ in first, "" if they are the same.
func firstDifference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("%.300s\n%.300s", x, y)
		}
	}
	return ""
}

// points is what makes up the points of an index in a file, whose rows have
// numbers of the file's own.
const points = `SELECT t.id, o.host, o.source, o.type, o.severity, o.actor, p.hour, p.single, p.count, p.first, p.last, p.minutes
	FROM %[1]s.point p JOIN %[1]s.template t ON t.ordinal = p.template JOIN %[1]s.origin o ON o.id = p.origin`

// samePoints compares the points of two index files.
func samePoints(a, b string) error {
	db, err := sql.Open("sqlite", "file:"+a+"?mode=ro")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // ATTACH is of a connection
	if _, err := db.Exec("ATTACH ? AS other", "file:"+b+"?mode=ro"); err != nil {
		return err
	}
	x, y := fmt.Sprintf(points, "main"), fmt.Sprintf(points, "other")
	for _, q := range []string{x + " EXCEPT " + y, y + " EXCEPT " + x} {
		var n int64
		if err := db.QueryRow("SELECT count(*) FROM (" + q + ")").Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%d points differ", n)
		}
	}
	return nil
}

// A report is what a run came to.
type report struct {
	Seed       uint64            `json:"seed"`
	Seconds    float64           `json:"seconds"`
	Rate       int               `json:"rate"`
	Producers  int               `json:"producers"`
	Acked      int64             `json:"acknowledged"`
	PerSecond  float64           `json:"acknowledged_per_second"`
	Held       int64             `json:"held_back"` // events that a producer did not make, since nobody took them
	Log        int64             `json:"log_events"`
	Pruned     int64             `json:"pruned_events"`
	Faults     map[faultKind]int `json:"faults"`
	Roles      []roleReport      `json:"processes"`
	Asked      int               `json:"questions_answered"`
	Unanswered int               `json:"questions_failed"`
	AskMedian  float64           `json:"question_median_ms"`
	LagCalm    float64           `json:"index_behind_calm_median_seconds"`
	LagMost    float64           `json:"index_behind_calm_most_seconds"`
	LagAny     float64           `json:"index_behind_most_seconds"`
	Growth     []growth          `json:"growth"`
	Calms      []growth          `json:"growth_in_calms"`
	Resent     [2]int            `json:"sent_in_full_again"`
	Violations []string          `json:"violations"`
}

type roleReport struct {
	Name   string         `json:"name"`
	Starts int            `json:"starts"`
	Kills  int            `json:"kills"`
	Ended  map[string]int `json:"ended"` // by exit code
}

// report prints what the run came to, writes it to a file, and is an error if
// anything was wrong.
func (s *soak) report(w io.Writer) error {
	r := report{Seed: s.o.seed, Seconds: s.o.duration.Seconds(), Rate: s.o.rate, Producers: s.o.producers, Acked: s.ledger.acked, Log: s.ledger.stored, Pruned: s.pruned,
		Faults: s.faults, Asked: s.asked.answered, Unanswered: s.asked.failed, AskMedian: median(s.asked.took).Seconds() * 1000, Resent: [2]int{s.file.resent, s.qdrant.resent}}
	r.PerSecond = float64(r.Acked) / r.Seconds
	for _, p := range s.producers {
		r.Held += p.held
	}
	calm, all := s.meter.behind()
	r.LagCalm = median(calm).Seconds()
	if len(calm) > 0 {
		r.LagMost = slices.Max(calm).Seconds()
	}
	if len(all) > 0 {
		r.LagAny = slices.Max(all).Seconds()
	}
	r.Growth, r.Calms = s.meter.growths(), s.meter.lifetimes()
	for _, g := range append(slices.Clone(r.Growth), r.Calms...) {
		if g.Grew {
			s.violate("%s has grown from %s to %s", g.What, g.text(g.Warm), g.text(g.End))
		}
	}
	for kind, least := range map[faultKind]int{kill: 1, fill: 1, qdrantStop: 1} {
		if s.faults[kind] < least {
			s.violate("no %s has come", kind)
		}
	}
	if r.Acked == 0 {
		s.violate("nothing was acknowledged")
	}
	if r.Resent[0]+r.Resent[1] > 0 {
		s.violate("a parent snapshot was lost, and all was sent again: %d and %d times", r.Resent[0], r.Resent[1])
	}
	fmt.Fprintf(w, "\nseed %d, %.0f s: %d events acknowledged (%.0f/s; %d held back while nobody took them), log %d events, %d of them pruned\n", r.Seed, r.Seconds, r.Acked, r.PerSecond, r.Held, r.Log, r.Pruned)
	fmt.Fprintf(w, "faults: %d kills, %d full disks, %d Qdrant stops, %d clock steps\n", s.faults[kill], s.faults[fill], s.faults[qdrantStop], s.faults[clockStep])
	fmt.Fprintf(w, "index behind the log: %.1f s in calms (at most %.1f s), %.1f s at most in storms; %d questions answered in %.0f ms (median), %d not\n", r.LagCalm, r.LagMost, r.LagAny, r.Asked, r.AskMedian, r.Unanswered)
	fmt.Fprintf(w, "\n%-18s %7s %7s  %s\n", "process", "starts", "kills", "exit codes (-1: a signal)")
	for _, name := range s.names {
		role := s.roles[name]
		rr := roleReport{name, role.starts, role.kills, make(map[string]int)}
		var codes []int
		for code := range role.ended {
			codes = append(codes, code)
		}
		slices.Sort(codes)
		var words []string
		for _, code := range codes {
			rr.Ended[strconv.Itoa(code)] = role.ended[code]
			words = append(words, fmt.Sprintf("%d: %d", code, role.ended[code]))
		}
		r.Roles = append(r.Roles, rr)
		fmt.Fprintf(w, "%-18s %7d %7d  %s\n", name, role.starts, role.kills, strings.Join(words, ", "))
	}
	fmt.Fprintf(w, "\n%-52s %10s %10s %10s\n", "growth", "warm", "end", "most")
	for _, g := range r.Growth {
		fmt.Fprintf(w, "%-52s %10s %10s %10s%s\n", g.What, g.text(g.Warm), g.text(g.End), g.text(g.Most), map[bool]string{true: "  GREW"}[g.Grew])
	}
	fmt.Fprintf(w, "%d processes' memory and open files compared within calms\n", len(r.Calms)/2)
	r.Violations = s.violations
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.o.dir, "report.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if len(s.violations) > 0 {
		return errors.New("violations:\n  " + strings.Join(s.violations, "\n  "))
	}
	fmt.Fprintf(w, "\nall held; the report is %s\n", filepath.Join(s.o.dir, "report.json"))
	return nil
}

func (g growth) text(n int64) string {
	if g.Unit == "B" {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return strconv.FormatInt(n, 10)
}
