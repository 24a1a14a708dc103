//go:build linux

// Soak is the program behind "make soak": the whole pipeline out of the real
// binaries, on a btrfs of its own, for as long as one likes, while its processes
// are killed, its disks run full, Qdrant goes away and the clock is stepped.
//
//	producers -> gb-chain append -> gb-chain serve
//	gb-snap take every second
//	gb-snap send | gb-vecsync ingest after each, into an index in a file
//	gb-snap send | gb-vecsync ingest behind it, into Qdrant
//	gb-vecsync search --listen, asked every two seconds
//	gb-chain prune now and then
//
// It ends with 0 only if in the end the log verifies, each acknowledged event was
// in it where its receipt says, each index is what the log gives, and nothing has
// grown: memory and open files of no process, no snapshots, no files left over.
//
// The faults come by a seed, in storms with a calm after each: a calm is when
// single processes live long enough to be seen growing.
//
// The Qdrant is package qdranttest's, behind a proxy that is cut, or the server
// that GB_QDRANT names. The clock is package stepclock's: it is the processes'
// that is stepped, not the machine's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Options are what a run is to be.
type options struct {
	bin, dir  string
	duration  time.Duration
	seed      uint64
	rate      int // events a second, of all producers
	producers int
	keep      int64  // bytes of the log that prune keeps
	qdrant    string // HOST:PORT of a server, "" for one of its own
}

func main() {
	var o options
	var hours, minutes, seconds float64
	flag.StringVar(&o.bin, "bin", "bin", "`DIR` of the binaries")
	flag.StringVar(&o.dir, "dir", "", "`DIR` for what the processes say, the report, and all data if something is wrong; default: a new one")
	flag.Float64Var(&hours, "hours", 0, "how long: `H` hours")
	flag.Float64Var(&minutes, "minutes", 0, "and `M` minutes")
	flag.Float64Var(&seconds, "seconds", 0, "and `S` seconds")
	flag.Uint64Var(&o.seed, "seed", 0, "the faults' `SEED`; 0: a new one")
	flag.IntVar(&o.rate, "rate", 1000, "`N` events a second")
	flag.IntVar(&o.producers, "producers", 4, "`N` producers")
	flag.Int64Var(&o.keep, "keep-bytes", 64<<20, "`N` bytes of the log that are not pruned")
	flag.Parse()
	o.duration = time.Duration(hours*float64(time.Hour) + minutes*float64(time.Minute) + seconds*float64(time.Second))
	o.qdrant = os.Getenv("GB_QDRANT")
	switch {
	case flag.NArg() > 0:
		usage("no argument is wanted: " + flag.Arg(0))
	case o.duration < 10*time.Second:
		usage("name how long, at least 10 s: --hours, --minutes, --seconds")
	case o.rate < 10 || o.producers < 1 || o.rate/o.producers < 10:
		usage("--rate wants 10 events a second of each producer at least")
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func usage(what string) {
	fmt.Fprintln(os.Stderr, "soak:", what)
	os.Exit(2)
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("root is missing: mounts and snapshots need it")
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "gb-soak-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	h, err := newHost(o)
	if err != nil {
		return err
	}
	s := newSoak(o, h)
	defer func() {
		s.halt()
		if err == nil {
			err = h.takeDown()
			return
		}
		kept, kerr := h.keep(o.dir)
		err = errors.Join(err, kerr, h.takeDown())
		fmt.Printf("kept in %s: %s\n", o.dir, kept)
	}()
	fmt.Printf("seed %d: %s at %d events/s from %d producers, on %s\n", o.seed, o.duration, o.rate, o.producers, h.describe())
	if err := s.start(); err != nil {
		return err
	}
	if err := s.weather(ctx); err != nil {
		return err
	}
	if err := s.finish(ctx); err != nil {
		s.violate("%v", err)
	}
	return s.report(os.Stdout)
}
