//go:build linux

// Demo is the program behind "make demo": a story on real parts, told in the
// terminal in less than two minutes. An AI agent asks to change a bridge, is
// refused, is approved by a person, changes it, breaks it, and is rolled back;
// then the operator asks who touched the bridge, and finds all of it.
//
// The parts: ovs-vswitchd with the userspace datapath in a network namespace of
// its own, two hosts on it in namespaces of theirs; a D-Bus of its own with
// polkitd on it; gb-chain serve, gb-snap take, gb-snap send | gb-vecsync ingest
// on a btrfs of its own; opdbus serve, opdbus mcp, and a client of the official
// MCP SDK for the agent. All that is printed, but for the narration, is what
// these programs print; each fact of the story is checked, and one that does not
// hold ends it with 1. It takes down all that it has made, after Ctrl-C too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

// Children are to die with this process. The kernel watches the thread that
// started them, so all are started from the main thread.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == polkitArg {
		fmt.Fprintln(os.Stderr, "demo:", becomePolkit(os.Args[2]))
		os.Exit(1)
	}
	bin := flag.String("bin", "bin", "`DIR` of the binaries")
	units := flag.String("units", "units", "`DIR` of the D-Bus policy and polkit's actions, as the project has it")
	pause := flag.Duration("pause", -1, "how long a line of the narration is left to be read: a `DURATION`; default: 2s in a terminal, 0 else")
	flag.Parse()
	if *pause < 0 {
		*pause = 0
		if cli.IsTerminal(os.Stdout) {
			*pause = 2 * time.Second
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *units, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, units string, pause time.Duration) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("root is missing: namespaces and mounts need it; sudo make demo")
	}
	for _, dir := range []*string{&bin, &units} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	h := &host{ctx: ctx, bin: bin, units: units}
	defer func() { err = errors.Join(err, h.takeDown()) }()
	if err := h.setUp(); err != nil {
		return err
	}
	s := &story{host: h, out: os.Stdout, pause: pause, colour: cli.IsTerminal(os.Stdout)}
	return s.tell()
}
