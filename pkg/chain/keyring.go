package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// readKeyring returns the log's chain of keys, from its file of epochs if that
// can be read, else from the segments.
func readKeyring(fsys fs.FS) (*layout.Keyring, error) {
	data, err := readOptional(fsys, layout.Epochs)
	if err != nil {
		return nil, err
	}
	if ring, err := layout.ReadKeyring(data); err == nil {
		return ring, nil
	}
	ring, _, err := scanKeyring(fsys)
	return ring, err
}

// scanKeyring reads the chain of keys out of every segment, and returns the
// lines that it is made of, as the file of epochs has them.
func scanKeyring(fsys fs.FS) (ring *layout.Keyring, lines []byte, err error) {
	ns, err := segments(fsys)
	if err != nil {
		return nil, nil, err
	}
	if len(ns) > 0 && ns[0] > 0 {
		// What was pruned is in the file of epochs only.
		data, err := readOptional(fsys, layout.Epochs)
		if err != nil {
			return nil, nil, err
		}
		if ring, err = layout.ReadKeyringBelow(data, ns[0]*layout.SegmentEvents); err != nil {
			return nil, nil, err
		}
		lines = bytes.Join(bytes.SplitAfterN(data, []byte("\n"), int(ring.Epochs())+1)[:ring.Epochs()], nil)
	}
	each := func(line []byte) error {
		e := ownEvent(line)
		if ring == nil {
			if e == nil {
				return errors.New("first line is not the log's first event")
			}
			ring, err = layout.NewKeyring(e)
		} else if e != nil {
			before := ring.Epochs()
			if err := ring.Observe(e); err != nil || ring.Epochs() == before {
				return err
			}
		} else {
			return nil
		}
		lines = append(append(lines, line...), '\n')
		return err
	}
	for _, n := range ns {
		f, err := fsys.Open(layout.SegmentName(n))
		if err != nil {
			return nil, nil, err
		}
		r := newLineReader(f)
		for {
			line, err := r.next()
			if err == io.EOF || errors.Is(err, errTornLine) || errors.Is(err, errLongLine) {
				break
			}
			if err == nil {
				err = each(line)
			}
			if err != nil {
				f.Close()
				return nil, nil, fmt.Errorf("%s: %w", layout.SegmentName(n), err)
			}
		}
		f.Close()
	}
	if ring == nil && len(ns) == 0 {
		return nil, nil, errNoLog()
	}
	if ring == nil {
		return nil, nil, errors.New("log has no first event")
	}
	return ring, lines, nil
}

// A signedCheckpoint is a checkpoint with the note that it came in.
type signedCheckpoint struct {
	merkle.Checkpoint
	note []byte
}

// latestCheckpoint returns the largest checkpoint that opens with ring, out of
// the file checkpoint and the end of the file checkpoints: a crash between the
// two leaves either one ahead.
func latestCheckpoint(fsys fs.FS, ring *layout.Keyring) (signedCheckpoint, error) {
	var best signedCheckpoint
	var errs []error
	try := func(note []byte) {
		c, err := ring.Open(note)
		if err != nil {
			errs = append(errs, err)
		} else if best.note == nil || c.Size > best.Size {
			best = signedCheckpoint{c, note}
		}
	}
	latest, err := readOptional(fsys, layout.Checkpoint)
	if err != nil {
		return best, err
	}
	if latest != nil {
		try(latest)
	}
	archived, err := lastArchived(fsys)
	if err != nil {
		return best, err
	}
	if archived != nil {
		try(archived)
	}
	if best.note == nil {
		if len(errs) == 0 {
			errs = append(errs, errors.New("there is none"))
		}
		return best, fmt.Errorf("no valid checkpoint: %w", errors.Join(errs...))
	}
	return best, nil
}

// lastArchived returns the last whole note of the archive of checkpoints, nil
// if there is none. It reads the archive's end only: that grows by a note a
// minute for ever.
func lastArchived(fsys fs.FS) ([]byte, error) {
	f, err := fsys.Open(layout.Checkpoints)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Two notes and a torn one fit, however many signatures they have.
	const window = 32 << 10
	if s, ok := f.(io.Seeker); ok && info.Size() > window {
		if _, err := s.Seek(-window, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	tail, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	// A note begins behind an empty line that follows a signature. The first
	// ones in the window are tried until what is behind is whole notes.
	for {
		if notes, _ := merkle.SplitNotes(tail); len(notes) > 0 {
			return notes[len(notes)-1], nil
		}
		_, rest, ok := bytes.Cut(tail, []byte("\n\n"))
		if !ok {
			return nil, nil
		}
		tail = rest
	}
}

// ReadCreated returns the data of the log's first event: its origin and keys.
func ReadCreated(fsys fs.FS) (layout.Created, error) {
	ring, err := readKeyring(fsys)
	if err != nil {
		return layout.Created{}, err
	}
	return ring.Created, nil
}

// LatestCheckpoint returns the log's latest checkpoint after checking both
// signatures.
// If one is not good the error has exit code 3.
func LatestCheckpoint(fsys fs.FS) (merkle.Checkpoint, error) {
	ring, err := readKeyring(fsys)
	if err != nil {
		return merkle.Checkpoint{}, err
	}
	note, err := fs.ReadFile(fsys, layout.Checkpoint)
	if err != nil {
		return merkle.Checkpoint{}, err
	}
	c, err := ring.Open(note)
	if err != nil {
		return c, &unverifiedError{err}
	}
	return c, nil
}
