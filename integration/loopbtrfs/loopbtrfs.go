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
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// Options say what to mount. The zero value is a btrfs of 1 GiB.
type Options struct {
	Size         int64    // bytes of the image, which is sparse; default 1 GiB
	MountOptions string   // as after mount -o, e.g. "compress=zstd:9"
	FS           string   // "btrfs" (default) or another that has a mkfs.FS, e.g. "ext4"
	MkfsArgs     []string // further arguments of mkfs
}

// Mount makes a file system and returns the directory where it is mounted. It
// skips the test without root, mkfs or loop devices.
func Mount(t testing.TB, o Options) string {
	t.Helper()
	require.Root(t)
	if o.FS == "" {
		o.FS = "btrfs"
	}
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	mkfs := require.Tool(t, "mkfs."+o.FS)
	mount := require.Tool(t, "mount")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		require.Skip(t, "needs loop devices: "+err.Error())
	}

	// Not t.TempDir: were the unmount to fail, its removal would reach into
	// the mounted file system.
	dir, err := os.MkdirTemp("", "gb-loop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(filepath.Join(dir, "image"))
		os.Remove(filepath.Join(dir, "mnt"))
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	image, err := os.OpenFile(filepath.Join(dir, "image"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if err := image.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-q"}, o.MkfsArgs...)
	if out, err := exec.Command(mkfs, append(args, image.Name())...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	device, err := attach(image)
	if err != nil {
		t.Fatalf("loop device for %s: %v", image.Name(), err)
	}
	defer device.Close() // once mounted, the mount keeps it attached
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	args = []string{"-t", o.FS}
	if o.MountOptions != "" {
		args = append(args, "-o", o.MountOptions)
	}
	if out, err := exec.Command(mount, append(args, device.Name(), mnt)...).CombinedOutput(); err != nil {
		t.Fatalf("mount -t %s %s: %v\n%s", o.FS, device.Name(), err, out)
	}
	t.Cleanup(func() {
		if err := unmount(mnt); err != nil {
			t.Errorf("unmount %s: %v", mnt, err)
		}
	})
	return mnt
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
