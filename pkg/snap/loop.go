package snap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A Loop takes at absolute ticks: the first at once, each further one a whole
// number of periods after it, on the monotonic clock. A tick that comes while
// the one before is not done is skipped, not made up for.
type Loop struct {
	Taker *Taker
	Every time.Duration // the period, more than 0

	// Each, if not nil, is called after each tick with what it did; err is
	// nil if it was a good one.
	Each func(t *Ticks, o Outcome, err error)
}

// late is which part of a period a tick may be behind without being counted.
const late = 10

// Run runs until ctx ends, which is no error, or until the source is no longer
// there. Other errors are passed to Each, and the next tick tries again.
func (l *Loop) Run(ctx context.Context) error {
	t := newTicks(l.Taker, l.Every)
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := int64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		behind := time.Since(start) - time.Duration(n)*l.Every
		o, err := l.Taker.Take(ctx, false)
		if ctx.Err() != nil && err != nil {
			return nil
		}
		t.count(l.Taker.Now(), behind, o, err)
		next := int64(time.Since(start)/l.Every) + 1
		t.Skipped += next - n - 1
		if l.Each != nil {
			l.Each(t, o, err)
		}
		if gone(err) {
			return err
		}
		n = next
		timer.Reset(time.Duration(n)*l.Every - time.Since(start))
	}
}

// gone says whether err is such that a later tick can't succeed.
func gone(err error) bool {
	var place *PlaceError
	var source *SourceError
	return errors.As(err, &place) || errors.As(err, &source) && errors.Is(err, fs.ErrNotExist)
}

// A SourceError is an error of the source itself.
type SourceError struct {
	Path string
	Err  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("source: %v", e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }
