package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A logView is how the log does: checkpoints, epochs, segments, witnesses.
type logView struct {
	Check       *checkView           `json:"verified"`
	Origin      string               `json:"origin"`
	LogKey      string               `json:"log_key"` // verifier key, for witnesses and proofs
	Healthy     bool                 `json:"healthy"`
	Faults      []string             `json:"faults"`
	Size        int64                `json:"size"` // events that the checkpoint covers
	Root        string               `json:"root"`
	Newer       int64                `json:"newer"` // events behind it
	First       int64                `json:"first"` // index of the first event that is there
	Epoch       int64                `json:"epoch"` // number of the key that signs
	Available   uint64               `json:"available_bytes"`
	Note        string               `json:"checkpoint"` // the signed note
	Checkpoints []archivedCheckpoint `json:"checkpoints"`
	Segments    []segmentView        `json:"segments"` // the newest sealed ones, newest first
	Sealed      int                  `json:"sealed"`
	Witnesses   []witnessView        `json:"witnesses"`
	Older       int64                `json:"older,omitempty"` // number of older segments
}

type archivedCheckpoint struct {
	Size int64  `json:"size"`
	Root string `json:"root"`
}

type segmentView struct {
	Number int64     `json:"number"`
	First  int64     `json:"first"`
	Root   string    `json:"root"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	There  bool      `json:"there"` // not pruned
}

type witnessView struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // the largest checkpoint that it cosigned
	Behind   int64     `json:"behind"`
	Cosigned time.Time `json:"cosigned,omitzero"`
	Error    string    `json:"error,omitempty"`
	Refused  bool      `json:"refused,omitempty"`
}

const (
	shownSegments    = 32
	shownCheckpoints = 20
	archiveTail      = 64 << 10
)

func (s *Server) logView(r *request) (any, error) {
	st, err := chain.ReadStatus(s.LogDir, time.Now())
	if err != nil {
		return nil, err
	}
	v := &logView{Check: s.checker.view(), Origin: st.Origin, Healthy: st.Healthy, Faults: st.Faults, Size: st.Size, Newer: st.Newer, Epoch: st.Epoch, Available: st.Available,
		Checkpoints: []archivedCheckpoint{}, Segments: []segmentView{}, Witnesses: []witnessView{}}
	created, err := chain.ReadCreated(s.log.FS)
	if err != nil {
		return nil, err
	}
	v.LogKey = created.LogKey.String()
	if v.First, _, err = s.log.Bounds(); err != nil {
		return nil, err
	}
	note, err := fs.ReadFile(s.log.FS, layout.Checkpoint)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	v.Note = string(note)
	if c, err := merkle.ParseNote(note); err == nil {
		v.Root = c.Root.String()
	}
	if v.Checkpoints, err = s.archive(); err != nil {
		return nil, err
	}
	// Seals are 250 bytes each: 4 MB for a thousand million events.
	data, err := fs.ReadFile(s.log.FS, layout.Seals)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	v.Sealed = max(len(lines)-1, 0)
	before, err := r.number("before", int64(v.Sealed), 0, 1<<40)
	if err != nil {
		return nil, err
	}
	for k := min(before, int64(v.Sealed)) - 1; k >= 0 && len(v.Segments) < shownSegments; k-- {
		var seal layout.Seal
		if err := json.Unmarshal(lines[k], &seal); err != nil {
			v.Faults = append(v.Faults, "seals: a line can't be read: gb-chain verify says more")
			break
		}
		v.Segments = append(v.Segments, segmentView{seal.Segment, seal.Segment * layout.SegmentEvents, seal.Root.String(), seal.At.Min, seal.At.Max, seal.Segment*layout.SegmentEvents >= v.First})
		v.Older = k
	}
	for _, w := range s.witnesses(created.LogKey) {
		v.Witnesses = append(v.Witnesses, witnessView{clean(w.URL), w.Size, v.Size - w.Size, w.Cosigned, clean(w.Error), w.Refused})
	}
	return v, nil
}

// archive returns the newest checkpoints of the archive, newest first.
func (s *Server) archive() ([]archivedCheckpoint, error) {
	list := []archivedCheckpoint{}
	f, err := s.log.FS.Open(layout.Checkpoints)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > archiveTail {
		if sk, ok := f.(io.Seeker); ok {
			if _, err := sk.Seek(-archiveTail, io.SeekEnd); err != nil {
				return nil, err
			}
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, archiveTail))
	if err != nil {
		return nil, err
	}
	// A note is text, an empty line, signatures; an empty line follows it.
	parts := bytes.Split(data, []byte("\n\n"))
	for k := len(parts) - 1; k > 0 && len(list) < shownCheckpoints; k-- {
		if !bytes.HasPrefix(parts[k], []byte("— ")) {
			continue
		}
		text := parts[k-1]
		if c, err := merkle.ParseText(string(text) + "\n"); err == nil {
			list = append(list, archivedCheckpoint{c.Size, c.Root.String()})
		}
	}
	return list, nil
}

// witnesses are those of the log, if this process may know them.
func (s *Server) witnesses(key merkle.Verifier) []chain.WitnessState {
	if s.WitnessDir == "" {
		return nil
	}
	if _, err := os.Stat(s.WitnessDir); err != nil {
		return nil
	}
	list, err := chain.OpenWitnesses(s.log.FS, s.WitnessDir, key).List()
	if err != nil {
		s.Logger.Debug("witnesses", "error", err)
		return nil
	}
	return list
}

// verifyLog asks for the whole log to be verified.
func (s *Server) verifyLog(*request) (any, error) {
	s.checker.all()
	return &goTo{"/log", s.checker.view()}, nil
}
