//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/peak"
)

// webs compare gb-web's live stream with the loop that one would write instead:
// server-sent events from memory, the same bytes to as many readers, and nothing
// behind them.
var webs = []comparison{{
	name:    "web/live",
	title:   "200 people follow a log that takes 1,000 events a second",
	rounds:  3,
	note:    "Readers and log are other processes. The bare loop makes its events itself and writes them as they are; gb-web finds them in the log.",
	metrics: []metric{{"cpu", "cores", less}, {"memory", "MiB", less}, {"behind", "ms", less}},
	wants: []want{
		{"gb-web", "cpu", atMost, 1, ""},
		{"gb-web", "memory", atMost, 200, ""},
	},
	setup: webContenders,
}}

const (
	bareStream  = "bare-stream"
	webReaders  = 200
	webRate     = 1000
	webFor      = 5 * time.Second
	webTick     = 200 * time.Millisecond
	liveMessage = "interface ens1: rx 124035 tx 88121, and what else there is to say of it in a line of usual length"
)

// serveStream is the bare loop: it listens at address and makes events of its
// own.
func serveStream(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	type batch struct {
		bytes []byte
		next  chan struct{}
	}
	var latest atomic.Pointer[batch]
	latest.Store(&batch{next: make(chan struct{})})
	go func() {
		for n := 0; ; {
			time.Sleep(webTick)
			var b []byte
			for range int(webRate * webTick / time.Second) {
				e, _ := json.Marshal(map[string]any{"index": n, "time": time.Now().UTC(), "host": "alpha", "source": "ovs", "type": "port.stats", "severity": "info", "actor": "ovs-vswitchd", "message": liveMessage, "look": "info", "clock": "03:04:05.000", "day": "2026-01-02"})
				b = fmt.Appendf(b, "id: %d\ndata: %s\n\n", n, e)
				n++
			}
			old := latest.Load()
			latest.Store(&batch{b, make(chan struct{})})
			close(old.next)
		}
	}()
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		c := http.NewResponseController(w)
		c.Flush()
		for at := latest.Load(); ; at = latest.Load() {
			select {
			case <-r.Context().Done():
				return
			case <-at.next:
			}
			if _, err := w.Write(latest.Load().bytes); err != nil || c.Flush() != nil {
				return
			}
		}
	}))
}

func webContenders(ctx context.Context, e *env) ([]contender, error) {
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	start := func(wait string, argv ...string) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "GB_LOG="+dir+"/log", "GB_KEYS="+dir+"/keys", "GB_CHAIN_SOCKET="+dir+"/chain.sock", "GB_WEB_SOCKET="+dir+"/web.sock", "GB_WEB_SESSIONS="+dir+"/sessions")
		cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
		if wait == "" {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, out)
			}
			return cmd, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		e.atEnd(func() error {
			cmd.Process.Signal(unix.SIGTERM)
			cmd.Wait()
			return nil
		})
		network := "unix"
		if strings.Contains(wait, ":") {
			network = "tcp"
		}
		for range 500 {
			if c, err := net.Dial(network, wait); err == nil {
				return cmd, c.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil, fmt.Errorf("%s does not answer at %s", filepath.Base(argv[0]), wait)
	}
	port := func() (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer l.Close()
		return l.Addr().String(), nil
	}
	if _, err := start("", e.tool("gb-chain"), "init", "--origin", "bench.example/log"); err != nil {
		return nil, err
	}
	if _, err := start(dir+"/chain.sock", e.tool("gb-chain"), "serve", "--writers", ""); err != nil {
		return nil, err
	}
	web, err := port()
	if err != nil {
		return nil, err
	}
	server, err := start(web, e.tool("gb-web"), "serve", "--listen", web, "--bus", "", "--snapshots", "", "--no-doctor")
	if err != nil {
		return nil, err
	}
	login := exec.CommandContext(ctx, e.tool("gb-web"), "login", "--token", "--socket", dir+"/web.sock")
	token, err := login.Output()
	if err != nil {
		return nil, fmt.Errorf("gb-web login: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bareAddress, err := port()
	if err != nil {
		return nil, err
	}
	bare, err := start(bareAddress, self, bareStream, bareAddress)
	if err != nil {
		return nil, err
	}
	feed := func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, e.tool("gb-chain"), "append", "--socket", dir+"/chain.sock", "-")
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		line := fmt.Sprintf(`{"source":"ovs","type":"port.stats","severity":"info","actor":"ovs-vswitchd","host":"alpha","message":%q}`+"\n", liveMessage)
		for ctx.Err() == nil {
			if _, err := io.WriteString(in, strings.Repeat(line, webRate/10)); err != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		in.Close()
		cmd.Wait()
		return nil
	}
	turn := func(pid int, url, token string, feed func(context.Context) error) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) { return followers(ctx, pid, url, token, feed) }
	}
	return []contender{
		{name: "a bare loop from memory", run: turn(bare.Process.Pid, "http://"+bareAddress+"/", "", nil)},
		{name: "gb-web", ours: true, run: turn(server.Process.Pid, "http://"+web+"/api/v1/live", strings.TrimSpace(string(token)), feed)},
	}, nil
}

// followers have 200 readers follow a stream for a while, and say what its
// server used and how far behind its time the events came.
func followers(ctx context.Context, pid int, url, token string, feed func(context.Context) error) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	var got, late atomic.Int64
	errs := make(chan error, webReaders+1)
	for range webReaders {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				errs <- err
				return
			}
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				errs <- err
				return
			}
			defer resp.Body.Close()
			in := bufio.NewReaderSize(resp.Body, 128<<10)
			for n := int64(0); ; {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) < 6 || line[0] != 'd' {
					continue
				}
				got.Add(1)
				if n++; n%500 == 0 { // to look at each would be the readers' load
					var e struct{ Time time.Time }
					if json.Unmarshal(line[6:], &e) == nil {
						late.Store(int64(time.Since(e.Time)))
					}
				}
			}
		})
	}
	if feed != nil {
		all.Go(func() {
			if err := feed(ctx); err != nil {
				errs <- err
			}
		})
	}
	time.Sleep(time.Second) // all are there
	used, err := processorTime(pid)
	if err != nil {
		return nil, err
	}
	before, begin := got.Load(), time.Now()
	time.Sleep(webFor)
	took := time.Since(begin)
	after, err := processorTime(pid)
	if err != nil {
		return nil, err
	}
	events := float64(got.Load()-before) / took.Seconds() / webReaders
	cancel()
	all.Wait()
	select {
	case err := <-errs:
		if !errors.Is(err, context.Canceled) {
			return nil, err
		}
	default:
	}
	if events < webRate*0.7 {
		return nil, fmt.Errorf("a reader got %.0f events/s", events)
	}
	return sample{"cpu": (after - used).Seconds() / took.Seconds(), "memory": float64(peak.HighWater(pid)) / (1 << 20), "behind": float64(late.Load()) / 1e6}, nil
}
