//go:build linux

// Package loopbtrfs gives a test a file system of its own: a sparse image in
// a temporary directory on a loop device, made and mounted, and taken down
// when the test ends, however it ends.
//
// It guarantees: test binaries that run at the same time do not take each
// other's loop devices; the device detaches by itself once the file system is
// unmounted (LO_FLAGS_AUTOCLEAR), so that only a mount can be left over by a
// test binary that is killed. It does not guarantee that such a mount goes
// away; its directory begins with "gb-loop-" under the system's temporary
// directory.
package loopbtrfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// Options say what to mount. The zero value is a btrfs of 1 GiB.
type Options struct {
	Size         int64    // bytes of the image; default 1 GiB
	MountOptions string   // as after mount -o, e.g. "compress=zstd:9"
	FS           string   // "btrfs" (default) or another that has a mkfs.FS, e.g. "ext4"
	MkfsArgs     []string // further arguments of mkfs

	// Whole has the image written before, and nothing of it given back, as on a
	// partition: a sparse one is allocated while it is used, and a sync waits for
	// the journal of the file system below. For btrfs and ext4.
	Whole bool
}

// Mount makes a file system and returns the directory where it is mounted. It
// skips the test without root, mkfs or loop devices.
func Mount(t testing.TB, o Options) string {
	t.Helper()
	require.Root(t)
	o = o.withDefaults()
	require.Tool(t, "mkfs."+o.FS)
	require.Tool(t, "mount")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		require.Skip(t, "needs loop devices: "+err.Error())
	}
	mnt, takeDown, err := Make(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := takeDown(); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

func (o Options) withDefaults() Options {
	if o.FS == "" {
		o.FS = "btrfs"
	}
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	return o
}

// Make is Mount for programs that are no tests. The caller takes the file
// system down.
func Make(o Options) (mnt string, takeDown func() error, err error) {
	o = o.withDefaults()
	// Not t.TempDir: were the unmount to fail, its removal would reach into
	// the mounted file system.
	dir, err := os.MkdirTemp("", "gb-loop-")
	if err != nil {
		return "", nil, err
	}
	mnt = filepath.Join(dir, "mnt")
	remove := func() error {
		os.Remove(filepath.Join(dir, "image"))
		os.Remove(mnt)
		return os.Remove(dir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	image, err := os.OpenFile(filepath.Join(dir, "image"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, err
	}
	defer image.Close()
	if err := image.Truncate(o.Size); err != nil {
		return "", nil, err
	}
	if o.Whole {
		if err := fill(image, o.Size); err != nil {
			return "", nil, err
		}
		o.MkfsArgs = append(map[string][]string{"btrfs": {"-K"}, "ext4": {"-E", "nodiscard"}}[o.FS], o.MkfsArgs...)
		o.MountOptions = strings.TrimPrefix(o.MountOptions+",nodiscard", ",")
	}
	if err := command("mkfs."+o.FS, append(append([]string{"-q"}, o.MkfsArgs...), image.Name())...); err != nil {
		return "", nil, err
	}
	device, err := attach(image)
	if err != nil {
		return "", nil, fmt.Errorf("loop device for %s: %w", image.Name(), err)
	}
	defer device.Close() // once mounted, the mount keeps it attached
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return "", nil, err
	}
	args := []string{"-t", o.FS}
	if o.MountOptions != "" {
		args = append(args, "-o", o.MountOptions)
	}
	if err := command("mount", append(args, device.Name(), mnt)...); err != nil {
		return "", nil, err
	}
	return mnt, func() error {
		if err := unmount(mnt); err != nil {
			return fmt.Errorf("unmount %s: %w", mnt, err)
		}
		return remove()
	}, nil
}

// fill writes size bytes of zeros to the disk.
func fill(f *os.File, size int64) error {
	for zeros, at := make([]byte, 1<<20), int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// command runs a program, which may be in root's directories only.
func command(name string, args ...string) error {
	path, err := require.Find(name)
	if err != nil {
		return err
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// attach attaches image to a free loop device. Between asking for a free one
// and taking it, another process may take it: EBUSY, and ask again.
func attach(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		device, err := attachOnce(control, image)
		if err == nil {
			return device, nil
		}
		// ENOENT and ENXIO: the node is not there yet, or a device is being removed.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) || time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func attachOnce(control, image *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("free loop device: %w", err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name())
	err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) { // before Linux 5.8
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(image.Fd()))
		if err == nil {
			err = unix.IoctlLoopSetStatus64(int(device.Fd()), &config.Info)
		}
	}
	if err != nil {
		device.Close()
		return nil, fmt.Errorf("attach %s: %w", device.Name(), err)
	}
	return device, nil
}

// unmount unmounts mnt. A process that just ended may keep it busy for a
// moment; after some seconds it is detached from the tree anyway, and that
// counts as a failure of the test.
func unmount(mnt string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = unix.Unmount(mnt, unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: the test unmounted it
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if derr := unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); derr != nil {
		return derr
	}
	return err
}
