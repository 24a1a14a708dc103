//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// agents compare the reading of a property by an agent, with a call of a tool
// over opdbus mcp's standard input and output, with the same by opdbus itself:
// as a command, which is what a script or an agent with a shell does, and as
// one command that keeps its connection (opdbus call -), which is the least that
// there can be: it asks the service itself. The tool asks the daemon, who looks at
// the policy and asks the service, as the third does with a bare client.
var agents = []comparison{{
	name: "mcp/read", title: "reading a property, one call after the other: opdbus get, opdbus call -, opdbus serve (Bus.Call), and the tool read_properties over standard input and output",
	note:    "through opdbus serve a call passes the bus twice as often, and the policy",
	metrics: []metric{{"p50", "ms", less}, {"p99", "ms", less}, {"rate", "calls/s", more}},
	wants:   []want{{"opdbus mcp", "p50", atMost, 1.5, "opdbus get"}},
	rounds:  3,
	setup:   agentContenders,
}}

// A thing has one property (D-Bus Specification, "Properties").
type thing struct{}

// Get is Properties.Get.
func (thing) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant("a value of " + name), nil
}

func agentContenders(ctx context.Context, e *env) ([]contender, error) {
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	address, stop, err := privatebus.Make(dir, privatebus.Options{Open: true})
	if err != nil {
		return nil, err
	}
	e.atEnd(stop)
	service, err := dbus.Connect(address)
	if err != nil {
		return nil, err
	}
	e.atEnd(service.Close)
	if err := service.Export(thing{}, "/org/example/Thing", "org.freedesktop.DBus.Properties"); err != nil {
		return nil, err
	}
	if _, err := service.RequestName("org.example.Thing", dbus.NameFlagDoNotQueue); err != nil {
		return nil, err
	}
	log, keys, socket := filepath.Join(dir, "log"), filepath.Join(dir, "keys"), filepath.Join(dir, "chain.sock")
	if _, err := chain.Create(log, "bench.example/log", keys, chain.Options{}); err != nil {
		return nil, err
	}
	vars := []string{"GB_BUS=" + address, "DBUS_SYSTEM_BUS_ADDRESS=" + address, "GB_LOG=" + log, "GB_KEYS=" + keys, "GB_CHAIN_SOCKET=" + socket, "GB_POLICY=" + dir + "/policy.json",
		"GB_APPROVALS=" + dir + "/approvals", "GB_SPOOL=" + dir + "/spool", "GB_STATE=" + dir + "/state"}
	if err := e.start(vars, "gb-chain", "serve", "--writers", ""); err != nil {
		return nil, err
	}
	if err := waitFor(ctx, func() bool { _, err := os.Stat(socket); return err == nil }); err != nil {
		return nil, fmt.Errorf("gb-chain serve: %w", err)
	}
	if err := e.start(vars, "opdbus", "serve"); err != nil {
		return nil, err
	}
	if err := waitFor(ctx, func() bool {
		var owned bool
		return service.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, names.BusName).Store(&owned) == nil && owned
	}); err != nil {
		return nil, fmt.Errorf("opdbus serve: %w", err)
	}
	// piped starts a command and returns how to ask it for a line, and how to end it.
	piped := func(ctx context.Context, args ...string) (ask func(line, want string) error, end func() error, err error) {
		cmd := exec.CommandContext(ctx, e.tool("opdbus"), args...)
		cmd.Env = append(os.Environ(), vars...)
		cmd.Stderr = &e.words
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		answers := bufio.NewReader(out)
		ask = func(line, want string) error {
			if _, err := io.WriteString(in, line+"\n"); err != nil {
				return err
			}
			if want == "" {
				return nil
			}
			if answer, err := answers.ReadString('\n'); err != nil || !strings.Contains(answer, want) {
				return fmt.Errorf("%.300q: %w", answer, err)
			}
			return nil
		}
		return ask, func() error { in.Close(); return cmd.Wait() }, nil
	}
	return []contender{
		{name: "opdbus get", ours: true, run: func(ctx context.Context) (sample, error) {
			return oneByOne(ctx, func() error {
				cmd := exec.CommandContext(ctx, e.tool("opdbus"), "get", "org.example.Thing", "/org/example/Thing", "org.example.Thing.Label")
				cmd.Env = append(os.Environ(), vars...)
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "a value") {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
		}},
		{name: "opdbus call -", ours: true, run: func(ctx context.Context) (sample, error) {
			ask, end, err := piped(ctx, "call", "-")
			if err != nil {
				return nil, err
			}
			s, err := oneByOne(ctx, func() error {
				return ask(`{"name":"org.example.Thing","path":"/org/example/Thing","interface":"org.freedesktop.DBus.Properties","member":"Get","args":["org.example.Thing","Label"],"signature":"ss"}`, "a value")
			})
			return s, errors.Join(err, end())
		}},
		{name: "opdbus serve", ours: true, run: func(ctx context.Context) (sample, error) {
			c, err := dbus.Connect(address)
			if err != nil {
				return nil, err
			}
			defer c.Close()
			daemon := c.Object(names.BusName, names.BusObject)
			return oneByOne(ctx, func() error {
				return daemon.Call(names.BusInterface+".Bus.Call", 0, "org.example.Thing", dbus.ObjectPath("/org/example/Thing"), "org.freedesktop.DBus.Properties", "Get", "ss", `["org.example.Thing","Label"]`).Err
			})
		}},
		{name: "opdbus mcp", ours: true, run: func(ctx context.Context) (sample, error) {
			ask, end, err := piped(ctx, "mcp")
			if err != nil {
				return nil, err
			}
			if err := errors.Join(ask(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`, `"serverInfo"`),
				ask(`{"jsonrpc":"2.0","method":"notifications/initialized"}`, "")); err != nil {
				return nil, err
			}
			n := 0
			s, err := oneByOne(ctx, func() error {
				n++
				line, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": map[string]any{"name": "read_properties",
					"arguments": map[string]any{"name": "org.example.Thing", "path": "/org/example/Thing", "interface": "org.example.Thing", "property": "Label"}}})
				if err != nil {
					return err
				}
				return ask(string(line), "a value")
			})
			return s, errors.Join(err, end())
		}},
	}, nil
}

// oneByOne calls for callFor, one call after the other.
func oneByOne(ctx context.Context, call func() error) (sample, error) {
	var took []time.Duration
	start := time.Now()
	for ctx.Err() == nil && time.Since(start) < callFor {
		began := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	if len(took) == 0 {
		return nil, ctx.Err()
	}
	rate := float64(len(took)) / time.Since(start).Seconds()
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	return sample{"p50": at(0.5), "p99": at(0.99), "rate": rate}, nil
}
