package vecsynctest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// A Recording is a history of snapshots with the streams between them, and the
// index as it is at each.
type Recording struct {
	Steps []*Step
	// Stream returns a stream from snapshot k to snapshot to, in full for
	// k < 0; nil says that there is none. Those to the next snapshot, and the
	// full one of the first, are always there.
	Stream func(k, to int, r *rand.Rand) []byte

	at []*Index
}

// Apply applies each snapshot to a copy of the index before it, and looks at
// what is in it then.
func (r *Recording) Apply(t testing.TB) {
	t.Helper()
	ix := NewIndex()
	for k, s := range r.Steps {
		ix = ix.Clone()
		stream := r.Stream(k-1, k, rand.New(rand.NewPCG(uint64(k), 2)))
		if n, err := vecsync.Ingest(ix, bytes.NewReader(stream), vecsync.Options{}); n != 1 || err != nil {
			t.Fatalf("snapshot %d: %d applied, %v", k, n, err)
		}
		if d := s.Diff(ix); d != "" {
			t.Fatalf("snapshot %d: %s", k, d)
		}
		r.at = append(r.at, ix)
	}
}

// Fault does one thing to the recording that can befall a stream or its
// reader, drawn from seed, and returns what that was and what came of it. An
// error says that an event was lost, taken twice, or spoilt.
func (r *Recording) Fault(seed uint64) (outcome, what string, err error) {
	c := &faultCase{Recording: r, rand: rand.New(rand.NewPCG(seed, 11))}
	outcome, err = c.run()
	return outcome, c.what, err
}

// A faultCase is one fault.
type faultCase struct {
	*Recording
	rand *rand.Rand
	what string
}

var errKilled = errors.New("killed")

// FaultKinds are the kinds of fault, and one that is none.
var FaultKinds = []string{"cut at a command", "cut at a byte", "flipped bit", "one-byte reads", "reader killed", "index killed", "killed after the commit",
	"cursor not published", "replayed", "wrong parent"}

// run brings an index to some snapshot, sends it what leads on, with a fault,
// looks at it, and sends it again without.
func (c *faultCase) run() (outcome string, err error) {
	k := c.rand.IntN(len(c.Steps) - 1)
	to := min(len(c.Steps)-1, k+1)
	if c.rand.IntN(3) == 0 {
		to = k + 1 + c.rand.IntN(len(c.Steps)-1-k)
	}
	full := c.rand.IntN(8) == 0
	kind := FaultKinds[c.rand.IntN(len(FaultKinds))]
	c.what = fmt.Sprintf("%s, from %d to %d, full %t", kind, k, to, full)

	// What is sent: one stream, or several that lead there step by step.
	var input []byte
	several := false
	if full {
		input = c.Stream(-1, to, c.rand)
		full = input != nil
	} else if c.rand.IntN(4) > 0 {
		input = c.Stream(k, to, c.rand)
	}
	if input == nil {
		several = true
		for at := k; at < to; at++ {
			input = append(input, c.Stream(at, at+1, c.rand)...)
		}
	}
	ix := c.at[k].Clone()
	o := vecsync.Options{TempDir: os.TempDir()}
	reader, flipped := c.fault(kind, input, ix, &o, k)
	_, err = vecsync.Ingest(ix, reader, o)
	ix.Fail = nil

	// It stands at a snapshot that leads there, and holds just that.
	at, werr := c.whole(ix)
	if werr != nil {
		return "", fmt.Errorf("after the fault (%v): %w", err, werr)
	}
	if at < k && !full || at > to {
		return "", fmt.Errorf("after the fault (%v) it stands at %d", err, at)
	}
	// A cut between two streams can't be told from the end.
	if err == nil && at != to && !(several && strings.HasPrefix(kind, "cut")) {
		return "", fmt.Errorf("it stands at %d without an error", at)
	}
	outcome = kind + ": applied"
	if err != nil {
		outcome = kind + ": kept out"
		if werr := c.expected(kind, flipped, err); werr != nil {
			return "", werr
		}
		if finding, _ := vecsync.Standing(ix); finding != nil {
			return outcome, nil // the version was flipped: see expected
		}
	}
	// Again, without a fault, from where the cursor stands.
	if at == to {
		return outcome, nil
	}
	again := c.Stream(at, to, c.rand)
	if again == nil {
		for next := at; next < to; next++ {
			again = append(again, c.Stream(next, next+1, c.rand)...)
		}
	}
	if _, err := vecsync.Ingest(ix, bytes.NewReader(again), vecsync.Options{}); err != nil {
		return "", fmt.Errorf("sent again: %w", err)
	}
	if at, err = c.whole(ix); err != nil || at != to {
		return "", fmt.Errorf("sent again, it stands at %d: %w", at, err)
	}
	return outcome, nil
}

// fault prepares the fault. flipped is which byte it has changed, -1 if none.
func (c *faultCase) fault(kind string, input []byte, ix *Index, o *vecsync.Options, k int) (r io.Reader, flipped int) {
	flipped = -1
	switch kind {
	case "cut at a command":
		ends := commandEnds(input)
		input = input[:ends[c.rand.IntN(len(ends)-1)]]
	case "cut at a byte":
		input = input[:1+c.rand.IntN(len(input)-1)] // no byte at all is no stream, and no fault
	case "flipped bit":
		flipped = c.rand.IntN(len(input))
		input = bytes.Clone(input)
		input[flipped] ^= 1 << c.rand.IntN(8)
	case "one-byte reads":
		return iotest.OneByteReader(bytes.NewReader(input)), -1
	case "reader killed":
		return io.MultiReader(bytes.NewReader(input[:c.rand.IntN(len(input))]), iotest.ErrReader(errKilled)), -1
	case "index killed", "killed after the commit":
		left := c.rand.IntN(60)
		ix.Fail = func(op string) error {
			if kind == "killed after the commit" {
				if op == "commit" {
					return errors.Join(errKilled, ErrCommitted)
				}
				return nil
			}
			if left--; left < 0 {
				return errKilled
			}
			return nil
		}
	case "cursor not published":
		o.Cursor = filepath.Join(os.TempDir(), "there is no such directory", "cursor")
	case "replayed":
		// What was applied already comes once more.
		input = append(bytes.Clone(c.Stream(k-1, k, c.rand)), input...)
	case "wrong parent":
		if other := c.Stream(k+1, min(k+2, len(c.Steps)-1), c.rand); k+2 < len(c.Steps) && other != nil {
			return bytes.NewReader(other), -1
		}
		return iotest.DataErrReader(bytes.NewReader(input)), -1
	}
	return bytes.NewReader(input), flipped
}

// expected says whether an error fits the fault.
func (c *faultCase) expected(kind string, flipped int, err error) error {
	var stream *vecsync.StreamError
	var lost *vecsync.LostParentError
	var finding *vecsync.Finding
	ok := false
	switch kind {
	case "cut at a command", "cut at a byte":
		ok = errors.As(err, &stream)
	case "flipped bit":
		// No checksum covers the version in a stream's header: read as another
		// one, a stream can bring other bytes than it should, which the log's
		// own checksums find.
		ok = errors.As(err, &stream) || errors.As(err, &finding) && flipped >= 0
	case "reader killed", "index killed", "killed after the commit":
		ok = errors.Is(err, errKilled)
	case "cursor not published":
		ok = errors.Is(err, os.ErrNotExist)
	case "wrong parent":
		ok = errors.As(err, &lost)
	}
	if errors.As(err, &finding) && kind != "flipped bit" {
		ok = false
	}
	if !ok {
		return fmt.Errorf("error %T: %w", err, err)
	}
	return nil
}

// whole returns the snapshot that an index stands at, of which it holds
// everything and nothing else.
func (r *Recording) whole(ix *Index) (k int, err error) {
	cursor, err := vecsync.ReadCursor(ix)
	if err != nil {
		return 0, err
	}
	for k, s := range r.Steps {
		if s.UUID != cursor.SnapshotUUID {
			continue
		}
		if cursor.TreeSize != s.Size || cursor.Ctransid != s.Ctransid {
			return 0, fmt.Errorf("the cursor at snapshot %d is %+v, want size %d", k, cursor, s.Size)
		}
		if d := s.Diff(ix); d != "" {
			return 0, fmt.Errorf("at snapshot %d: %s", k, d)
		}
		return k, nil
	}
	return 0, fmt.Errorf("the cursor stands at %s", cursor.SnapshotUUID)
}

// commandEnds returns where each header and command of a stream ends.
func commandEnds(stream []byte) []int {
	var ends []int
	r := sendstream.NewReader(bytes.NewReader(stream), sendstream.Options{})
	for _, err := range r.All() {
		if err != nil {
			panic(err)
		}
		ends = append(ends, int(r.Offset()))
	}
	return ends
}
