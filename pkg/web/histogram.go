package web

import (
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// A histogram is events over time, stacked by how grave they are.
type histogram struct {
	Width, Height int
	Bars          []bar
	Axis          []axisTick
	Peak          uint32
	Total         int64
	Label         string // for those who can't see it
	Counting      string // what is not counted yet
	count         timeline.Count
}

// A bar is one look's part of a bucket.
type bar struct {
	X     float64 `json:"x"`
	Y     float64 `json:"y"`
	W     float64 `json:"w"`
	H     float64 `json:"h"`
	Look  string  `json:"look"`
	Title string  `json:"title"`
	Query string  `json:"query"` // of the timeline at that time
}

type axisTick struct {
	X    float64 `json:"x"`
	Text string  `json:"text"`
}

const (
	histogramBars   = 120
	histogramWidth  = 1200
	histogramHeight = 64
)

// looks are how severities are shown, from the bottom of a bar up.
var looks = []struct {
	name       string
	severities []event.Severity
}{
	{"debug", []event.Severity{event.Debug}}, {"info", []event.Severity{event.Info}}, {"note", []event.Severity{event.Notice}},
	{"warn", []event.Severity{event.Warning}}, {"err", []event.Severity{event.Error}}, {"crit", []event.Severity{event.Critical, event.Alert, event.Emergency}},
}

func newHistogram(c timeline.Count, f *filterForm) *histogram {
	h := &histogram{Width: histogramWidth, Height: histogramHeight, count: c, Bars: []bar{}, Axis: []axisTick{}}
	grave := int64(0)
	for _, b := range c.Buckets {
		h.Peak = max(h.Peak, b.Total())
		h.Total += int64(b.Total())
		for s, n := range b.Counts {
			if event.Severity(s) <= event.Error {
				grave += int64(n)
			}
		}
	}
	w := float64(histogramWidth) / float64(len(c.Buckets))
	day := c.Until.Sub(c.Since) > 26*time.Hour
	for k, b := range c.Buckets {
		total := b.Total()
		y := float64(histogramHeight)
		start := b.Start.Local()
		for _, l := range looks {
			n := uint32(0)
			for _, s := range l.severities {
				n += b.Counts[s]
			}
			if n == 0 {
				continue
			}
			height := max(float64(n)/float64(h.Peak)*(histogramHeight-2), 1)
			y -= height
			h.Bars = append(h.Bars, bar{X: round(float64(k)*w + 0.5), Y: round(max(y, 0)), W: round(max(w-1, 0.5)), H: round(height), Look: l.name,
				Title: fmt.Sprintf("%s: %s of %s events", start.Format("Mon 15:04"), grouped(int64(n)), grouped(int64(total))),
				Query: f.query(map[string]string{"since": b.Start.UTC().Format(time.RFC3339), "until": b.Start.Add(c.Step).UTC().Format(time.RFC3339), "range": ""})})
		}
	}
	for k := 0; k < 6; k++ {
		i := k * len(c.Buckets) / 6
		form := "15:04"
		if day {
			form = "02 Jan 15:04"
		}
		h.Axis = append(h.Axis, axisTick{round(float64(i) * w), c.Buckets[i].Start.Local().Format(form)})
	}
	h.Label = fmt.Sprintf("%s events from %s to %s, %s of them errors or graver; at most %s in %s", grouped(h.Total), c.Since.Local().Format(dayAndTime), c.Until.Local().Format(dayAndTime),
		grouped(grave), grouped(int64(h.Peak)), span(c.Step))
	if !c.Done {
		h.Counting = fmt.Sprintf("still counting: events before #%s are missing", grouped(c.From))
	}
	return h
}

func round(v float64) float64 { return float64(int(v*10+0.5)) / 10 }
