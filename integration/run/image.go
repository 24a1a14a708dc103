package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const imageSize = 8 << 30 // sparse

// The subvolumes, as on a real host, below the mount.
const (
	timing    = "@blockchain-timing"
	snapshots = "@blockchain-snapshots"
	vectors   = "@blockchain-vectors"
)

func hasBtrfs(filesystems string) bool {
	for line := range strings.Lines(filesystems) {
		if strings.TrimSpace(line) == "btrfs" {
			return true
		}
	}
	return exec.Command("modprobe", "-q", "btrfs").Run() == nil
}

// lockDir makes this the only run in dir.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &lack{fmt.Sprintf("another run is under way in %s", dir), "stop it with Ctrl-C first"}
	}
	return func() { f.Close() }, nil
}

// mountImage mounts the image below dir, which it makes if it is not there,
// and makes the subvolumes.
func mountImage(dir string) (unmount func() error, err error) {
	image, mnt := filepath.Join(dir, "btrfs.img"), filepath.Join(dir, "mnt")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		return nil, err
	}
	if err := takeDown(image, mnt); err != nil {
		return nil, fmt.Errorf("what the last run left: %w", err)
	}
	if err := makeImage(image); err != nil {
		return nil, err
	}
	// mount(8) makes the loop device with autoclear: it goes with the mount.
	if err := command("mount", "-t", "btrfs", "-o", "loop,noatime,compress=zstd:9", image, mnt); err != nil {
		return nil, err
	}
	unmount = func() error { return takeDown(image, mnt) }
	for _, name := range []string{timing, snapshots, vectors} {
		path := filepath.Join(mnt, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := command("btrfs", "-q", "subvolume", "create", path); err != nil {
				return nil, errors.Join(err, unmount())
			}
		}
	}
	return unmount, nil
}

func makeImage(image string) error {
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	tmp := image + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(imageSize), f.Close()); err != nil {
		return err
	}
	if err := command("mkfs.btrfs", "-q", "-f", "-L", "ghostbridge-run", tmp); err != nil {
		return err
	}
	return os.Rename(tmp, image)
}

// takeDown unmounts the image and detaches its loop devices, whoever mounted
// it. It waits a little for processes that are just ending.
func takeDown(image, mnt string) error {
	for try := 0; ; try++ {
		mounted, err := isMounted(mnt)
		if err != nil {
			return err
		}
		if !mounted {
			break
		}
		err = syscall.Unmount(mnt, 0)
		if err != nil && try >= 50 {
			return fmt.Errorf("unmount %s: %w", mnt, err)
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond)
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, b := range backing {
		data, err := os.ReadFile(b)
		if err != nil || strings.TrimSpace(string(data)) != image {
			continue
		}
		device := "/dev/" + strings.Split(b, "/")[3]
		if err := command("losetup", "-d", device); err != nil {
			if _, gone := os.ReadFile(b); gone == nil { // autoclear may have been quicker
				return err
			}
		}
	}
	return nil
}

func isMounted(mnt string) (bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// Field 5 is the mount point, with spaces as \040.
		if fields := strings.Fields(s.Text()); len(fields) > 4 && strings.ReplaceAll(fields[4], `\040`, " ") == mnt {
			return true, nil
		}
	}
	return false, s.Err()
}

// command runs a program that says nothing when all is well.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
