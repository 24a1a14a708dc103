package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// An eventView is one event, whole.
type eventView struct {
	Index   int64  `json:"index"`
	Line    string `json:"line"` // as it is stored
	Damaged string `json:"damaged,omitempty"`
	Leaf    string `json:"leaf"`   // its hash in the Merkle tree, base64
	Signed  int64  `json:"signed"` // events that the latest checkpoint covers
	// The stored line was hashed, now, against the latest checkpoint, and is what
	// was signed; or it is not; or that can't be told.
	Proved     bool            `json:"verified"`
	Unverified string          `json:"unverified,omitempty"`
	Unproved   string          `json:"unproved,omitempty"`
	Event      *event.Event    `json:"-"`
	Row        eventRow        `json:"-"`
	Data       json.RawMessage `json:"-"`
	Around     []eventRow      `json:"around"` // what happened before and after, newest first
	First      int64           `json:"first"`
	End        int64           `json:"end"`
	Fields     []field         `json:"-"`
	CanMore    bool            `json:"-"`
	Relation   []relation      `json:"-"`
}

type field struct{ Name, Value, Query string }

// A relation is another event of the same action.
type relation struct {
	Title string
	Query string
}

const aroundEach = 8

func (s *Server) event(r *request) (any, error) {
	i, err := r.index()
	if err != nil {
		return nil, err
	}
	row, err := s.log.Get(r.ctx, i)
	if err != nil {
		return nil, err
	}
	first, end, err := s.log.Bounds()
	if err != nil {
		return nil, err
	}
	var h merkle.Hasher
	v := &eventView{Index: i, Line: string(row.Line), Leaf: h.Leaf(row.Line).String(), Signed: s.signed(), Event: row.Event, Row: rowOf(row), First: first, End: end, CanMore: s.Search != nil}
	if i < v.Signed {
		_, err := s.prover.prove(i)
		var unverified interface{ ExitCode() int }
		switch {
		case err == nil:
			v.Proved = true
		case errors.As(err, &unverified) && unverified.ExitCode() == 3:
			v.Unverified = err.Error()
		default:
			v.Unproved = err.Error()
		}
	}
	if row.Damaged != nil {
		v.Damaged = row.Damaged.Error()
	}
	v.Around = []eventRow{}
	err = s.log.Read(r.ctx, max(i-aroundEach, first), i+aroundEach+1, func(r timeline.Row) error {
		v.Around = append([]eventRow{rowOf(r)}, v.Around...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if e := row.Event; e != nil {
		v.Data = e.Data
		v.fields(e)
	}
	return v, nil
}

func (v *eventView) fields(e *event.Event) {
	add := func(name, value, query string) {
		if value != "" {
			v.Fields = append(v.Fields, field{name, clean(value), query})
		}
	}
	add("source", e.Source, queryString([]string{"source", e.Source}))
	add("type", e.Type, queryString([]string{"type", e.Type}))
	add("subject", e.Subject, queryString([]string{"text", e.Subject}))
	add("host", e.Host, queryString([]string{"host", e.Host}))
	add("actor", e.Actor, queryString([]string{"actor", e.Actor}))
	add("written by", fmt.Sprintf("uid %d%s", e.Peer.UID, ifAny(" of ", e.Peer.Unit)), "")
	add("time, as it says", e.Time.Local().Format("2006-01-02 15:04:05.000000 -07:00"), "")
	add("taken by the log", e.At.Local().Format("2006-01-02 15:04:05.000000 -07:00"), queryString([]string{"since", e.At.Add(-time.Minute).UTC().Format(time.RFC3339), "until", e.At.Add(time.Minute).UTC().Format(time.RFC3339)}))
	if e.Blob != nil {
		add("data", fmt.Sprintf("%s, kept apart as %s", bytesText(uint64(e.Blob.Size)), layout.BlobName(e.Blob.SHA256)), "")
	}
	var data struct{ ID string }
	if strings.HasPrefix(e.Type, "opdbus.") && json.Unmarshal(e.Data, &data) == nil && data.ID != "" {
		v.Relation = append(v.Relation, relation{"intent and outcome of this action", queryString([]string{"text", data.ID})})
	}
}

func ifAny(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// A prover makes proofs. A tree keeps what it has read of segments, so it is
// kept as long as it is of the latest checkpoint.
type prover struct {
	fsys fs.FS
	mu   sync.Mutex
	tree *chain.Tree
}

func (p *prover) prove(index int64) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	note, err := fs.ReadFile(p.fsys, layout.Checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotSigned(index)
	}
	if err != nil {
		return nil, err
	}
	if p.tree == nil || !bytes.Equal(p.tree.Note, note) && p.tree.Checkpoint.Size <= index {
		if p.tree, err = chain.OpenTree(p.fsys); err != nil {
			return nil, err
		}
	}
	if index >= p.tree.Checkpoint.Size {
		return nil, errNotSigned(index)
	}
	return p.tree.Prove(index)
}

func errNotSigned(index int64) error {
	return fail(http.StatusConflict, "event %d is not signed yet", index).hint("the log's daemon signs once a second: try again in a moment")
}

// proof gives a C2SP tlog-proof, which gb-chain check takes.
func (s *Server) proof(w http.ResponseWriter, r *http.Request) {
	if f := s.allowed(r, access.Viewer); f != nil {
		s.answerFailure(w, r, f)
		return
	}
	req := &request{Request: r, ctx: r.Context()}
	i, err := req.index()
	var data []byte
	if err == nil {
		if _, end, berr := s.log.Bounds(); berr == nil && i >= end {
			err = &timeline.GoneError{Index: i, End: end}
		} else {
			data, err = s.prover.prove(i)
		}
	}
	if err != nil {
		f := failureOf(err)
		if strings.HasPrefix(r.URL.Path, apiPrefix) {
			s.answerFailure(w, r, f)
		} else {
			s.failurePage(w, r, f, "Proof")
		}
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="event-%d.tlog-proof"`, i))
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, r, http.StatusOK, data)
}
