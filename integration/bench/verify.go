//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// verifies compare the verification of a whole log with tessera's fsck over
// the tiles of the same log, on one core and on two.
var verifies = []comparison{{
	name:    "verify",
	title:   fmt.Sprintf("%d events verified, from their segments and from their tiles", verifiedEvents),
	rounds:  5,
	metrics: []metric{{"rate", "events/s", "≥ 1.5 of fsck on one core, and more on two"}, {"cpu", "ns/event", ""}, {"peak", "MB", "< 200"}},
	setup:   verifyContenders,
}}

const verifiedEvents = 400_000

func verifyContenders(ctx context.Context, e *env) ([]contender, error) {
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	log, tiles, keys := filepath.Join(dir, "log"), filepath.Join(dir, "tiles"), filepath.Join(dir, "keys")
	created, err := chain.Create(log, "bench.example/log", keys, chain.Options{})
	if err != nil {
		return nil, err
	}
	l, err := chain.Open(log, keys, chain.Options{})
	if err != nil {
		return nil, err
	}
	var p event.Parser
	for k := 0; l.Size() < verifiedEvents; {
		b := &chain.Batch{Peer: event.Peer{UID: uint32(os.Getuid())}}
		for range min(4096, verifiedEvents-l.Size()) {
			k++
			d, err := p.Parse(fmt.Appendf(nil, `{"source":"bench","type":"interface.changed","subject":"vnet%d","message":"link state of vnet%d on ovsbr1 went from down to up","data":{"ofport":%d,"speed":10000000000,"duplex":"full","mtu":1500}}`, k%64, k%64, k))
			if err != nil {
				return nil, err
			}
			b.Drafts = append(b.Drafts, d)
		}
		if err := errors.Join(l.Append(b), b.Err); err != nil {
			return nil, err
		}
	}
	if err := l.Close(); err != nil {
		return nil, err
	}
	tree, err := chain.OpenTree(os.DirFS(log))
	if err != nil {
		return nil, err
	}
	if err := tree.ExportTiles(ctx, tiles, nil); err != nil {
		return nil, err
	}
	vkey := filepath.Join(dir, "vkey")
	if err := os.WriteFile(vkey, []byte(created.LogKey.String()), 0o600); err != nil {
		return nil, err
	}
	fsck, fsckErr := e.peerProgram(ctx, "github.com/transparency-dev/tessera/cmd/fsck")
	done := fmt.Sprintf("Successfully fsck'd log with size %d and root %s ", tree.Checkpoint.Size, tree.Checkpoint.Root)
	var list []contender
	for _, cores := range []struct{ name, cpus, workers string }{{"one core", "0", "1"}, {"two cores", "0,1", "2"}} {
		x := contender{name: "tessera's fsck, " + cores.name}
		if fsckErr != nil {
			x.missing = fsckErr.Error()
		} else {
			x.run = func(ctx context.Context) (sample, error) {
				// It ends with 0 whatever it finds.
				return verifyOnce(ctx, done, "taskset", "-c", cores.cpus, fsck, "-storage_url=file://"+tiles, "-public_key="+vkey, "-N="+cores.workers, "-ui=false", "-logtostderr")
			}
		}
		list = append(list, x, contender{name: "gb-chain verify, " + cores.name, run: func(ctx context.Context) (sample, error) {
			return verifyOnce(ctx, "verified: ", "taskset", "-c", cores.cpus, e.tool(names.GBChain), "verify", "--log", log, "--vkey", vkey)
		}})
	}
	return list, nil
}

// verifyOnce runs a verifier that must say want.
func verifyOnce(ctx context.Context, want string, argv ...string) (sample, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute) // fsck may hang where something is wrong
	defer stop()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begin)
	if err != nil || !strings.Contains(string(out), want) {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{"rate": verifiedEvents / took.Seconds(), "cpu": float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()) / verifiedEvents, "peak": float64(usage.Maxrss) * 1024 / 1e6}, nil
}
