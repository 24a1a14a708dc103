//go:build linux

package loopbtrfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Mounts made at the same time are apart, are what was asked for, and are gone
// with their loop devices after their tests.
func TestMountsAreApartAndGoAway(t *testing.T) {
	dirs := make([]string, 3)
	t.Run("group", func(t *testing.T) {
		for i, fs := range []string{"btrfs", "btrfs", "ext4"} { // the first is sparse
			t.Run(fs, func(t *testing.T) {
				t.Parallel()
				o := Options{FS: fs, Size: 256 << 20, Whole: i > 0}
				if fs == "btrfs" {
					o.MountOptions = "compress=zstd:9,noatime"
				}
				dir := Mount(t, o)
				dirs[i] = dir
				var st unix.Statfs_t
				if err := unix.Statfs(dir, &st); err != nil {
					t.Fatal(err)
				}
				if want := map[string]int64{"btrfs": unix.BTRFS_SUPER_MAGIC, "ext4": unix.EXT4_SUPER_MAGIC}[fs]; st.Type != want {
					t.Errorf("file system type %#x, want %#x", st.Type, want)
				}
				var image unix.Stat_t
				if err := unix.Stat(filepath.Join(filepath.Dir(dir), "image"), &image); err != nil || (image.Blocks*512 >= o.Size) != o.Whole {
					t.Errorf("%d of %d bytes are allocated, whole: %v, %v", image.Blocks*512, o.Size, o.Whole, err)
				}
				if err := os.WriteFile(filepath.Join(dir, "only-here"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for i, dir := range dirs {
		if dir == "" {
			continue
		}
		if strings.Contains(string(mounts), dir) {
			t.Errorf("%s is still mounted", dir)
		}
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			t.Errorf("%s is still there", filepath.Dir(dir))
		}
		for j := range i {
			if dirs[j] == dir {
				t.Errorf("two mounts at %s", dir)
			}
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		backing, err := os.ReadFile(l)
		if err != nil {
			continue // detached by another test meanwhile
		}
		// A mount namespace that was made meanwhile has a copy of the mount.
		if clears, err := os.ReadFile(filepath.Join(filepath.Dir(l), "autoclear")); err != nil || string(clears) == "1\n" {
			continue
		}
		for _, dir := range dirs {
			if dir != "" && strings.HasPrefix(string(backing), filepath.Dir(dir)) {
				t.Errorf("%s still has %s", l, backing)
			}
		}
	}
}
