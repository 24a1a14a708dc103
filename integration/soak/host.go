//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/stepclock"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A host is two disks of its own and what is on them: data, a btrfs with log,
// snapshots and indexes on a subvolume each, and state, an ext4 with keys,
// cursors and the spool.
type host struct {
	bin, dir    string
	data, state string // mounts
	unmount     []func() error
	run         string // sockets: their paths must be short
	clock       *stepclock.Clock
	qdrant      *qdranttest.Server // nil where it is a real one
	proxy       *proxy             // before Qdrant
	tenant      string
}

const (
	timing    = "@blockchain-timing"
	snapshots = "@blockchain-snapshots"
	vectors   = "@blockchain-vectors"
)

func newHost(o options) (h *host, err error) {
	h = &host{bin: o.bin, dir: o.dir, clock: stepclock.New(), tenant: fmt.Sprintf("soak-%d", o.seed)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.takeDown())
		}
	}()
	for _, d := range []struct {
		mnt *string
		o   loopbtrfs.Options
	}{
		{&h.data, loopbtrfs.Options{Size: 3 << 30, MountOptions: "noatime,compress=zstd:3"}},
		{&h.state, loopbtrfs.Options{FS: "ext4", Size: 64 << 20, MountOptions: "noatime"}},
	} {
		mnt, unmount, err := loopbtrfs.Make(d.o)
		if err != nil {
			return nil, err
		}
		*d.mnt = mnt
		h.unmount = append(h.unmount, unmount)
	}
	for _, name := range []string{timing, snapshots, vectors} {
		if err := (subvol.System{}).Create(filepath.Join(h.data, name)); err != nil {
			return nil, err
		}
	}
	if h.run, err = os.MkdirTemp("", "gb-soak-run-"); err != nil {
		return nil, err
	}
	said := filepath.Join(o.dir, "said")
	if err := errors.Join(os.RemoveAll(said), os.MkdirAll(said, 0o755)); err != nil {
		return nil, err
	}
	target := o.qdrant
	if target == "" {
		if h.qdrant, err = qdranttest.Make(); err != nil {
			return nil, err
		}
		target = h.qdrant.Address()
	}
	h.proxy, err = newProxy(target)
	return h, err
}

func (h *host) describe() string {
	where := "a stand-in for Qdrant made of its client's stubs"
	if h.qdrant == nil {
		where = "the Qdrant at " + h.proxy.target
	}
	clock := "the processes' own clock"
	if !stepclock.Supported {
		clock = "the machine's clock, which is not stepped"
	}
	return fmt.Sprintf("btrfs and ext4 on loop devices, %s, %s", where, clock)
}

func (h *host) source() string      { return filepath.Join(h.data, timing) }
func (h *host) log() string         { return filepath.Join(h.source(), "log") }
func (h *host) snapshots() string   { return filepath.Join(h.data, snapshots) }
func (h *host) index() string       { return filepath.Join(h.data, vectors, "index.db") }
func (h *host) qdrantState() string { return filepath.Join(h.data, vectors, "qdrant-state.db") }
func (h *host) keys() string        { return filepath.Join(h.state, "keys") }
func (h *host) cursor() string      { return filepath.Join(h.state, "cursor") }
func (h *host) qdrantCursor() string {
	return filepath.Join(h.state, "qdrant-cursor")
}
func (h *host) socket() string { return filepath.Join(h.run, "chain.sock") }
func (h *host) search() string { return filepath.Join(h.run, "search.sock") }

// command is one of our tools with nothing of the machine's own in its
// environment.
func (h *host) command(tool string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(h.bin, tool), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "GB_KEYS=" + h.keys(), "GB_CHAIN_SOCKET=" + h.socket(), "GB_SNAPSHOTS=" + h.snapshots(), "GB_RUN=" + h.run,
		"GB_SPOOL=" + filepath.Join(h.state, "spool"), "GB_WITNESSES=", "GB_SEARCH_SOCKET=" + h.search()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// output runs a tool to its end, on the host's clock. The error says what it
// said.
func (h *host) output(tool string, args ...string) ([]byte, error) {
	cmd := h.command(tool, args...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := h.clock.Start(cmd); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	h.clock.Done(cmd)
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", tool, args[0], err, strings.TrimSpace(words.String()))
	}
	return out.Bytes(), err
}

// qdrantIndex is what makes a command's index Qdrant's.
func (h *host) qdrantIndex() []string {
	return []string{"--index", "qdrant://" + h.proxy.Address(), "--state", h.qdrantState(), "--tenant", h.tenant}
}

// indexArgs is what makes it the file's.
func (h *host) fileIndex() []string { return []string{"--index", h.index()} }

// filler takes all the room that a disk has, and gives it back.
func (h *host) filler(disk string) string {
	if disk == "state" {
		return filepath.Join(h.state, "filler")
	}
	return filepath.Join(h.data, vectors, "filler")
}

func (h *host) fill(disk string) (n int64, err error) {
	f, err := os.OpenFile(h.filler(disk), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for chunk := int64(1 << 30); chunk >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, n, chunk); {
		case err == nil:
			n += chunk
		case errors.Is(err, unix.ENOSPC):
			chunk /= 2
		case errors.Is(err, unix.EINTR):
		default:
			return n, fmt.Errorf("fill the disk %s: %w", disk, err)
		}
	}
	return n, nil
}

func (h *host) release(disk string) error {
	err := os.Remove(h.filler(disk))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// A file system gives room back with its next commit.
	d, err := os.Open(filepath.Dir(h.filler(disk)))
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// keep copies log, indexes and state to dir, without the secret keys.
func (h *host) keep(dir string) (what string, err error) {
	h.release("data")
	h.release("state")
	var errs []error
	var kept []string
	for name, from := range map[string]string{"log": h.log(), "vectors": filepath.Join(h.data, vectors), "state": h.state} {
		to := filepath.Join(dir, name)
		if err := os.RemoveAll(to); err != nil {
			errs = append(errs, err)
			continue
		}
		cmd := exec.Command("cp", "-r", "--sparse=always", from, to)
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("keep %s: %w: %s", name, err, out))
			continue
		}
		kept = append(kept, name)
	}
	errs = append(errs, os.RemoveAll(filepath.Join(dir, "state", "keys")))
	return strings.Join(append(kept, "said", "report.json"), ", "), errors.Join(errs...)
}

func (h *host) takeDown() error {
	var errs []error
	if h.proxy != nil {
		h.proxy.Cut()
	}
	if h.qdrant != nil {
		h.qdrant.Stop()
	}
	for _, f := range h.unmount {
		errs = append(errs, f())
	}
	h.unmount = nil
	if h.run != "" {
		errs = append(errs, os.RemoveAll(h.run))
	}
	return errors.Join(errs...)
}

// begin makes the log.
func (h *host) begin() error {
	_, err := h.output(names.GBChain, "init", "--log", h.log(), "--origin", "soak.example/log")
	return err
}
