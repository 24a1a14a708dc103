package snap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Sender sends the snapshots of a source to one receiver. It is for one
// goroutine.
type Sender struct {
	Store  *Store
	Source string
	Cursor string           // the receiver's cursor file, "" if there is none
	Parent *subvol.UUID     // to start from, zero for a full stream; nil for what Cursor says
	Replay time.Duration    // after a gap longer than this the snapshots between are sent too; 0 for never
	Now    func() time.Time // nil for time.Now

	// Waiting says that Stream sends nothing because what it has sent is not
	// acknowledged in the cursor file.
	Waiting bool

	sent *Snapshot // what the receiver of Follow has, if it applies what it gets
}

// DefaultReplay is the gap from which on streams go through the snapshots
// between.
const DefaultReplay = 10 * time.Minute

const (
	// replayStep is the least time between two snapshots of a replay.
	replayStep = time.Minute
	// heldTargets is how many snapshots a cursor's hold keeps that were sent
	// and are not acknowledged. A receiver that fails each second must not
	// hold a snapshot a second. The first of them stays, which a slow receiver
	// may still apply, and the last.
	heldTargets = 8
)

// A Leg is one stream.
type Leg struct {
	Target Snapshot
	Parent *Snapshot // nil for a full stream
}

// Choose returns the streams that bring the receiver to the newest snapshot,
// and, where there is a cursor file, holds what they need. The error is
// ErrNothing if the receiver has the newest, or there is none.
func (s *Sender) Choose(ctx context.Context) ([]Leg, error) {
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	src, err := s.Store.source(s.Source)
	if err != nil {
		return nil, err
	}
	if s.Cursor != "" {
		if s.Cursor, err = filepath.Abs(s.Cursor); err != nil {
			return nil, err
		}
		l, err := s.Store.lockHolds(ctx)
		if err != nil {
			return nil, err
		}
		defer l.Unlock()
	}
	list, err := s.Store.List()
	if err != nil {
		return nil, err
	}
	var cur *Cursor
	if s.Cursor != "" {
		if cur, err = ReadCursor(s.Cursor); err != nil {
			return nil, err
		}
	}
	target, ok := newest(list, src.UUID)
	if !ok {
		return nil, ErrNothing
	}
	parent, err := s.parent(list, src.UUID, cur)
	if err != nil {
		return nil, err
	}
	if parent != nil && parent.ID >= target.ID {
		return nil, ErrNothing
	}
	legs := plan(list, parent, target, s.Replay)
	if s.Cursor == "" {
		return legs, nil
	}
	full := false
	err = s.Store.change(s.Cursor, func(h *Hold) {
		h.Cursor = s.Cursor
		h.release(list, cur)
		if full = s.sent != nil && len(h.Snapshots) >= heldTargets; full {
			return
		}
		h.Snapshots = thin(h.Snapshots, heldTargets)
		if parent != nil {
			h.add(now, *parent)
		}
		for _, leg := range legs {
			h.add(now, leg.Target)
		}
	})
	if err != nil {
		return nil, err
	}
	if full { // as many are under way as may be: wait for the cursor
		s.Waiting = true
		return nil, ErrNothing
	}
	s.Waiting = false
	return legs, nil
}

// thin leaves of held the first and the last, n in all.
func thin(held []Held, n int) []Held {
	if len(held) <= n {
		return held
	}
	return slices.Concat(held[:1:1], held[len(held)-n+1:])
}

// parent returns the snapshot that the receiver has, nil for none.
func (s *Sender) parent(list []Snapshot, source subvol.UUID, cur *Cursor) (*Snapshot, error) {
	if s.sent != nil {
		if _, ok := find(list, s.sent.UUID); !ok {
			return nil, &LostParentError{Parent: s.sent.UUID, Dir: s.Store.dir}
		}
		return s.sent, nil
	}
	id, file := subvol.UUID{}, ""
	switch {
	case s.Parent != nil:
		id = *s.Parent
	case cur != nil:
		id, file = cur.SnapshotUUID, s.Cursor
	}
	if id.IsZero() {
		return nil, nil
	}
	sn, ok := find(list, id)
	if !ok || sn.Source() != source {
		return nil, &LostParentError{id, s.Store.dir, file}
	}
	return &sn, nil
}

// plan returns the way from parent to target: at once, or, if more than replay
// lies between them, through the snapshots between, at least a minute apart,
// so that what existed only for a while is seen and no stream grows too long.
func plan(list []Snapshot, parent *Snapshot, target Snapshot, replay time.Duration) []Leg {
	if parent == nil || replay <= 0 || target.Time.Sub(parent.Time) <= replay {
		return []Leg{{target, parent}}
	}
	var legs []Leg
	last := *parent
	for _, sn := range list {
		if sn.Source() != target.Source() || sn.ID <= parent.ID || sn.ID > target.ID {
			continue
		}
		if sn.ID != target.ID && sn.Time.Sub(last.Time).Abs() < replayStep {
			continue
		}
		from := last
		legs = append(legs, Leg{sn, &from})
		last = sn
	}
	return legs
}

// Send writes the streams of legs to out, which is a pipe, a file or a socket
// in blocking mode.
func (s *Sender) Send(ctx context.Context, legs []Leg, out *os.File) error {
	for _, leg := range legs {
		job := subvol.SendJob{Path: s.Store.Path(leg.Target), UUID: leg.Target.UUID, Out: out}
		if leg.Parent != nil {
			job.ParentPath, job.ParentUUID = s.Store.Path(*leg.Parent), leg.Parent.UUID
		}
		err := s.Store.btrfs.Send(ctx, job)
		var wrong *subvol.WrongSubvolumeError
		var path *fs.PathError
		switch {
		case err == nil:
		case errors.As(err, &wrong) && wrong.Path == job.ParentPath,
			errors.As(err, &path) && path.Path == job.ParentPath && errors.Is(err, fs.ErrNotExist):
			return &LostParentError{Parent: leg.Parent.UUID, Dir: s.Store.dir}
		case errors.As(err, &wrong), errors.Is(err, fs.ErrNotExist):
			return &TemporaryError{Err: err, hint: "the snapshot was deleted before it was sent; with --cursor it is held"}
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
			return &hintedError{fmt.Errorf("send %s: the receiver ended before the stream: %w", leg.Target.Name, err), ""}
		default:
			return s.explain(err)
		}
	}
	return nil
}

func (s *Sender) explain(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return &hintedError{err, "sending needs root (CAP_SYS_ADMIN)"}
	}
	return err
}

// Deliver chooses, sends to the Unix socket at path, says that this is all,
// and waits until the receiver closes. Only if the cursor file then names what
// was sent has it arrived; else the error is a *NotAppliedError. Without a
// cursor file, the end of the receiver is all there is to know.
func (s *Sender) Deliver(ctx context.Context, path string) ([]Leg, error) {
	// First see who is there: what nobody takes need not be held.
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, &TemporaryError{Err: fmt.Errorf("receiver: %w", err)}
	}
	defer conn.Close()
	legs, err := s.Choose(ctx)
	if err != nil {
		return nil, err
	}
	out, err := conn.(*net.UnixConn).File()
	if err != nil {
		return nil, fmt.Errorf("receiver %s: %w", path, err)
	}
	defer out.Close()
	target := legs[len(legs)-1].Target
	if err := s.Send(ctx, legs, out); err != nil {
		return nil, s.delivered(target, err)
	}
	if err := syscall.Shutdown(int(out.Fd()), syscall.SHUT_WR); err != nil {
		return nil, s.delivered(target, fmt.Errorf("receiver %s: %w", path, err))
	}
	stop := context.AfterFunc(ctx, func() { syscall.Shutdown(int(out.Fd()), syscall.SHUT_RD) })
	defer stop()
	if _, err := io.Copy(io.Discard, out); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return nil, s.delivered(target, fmt.Errorf("receiver %s: %w", path, err))
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("receiver %s: %w", path, context.Cause(ctx))
	}
	return legs, s.delivered(target, nil)
}

// delivered looks at the cursor file after a delivery that ended with err.
func (s *Sender) delivered(target Snapshot, err error) error {
	var lost *LostParentError
	if errors.As(err, &lost) || errors.Is(err, context.Canceled) {
		return err
	}
	if s.Cursor == "" {
		if err != nil {
			return &TemporaryError{Err: err}
		}
		return nil
	}
	cur, cerr := ReadCursor(s.Cursor)
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	if cur != nil && cur.SnapshotUUID == target.UUID {
		return nil
	}
	if cur != nil { // somebody else may have sent a later one
		if list, err := s.Store.List(); err == nil {
			if sn, ok := find(list, cur.SnapshotUUID); ok && sn.Source() == target.Source() && sn.ID > target.ID {
				return nil
			}
		}
	}
	return &NotAppliedError{s.Cursor, target, err}
}

// pollTime is how often Follow looks for a new snapshot.
const pollTime = 100 * time.Millisecond

// Follow sends each new snapshot, as send does it, until ctx ends, which is no
// error, or send fails. after is called for each, with no legs where there is
// nothing new.
func (s *Sender) Follow(ctx context.Context, send func(context.Context) ([]Leg, error), after func([]Leg)) error {
	for {
		legs, err := send(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrNothing):
		case err != nil:
			return err
		}
		after(legs)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollTime):
		}
	}
}

// Stream chooses and sends to out. What it sends is what the next Stream
// starts from.
func (s *Sender) Stream(ctx context.Context, out *os.File) ([]Leg, error) {
	legs, err := s.Choose(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Send(ctx, legs, out); err != nil {
		return nil, err
	}
	s.sent = &legs[len(legs)-1].Target
	return legs, nil
}
