//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// calls compare a call through the daemon, its intent and outcome on disk, with
// one of godbus and one of sd-bus that go to the service, which is one of godbus
// too; and opdbus call, which keeps its connection, with a busctl for each call,
// and with sd-bus and godbus in a program of their own.
//
// A call through the daemon is two calls, four messages more for the bus to
// pass on, and a wait for the disk. Beside a service that does nothing, called
// as fast as the machine can, that is all there is to see: the first comparison
// is the worst case. In the second the service takes 5 ms for a change, which is
// chosen, not measured: hostnamed takes 1.5 ms for one after another and 50 ms
// when 32 callers ask at once. In the third nobody is in a
// hurry: 32 callers make ten calls a second each.
var calls = []comparison{
	{
		name: "call/audited", title: "calls by 32 callers at once: bare by godbus and sd-bus, and through opdbus serve with policy and durable intent and outcome (polkit not asked); the service does nothing",
		metrics: callMetrics, wants: callWants, rounds: 4,
		setup: func(ctx context.Context, e *env) ([]contender, error) { return auditedContenders(ctx, e, 0, 0) },
	},
	{
		name: "call/audited-5ms", title: "the same where the service takes 5 ms",
		metrics: callMetrics, wants: callWants, rounds: 4,
		setup: func(ctx context.Context, e *env) ([]contender, error) {
			return auditedContenders(ctx, e, 5*time.Millisecond, 0)
		},
	},
	{
		name: "call/audited-paced", title: "the same where each of the 32 callers makes ten calls a second, and the service takes 5 ms",
		metrics: callMetrics, wants: callWants, rounds: 4,
		setup: func(ctx context.Context, e *env) ([]contender, error) {
			return auditedContenders(ctx, e, 5*time.Millisecond, 100*time.Millisecond)
		},
	},
	{
		name: "call/persistent", title: "calls of one program: a busctl each; over one connection sd-bus, godbus and opdbus call -, each call when the one before is answered; opdbus call -, written without waiting",
		note:    "The daemon of the bus is asked. busctl and opdbus take the answer apart and print it as JSON, sd-bus and godbus do not.",
		metrics: []metric{{"rate", "calls/s", more}},
		wants: []want{
			{"opdbus call -, waited for", "rate", atLeast, 50, "a busctl each"},
			{"opdbus call -", "rate", atLeast, 50, "a busctl each"},
		},
		setup: persistentContenders,
	},
}

var (
	callMetrics = []metric{{"p50", "ms", less}, {"p99", "ms", less}, {"rate", "calls/s", more}}
	callWants   = []want{
		{"opdbus serve", "p50", atMost, 2, "godbus, bare"},
		{"opdbus serve", "p99", atMost, 10, ""},
	}
)

const (
	callers = 32
	callFor = 1500 * time.Millisecond // a contender's turn
)

// An echo takes a while for its answer.
type echo struct{ work time.Duration }

// Echo is its method on the bus.
func (e echo) Echo(s string) (string, *dbus.Error) {
	time.Sleep(e.work)
	return s, nil
}

func benchBus(e *env, work time.Duration) (string, error) {
	dir, err := e.dir("")
	if err != nil {
		return "", err
	}
	address, stop, err := privatebus.Make(dir, privatebus.Options{Open: true})
	if err != nil {
		return "", err
	}
	e.atEnd(stop)
	srv, err := dbus.Connect(address)
	if err != nil {
		return "", err
	}
	e.atEnd(srv.Close)
	if err := srv.Export(echo{work}, "/org/example/Echo", "org.example.Echo"); err != nil {
		return "", err
	}
	_, err = srv.RequestName("org.example.Echo", dbus.NameFlagDoNotQueue)
	return address, err
}

// start runs one of our programs until the comparison is over.
func (e *env) start(extra []string, name string, args ...string) error {
	cmd := exec.Command(e.tool(name), args...)
	cmd.Env = append(os.Environ(), extra...)
	cmd.Stderr = &e.words
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	e.atEnd(func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	})
	return nil
}

// auditedContenders have a service that takes work for a call, and callers that
// begin one each pace, or as soon as they have the answer.
func auditedContenders(ctx context.Context, e *env, work, pace time.Duration) ([]contender, error) {
	mnt, err := e.mount(loopbtrfs.Options{FS: "btrfs", MountOptions: "compress=zstd:9,noatime", Whole: true})
	if err != nil {
		return nil, err
	}
	address, err := benchBus(e, work)
	if err != nil {
		return nil, err
	}
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	log, keys, socket, policy := filepath.Join(mnt, "log"), filepath.Join(dir, "keys"), filepath.Join(dir, "chain.sock"), filepath.Join(dir, "policy.json")
	if _, err := chain.Create(log, "bench.example/log", keys, chain.Options{}); err != nil {
		return nil, err
	}
	rules := `{"version":1,"per_minute":100000000,"rules":[{"id":"echo","name":"org.example.Echo","effect":"allow","polkit":"none"}]}`
	if err := os.WriteFile(policy, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	vars := []string{"GB_BUS=" + address, "DBUS_SYSTEM_BUS_ADDRESS=" + address, "GB_LOG=" + log, "GB_KEYS=" + keys, "GB_CHAIN_SOCKET=" + socket, "GB_POLICY=" + policy,
		"GB_APPROVALS=" + dir + "/approvals", "GB_SPOOL=" + dir + "/spool"}
	if err := e.start(vars, "gb-chain", "serve", "--writers", ""); err != nil {
		return nil, err
	}
	if err := waitFor(ctx, func() bool { _, err := os.Stat(socket); return err == nil }); err != nil {
		return nil, fmt.Errorf("gb-chain serve: %w", err)
	}
	if err := e.start(vars, "opdbus", "serve"); err != nil {
		return nil, err
	}
	bare, err := dbus.Connect(address)
	if err != nil {
		return nil, err
	}
	e.atEnd(bare.Close)
	audited, err := dbus.Connect(address)
	if err != nil {
		return nil, err
	}
	e.atEnd(audited.Close)
	if err := waitFor(ctx, func() bool {
		var owned bool
		return audited.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, names.BusName).Store(&owned) == nil && owned
	}); err != nil {
		return nil, fmt.Errorf("opdbus serve: %w", err)
	}
	service := bare.Object("org.example.Echo", "/org/example/Echo")
	daemon := audited.Object(names.BusName, names.BusObject)
	sdbus := e.sdbus(ctx, callers, pace, address, "org.example.Echo", "/org/example/Echo", "org.example.Echo", "Echo", "hello")
	return []contender{
		{name: "godbus, bare", run: func(ctx context.Context) (sample, error) {
			return callAtOnce(ctx, pace, func() error { return service.Call("org.example.Echo.Echo", 0, "hello").Err })
		}},
		sdbus,
		{name: "opdbus serve", ours: true, run: func(ctx context.Context) (sample, error) {
			return callAtOnce(ctx, pace, func() error {
				return daemon.Call(names.BusInterface+".Bus.Call", 0, "org.example.Echo", dbus.ObjectPath("/org/example/Echo"), "org.example.Echo", "Echo", "s", `["hello"]`).Err
			})
		}},
	}, nil
}

func waitFor(ctx context.Context, done func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("it did not come up")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// callAtOnce has callers call for callFor.
func callAtOnce(ctx context.Context, pace time.Duration, call func() error) (sample, error) {
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	start := time.Now()
	for n := range callers {
		wg.Go(func() {
			var own []time.Duration
			time.Sleep(pace * time.Duration(n) / callers)
			for next := time.Now(); ctx.Err() == nil && time.Since(start) < callFor; next = next.Add(pace) {
				time.Sleep(time.Until(next))
				began := time.Now()
				if err := call(); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if failed != nil || len(took) == 0 {
		return nil, errors.Join(failed, ctx.Err())
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	return sample{"rate": float64(len(took)) / elapsed.Seconds(), "p50": at(0.5), "p99": at(0.99)}, nil
}

func persistentContenders(ctx context.Context, e *env) ([]contender, error) {
	address, err := benchBus(e, 0)
	if err != nil {
		return nil, err
	}
	peer := contender{name: "a busctl each"}
	if busctl, err := exec.LookPath("busctl"); err != nil {
		peer.missing = "busctl is not installed"
	} else {
		peer.run = func(ctx context.Context) (sample, error) {
			n, start := 0, time.Now()
			for ; time.Since(start) < callFor; n++ {
				if out, err := exec.CommandContext(ctx, busctl, "--address="+address, "--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId").CombinedOutput(); err != nil {
					return nil, fmt.Errorf("%w: %s", err, out)
				}
			}
			return sample{"rate": float64(n) / time.Since(start).Seconds()}, nil
		}
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, err
	}
	e.atEnd(conn.Close)
	bare := contender{name: "godbus, bare", run: func(ctx context.Context) (sample, error) {
		s, err := oneByOne(ctx, func() error { return conn.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err })
		return sample{"rate": s["rate"]}, err
	}}
	sdbus := e.sdbus(ctx, 1, 0, address, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
	return []contender{peer, sdbus, bare,
		{name: "opdbus call -, waited for", ours: true, run: func(ctx context.Context) (sample, error) { return persistent(ctx, e, address, true) }},
		{name: "opdbus call -", ours: true, run: func(ctx context.Context) (sample, error) { return persistent(ctx, e, address, false) }},
	}, nil
}

// persistent writes calls to one opdbus call: each when the answer to the one
// before has come, or as a program does that has a list of them.
func persistent(ctx context.Context, e *env, address string, wait bool) (sample, error) {
	cmd := exec.CommandContext(ctx, e.tool("opdbus"), "call", "--bus", address, "-")
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+address)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	const line = `{"name":"org.freedesktop.DBus","path":"/org/freedesktop/DBus","interface":"org.freedesktop.DBus","member":"GetId","signature":""}` + "\n"
	answered := make(chan struct{}, 1)
	written := make(chan error, 1)
	start := time.Now()
	go func() {
		defer in.Close()
		w := bufio.NewWriter(in)
		for ctx.Err() == nil && time.Since(start) < callFor {
			if _, err := w.WriteString(line); err != nil {
				written <- err
				return
			}
			if wait {
				if err := w.Flush(); err != nil {
					written <- err
					return
				}
				<-answered
			}
		}
		written <- w.Flush()
	}()
	answers := bufio.NewReader(out)
	n := 0
	for {
		answer, err := answers.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil || !strings.Contains(answer, `"ok":true`) {
			return nil, fmt.Errorf("%q: %w", answer, err)
		}
		n++
		if wait {
			answered <- struct{}{}
		}
	}
	elapsed := time.Since(start)
	return sample{"rate": float64(n) / elapsed.Seconds()}, errors.Join(<-written, cmd.Wait())
}
