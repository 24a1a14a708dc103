package qdrant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// Bounds of the work that one question can ask for.
const (
	pageSize   = 1000
	maxChecked = 2000   // templates whose points are looked at, by one of the ways of finding some
	maxListed  = 4000   // templates that a filter is turned into
	maxHeld    = 4000   // templates, or points, that may hold a value
	maxScanned = 20_000 // events that are looked at for values
	maxPacked  = 64 << 20
)

// A Reader searches what tenants have published by the time it was opened, and
// their changes since. It sees a transaction that is under way bit by bit:
// Qdrant has none.
type Reader struct {
	c      *Client
	alias  string
	heads  []*head
	parts  []string
	tenant map[string]string // of a part

	mu     sync.Mutex
	groups map[[2]any]string // by part and number
	last   *passing          // what a question has found out of its filter, for what it asks next
	lastAt time.Time
}

// remembered is how long that counts.
const remembered = time.Second

var _ index.Reader = (*Reader)(nil)

// OpenReader opens the index that alias names, of one tenant, or of all if
// tenant is "". A *NoneError says that there is nothing.
func OpenReader(ctx context.Context, c *Client, tenant string) (*Reader, error) {
	r := &Reader{c: c, alias: c.o.Alias, tenant: make(map[string]string), groups: make(map[[2]any]string)}
	list, err := c.heads(ctx, c.o.Alias)
	if isNotFound(err) {
		return nil, &NoneError{c.o.Address(), "index (alias " + c.o.Alias + ")"}
	}
	if err != nil {
		return nil, err
	}
	for _, h := range list {
		if tenant == "" || h.tenant == tenant {
			r.heads, r.parts = append(r.heads, h), append(r.parts, h.part)
			r.tenant[h.part] = h.tenant
		}
	}
	if len(r.heads) == 0 {
		name := "tenant"
		if tenant != "" {
			name = fmt.Sprintf("tenant %q", tenant)
		}
		return nil, &NoneError{c.o.Address(), name}
	}
	return r, nil
}

// Close implements index.Reader. The client stays open.
func (r *Reader) Close() error { return nil }

// States returns what each tenant says that it has verified.
func (r *Reader) States() map[string][]byte {
	m := make(map[string][]byte, len(r.heads))
	for _, h := range r.heads {
		m[h.tenant] = h.State
	}
	return m
}

// Get implements index.Reader. The state is where the writer is.
func (r *Reader) Get(string) ([]byte, error) { return nil, nil }

// log is the name of a part's tenant where there are several.
func (r *Reader) log(part string) string {
	if len(r.parts) == 1 {
		return ""
	}
	return r.tenant[part]
}

// A SeveralError says that an index alone does not tell an event: exit code 2.
type SeveralError struct{ Tenants []string }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("the index is of %d logs, each with events of the same numbers", len(e.Tenants))
}

// ExitCode is that of wrong usage.
func (e *SeveralError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *SeveralError) Hint() string {
	return "name one with --tenant: " + strings.Join(e.Tenants[:min(len(e.Tenants), 20)], ", ")
}

// Totals implements index.Reader.
func (r *Reader) Totals() (index.Totals, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.c.o.Patience+callTime)
	defer cancel()
	var t index.Totals
	heads, err := r.c.heads(ctx, r.alias)
	if err != nil {
		return t, err
	}
	for _, h := range heads {
		if _, ours := r.tenant[h.part]; !ours {
			continue
		}
		t.Events += h.Events
		t.Embedder = h.Embedder
		if h.Newest.After(t.Newest) {
			t.Newest = h.Newest
		}
	}
	for _, of := range []struct {
		into *int64
		f    *qdrant.Filter
	}{
		{&t.Points, r.where(index.KindPoint, nil)},
		{&t.Templates, r.where(index.KindTemplate, nil)},
		{&t.Pending, r.where(index.KindTemplate, nil, qdrant.NewMatchBool(keyPending, true))},
	} {
		n, err := r.count(ctx, of.f)
		if err != nil {
			return t, err
		}
		*of.into = n
	}
	return t, nil
}

// Space implements index.Reader.
func (r *Reader) Space(context.Context) (string, error) { return r.heads[0].Embedder, nil }

// Frequencies implements index.Reader.
func (r *Reader) Frequencies(ctx context.Context, stems []string) (in []int64, of int64, err error) {
	in = make([]int64, len(stems))
	filters := []*qdrant.Filter{r.where(index.KindTemplate, nil)}
	into := []*int64{&of}
	for i, s := range stems {
		filters = append(filters, r.where(index.KindTemplate, nil, qdrant.NewMatchInt(keyStems, hash64(s))))
		into = append(into, &in[i])
	}
	return in, of, each(ctx, len(filters), func(ctx context.Context, i int) error {
		n, err := r.count(ctx, filters[i])
		*into[i] = n
		return err
	})
}

// Templates implements index.Reader.
func (r *Reader) Templates(ctx context.Context, list []index.ID) (out []index.Candidate, err error) {
	by := make(map[index.ID]int)
	var parts []string
	var groups []int64
	for chunk := range slices.Chunk(list, maxBatch) {
		if err := r.c.scroll(ctx, r.alias, r.where(index.KindTemplate, nil, qdrant.NewMatchKeywords(keyTemplate, ids(chunk)...)), candidateKeys, func(p *qdrant.RetrievedPoint) error {
			c := candidate(p.Payload)
			if _, ok := by[c.ID]; !ok {
				by[c.ID] = len(out)
				out = append(out, c)
				parts, groups = append(parts, text(p.Payload, keyTenant)), append(groups, number(p.Payload, keyGroup))
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if err := r.name(ctx, out, parts, groups); err != nil {
		return nil, err
	}
	ordered := make([]index.Candidate, 0, len(out))
	for _, id := range list { // in the order that was asked for
		if i, ok := by[id]; ok {
			ordered = append(ordered, out[i])
			delete(by, id)
		}
	}
	return ordered, nil
}

// Newest implements index.Reader.
func (r *Reader) Newest(ctx context.Context, f index.Filter, limit int) ([]index.Candidate, error) {
	p, err := r.passing(ctx, f)
	if err != nil {
		return nil, err
	}
	var order []index.ID
	had := make(map[index.ID]bool)
	size := pageSize
	if limit < 100 {
		size = 200
	}
	err = r.newest(ctx, r.where(index.KindPoint, &f), pointKeys, size, func(page []*qdrant.RetrievedPoint) error {
		var fresh []index.ID
		for _, q := range page {
			pt := parsePoint(q)
			if !had[pt.template] && pt.overlaps(&f) {
				had[pt.template] = true
				fresh = append(fresh, pt.template)
			}
		}
		if err := p.learn(ctx, fresh); err != nil {
			return err
		}
		for _, id := range fresh {
			if p.passes(id) && len(order) < limit {
				order = append(order, id)
			}
		}
		if len(order) >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.Templates(ctx, order)
}
