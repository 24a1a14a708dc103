package chain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A Sink is what Feed appends to: a Log, or the daemon that has it.
type Sink interface {
	// Append appends one batch and returns when it is durable; see
	// Log.Append.
	Append(b *Batch) error
	// Idle is called about once a second.
	Idle() error
	// Lost records that events were dropped before they got here, and returns
	// when that is durable.
	Lost(l record.Lost) error
}

// FeedOptions say how Feed reads its input.
type FeedOptions struct {
	// Convert turns a line of another format into an event's line; nil if the
	// input is events already. It returns nil for a line to leave out.
	Convert func(line []byte) ([]byte, error)

	Peer       event.Peer
	WantLeaves bool
	Done       func(b *Batch) error // called with each batch that is durable, may be nil

	// LossyBytes, if it is not 0, is for a producer that must never wait: the
	// input is always read, at most so many bytes of events wait for the log,
	// and what comes above that is dropped and told by an event log.lost.
	LossyBytes int64
}

const (
	feedEvents = 4096
	feedBytes  = 1 << 20
)

// Feed appends the lines of r to sink until r ends or ctx is cancelled, and
// returns how many events are durable. A batch is what can be read without
// waiting, at most feedEvents lines. Empty lines are passed over. The first
// line that is refused ends it with a *LineError; the lines before it are
// stored.
func Feed(ctx context.Context, r io.Reader, sink Sink, o FeedOptions) (stored int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// One batch may wait while another is written, so that reading and
	// parsing go on during the sync.
	inputs := make(chan input, 1)
	var lossy *lossyQueue
	if o.LossyBytes > 0 {
		lossy = newLossyQueue(o.LossyBytes)
		inputs = make(chan input)
		go func() {
			for {
				in, ok := lossy.take(ctx)
				if !ok {
					return
				}
				select {
				case inputs <- in:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	go func() {
		f := feeder{r: bufio.NewReaderSize(r, 256<<10), o: o}
		for {
			var in input
			in.batch, in.lines, in.err = f.next()
			if lossy != nil {
				lossy.put(in)
				if in.err != nil {
					return
				}
				continue
			}
			select {
			case inputs <- in:
			case <-ctx.Done():
				return
			}
			if in.err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return stored, nil
		case <-tick.C:
			if err := sink.Idle(); err != nil {
				return stored, err
			}
		case in := <-inputs:
			if in.lost != nil {
				if err := sink.Lost(*in.lost); err != nil {
					return stored, err
				}
				continue
			}
			if len(in.batch.Drafts) > 0 {
				err := sink.Append(in.batch)
				stored += int64(in.batch.Stored)
				if in.batch.Stored > 0 && o.Done != nil {
					if err := o.Done(in.batch); err != nil {
						return stored, err
					}
				}
				if err != nil {
					return stored, err
				}
				if in.batch.Err != nil {
					return stored, &LineError{in.lines[in.batch.Stored], in.batch.Err}
				}
			}
			if in.err == io.EOF {
				return stored, nil
			}
			if in.err != nil {
				return stored, in.err
			}
		}
	}
}

type feeder struct {
	r    *bufio.Reader
	o    FeedOptions
	p    event.Parser
	line int64

	// control is asked first about each line, if it is set; a line that it
	// takes ends the batch and is not counted.
	control func(line []byte) (taken bool, err error)

	// src is what r reads, if r's buffer is to grow to connBuffer when much
	// comes at once.
	src io.Reader

	// long is called once for a line longer than connBuffer, before the rest
	// of it is read, if it is set; its error ends reading.
	long func() error

	// parsing is held while a line longer than veryLong is parsed, if it is
	// set: that can take several times the line's length in memory.
	parsing *sync.Mutex
}

// next returns the next batch, and the error that ended it after its drafts.
func (f *feeder) next() (*Batch, []int64, error) {
	b := &Batch{Peer: f.o.Peer, WantLeaves: f.o.WantLeaves}
	var lines []int64
	size := 0
	for len(b.Drafts) < feedEvents && size < feedBytes {
		if len(b.Drafts) > 0 && !f.buffered() {
			return b, lines, nil
		}
		line, err := f.readLine()
		if err != nil && (err != io.EOF || len(line) == 0) {
			return b, lines, err
		}
		if f.control != nil {
			if taken, cerr := f.control(line); taken || cerr != nil {
				return b, lines, cerr
			}
		}
		f.line++
		if len(bytes.TrimSpace(line)) > 0 {
			d, ok, perr := f.draft(line)
			if perr != nil {
				return b, lines, &LineError{f.line, perr}
			}
			if ok {
				b.Drafts = append(b.Drafts, d)
				lines = append(lines, f.line)
				if size += len(line); size > f.r.Size()/2 {
					f.grow()
				}
			}
		}
		if err != nil {
			return b, lines, err
		}
	}
	return b, lines, nil
}

// grow makes the buffer larger, and says whether it was not large already.
func (f *feeder) grow() bool {
	if f.src == nil || f.r.Size() >= connBuffer {
		return false
	}
	left, _ := f.r.Peek(f.r.Buffered())
	f.r = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(left)), f.src), connBuffer)
	return true
}

// buffered says whether a whole line can be had without waiting.
func (f *feeder) buffered() bool {
	n := f.r.Buffered()
	if n == 0 {
		return false
	}
	peek, _ := f.r.Peek(n)
	return bytes.IndexByte(peek, '\n') >= 0
}

func (f *feeder) draft(line []byte) (d event.Draft, ok bool, err error) {
	if f.o.Convert != nil {
		if line, err = f.o.Convert(line); err != nil || line == nil {
			return d, false, err
		}
	}
	if f.parsing != nil && len(line) > veryLong {
		f.parsing.Lock()
		defer f.parsing.Unlock()
		f.p = event.Parser{} // and forgets its scratch space
		defer func() { f.p = event.Parser{} }()
	}
	d, err = f.p.Parse(line)
	return d, err == nil, err
}

// readLine returns the next line, newly allocated, without its newline.
func (f *feeder) readLine() ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := f.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		case len(line) > event.MaxInput:
			f.line++
			return nil, &LineError{f.line, fmt.Errorf("longer than %d bytes", event.MaxInput)}
		case f.grow():
		case f.long != nil && !long:
			long = true
			if err := f.long(); err != nil {
				return nil, err
			}
		}
	}
}

// A DirectSink appends to a log that this process has opened, and publishes a
// checkpoint once a second while there is something new.
type DirectSink struct{ Log *Log }

// Append implements Sink.
func (s DirectSink) Append(b *Batch) error { return s.Log.Append(b) }

// Lost implements Sink.
func (s DirectSink) Lost(l record.Lost) error {
	d, err := lostDraft(l)
	if err != nil {
		return err
	}
	return s.Log.appendOwn(d)
}

// Idle implements Sink.
func (s DirectSink) Idle() error { return s.Log.Checkpoint() }
