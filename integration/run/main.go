// Run is the program behind "make run": it starts the whole pipeline on this
// machine's own events, on a btrfs of its own in an image file, out of the
// real binaries, and shows how it goes.
//
//	kernel log, D-Bus signals, journald -> gb-chain append -> gb-chain serve
//	gb-snap take every second
//	gb-snap send | gb-vecsync ingest after each
//
// Everything is kept below --dir for the next run. Nothing outside of it is
// changed but for a loop device and a mount while it runs; what a killed run
// left of these is taken down by the next.
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
)

// Children are to die with this process. The kernel watches the thread that
// started them, so all are started from the main thread.
func init() { runtime.LockOSThread() }

func main() {
	bin := flag.String("bin", "bin", "`DIR` of the binaries")
	dir := flag.String("dir", "var", "`DIR` for the image and all data")
	seconds := flag.Int("seconds", 0, "stop by itself after `N` seconds; 0: run until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *dir, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		var h interface{ Hint() string }
		if errors.As(err, &h) {
			fmt.Fprintln(os.Stderr, "hint:", h.Hint())
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, dir string, limit time.Duration) (err error) {
	if err := checkMachine(); err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	unmount, err := mountImage(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()

	p, err := newPipeline(bin, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.start(); err != nil {
		return err
	}
	p.greet(os.Stdout, limit)
	if err := p.loop(ctx, limit); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	if limit > 0 {
		return p.ask(os.Stdout, "btrfs filesystem mount")
	}
	return nil
}

// A lack is something that the machine does not have.
type lack struct{ what, remedy string }

func (l *lack) Error() string { return l.what }
func (l *lack) Hint() string  { return l.remedy }

func checkMachine() error {
	if os.Geteuid() != 0 {
		return &lack{"root is missing: mounts and snapshots need it", "sudo make run"}
	}
	if data, err := os.ReadFile("/proc/filesystems"); err == nil && !hasBtrfs(string(data)) {
		return &lack{"btrfs is missing: this kernel does not know it", "modprobe btrfs, or boot a kernel with CONFIG_BTRFS_FS"}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return &lack{"loop devices are missing: " + err.Error(), "modprobe loop, or run outside of this container"}
	}
	return nil
}
