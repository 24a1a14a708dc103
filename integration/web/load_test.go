//go:build linux

package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var torture = os.Getenv("GB_TORTURE") == "1"

// cpu is the processor time that a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+2:]))
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory is the greatest resident size that a process has had, in MiB.
func memory(t *testing.T, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n / 1024
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// reader follows the live stream and holds it to one event after the other.
type reader struct {
	url, token string
	next       int64 // the index that must come next
	got        atomic.Int64
}

// follow reads until ctx ends or the connection does.
func (r *reader) follow(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/api/v1/live", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Last-Event-ID", strconv.FormatInt(r.next-1, 10))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	in := bufio.NewReaderSize(resp.Body, 256<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("after event %d: %w", r.next-1, err)
		}
		if len(line) < 5 || line[0] != 'i' {
			continue
		}
		id := int64(0)
		for _, c := range line[4 : len(line)-1] {
			id = id*10 + int64(c-'0')
		}
		if id != r.next {
			return fmt.Errorf("event %d, want %d: %w", id, r.next, errLost)
		}
		r.next++
		r.got.Store(r.next)
	}
}

var errLost = errors.New("not one after the other")

// 200 people follow a log that takes 1,000 events a second: each gets each event
// once; one who does not read is cut off, goes on with the id of the last event
// that it got, and misses nothing; the server stays small.
func TestLiveLoad(t *testing.T) {
	r := newRig(t, parts{events: 2000})
	clients, rate, lasting := 200, 1000, 6*time.Second
	if torture {
		lasting = time.Minute
	}
	token := r.token("viewer")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	_, body, _ := r.get(token, "/metrics")
	var start int64
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, "ghostbridge_log_events_total "); ok {
			start, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	readers := make([]*reader, clients)
	var all sync.WaitGroup
	for i := range readers {
		readers[i] = &reader{url: r.url, token: token, next: start}
		all.Go(func() {
			if err := readers[i].follow(ctx, client); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	// One that does not read.
	slow, err := net.Dial("tcp", r.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(slow, "GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nLast-Event-ID: %d\r\n\r\n", token, start-1)
	r.wait("the readers", func() bool {
		_, body, _ := r.get(token, "/metrics")
		return strings.Contains(body, fmt.Sprintf("\nghostbridge_web_live_readers %d\n", clients+1))
	})

	in, feed := io.Pipe()
	appending := make(chan error, 1)
	go func() { appending <- r.feed(in) }()
	begin, used := time.Now(), cpu(t, r.web.Process.Pid)
	lines := story(rate / 10)
	end := start
	tick := time.NewTicker(100 * time.Millisecond)
	for time.Since(begin) < lasting {
		<-tick.C
		if _, err := io.WriteString(feed, strings.Join(lines, "")); err != nil {
			t.Fatal(err)
		}
		end += int64(len(lines))
	}
	feed.Close()
	if err := <-appending; err != nil {
		t.Fatal(err)
	}
	r.wait("the last event at the last reader", func() bool {
		for _, x := range readers {
			if x.got.Load() < end {
				return t.Failed()
			}
		}
		return true
	})
	took := time.Since(begin)
	t.Logf("%d readers, %.0f events/s: %.2f cores, %.0f MiB", clients, float64(end-start)/took.Seconds(), (cpu(t, r.web.Process.Pid)-used).Seconds()/took.Seconds(), memory(t, r.web.Process.Pid))
	if m := memory(t, r.web.Process.Pid); m > 200 {
		t.Errorf("%.0f MiB", m)
	}
	cancel()
	all.Wait()

	// The slow one is cut off by now, or will be with what comes.
	if torture {
		r.wait("the slow one is cut off", func() bool {
			_, body, _ := r.get(token, "/metrics")
			return strings.Contains(body, "\nghostbridge_web_live_readers 0\n")
		})
	}
	// What is still on its way comes slowly through so small a buffer: it goes on
	// from wherever it is by then.
	slow.SetReadDeadline(time.Now().Add(3 * time.Second))
	data := bufio.NewReader(slow)
	last := start - 1
	for {
		line, err := data.ReadString('\n')
		if v, ok := strings.CutPrefix(line, "id: "); ok && err == nil {
			if id, perr := strconv.ParseInt(strings.TrimSpace(v), 10, 64); perr == nil {
				last = id
			}
		}
		if err != nil || last >= end-1 {
			break
		}
	}
	t.Logf("the slow one got events up to %d of %d", last, end-1)
	if torture && last >= end-1 {
		t.Error("the slow one was never cut off")
	}
	again, stop := context.WithCancel(t.Context())
	x := &reader{url: r.url, token: token, next: last + 1}
	x.got.Store(last + 1)
	done := make(chan error, 1)
	go func() { done <- x.follow(again, client) }()
	r.wait("what the slow one missed", func() bool { return x.got.Load() >= end })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A log of a million events: the first page is light, and each list takes the
// same reading wherever it is.
func TestMillion(t *testing.T) {
	n := 1_000_000
	if !torture {
		n = 200_000
	}
	r := newRig(t, parts{})
	r.stop()
	chunk := story(20_000)
	for range n / len(chunk) {
		r.append(strings.Join(chunk, ""))
	}
	r.start()
	token := r.token("viewer")
	size := func(path string) (int, time.Duration) {
		t.Helper()
		begin := time.Now()
		req, err := http.NewRequest(http.MethodGet, r.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(path, resp.Status, err)
		}
		return len(data), time.Since(begin)
	}
	for _, page := range []string{"/", "/timeline", "/timeline?range=all"} {
		total, took := size(page)
		_, html, _ := r.get(token, page)
		for _, attr := range []string{`href="/static/`, `src="/static/`} {
			for _, part := range strings.Split(html, attr)[1:] {
				path := "/static/" + part[:strings.IndexByte(part, '"')]
				n, _ := size(path)
				total += n
				if strings.HasSuffix(path, "/app.js") {
					for _, module := range []string{"keys.js", "live.js", "views.js"} {
						n, _ := size(strings.TrimSuffix(path, "app.js") + module)
						total += n
					}
				}
			}
		}
		t.Logf("%s: %d bytes with all that it needs, the page in %s", page, total, took.Round(100*time.Microsecond))
		if total > 100<<10 {
			t.Errorf("%s: %d bytes", page, total)
		}
	}
	var slowest time.Duration
	for _, page := range []string{"/timeline?before=50", "/timeline?before=" + strconv.Itoa(n/2), "/timeline?after=" + strconv.Itoa(n/3), "/events/1", "/events/" + strconv.Itoa(n/2), "/api/v1/events?before=" + strconv.Itoa(n-10), "/timeline?severity=crit", "/timeline?text=no+such+text", "/timeline?since=-1h", "/log?before=3", "/agents"} {
		_, took := size(page)
		t.Logf("%s: %s", page, took.Round(100*time.Microsecond))
		slowest = max(slowest, took)
	}
	t.Logf("%d events, slowest page %s, %.0f MiB", n, slowest.Round(time.Millisecond), memory(t, r.web.Process.Pid))
}
