//go:build linux

package mcp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// A hundred agents at once, which come and go, read, are refused, change things,
// watch and hang up in the middle; in both eras. Afterwards server and daemon
// hold no more than before.
func TestManyClients(t *testing.T) {
	many(t, 20*time.Second)
}

// TestManyClientsLong is the same for ten minutes.
func TestManyClientsLong(t *testing.T) {
	require.Torture(t)
	many(t, 10*time.Minute)
}

type used struct{ threads, fds, rss int }

func (u used) String() string {
	return fmt.Sprintf("%d threads, %d descriptors, %d MiB", u.threads, u.fds, u.rss>>20)
}

// use says what a process holds.
func use(t *testing.T, pid int) (u used) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "Threads:":
			u.threads = n
		case "VmRSS:":
			u.rss = n << 10
		}
	}
	return u
}

func many(t *testing.T, d time.Duration) {
	const clients = 100
	r := newRig(t, lampPolicy)
	server := r.serveHTTP()
	daemon := r.daemon
	var tokens []string
	for i := range 5 {
		tokens = append(tokens, r.token(fmt.Sprintf("agent-%d", i), "read,propose,execute"))
	}
	var calls, changed, refused, cancelled, sessions, busy, lost atomic.Int64
	round := func(d time.Duration) {
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 1))
				for ctx.Err() == nil {
					// Each client has a connection of its own; half of them speak the
					// era of sessions.
					transport := &http.Transport{}
					o := &sdk.ClientSessionOptions{}
					if i%2 == 0 {
						o.ProtocolVersion = "2025-11-25"
					}
					s, err := r.client(nil).Connect(ctx, &sdk.StreamableClientTransport{Endpoint: r.url, DisableStandaloneSSE: i%4 != 0, MaxRetries: -1,
						HTTPClient: &http.Client{Transport: bearer{tokens[i%len(tokens)], transport}}}, o)
					if err != nil {
						if ctx.Err() == nil {
							lost.Add(1)
							t.Errorf("connect: %v", err)
						}
						transport.CloseIdleConnections()
						return
					}
					sessions.Add(1)
					for n := 10 + rnd.IntN(30); n > 0 && ctx.Err() == nil; n-- {
						kind := rnd.IntN(20)
						var args obj
						tool := "read_properties"
						within, cancel := context.WithCancel(ctx)
						switch {
						case kind < 12:
							args = obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp"}
						case kind < 14:
							tool, args = "list_units", obj{}
						case kind < 15:
							tool, args = "unit_status", obj{"unit": "nginx.service"}
						case kind < 16:
							tool, args = "search_log", obj{"sources": []string{"mcp"}, "limit": 5}
						case kind < 17:
							tool, args = "call_method", lamp("Switch", n%2 == 0)
						case kind < 18:
							tool, args = "act_on_unit", obj{"unit": "sshd.service", "action": "stop"}
						case kind < 19:
							tool, args = "watch_signals", obj{"seconds": 1}
						default: // hangs up in the middle
							tool, args = "watch_signals", obj{"seconds": 30}
							time.AfterFunc(100*time.Millisecond, cancel)
						}
						out, res, err := call(within, s, tool, args)
						gone := within.Err() != nil
						cancel()
						calls.Add(1)
						switch {
						case gone:
							cancelled.Add(1)
						case err != nil:
							t.Errorf("%s: %v", tool, err)
							n = 0
						case tool == "watch_signals" && res.IsError && strings.Contains(textOf(res), "watch already"):
							busy.Add(1)
						case tool == "call_method" && out["status"] == "done":
							changed.Add(1)
						case tool == "act_on_unit" && out["status"] == "denied":
							refused.Add(1)
						case res.IsError:
							t.Errorf("%s: %s", tool, textOf(res))
						}
					}
					s.Close()
					transport.CloseIdleConnections()
				}
			})
		}
		wg.Wait()
	}
	settle := func() (used, used) {
		time.Sleep(2 * time.Second) // reports, and streams that were cut off
		return use(t, server.Process.Pid), use(t, daemon.Process.Pid)
	}
	start := time.Now()
	round(d / 4)
	server1, daemon1 := settle()
	round(d - d/4)
	server2, daemon2 := settle()
	t.Logf("%d clients for %s: %d sessions, %d calls (%.0f/s), %d changes, %d refused, %d cancelled, %d too many watchers", clients, d, sessions.Load(), calls.Load(), float64(calls.Load())/time.Since(start).Seconds(), changed.Load(), refused.Load(), cancelled.Load(), busy.Load())
	t.Logf("server: %s, then %s; daemon: %s, then %s", server1, server2, daemon1, daemon2)
	if calls.Load() == 0 || changed.Load() == 0 || refused.Load() == 0 || cancelled.Load() == 0 {
		t.Error("something was not tried")
	}
	if got := int64(len(r.changes())); got < changed.Load() {
		t.Errorf("%d changes on the host, %d are said to be done", got, changed.Load())
	}
	for name, u := range map[string][2]used{"server": {server1, server2}, "daemon": {daemon1, daemon2}} {
		if u[1].fds > u[0].fds+20 || u[1].threads > u[0].threads+20 || u[1].rss > u[0].rss+(48<<20) {
			t.Errorf("the %s holds %s after a quarter, %s in the end", name, u[0], u[1])
		}
	}
	// Nobody is left waiting, and it still works.
	s := r.dial(tokens[0], nil)
	if _, res, err := call(t.Context(), s, "find_services", obj{}); err != nil || res.IsError {
		t.Errorf("afterwards: %v %s", err, textOf(res))
	}
}
