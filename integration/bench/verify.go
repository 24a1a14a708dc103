//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// verifies compare the verification of a whole log with tessera's fsck over
// the tiles of the same log, and two cores with one.
var verifies = []comparison{{
	name:    "verify/fsck",
	title:   fmt.Sprintf("%d events verified, from their segments and from their tiles", verifiedEvents),
	rounds:  4,
	metrics: []metric{{"rate", "events/s", more}, {"cpu", "ns/event", less}, {"peak", "MB", less}},
	wants: []want{
		{"gb-chain verify, one core", "rate", atLeast, 1.5, "tessera's fsck, one core"},
		{"gb-chain verify, one core", "peak", atMost, 200, ""},
	},
	setup: func(ctx context.Context, e *env) ([]contender, error) {
		return verifyContenders(ctx, e, true)
	},
}, {
	name:    "verify/cores",
	title:   fmt.Sprintf("%d events verified on one core and on two", verifiedEvents),
	rounds:  5,
	metrics: []metric{{"rate", "events/s", more}, {"cpu", "ns/event", less}, {"peak", "MB", less}},
	wants:   []want{{"gb-chain verify, two cores", "rate", atLeast, 1, "gb-chain verify, one core"}},
	setup: func(ctx context.Context, e *env) ([]contender, error) {
		return verifyContenders(ctx, e, false)
	},
}}

const verifiedEvents = 20 * 65_536 // twenty segments: work for two cores

func verifyContenders(ctx context.Context, e *env, beside bool) ([]contender, error) {
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
	vkey := filepath.Join(dir, "vkey")
	if err := os.WriteFile(vkey, []byte(created.LogKey.String()), 0o600); err != nil {
		return nil, err
	}
	verify := func(cores, cpus string) contender {
		return contender{name: "gb-chain verify, " + cores, ours: true, run: func(ctx context.Context) (sample, error) {
			return verifyOnce(ctx, "verified: ", "taskset", "-c", cpus, e.tool(names.GBChain), "verify", "--log", log, "--vkey", vkey)
		}}
	}
	one, two := verify("one core", "0"), verify("two cores", "0,1")
	if !beside {
		return []contender{one, two}, nil
	}
	tree, err := chain.OpenTree(os.DirFS(log))
	if err != nil {
		return nil, err
	}
	if err := tree.ExportTiles(ctx, tiles, nil); err != nil {
		return nil, err
	}
	done := fmt.Sprintf("Successfully fsck'd log with size %d and root %s ", tree.Checkpoint.Size, tree.Checkpoint.Root)
	program, missing := e.peerProgram(ctx, peersModule, "github.com/transparency-dev/tessera/cmd/fsck")
	fsck := func(cores, cpus, workers string) contender {
		if missing != nil {
			return contender{name: "tessera's fsck, " + cores, missing: missing.Error()}
		}
		return contender{name: "tessera's fsck, " + cores, run: func(ctx context.Context) (sample, error) {
			// It ends with 0 whatever it finds.
			return verifyOnce(ctx, done, "taskset", "-c", cpus, program, "-storage_url=file://"+tiles, "-public_key="+vkey, "-N="+workers, "-ui=false", "-logtostderr")
		}}
	}
	return []contender{fsck("one core", "0", "1"), one, fsck("two cores", "0,1", "2"), two}, nil
}

// verifyOnce runs a verifier that must say want.
func verifyOnce(ctx context.Context, want string, argv ...string) (sample, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute) // fsck may hang where something is wrong
	defer stop()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	most, err := peak.Run(cmd)
	took := time.Since(begin)
	if err != nil || !strings.Contains(out.String(), want) {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, &out)
	}
	return sample{"rate": verifiedEvents / took.Seconds(), "cpu": float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()) / verifiedEvents, "peak": float64(most) / 1e6}, nil
}
