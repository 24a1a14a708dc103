//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
)

// producers compare the daemon with a bare loop that serves as many: each of
// 1,000 producers waits for its own event before it gives the next one. The
// bare loop is behind a socket as the daemon is, in a process of its own; the
// one in the producers' own process shows what sockets cost by themselves.
var producers = func() []comparison {
	var list []comparison
	for _, fs := range []struct{ name, options string }{{"ext4", ""}, {"btrfs", "compress=zstd:9,noatime"}} {
		list = append(list, comparison{
			name:    "producers/" + fs.name,
			title:   fmt.Sprintf("1,000 producers, each waiting for its event, on %s", fs.name),
			rounds:  5,
			note:    producersNote,
			metrics: []metric{{"p99", "ms", less}, {"p50", "ms", less}, {"rate", "events/s", more}, {"cpu", "µs/event of the daemon", less}},
			wants:   []want{{"gb-chain serve", "p99", atMost, 2, "write and fdatasync, a socket"}},
			setup: func(ctx context.Context, e *env) ([]contender, error) {
				return producerContenders(ctx, e, loopbtrfs.Options{FS: fs.name, MountOptions: fs.options, Size: 4 << 30}, 1000)
			},
		})
	}
	return list
}()

const producersNote = `The producers are other processes, so the bare loop that does their work is the one behind a socket.
The one without is of goroutines that share its memory: what its p99 is less is what a thousand sends,
receptions and wake-ups a commit cost on this machine's cores, whoever is behind the socket.`

const producersFor = 2 * time.Second // a contender's turn

func producerContenders(ctx context.Context, e *env, o loopbtrfs.Options, n int) ([]contender, error) {
	mnt, err := e.mount(o)
	if err != nil {
		return nil, err
	}
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	bare, err := os.OpenFile(filepath.Join(mnt, "bare"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	e.atEnd(bare.Close)

	environ := append(os.Environ(), "GB_LOG="+filepath.Join(mnt, "log"), "GB_KEYS="+filepath.Join(dir, "keys"))
	create := exec.CommandContext(ctx, e.tool("gb-chain"), "init", "--origin", "bench.example/log")
	create.Env = environ
	if out, err := create.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gb-chain init: %w: %s", err, out)
	}
	socket := filepath.Join(dir, "sock")
	serve := exec.CommandContext(ctx, e.tool("gb-chain"), "serve", "--socket", socket, "--writers", "")
	serve.Env = environ
	serve.Cancel = func() error { return serve.Process.Signal(unix.SIGTERM) }
	if err := serve.Start(); err != nil {
		return nil, err
	}
	e.atEnd(func() error {
		serve.Process.Signal(unix.SIGTERM)
		return serve.Wait()
	})
	line := []byte(`{"source":"bench","type":"interface.changed","subject":"vnet7","message":"link state of vnet7 on ovsbr1 went from down to up","data":{"ofport":7,"speed":10000000000,"duplex":"full","mtu":1500}}` + "\n")
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bareSocket := filepath.Join(dir, "bare")
	daemon := exec.CommandContext(ctx, self, bareDaemon, filepath.Join(mnt, "bare-daemon"), bareSocket)
	if err := daemon.Start(); err != nil {
		return nil, err
	}
	e.atEnd(func() error {
		daemon.Process.Kill()
		daemon.Wait()
		return nil
	})
	ours, err := dialMany(e, socket, n)
	if err != nil {
		return nil, err
	}
	theirs, err := dialMany(e, bareSocket, n)
	if err != nil {
		return nil, err
	}
	stored := append(make([]byte, 0, 512), line[:len(line)-1]...) // as long as what the log makes of it
	for len(stored) < 380 {
		stored = append(stored, '.')
	}
	stored = append(stored, '\n')
	return []contender{
		{name: "write and fdatasync, a socket", run: func(ctx context.Context) (sample, error) {
			return daemonTurn(ctx, daemon.Process.Pid, n, func(k int) error { return theirs[k].ask(stored) })
		}},
		{name: "write and fdatasync, no socket", run: func(ctx context.Context) (sample, error) {
			group := newBareGroup(bare)
			return producersTurn(ctx, n, func(int) error { return group(stored) })
		}},
		{name: "gb-chain serve", ours: true, run: func(ctx context.Context) (sample, error) {
			return daemonTurn(ctx, serve.Process.Pid, n, func(k int) error { return ours[k].ask(line) })
		}},
	}, nil
}

// bareDaemon is the first argument that makes bench the bare loop's daemon.
const bareDaemon = "bare-daemon"

// serveBare appends the lines of its connections to file and answers each when
// it is on disk.
func serveBare(file, socket string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	group := newBareGroup(f)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				answer := "{\"first\":1,\"last\":1}\n"
				if err := group(line); err != nil {
					answer = err.Error() + "\n"
				}
				if _, err := io.WriteString(conn, answer); err != nil {
					return
				}
			}
		}()
	}
}

// An asker is a connection by which one event at a time is given and answered.
type asker struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialMany(e *env, socket string, n int) ([]asker, error) {
	var list []asker
	for deadline := time.Now().Add(10 * time.Second); len(list) < n; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			e.atEnd(conn.Close)
			list = append(list, asker{conn, bufio.NewReader(conn)})
		} else if time.Now().After(deadline) {
			return nil, err
		} else {
			time.Sleep(time.Millisecond)
		}
	}
	return list, nil
}

func (a asker) ask(line []byte) error {
	if _, err := a.conn.Write(line); err != nil {
		return err
	}
	answer, err := a.r.ReadSlice('\n')
	if err == nil && !bytes.HasPrefix(answer, []byte(`{"first":`)) {
		err = fmt.Errorf("answer %q", answer)
	}
	return err
}

// newBareGroup returns a function by which many append to f: one of them
// writes and syncs what all have given since the last time.
func newBareGroup(f *os.File) func(line []byte) error {
	type group struct {
		data []byte
		done chan struct{}
		err  error
	}
	var mu, writing sync.Mutex
	next := &group{done: make(chan struct{})}
	return func(line []byte) error {
		mu.Lock()
		g := next
		first := len(g.data) == 0
		g.data = append(g.data, line...)
		mu.Unlock()
		if !first {
			<-g.done
			return g.err
		}
		writing.Lock()
		defer writing.Unlock()
		mu.Lock()
		next = &group{done: make(chan struct{})}
		mu.Unlock()
		_, g.err = f.Write(g.data)
		g.err = errors.Join(g.err, unix.Fdatasync(int(f.Fd())))
		close(g.done)
		return g.err
	}
}

// daemonTurn is producersTurn with the processor time of a daemon, that of the
// kernel for it included.
func daemonTurn(ctx context.Context, pid, n int, appendOne func(k int) error) (sample, error) {
	before, err := processorTime(pid)
	if err != nil {
		return nil, err
	}
	s, err := producersTurn(ctx, n, appendOne)
	if err != nil {
		return nil, err
	}
	after, err := processorTime(pid)
	if err != nil {
		return nil, err
	}
	s["cpu"] = (after - before).Seconds() * 1e6 / (s["rate"] * producersFor.Seconds())
	return s, nil
}

// processorTime returns what a process has used, in the user's mode and the
// kernel's: fields 14 and 15 of proc(5)'s stat, in hundredths of a second.
func processorTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// producersTurn has n producers append for a while.
func producersTurn(ctx context.Context, n int, appendOne func(k int) error) (sample, error) {
	took := make([][]float64, n)
	errs := make([]error, n)
	begin := time.Now()
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() {
			for time.Since(begin) < producersFor && ctx.Err() == nil && errs[k] == nil {
				t := time.Now()
				errs[k] = appendOne(k)
				took[k] = append(took[k], milliseconds(time.Since(t)))
			}
		})
	}
	wg.Wait()
	total := time.Since(begin).Seconds()
	var all []float64
	for _, t := range took {
		all = append(all, t...)
	}
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return nil, err
	}
	return sample{"p99": quantile(all, 0.99), "p50": median(all), "rate": float64(len(all)) / total}, nil
}
