package timeline

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Summary counts a log's events by the minute, by severity and by what they
// are, so that a histogram costs nothing. It is made in memory, from the newest
// events backwards, and forgets what is older than Keep.
type Summary struct {
	Log  *Log
	Keep time.Duration // 30 days if 0
	Max  int64         // events that are counted at most at start, 5,000,000 if 0

	mu      sync.Mutex
	tens    map[int64]*minute // by tens of Unix seconds of the log's clock, for keepTens
	minutes map[int64]*minute // by Unix minute
	hours   map[int64]*hour
	from    int64 // events from here on are counted,
	next    int64 // up to below here
	done    bool  // nothing older is left to count
}

// Severities is the number of severities.
const Severities = 8

type minute [Severities]uint32

// Facets of an event, in the order of Facets.
const (
	BySource = iota
	ByType
	ByHost
	ByActor
	facetCount
)

// FacetNames are the facets' names.
var FacetNames = [facetCount]string{"source", "type", "host", "actor"}

type hour [facetCount]map[string]uint32

const (
	defaultKeep  = 30 * 24 * time.Hour
	keepTens     = 3 * time.Hour
	defaultMax   = 5_000_000
	maxValues    = 256 // of a facet in an hour; the rest is left out
	facetLength  = 200
	pauseSummary = 2048 // events of a block
)

func (s *Summary) keep() time.Duration {
	if s.Keep == 0 {
		return defaultKeep
	}
	return s.Keep
}

// Start says from where on Add counts. It is called before Add and Run.
func (s *Summary) Start(next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tens, s.minutes, s.hours = map[int64]*minute{}, map[int64]*minute{}, map[int64]*hour{}
	s.from, s.next = next, next
}

// Run counts what was there at Start, newest first, until it is done or ctx
// ends.
func (s *Summary) Run(ctx context.Context) error {
	left := s.Max
	if left == 0 {
		left = defaultMax
	}
	for {
		s.mu.Lock()
		from := s.from
		s.mu.Unlock()
		first, _, err := s.Log.Bounds()
		if err != nil {
			return err
		}
		to, begin := from, max(from-pauseSummary, first)
		if from <= first || left <= 0 {
			break
		}
		oldest := time.Now()
		rows := make([]Row, 0, pauseSummary)
		if err := s.Log.Read(ctx, begin, to, func(r Row) error {
			if r.Event != nil {
				r.Line = nil
				rows = append(rows, r)
			}
			return nil
		}); err != nil {
			return err
		}
		s.mu.Lock()
		for _, r := range rows {
			s.count(r.Event)
			if r.Event.At.Before(oldest) {
				oldest = r.Event.At
			}
		}
		s.from = begin
		s.mu.Unlock()
		left -= to - begin
		if time.Since(oldest) > s.keep() {
			break
		}
	}
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	return nil
}

// Add counts an event that was appended.
func (s *Summary) Add(r Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = r.Index + 1
	if r.Event == nil {
		return
	}
	if s.count(r.Event) {
		old := time.Now().Add(-s.keep())
		for m := range s.tens {
			if m < time.Now().Add(-keepTens).Unix()/10 {
				delete(s.tens, m)
			}
		}
		for m := range s.minutes {
			if m < old.Unix()/60 {
				delete(s.minutes, m)
			}
		}
		for h := range s.hours {
			if h < old.Unix()/3600 {
				delete(s.hours, h)
			}
		}
	}
}

func bump(m map[int64]*minute, key int64, severity event.Severity) {
	b := m[key]
	if b == nil {
		b = new(minute)
		m[key] = b
	}
	b[severity]++
}

// count says whether an hour has begun. It is called with mu held.
func (s *Summary) count(e *event.Event) (newHour bool) {
	at := e.At.Unix()
	if e.Severity >= 0 && e.Severity < Severities {
		bump(s.minutes, at/60, e.Severity)
		if time.Since(e.At) < keepTens {
			bump(s.tens, at/10, e.Severity)
		}
	}
	h := s.hours[at/3600]
	if h == nil {
		h, newHour = new(hour), true
		for k := range h {
			h[k] = map[string]uint32{}
		}
		s.hours[at/3600] = h
	}
	for k, v := range [facetCount]string{e.Source, e.Type, e.Host, e.Actor} {
		if v == "" || len(v) > facetLength {
			continue
		}
		if _, ok := h[k][v]; ok || len(h[k]) < maxValues {
			h[k][strings.Clone(v)]++
		}
	}
	return newHour
}

// A Bucket is a stretch of time with its counts by severity.
type Bucket struct {
	Start  time.Time          `json:"start"`
	Counts [Severities]uint32 `json:"counts"` // by RFC 5424 severity, 0 the gravest
}

// Total is the sum of the counts.
func (b Bucket) Total() uint32 {
	n := uint32(0)
	for _, c := range b.Counts {
		n += c
	}
	return n
}

// A Value is one of a facet's, with its count.
type Value struct {
	Value string `json:"value"`
	Count uint32 `json:"count"`
}

// A Count is what a Summary knows of a stretch of time.
type Count struct {
	Since, Until time.Time
	Step         time.Duration
	Buckets      []Bucket
	Facets       [facetCount][]Value // most frequent first, by the whole hours within
	From         int64               // events from here on are counted
	Done         bool                // nothing older is left to count
}

// Between counts what the log took from since to before until, in at most n
// buckets: of whole minutes, or of tens of seconds within the last hours.
func (s *Summary) Between(since, until time.Time, n int) Count {
	step := 10 * time.Second
	for _, next := range []time.Duration{30, 60, 2 * 60, 5 * 60, 10 * 60, 15 * 60, 30 * 60, 60 * 60, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 2 * 24 * 3600, 7 * 24 * 3600} {
		if until.Sub(since) <= step*time.Duration(n) && (step >= time.Minute || time.Since(since) < keepTens) {
			break
		}
		step = next * time.Second
	}
	since = since.Truncate(step)
	buckets := min(int((until.Sub(since)+step-1)/step), n+1)
	c := Count{Since: since, Until: until, Step: step, Buckets: make([]Bucket, max(buckets, 1))}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.From, c.Done = s.from, s.done
	for k := range c.Buckets {
		b := &c.Buckets[k]
		b.Start = since.Add(time.Duration(k) * step).UTC()
		from, each := s.minutes, time.Minute
		if step < time.Minute {
			from, each = s.tens, 10*time.Second
		}
		for m := range int64(step / each) {
			if have := from[b.Start.Unix()/int64(each/time.Second)+m]; have != nil {
				for sev, count := range have {
					b.Counts[sev] += count
				}
			}
		}
	}
	for k := range c.Facets {
		sum := map[string]uint32{}
		for h := since.Unix() / 3600; h <= until.Unix()/3600; h++ {
			if have := s.hours[h]; have != nil {
				for v, count := range have[k] {
					sum[v] += count
				}
			}
		}
		for v, count := range sum {
			c.Facets[k] = append(c.Facets[k], Value{v, count})
		}
		slices.SortFunc(c.Facets[k], func(a, b Value) int {
			if a.Count != b.Count {
				return int(int64(b.Count) - int64(a.Count))
			}
			return strings.Compare(a.Value, b.Value)
		})
	}
	return c
}
