//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

// A writer writes ten events a second through the log's socket, and one
// message a second to the journal, whatever becomes of them.
type writer struct {
	t    *testing.T
	run  string
	stop func()

	mu    sync.Mutex
	acked map[int]time.Time // when the log took the event
	sent  map[int]time.Time // when the message was given to journald
	err   error             // the last
}

var runs int

func startWriter(t *testing.T, c *container) *writer {
	runs++
	w := &writer{t: t, run: "run" + string(rune('a'+runs)), acked: make(map[int]time.Time), sent: make(map[int]time.Time)}
	ended := make(chan struct{})
	var going sync.WaitGroup
	every := func(period time.Duration, do func(n int)) {
		going.Go(func() {
			tick := time.NewTicker(period)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ended:
					return
				case <-tick.C:
				}
				do(n)
			}
		})
	}
	socket, init := c.path(names.ChainSocket), strconv.Itoa(c.init)
	var client *record.Client
	every(100*time.Millisecond, func(n int) {
		var err error
		if client == nil {
			client, err = record.Dial(t.Context(), socket, record.Hello{})
		}
		if err == nil {
			line := fmt.Sprintf(`{"source":"demo","type":"e2e.note","message":"eventmarker %s number %d page %d"}`, w.run, n, n/page)
			err = client.Append([][]byte{[]byte(line)}, nil)
			if err != nil {
				client.Close()
				client = nil
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err = err; err == nil {
			w.acked[n] = time.Now()
		}
	})
	every(time.Second, func(n int) {
		cmd := exec.Command("nsenter", "--target", init, "--mount", "--pid", "--", "logger", "--tag", "e2e", fmt.Sprintf("journalmarker %s number %d page %d", w.run, n, n/page))
		if cmd.Run() == nil {
			w.mu.Lock()
			w.sent[n] = time.Now()
			w.mu.Unlock()
		}
	})
	w.stop = sync.OnceFunc(func() {
		close(ended)
		going.Wait()
		if client != nil {
			client.Close()
		}
	})
	t.Cleanup(w.stop)
	return w
}

// has checks that every event of w that was acknowledged is in the log, and
// every message of the journal exactly once. What was killed has a minute to
// come back and catch up.
func (c *container) has(w *writer) {
	c.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range []struct {
		source, word string
		want         map[int]time.Time
		once         bool
	}{{"demo", "eventmarker", w.acked, false}, {"journald", "journalmarker", w.sent, true}} {
		if len(k.want) == 0 {
			c.t.Errorf("no event of %s was taken: %v", k.source, w.err)
		}
		begin := time.Now()
		have := c.numbers(k.source, k.word+" "+w.run)
		for missing(k.want, have) > 0 && time.Since(begin) < time.Minute {
			time.Sleep(300 * time.Millisecond)
			have = c.numbers(k.source, k.word+" "+w.run)
		}
		lost := missing(k.want, have)
		if lost > 0 && k.source == "journald" {
			// journald keeps its files on the same disk, and drops what it finds no
			// room for: the log can't have that.
			journal := c.run("journalctl", "--no-pager", "--quiet", "--output=cat", "--identifier=e2e")
			for n := range k.want {
				if have[n] == 0 && !strings.Contains(journal, fmt.Sprintf("%s %s number %d page", k.word, w.run, n)) {
					lost--
					c.t.Logf("journald itself has not kept message %d", n)
				}
			}
		}
		if lost > 0 {
			c.t.Errorf("%d of %d events of %s are lost", lost, len(k.want), k.source)
		}
		for n, times := range have {
			if times > 1 && k.once {
				c.t.Errorf("event %d of %s is there %d times", n, k.source, times)
			}
		}
		c.t.Logf("%d events of %s, %d in the log after %s", len(k.want), k.source, len(have), time.Since(begin).Round(100*time.Millisecond))
	}
}

// numbers returns how often each event that a writer has numbered is in the
// log.
func (c *container) numbers(source, text string) map[int]int {
	c.t.Helper()
	have := make(map[int]int)
	for _, line := range c.lines("--source", source, "--grep", text+" number") {
		var e struct {
			Message string `json:"message"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			c.t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(e.Message, text+" number %d", &n); err != nil {
			c.t.Fatalf("%q: %v", e.Message, err)
		}
		have[n]++
	}
	return have
}

func missing(want map[int]time.Time, have map[int]int) (n int) {
	for k := range want {
		if have[k] == 0 {
			n++
		}
	}
	return n
}

// page is how many events a writer writes before it turns the page: fewer than
// an answer looks at where a question holds a value (search.MaxHolding).
const page = 200

// A watch asks the search for the events of a writer. All of a source are of
// one template, so that a hit's count says how many of them can be found.
type watch struct {
	stop func()
	seen map[string][]time.Time // by the word: when the first, the second, ... event was found
	err  error
}

func startWatch(t *testing.T, c *container, run string) *watch {
	w := &watch{seen: map[string][]time.Time{"eventmarker": nil, "journalmarker": nil}}
	ended, done := make(chan struct{}), make(chan struct{})
	socket := c.path(names.SearchSocket)
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
			}
			for word := range w.seen {
				found := 0 // on whole pages, which are not asked for again, and on this one
				for p := len(w.seen[word]) / page; found%page == 0; p++ {
					hits, _, err := search.AskSocket(t.Context(), socket, search.Request{Question: fmt.Sprintf("%q %q", word+" "+run, fmt.Sprintf("page %d", p)), Limit: 100})
					if err != nil {
						w.err = errors.Join(w.err, err)
					}
					found = p * page
					for _, h := range hits {
						if strings.HasPrefix(h.Message, word+" "+run+" number ") {
							found += int(h.Count) // more than one if the hour has changed
						}
					}
					if found == p*page {
						break
					}
				}
				for len(w.seen[word]) < found {
					w.seen[word] = append(w.seen[word], time.Now())
				}
			}
		}
	}()
	w.stop = sync.OnceFunc(func() { close(ended); <-done })
	t.Cleanup(w.stop)
	return w
}
