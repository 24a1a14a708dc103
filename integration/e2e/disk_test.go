//go:build linux

package e2e

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

// A disk is an image with the file system that the README's steps make, and
// with a Debian in its subvolume @.
type disk struct {
	t      *testing.T
	image  string // the file
	device string // /dev/loopN; "" while it is not attached
	mnt    string // where the file system's top is mounted while the disk is made
	root   string // where @ is mounted
}

// The README's subvolumes and where they are mounted, @ itself apart.
var subvolumes = [][3]string{
	{"@home", "/home", "compress=zstd:3,noatime,space_cache=v2,ssd"},
	{"@overlay", "/overlay", "compress=zstd:3,noatime,space_cache=v2,ssd"},
	{"@blockchain-timing", "/var/lib/blockchain-timing", "compress=zstd:9,noatime,space_cache=v2"},
	{"@blockchain-vectors", "/var/lib/blockchain-vectors", "compress=zstd:3,noatime,space_cache=v2"},
	{"@work", "/work", "noatime,nodatacow,space_cache=v2,ssd"},
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(require.Tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// newDisk makes a disk of the given size with the tree in tar. Who boots it
// has it as the device seen, or as the loop device here if seen is "".
func newDisk(t *testing.T, size int64, tar, seen string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{t: t, image: filepath.Join(dir, "disk.img"), mnt: filepath.Join(dir, "mnt"), root: filepath.Join(dir, "root")}
	f, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{d.root, d.mnt} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "mkfs.btrfs", "-q", "-L", "nixos", d.image)
	t.Cleanup(d.detach)
	d.device = command(t, "losetup", "--find", "--show", d.image)
	if seen == "" {
		seen = d.device
	}
	command(t, "mount", d.device, d.mnt)
	command(t, "btrfs", "-q", "subvolume", "create", d.mnt+"/@")
	for _, s := range subvolumes {
		command(t, "btrfs", "-q", "subvolume", "create", d.mnt+"/"+s[0])
	}
	d.unmount(d.mnt)
	command(t, "mount", "-o", "subvol=@,noatime", d.device, d.root)
	command(t, "tar", "-C", d.root, "--numeric-owner", "-xpf", tar)
	for _, s := range subvolumes {
		if err := os.MkdirAll(filepath.Join(d.root, s[1]), 0o755); err != nil {
			t.Fatal(err)
		}
		// In a container systemd passes over devices in fstab, but not over
		// what it would have made of them.
		unit := command(t, "systemd-escape", "--path", "--suffix=mount", s[1])
		d.write("/etc/systemd/system/"+unit, fmt.Sprintf("[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=%s\nWhere=%s\nType=btrfs\nOptions=subvol=%s,%s\n",
			seen, s[1], s[0], s[2]))
		d.link("../"+unit, "/etc/systemd/system/local-fs.target.wants/"+unit)
	}
	d.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	d.write("/etc/hostname", "gbe2e\n")
	d.write("/etc/dpkg/dpkg.cfg.d/quick", "force-unsafe-io\n")
	// What a bare host would do meanwhile.
	for _, u := range []string{"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "console-getty.service"} {
		d.link("/dev/null", "/etc/systemd/system/"+u)
	}
	return d
}

// detach gives the image free, for others or for its removal.
func (d *disk) detach() {
	d.t.Helper()
	if d.device == "" {
		return
	}
	for _, p := range []string{d.mnt, d.root} {
		d.unmount(p)
	}
	if out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput(); err != nil {
		d.t.Errorf("losetup --detach %s: %v\n%s", d.device, err, out)
	}
	d.device = ""
}

// disable takes units, by pattern, out of what a boot starts.
func (d *disk) disable(patterns ...string) {
	d.t.Helper()
	for _, pattern := range patterns {
		links, err := filepath.Glob(filepath.Join(d.root, "etc/systemd/system/*.wants", pattern))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, l := range links {
			if err := os.Remove(l); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

func (d *disk) write(path, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.root, path), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) link(to, path string) {
	d.t.Helper()
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil && !errors.Is(err, os.ErrExist) {
		d.t.Fatal(err)
	}
}

func (d *disk) unmount(path string) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Errorf("unmount %s: %v", path, err)
			unix.Unmount(path, unix.MNT_DETACH)
			return
		}
	}
}

// written returns how many bytes have been written to the disk since it was
// made.
func (d *disk) written() int64 {
	d.t.Helper()
	data, err := os.ReadFile("/sys/block/" + filepath.Base(d.device) + "/stat")
	if err != nil {
		d.t.Fatal(err)
	}
	var f [7]int64 // Documentation/block/stat.rst: the seventh is sectors written
	for i := range f {
		if _, err := fmt.Sscan(strings.Fields(string(data))[i], &f[i]); err != nil {
			d.t.Fatal(err)
		}
	}
	return f[6] * 512
}
