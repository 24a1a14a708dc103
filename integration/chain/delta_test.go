package chain_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// What a second's snapshot sends of 20 events is at most three times what the
// producers wrote. A second is an append, a checkpoint and a snapshot; the
// clock of the log goes on by one, so that the archive gets its note a minute.
func TestSendDeltaIsSmall(t *testing.T) {
	btrfs := require.Tool(t, "btrfs")
	mnt := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "compress=zstd:9,noatime"})
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(btrfs, args...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs %v: %v\n%s", args, err, out)
		}
	}
	source := filepath.Join(mnt, "source")
	run("subvolume", "create", source)
	keys, now := t.TempDir(), time.Now()
	options := chain.Options{Now: func() time.Time { return now }}
	if _, err := chain.Create(filepath.Join(source, "log"), "delta.example/log", keys, options); err != nil {
		t.Fatal(err)
	}
	l, err := chain.Open(filepath.Join(source, "log"), keys, options)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var p event.Parser
	var payload, sent int64
	before := ""
	const rounds = 65
	for round := range rounds {
		now = now.Add(time.Second)
		b := &chain.Batch{}
		for k := range 20 {
			line := fmt.Appendf(nil, `{"source":"ovs","type":"interface.changed","subject":"vnet%d","message":"link state of vnet%d on ovsbr1 went from down to up","data":{"ofport":%d,"speed":10000000000,"duplex":"full","mac":"52:54:00:%02x:%02x:%02x","round":%d}}`, k, k, k, round, k, round*k%256, round)
			d, err := p.Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			b.Drafts = append(b.Drafts, d)
			if before != "" {
				payload += int64(len(line)) + 1
			}
		}
		if err := errors.Join(l.Append(b), b.Err, l.Checkpoint()); err != nil {
			t.Fatal(err)
		}
		snapshot := filepath.Join(mnt, fmt.Sprint("s", round))
		run("subvolume", "snapshot", "-r", source, snapshot)
		if before != "" {
			cmd := exec.Command(btrfs, "send", "-q", "-p", before, snapshot)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, out)
			if err := errors.Join(err, cmd.Wait()); err != nil {
				t.Fatal(err)
			}
			sent += n
		}
		before = snapshot
	}
	ratio := float64(sent) / float64(payload)
	t.Logf("20 events a second: %d bytes written, %d sent, ratio %.2f", payload/(rounds-1), sent/(rounds-1), ratio)
	if ratio > 3 {
		t.Errorf("%.2f times the payload is sent", ratio)
	}
}

// verifyPeak verifies a log of so many events with the real binary and returns
// its greatest resident size in bytes.
func verifyPeak(t *testing.T, events int64) int64 {
	l := newTestLog(t)
	l.fill(events)
	l.close()
	cmd := exec.Command(tools.Path(t, "gb-chain"), "verify", "--log", l.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	n, err := peak.Run(cmd)
	if err != nil || n == 0 {
		t.Fatalf("%v, %d bytes\n%s", err, n, &out)
	}
	os.RemoveAll(l.dir)
	return n
}

// 10 million events are verified in less than 200 MB; how much it is does not
// depend on how many there are.
func TestVerifyMemory(t *testing.T) {
	if peak := verifyPeak(t, 200_000); peak > 200e6 {
		t.Errorf("%d MB for 200,000 events", peak/1e6)
	}
}

func TestVerifyMemoryOfTenMillion(t *testing.T) {
	require.Torture(t)
	peak := verifyPeak(t, 10_000_000)
	t.Logf("peak %.1f MB", float64(peak)/1e6)
	if peak > 200e6 {
		t.Errorf("%d MB for 10,000,000 events", peak/1e6)
	}
}
