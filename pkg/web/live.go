package web

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/web/access"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

const (
	// patience is how long a reader of the live stream may take for what was
	// written to it. One that takes longer is cut off; it comes back with the
	// id of the last event that it got, and misses nothing.
	patience = 5 * time.Second

	// maxLive bounds the readers.
	maxLive = 1000

	// sessionCheck is how often a stream looks whether its login still holds.
	sessionCheck = 5 * time.Second
)

// live streams events as they are appended (server-sent events). The id of each
// is its index; Last-Event-ID, or the parameter from, says where to begin.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if f := s.allowed(r, access.Viewer); f != nil {
		s.answerFailure(w, r, f)
		return
	}
	req := &request{r, access.Of(r.Context()), r.Context()}
	f, err := req.readFilter(time.Now())
	from := int64(-1)
	if err == nil {
		from, err = req.number("from", -1, 0, 1<<50)
	}
	if err != nil {
		s.answerFailure(w, r, failureOf(err))
		return
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		last, err := strconv.ParseInt(id, 10, 64)
		if err != nil || last < 0 || last > 1<<50 {
			s.answerFailure(w, r, fail(http.StatusBadRequest, "Last-Event-ID %.40q is no index", id))
			return
		}
		from = last + 1
	}
	if s.tail.Live() >= maxLive {
		s.answerFailure(w, r, fail(http.StatusServiceUnavailable, "%d follow already", maxLive))
		return
	}
	if next := s.tail.Next(); from > next {
		from = next // of another log, or of one that was cut
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		tick := time.NewTicker(sessionCheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.closing:
				cancel()
				return
			case <-tick.C:
				if _, ok := s.Sessions.Find(req.session.Token); !ok {
					cancel()
					return
				}
			}
		}
	}()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{})
	write := func(b []byte) error {
		c.SetWriteDeadline(time.Now().Add(patience))
		if _, err := w.Write(b); err != nil {
			return err
		}
		return c.Flush()
	}
	s.requests.add(http.StatusOK)
	w.WriteHeader(http.StatusOK)
	// The browser is to come back soon after a restart of the server.
	if write([]byte("retry: 500\n\n")) != nil {
		return
	}
	var choose func(timeline.Row) bool
	if f.choice != nil {
		choose = func(r timeline.Row) bool {
			// The tail keeps no lines: what looks at them reads the log.
			if f.choice.NeedsLine() && r.Line == nil {
				full, err := s.log.Get(ctx, r.Index)
				return err == nil && f.choice.Chooses(full)
			}
			return f.choice.Chooses(r)
		}
	}
	if err := s.tail.Stream(ctx, from, choose, write); err != nil && ctx.Err() == nil {
		s.Logger.Debug("live stream ended", "error", err, "session", req.session.ID)
	}
	c.SetWriteDeadline(time.Time{})
}
