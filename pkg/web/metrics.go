package web

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// metrics gives numbers in Prometheus' text format. On loopback they need no
// login: there is no text of an event among them.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		if f := s.allowed(r, access.Viewer); f != nil {
			s.answerFailure(w, r, f)
			return
		}
	}
	var b bytes.Buffer
	metric := func(kind, name, help string, v float64) {
		fmt.Fprintf(&b, "# HELP ghostbridge_%s %s\n# TYPE ghostbridge_%s %s\nghostbridge_%s %s\n", name, help, name, kind, name, strconv.FormatFloat(v, 'g', -1, 64))
	}
	truth := func(v bool) float64 {
		if v {
			return 1
		}
		return 0
	}
	first, end, err := s.log.Bounds()
	metric("gauge", "web_log_readable", "Whether the log can be read.", truth(err == nil))
	if err == nil {
		metric("gauge", "log_first_index", "Index of the first event that is there.", float64(first))
		metric("counter", "log_events_total", "Events that the log has taken.", float64(end))
		metric("counter", "log_signed_events_total", "Events that the latest checkpoint covers.", float64(s.signed()))
	}
	c := s.checker.view()
	metric("gauge", "log_verified", "Whether the log verified the last time.", truth(c.Known && c.OK))
	if c.Known {
		metric("counter", "log_verified_events_total", "Events that are verified.", float64(c.Size))
		metric("gauge", "log_verified_age_seconds", "Time since the log was verified.", time.Since(c.At).Seconds())
		metric("gauge", "log_faults", "Faults that verifying found.", float64(len(c.Faults)))
	}
	metric("gauge", "web_live_readers", "Readers of the live stream.", float64(s.tail.Live()))
	fmt.Fprint(&b, "# HELP ghostbridge_web_answers_total Answers by the class of their status.\n# TYPE ghostbridge_web_answers_total counter\n")
	for class, n := range s.requests.get() {
		if class > 0 {
			fmt.Fprintf(&b, "ghostbridge_web_answers_total{status=\"%dxx\"} %d\n", class, n)
		}
	}
	metric("gauge", "web_start_time_seconds", "Unix time at which gb-web began.", float64(s.started.UnixNano())/1e9)
	if rss, ok := residentBytes(); ok {
		metric("gauge", "web_resident_memory_bytes", "Memory of gb-web.", float64(rss))
	}
	s.moreMetrics(metric, truth)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, r, http.StatusOK, b.Bytes())
}

func residentBytes() (int64, bool) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0, false
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize()), err == nil
}

// moreMetrics are those of the parts beside the log.
func (s *Server) moreMetrics(metric func(kind, name, help string, v float64), truth func(bool) float64) {
	if lag, ok, _ := s.indexLag(); ok {
		metric("gauge", "index_lag_events", "Signed events that the index has not applied.", float64(lag))
	}
	if s.Snapshots == nil {
		return
	}
	st, err := s.Snapshots.Look(context.Background())
	if err != nil {
		return
	}
	metric("gauge", "snapshots", "Snapshots that there are.", float64(len(st.List)))
	if st.Status == nil {
		return
	}
	metric("gauge", "snapshots_healthy", "Whether taking snapshots goes well.", truth(st.Status.Healthy))
	if st.Status.Newest != nil {
		metric("gauge", "snapshot_age_seconds", "Age of the newest snapshot.", time.Since(*st.Status.Newest).Seconds())
	}
	if st.Status.GoodAge != nil {
		metric("gauge", "snapshot_last_good_age_seconds", "Time since the last good tick.", *st.Status.GoodAge)
	}
}
