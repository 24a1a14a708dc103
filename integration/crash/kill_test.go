//go:build linux

package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A journal is what producers write down of each acknowledgement, on another
// file system than the log's.
type journal struct {
	mu    sync.Mutex
	acked map[int64]string
	twice []int64 // indexes that were given to two events
}

func (j *journal) note(a record.Ack) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, leaf := range a.Leaves {
		index := a.First + int64(i)
		if have, ok := j.acked[index]; ok && have != leaf {
			j.twice = append(j.twice, index)
		}
		j.acked[index] = leaf
	}
}

// produce appends batches through the daemon until it is gone.
func produce(ctx context.Context, socket string, n int, j *journal) {
	c, err := record.Dial(ctx, socket, record.Hello{Receipts: true})
	if err != nil {
		return
	}
	defer c.Close()
	for k := 0; ; k++ {
		var lines [][]byte
		for i := range 1 + (n+k)%17 {
			lines = append(lines, fmt.Appendf(nil, `{"source":"demo","type":"note","message":"producer %d, batch %d, %d"}`, n, k, i))
		}
		if c.Append(lines, j.note) != nil {
			return
		}
	}
}

// The daemon is killed at random moments, while producers append and the key
// is rotated, on ext4 and on btrfs; there a snapshot is taken now and then, and
// each is a crash image that verifies.
func TestKilledAtAnyMoment(t *testing.T) {
	require.Root(t)
	rounds := 6
	if os.Getenv("GB_TORTURE") == "1" {
		rounds = 300
	}
	for _, o := range []loopbtrfs.Options{{FS: "ext4"}, {FS: "btrfs", MountOptions: "compress=zstd:9,noatime"}} {
		t.Run(o.FS, func(t *testing.T) {
			t.Parallel()
			mnt := loopbtrfs.Mount(t, o)
			source := mnt
			if o.FS == "btrfs" {
				source = filepath.Join(mnt, "@log")
				btrfs(t, "subvolume", "create", source)
			}
			h := newHost(t, source)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 0))
			j := &journal{acked: h.acked}
			var snapshots []string
			for round := range rounds {
				socket := filepath.Join(h.keys, "sock")
				serve := h.command(nil, "serve", "--socket", socket, "--writers", "")
				serve.Stderr = &tail{}
				os.Remove(socket)
				if err := serve.Start(); err != nil {
					t.Fatal(err)
				}
				awaitSocket(t, serve, socket)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				for n := range 8 {
					wg.Go(func() { produce(ctx, socket, n, j) })
				}
				wg.Go(func() {
					for ctx.Err() == nil {
						if h.command(nil, "rotate-key", "--socket", socket).Run() != nil {
							return
						}
					}
				})
				if o.FS == "btrfs" {
					for range 2 {
						time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
						snapshot := filepath.Join(mnt, fmt.Sprintf("snapshot-%d", len(snapshots)))
						btrfs(t, "subvolume", "snapshot", "-r", source, snapshot)
						snapshots = append(snapshots, snapshot)
					}
				}
				time.Sleep(time.Duration(50+rnd.IntN(400)) * time.Millisecond)
				serve.Process.Kill()
				serve.Wait()
				cancel()
				wg.Wait()
				h.check(fmt.Sprintf("round %d", round))
			}
			if len(j.twice) > 0 {
				t.Errorf("these indexes were acknowledged for two events: %v", j.twice)
			}
			if len(j.acked) < 10*rounds {
				t.Errorf("only %d events were acknowledged in %d rounds", len(j.acked), rounds)
			}
			t.Logf("%d events acknowledged", len(j.acked))
			for _, s := range snapshots {
				if out, err := h.command(nil, "verify", "--log", filepath.Join(s, "log")).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", filepath.Base(s), err, out)
				}
			}
		})
	}
}

// awaitSocket waits until the daemon listens. The process must live.
func awaitSocket(t *testing.T, cmd *exec.Cmd, socket string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the daemon does not listen: %s", cmd.Stderr)
		}
	}
}

func btrfs(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(require.Tool(t, "btrfs"), args...).CombinedOutput(); err != nil {
		t.Fatalf("btrfs %v: %v\n%s", args, err, out)
	}
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data = append(w.data, b...)
	w.data = w.data[max(0, len(w.data)-4096):]
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.data)
}
