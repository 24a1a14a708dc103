package qdrant

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

func (r *Reader) count(ctx context.Context, f *qdrant.Filter) (n int64, err error) {
	err = r.c.do(ctx, "count", func(ctx context.Context) error {
		a, err := r.c.points.Count(ctx, &qdrant.CountPoints{CollectionName: r.alias, Filter: f, Exact: qdrant.PtrOf(true)})
		n = int64(a.GetResult().GetCount())
		return err
	})
	return n, err
}

// scroll calls f for all points that a filter lets through.
func (c *Client) scroll(ctx context.Context, collection string, filter *qdrant.Filter, keys []string, f func(*qdrant.RetrievedPoint) error) error {
	payload := qdrant.NewWithPayload(true)
	if keys != nil {
		payload = qdrant.NewWithPayloadInclude(keys...)
	}
	var from *qdrant.PointId
	for {
		var page []*qdrant.RetrievedPoint
		var next *qdrant.PointId
		err := c.do(ctx, "read points", func(ctx context.Context) error {
			a, err := c.points.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: collection, Filter: filter, Limit: qdrant.PtrOf(uint32(pageSize)), Offset: from, WithPayload: payload})
			page, next = a.GetResult(), a.GetNextPageOffset()
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range page {
			if err := f(p); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

var errEnough = errors.New("enough")

// newest calls f for the points that a filter lets through, the one with the
// newest event first, page by page.
func (r *Reader) newest(ctx context.Context, filter *qdrant.Filter, keys []string, size int, f func([]*qdrant.RetrievedPoint) error) error {
	order := &qdrant.OrderBy{Key: keyLast, Direction: qdrant.Direction_Desc.Enum()}
	seen := make(map[string]bool) // of those at the page's end
	for {
		var page []*qdrant.RetrievedPoint
		err := r.c.do(ctx, "read points", func(ctx context.Context) error {
			a, err := r.c.points.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: r.alias, Filter: filter, Limit: qdrant.PtrOf(uint32(size)), OrderBy: order,
				WithPayload: qdrant.NewWithPayloadInclude(append([]string{keyLast}, keys...)...)})
			page = a.GetResult()
			return err
		})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		end := number(page[len(page)-1].Payload, keyLast)
		fresh := slices.DeleteFunc(slices.Clone(page), func(p *qdrant.RetrievedPoint) bool { return seen[p.Id.GetUuid()] })
		if err := f(fresh); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
		if len(page) < size {
			return nil
		}
		if len(fresh) == 0 { // all of one moment: a larger page leads beyond
			size *= 2
		}
		if order.StartFrom == nil || order.StartFrom.GetInteger() != end {
			clear(seen)
		}
		for _, p := range page {
			if number(p.Payload, keyLast) == end {
				seen[p.Id.GetUuid()] = true
			}
		}
		order.StartFrom = qdrant.NewStartFromInt(end)
	}
}

// where is a filter for one kind of points: of the tenants, of what f asks for
// except for the time within the hour, and of more.
func (r *Reader) where(kind string, f *index.Filter, more ...*qdrant.Condition) *qdrant.Filter {
	must := []*qdrant.Condition{qdrant.NewMatchKeywords(keyTenant, r.parts...), qdrant.NewMatch(keyKind, kind)}
	if f != nil {
		for _, of := range []struct {
			key  string
			list []string
		}{{keySource, f.Sources}, {keyType, f.Types}, {keyHost, f.Hosts}, {keyActor, f.Actors}} {
			if len(of.list) > 0 {
				must = append(must, qdrant.NewMatchKeywords(of.key, of.list...))
			}
		}
		if f.HasSeverity {
			must = append(must, qdrant.NewRange(keySeverity, &qdrant.Range{Lte: qdrant.PtrOf(float64(f.Severity))}))
		}
		var hours qdrant.Range
		if !f.Since.IsZero() {
			hours.Gte = qdrant.PtrOf(float64(hourOf(f.Since)))
		}
		if !f.Until.IsZero() {
			hours.Lte = qdrant.PtrOf(float64(hourOf(f.Until.Add(-1))))
		}
		if hours.Gte != nil || hours.Lte != nil {
			must = append(must, qdrant.NewRange(keyHour, &hours))
		}
	}
	return &qdrant.Filter{Must: append(must, more...)}
}

func hourOf(t time.Time) int64 { return int64(math.Floor(float64(t.Unix()) / 3600)) }

func ids(list []index.ID) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.String()
	}
	return out
}

// each calls f for 0 to n-1, some at the same time, until one fails.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, 16) {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
