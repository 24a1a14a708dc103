package snap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Spool keeps what gb-snap has done until it is appended to the log. If the
// log is in the source, each append is a change, and an append after each
// snapshot would make a snapshot each second of a host where nothing happens.
// So routine events wait for a snapshot that is due anyway, and are appended,
// as one batch, just before it; after MaxWait, they make one due.
//
// What is about to be deleted is written down before it is deleted: a process
// that is killed between the two leaves a line of a snapshot that is still
// there, and such lines are passed over when the spool is emptied.
//
// A spool is a file of lines of JSON, which several processes may use: each
// locks it (flock) for as long as it reads or writes. It is not synced: a
// power cut may take the events of the last seconds, as it may take the
// deletions. An event is appended at least once: twice, if the process is
// killed after the log's acknowledgement and before the spool is emptied.
//
// All methods do nothing on a nil *Spool.
type Spool struct {
	// Append appends event lines to the log and returns once they are durable.
	Append func(ctx context.Context, lines [][]byte) error

	path, store, source string

	oldest, flushed, failed time.Time // zero for never
	lost                    int       // entries that had no room
	limit                   int64     // maxSpool, less in tests
}

const (
	// MaxWait is how long an event waits for a snapshot that is due anyway.
	MaxWait = time.Hour
	// minWait is how long it waits at least. The log signs a checkpoint within
	// a second of an append, which is one more change and one more snapshot;
	// were that one to append as well, it would never end.
	minWait = time.Minute
	// retryWait is how long after a failure the log is left alone.
	retryWait = 10 * time.Second
	// appendTime is how long an append may take.
	appendTime = 3 * time.Second
	// maxSpool is bytes that a log which is away for long may pile up.
	maxSpool = 16 << 20
	// perEvent is how many snapshots one event names.
	perEvent = 200
)

// An entry is a line of the spool.
type entry struct {
	Op       string      `json:"op"`
	Time     time.Time   `json:"time"`
	Name     string      `json:"name,omitempty"`
	UUID     subvol.UUID `json:"uuid"`
	CTransID uint64      `json:"ctransid,omitempty"`
	Reason   string      `json:"reason,omitempty"`
}

const (
	opTaken   = "taken"
	opPruned  = "pruned"
	opHeld    = "held"
	opFreed   = "released"
	opFlushed = "flushed"
)

// OpenSpool opens the spool in directory dir of what is done to the store of
// source, and makes it if need be.
func OpenSpool(dir string, s *Store, source string) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	sp := &Spool{path: filepath.Join(dir, "snap-"+pathKey(s.dir)+".jsonl"), store: s.dir, source: source, limit: maxSpool}
	err := sp.locked(func(f *os.File) error {
		entries, err := sp.read(f)
		sp.look(entries)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sp, nil
}

// look learns from entries how long they have waited.
func (sp *Spool) look(entries []entry) {
	sp.oldest = time.Time{}
	for _, e := range entries {
		if e.Op == opFlushed {
			sp.flushed = e.Time
		} else if sp.oldest.IsZero() {
			sp.oldest = e.Time
		}
	}
}

// locked calls do with the spool's file, locked.
func (sp *Spool) locked(do func(f *os.File) error) error {
	f, err := os.OpenFile(sp.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	if err := durable.WaitLock(f); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := do(f); err != nil {
		return fmt.Errorf("spool %s: %w", sp.path, err)
	}
	return nil
}

// read returns the entries of f. A line that a kill or a full disk left in
// half is passed over.
func (sp *Spool) read(f *os.File) ([]entry, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var list []entry
	r := bufio.NewScanner(f)
	for r.Scan() {
		var e entry
		if json.Unmarshal(r.Bytes(), &e) == nil {
			list = append(list, e)
		}
	}
	return list, r.Err()
}

// encode returns entries as lines.
func encode(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (sp *Spool) add(list ...entry) error {
	if sp == nil || len(list) == 0 {
		return nil
	}
	b, err := encode(list)
	if err != nil {
		return err
	}
	return sp.locked(func(f *os.File) error {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if st.Size()+int64(len(b)) > sp.limit {
			sp.lost += len(list)
			return fmt.Errorf("full: %d events are lost", sp.lost)
		}
		if last := make([]byte, 1); st.Size() > 0 {
			if _, err := f.ReadAt(last, st.Size()-1); err == nil && last[0] != '\n' {
				f.Write([]byte{'\n'})
			}
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
		if sp.oldest.IsZero() {
			sp.oldest = list[0].Time
		}
		return nil
	})
}

// Taken notes that sn was taken.
func (sp *Spool) Taken(now time.Time, sn Snapshot) error {
	return sp.add(entry{Op: opTaken, Time: now.UTC(), Name: sn.Name, UUID: sn.UUID, CTransID: sn.CTransID})
}

// Deleting notes that list is about to be deleted.
func (sp *Spool) Deleting(now time.Time, list []Verdict) error {
	entries := make([]entry, len(list))
	for i, v := range list {
		entries[i] = entry{Op: opPruned, Time: now.UTC(), Name: v.Name, UUID: v.UUID, Reason: v.Reason}
	}
	return sp.add(entries...)
}

// Held notes that a person holds sn under a name.
func (sp *Spool) Held(now time.Time, hold string, sn Snapshot) error {
	return sp.add(entry{Op: opHeld, Time: now.UTC(), Name: sn.Name, UUID: sn.UUID, Reason: hold})
}

// Released notes that a person has ended a hold, of snapshot if it is not
// empty.
func (sp *Spool) Released(now time.Time, hold, snapshot string) error {
	return sp.add(entry{Op: opFreed, Time: now.UTC(), Name: snapshot, Reason: hold})
}

// Due says whether events have waited for so long that a snapshot is to be
// taken for them.
func (sp *Spool) Due(now time.Time) bool {
	if sp == nil || sp.oldest.IsZero() || sp.resting(now, sp.failed, MaxWait) {
		return false
	}
	age := now.Sub(sp.oldest)
	return age >= MaxWait || age < -minWait // the clock was set back
}

func (sp *Spool) resting(now, since time.Time, d time.Duration) bool {
	age := now.Sub(since)
	return !since.IsZero() && age >= 0 && age < d
}

// Flush appends what has waited for long enough to the log. live says whether
// a snapshot is still there.
func (sp *Spool) Flush(ctx context.Context, now time.Time, live func(subvol.UUID) bool) error {
	if sp == nil || sp.oldest.IsZero() || sp.resting(now, sp.flushed, minWait) || sp.resting(now, sp.failed, retryWait) {
		return nil
	}
	return sp.FlushNow(ctx, now, live)
}

// FlushNow appends all to the log.
func (sp *Spool) FlushNow(ctx context.Context, now time.Time, live func(subvol.UUID) bool) error {
	if sp == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, appendTime, errors.New("the log did not answer"))
	defer cancel()
	err := sp.locked(func(f *os.File) error {
		entries, err := sp.read(f)
		if err != nil {
			return err
		}
		lines, err := sp.events(entries, live)
		if err != nil {
			return err
		}
		if len(lines) > 0 {
			if err := sp.Append(ctx, lines); err != nil {
				return err
			}
		}
		// What was to be deleted a moment ago may be under the knife of another
		// process right now.
		rest := []entry{{Op: opFlushed, Time: now.UTC()}}
		for _, e := range entries {
			if e.Op == opPruned && live(e.UUID) && sp.resting(now, e.Time, minWait) {
				rest = append(rest, e)
			}
		}
		b, err := encode(rest)
		if err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		sp.lost = 0
		sp.look(rest)
		_, err = f.Write(b)
		return err
	})
	if err != nil {
		sp.failed = now
	}
	return err
}

// A group is entries that become one event.
type group struct {
	op, reason string
	entries    []entry
}

// events makes event lines of entries: one for all that was taken, one for
// each reason of deletion, and more where they would grow too long.
func (sp *Spool) events(entries []entry, live func(subvol.UUID) bool) ([][]byte, error) {
	var groups []*group
	deleted := map[subvol.UUID]bool{}
	for _, e := range entries {
		switch e.Op {
		case opPruned:
			if live(e.UUID) || deleted[e.UUID] {
				continue
			}
			deleted[e.UUID] = true
		case opTaken, opHeld, opFreed:
		default:
			continue
		}
		i := slices.IndexFunc(groups, func(g *group) bool {
			return g.op == e.Op && (g.reason == e.Reason || e.Op == opTaken) && len(g.entries) < perEvent
		})
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{op: e.Op, reason: e.Reason})
		}
		groups[i].entries = append(groups[i].entries, e)
	}
	if sp.lost > 0 {
		groups = append(groups, &group{op: "unrecorded", reason: fmt.Sprintf("%d events had no room to wait for the log", sp.lost),
			entries: []entry{{Time: entries[len(entries)-1].Time}}})
	}
	var lines [][]byte
	for _, g := range groups {
		line, err := sp.event(g)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func (sp *Spool) event(g *group) ([]byte, error) {
	type named struct {
		Name     string      `json:"name,omitempty"`
		UUID     subvol.UUID `json:"uuid"`
		CTransID uint64      `json:"ctransid,omitempty"`
		Time     time.Time   `json:"time"`
	}
	type data struct {
		Source    string  `json:"source,omitempty"`
		Reason    string  `json:"reason,omitempty"`
		Hold      string  `json:"hold,omitempty"`
		Snapshots []named `json:"snapshots,omitempty"`
		Spooled   bool    `json:"spooled"`
	}
	d := data{Source: sp.source, Spooled: true}
	for _, e := range g.entries {
		if e.Name != "" {
			d.Snapshots = append(d.Snapshots, named{e.Name, e.UUID, e.CTransID, e.Time})
		}
	}
	what := fmt.Sprintf("%d snapshots", len(g.entries))
	if len(g.entries) == 1 {
		what = "snapshot " + g.entries[0].Name
	}
	of := " of " + sp.source
	if sp.source == "" {
		of = " in " + sp.store
	}
	message, severity := "", "info"
	switch g.op {
	case opTaken:
		message = what + of + " taken"
	case opPruned:
		d.Reason = g.reason
		message = what + of + " deleted: " + g.reason
	case opHeld:
		d.Hold, severity = g.reason, "notice"
		message = fmt.Sprintf("%s held as %s", what, g.reason)
	case opFreed:
		d.Hold, severity = g.reason, "notice"
		message = fmt.Sprintf("hold %s released", g.reason)
	default:
		d.Reason, message, severity = g.reason, g.reason, "warning"
	}
	return json.Marshal(struct {
		Time     time.Time `json:"time"`
		Source   string    `json:"source"`
		Type     string    `json:"type"`
		Subject  string    `json:"subject"`
		Severity string    `json:"severity"`
		Message  string    `json:"message"`
		Data     data      `json:"data"`
	}{g.entries[len(g.entries)-1].Time, "snap", "snapshot." + g.op, sp.store, severity, message, d})
}

// Empty says whether nothing waits.
func (sp *Spool) Empty() bool { return sp == nil || sp.oldest.IsZero() }
