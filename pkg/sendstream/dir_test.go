//go:build linux

package sendstream

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// dirOf returns a Dir that has begun in an empty directory, and that directory.
func dirOf(t testing.TB) (*Dir, string) {
	t.Helper()
	root := t.TempDir()
	d := &Dir{Begin: func(Command) (string, error) { return root, nil }, MaxCopy: 1 << 20}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Apply(&Subvol{Path: []byte("s"), UUID: UUID{1}}); err != nil {
		t.Fatal(err)
	}
	return d, root
}

func applyDir(t testing.TB, d *Dir, cmds ...Command) {
	t.Helper()
	for _, c := range cmds {
		if err := d.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirOnAnyFileSystem(t *testing.T) {
	d, root := dirOf(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	b := func(s string) []byte { return []byte(s) }
	clone := func(to string, offset, at, n uint64) Command {
		return &Clone{Path: b(to), Offset: offset, SourceUUID: UUID{1}, SourcePath: b("d/f"), SourceOffset: at, Len: n}
	}
	applyDir(t, d, &Header{Version: 2}, mkdir("o258-7-0"), mv("o258-7-0", "d"), mk("d/x"), mv("d/x", "d/f"), mk("d/g"), mk("d/h"),
		&Write{Path: b("d/f"), Data: data}, &Write{Path: b("d/g"), Data: data},
		clone("d/g", 4096, 100, 200), // nowhere at a block's boundary: it is copied
		clone("d/h", 3, 0, uint64(len(data))),
		&EncodedWrite{Path: b("d/h"), UnencodedFileLen: 2, UnencodedLen: 2, Compression: CompressionZlib, Data: zlibData(b("zl"))},
		&Truncate{Path: b("d/g"), Size: 5000}, ln("link", "d/g"), &Symlink{Path: b("l"), Dest: b("../../..")},
		&Fallocate{Path: b("d/f"), Mode: FallocKeepSize | FallocPunchHole, Offset: 4096, Len: 4096},
		&Mkfifo{Path: b("p")}, &Mksock{Path: b("k")}, &Chmod{Path: b("d/f"), Mode: 0o100640}, &Chmod{Path: b("p"), Mode: 0o600},
		mkdir("gone"), &Rmdir{Path: b("gone")}, mk("gone"), rm("gone"), mv("d", "e"), mkdir("d"), mk("d/new"),
		&Utimes{Path: b("e/f"), Atime: Timespec{1, 2}, Mtime: Timespec{-3, 4}}, &Utimes{Path: b("l"), Mtime: Timespec{5, 0}},
		&Utimes{Path: b(""), Mtime: Timespec{99, 0}}, &UpdateExtent{Path: b("e/f")}, &Fileattr{Path: b("e/f"), Flags: 16}, &End{})

	read := func(path string) []byte {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	wantF := bytes.Clone(data)
	clear(wantF[4096:8192])
	wantG := bytes.Clone(data)
	copy(wantG[4096:], data[100:300])
	wantH := append([]byte("zl\x00"), data...)
	for path, want := range map[string][]byte{"e/f": wantF, "e/g": wantG[:5000], "link": wantG[:5000], "e/h": wantH, "d/new": {}} {
		if got := read(path); !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d, or they differ", path, len(got), len(want))
		}
	}
	info := func(path string) os.FileInfo {
		i, err := os.Lstat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	if m := info("e/f").Mode(); m != 0o640 {
		t.Error(m)
	}
	if at := info("e/f").ModTime(); !at.Equal(time.Unix(-3, 4)) {
		t.Error(at)
	}
	if at := info("l").ModTime(); at.Unix() != 5 {
		t.Error(at)
	}
	if at := info("").ModTime(); at.Unix() != 99 {
		t.Error(at)
	}
	if !os.SameFile(info("link"), info("e/g")) {
		t.Error("link is another file")
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 6 {
		t.Error(entries, err)
	}
	if err := d.Apply(mk("late")); !errors.Is(err, ErrOrder) {
		t.Errorf("after the end: %v", err)
	}
}

func TestDirXattrs(t *testing.T) {
	d, root := dirOf(t)
	b := func(s string) []byte { return []byte(s) }
	applyDir(t, d, mkdir("d"), mk("f"), &SetXattr{Path: b(""), Name: b("user.root"), Value: b("r")},
		&SetXattr{Path: b("d"), Name: b("user.d"), Value: []byte{}}, &SetXattr{Path: b("f"), Name: b("user.f"), Value: []byte{0, 1}},
		&SetXattr{Path: b("f"), Name: b("user.gone"), Value: b("x")}, &RemoveXattr{Path: b("f"), Name: b("user.gone")})
	buf := make([]byte, 100)
	for path, want := range map[string]struct{ name, value string }{"": {"user.root", "r"}, "d": {"user.d", ""}, "f": {"user.f", "\x00\x01"}} {
		n, err := syscall.Getxattr(filepath.Join(root, path), want.name, buf)
		if err != nil || string(buf[:n]) != want.value {
			t.Errorf("%q: %q, %v", path, buf[:max(n, 0)], err)
		}
	}
	if n, err := syscall.Getxattr(filepath.Join(root, "f"), "user.gone", buf); err != syscall.ENODATA {
		t.Error(n, err)
	}
}

func TestDirAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root") // the comparison with btrfs receive covers this, too
	}
	d, root := dirOf(t)
	b := func(s string) []byte { return []byte(s) }
	null := &Mknod{Path: b("null"), Mode: ModeChar | 0o600, Rdev: 0x103}
	if err := d.Apply(null); err != nil && !errors.Is(err, errDevice) {
		t.Error(err)
	} else if err == nil {
		t.Error("a device without Devices")
	}
	d.Devices = true
	applyDir(t, d, null, mk("f"), &Symlink{Path: b("l"), Dest: b("f")}, &Chown{Path: b("l"), UID: 7, GID: 8}, &Chown{Path: b(""), UID: 5, GID: 6})
	for path, want := range map[string]uint32{"l": 7, "": 5, "f": 0} {
		i, err := os.Lstat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := i.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%q belongs to %d, want %d", path, got, want)
		}
	}
	if err := d.Apply(&Chown{Path: b("f"), UID: 1 << 32}); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	// A device is never opened, not even for a moment.
	if err := d.Apply(write("null", 0, "x")); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

// outside makes a directory that no stream may change, and a check that none
// did.
func outside(t testing.TB) (dir string, check func()) {
	t.Helper()
	dir = t.TempDir()
	file := filepath.Join(dir, "file")
	old := time.Unix(1e9, 0)
	for _, err := range []error{os.WriteFile(file, []byte("untouched"), 0o644), os.Mkdir(filepath.Join(dir, "sub"), 0o755),
		os.Chtimes(file, old, old), os.Chtimes(filepath.Join(dir, "sub"), old, old), os.Chtimes(dir, old, old)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, func() {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || string(got) != "untouched" {
			t.Errorf("the file outside: %q, %v", got, err)
		}
		for _, p := range []string{dir, file, filepath.Join(dir, "sub")} {
			i, err := os.Lstat(p)
			if err != nil || !i.ModTime().Equal(old) {
				t.Errorf("%s: %v, %v", p, i, err)
				continue
			}
			if st := i.Sys().(*syscall.Stat_t); i.Mode().Perm()&^0o755 != 0 || st.Nlink > 3 || int(st.Uid) != os.Geteuid() {
				t.Errorf("%s: %v, %d links, uid %d", p, i.Mode(), st.Nlink, st.Uid)
			}
			if n, err := syscall.Listxattr(p, make([]byte, 1000)); err == nil && n > 0 && !strings.HasPrefix(p, "/proc") {
				t.Errorf("%s has attributes", p)
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("outside: %v, %v", entries, err)
		}
	}
}

// attacks are commands that would reach outside if the symbolic links "d", to
// a directory, and "f", to a file in it, were followed, or paths resolved.
func attacks(uuid UUID) []Command {
	b := func(s string) []byte { return []byte(s) }
	var all []Command
	for _, p := range []string{"d/new", "d/sub/new", "../new", "/tmp/sendstream-attack", "d/../../x"} {
		all = append(all, mk(p), mkdir(p), &Mkfifo{Path: b(p)}, &Mksock{Path: b(p)}, &Symlink{Path: b(p), Dest: b("x")}, ln(p, "own"), mv("own", p))
	}
	for _, p := range []string{"d/file", "f", "../file", "d/sub", "d/.", "d"} {
		all = append(all, write(p, 0, "changed"), &Truncate{Path: b(p), Size: 1}, &Fallocate{Path: b(p), Len: 100000},
			&EncodedWrite{Path: b(p), UnencodedFileLen: 1, UnencodedLen: 1, Data: b("x")}, &EnableVerity{Path: b(p), Algorithm: 1, BlockSize: 4096},
			&Chmod{Path: b(p), Mode: 0o4777}, &SetXattr{Path: b(p), Name: b("user.attack"), Value: b("x")}, &RemoveXattr{Path: b(p), Name: b("user.x")},
			&Clone{Path: b(p), SourceUUID: uuid, SourcePath: b("own"), Len: 4096}, &Clone{Path: b("own"), SourceUUID: uuid, SourcePath: b(p), Len: 9})
	}
	for _, p := range []string{"d/file", "../file", "d/sub"} {
		all = append(all, rm(p), &Rmdir{Path: b(p)}, mv(p, "stolen"), ln("stolen", p), &Chown{Path: b(p), UID: 12345}, &Utimes{Path: b(p)})
	}
	return all
}

func TestDirFollowsNoSymbolicLink(t *testing.T) {
	target, check := outside(t)
	for _, c := range attacks(UUID{1}) {
		d, root := dirOf(t)
		applyDir(t, d, mk("own"), &Write{Path: []byte("own"), Data: make([]byte, 4096)},
			&Symlink{Path: []byte("d"), Dest: []byte(target)}, &Symlink{Path: []byte("f"), Dest: []byte(filepath.Join(target, "file"))})
		err := d.Apply(c)
		if err == nil {
			t.Errorf("%v %q: accepted", c.Kind(), c.Target())
		}
		check()
		if own, err := os.ReadFile(filepath.Join(root, "own")); err != nil || bytes.Contains(own, []byte("untouched")) {
			t.Errorf("%v %q: %q, %v", c.Kind(), c.Target(), own, err)
		}
		d.Close()
	}
	// What acts on the link itself is allowed.
	d, root := dirOf(t)
	applyDir(t, d, &Symlink{Path: []byte("f"), Dest: []byte(filepath.Join(target, "file"))},
		&Utimes{Path: []byte("f"), Mtime: Timespec{5, 0}}, ln("f2", "f"), mv("f2", "f3"), rm("f3"))
	if i, err := os.Lstat(filepath.Join(root, "f")); err != nil || i.ModTime().Unix() != 5 {
		t.Error(i, err)
	}
	check()
}

// Someone who can write to the directory exchanges a directory and a link to
// the outside all the time, and a file and a link.
func TestDirLosesNoRace(t *testing.T) {
	target, check := outside(t)
	d, root := dirOf(t)
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for name, dest := range map[string]string{"d": target, "f": filepath.Join(target, "file")} {
				path := filepath.Join(root, name)
				os.RemoveAll(path)
				switch {
				case i%2 == 0:
					os.Symlink(dest, path)
				case name == "d":
					os.MkdirAll(filepath.Join(path, "sub"), 0o755)
					os.WriteFile(filepath.Join(path, "file"), nil, 0o644)
				default:
					os.WriteFile(path, nil, 0o644)
				}
			}
			runtime.Gosched()
		}
	}()
	all := attacks(UUID{1})
	done := 0
	for i := range 4000 {
		if i%len(all) == 0 {
			d.Apply(mk("own"))
		}
		if d.Apply(all[i%len(all)]) == nil {
			done++
		}
	}
	close(stop)
	group.Wait()
	check()
	if done == 0 {
		t.Error("no command ever met a directory or a file: the race was not run")
	}
}

func TestDirDoesNotBlock(t *testing.T) {
	d, _ := dirOf(t)
	b := func(s string) []byte { return []byte(s) }
	applyDir(t, d, &Mkfifo{Path: b("p")}, &Mksock{Path: b("k")}, mkdir("d"), mk("f"))
	for _, p := range []string{"p", "k", "d"} {
		for _, c := range []Command{write(p, 0, "x"), &Truncate{Path: b(p)}, &EnableVerity{Path: b(p)},
			&Clone{Path: b("f"), SourceUUID: UUID{1}, SourcePath: b(p), Len: 1}} {
			if err := d.Apply(c); err == nil {
				t.Errorf("%v %s: accepted", c.Kind(), p)
			}
		}
	}
}

func TestDirLimits(t *testing.T) {
	d, root := dirOf(t)
	b := func(s string) []byte { return []byte(s) }
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "big"), make([]byte, 600<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	other := &Clone{Path: b("f"), Offset: 1, SourceUUID: UUID{2}, SourcePath: b("big"), Len: 600 << 10}
	applyDir(t, d, mk("f"))
	if err := d.Apply(other); !errors.Is(err, ErrParent) {
		t.Errorf("no source: %v", err)
	}
	d.Source = func(uuid UUID, _ uint64) (string, error) { return source, nil }
	applyDir(t, d, other)
	if err := d.Apply(other); !errors.Is(err, ErrTooLarge) { // 1.2 of 1 MiB
		t.Errorf("copies beyond the limit: %v", err)
	}
	d.MaxCopy = 0
	if err := d.Apply(other); err == nil {
		t.Error("copied without leave")
	}
	d.MaxCopy = 1 << 30
	// A hole of 2^40 bytes is not copied byte by byte.
	applyDir(t, d, mk("sparse"), &Truncate{Path: b("sparse"), Size: 1 << 40}, mk("sparse2"),
		&Clone{Path: b("sparse2"), Offset: 0, SourceUUID: UUID{1}, SourcePath: b("sparse"), SourceOffset: 0, Len: 1 << 40})
	if i, err := os.Stat(filepath.Join(root, "sparse2")); err != nil || i.Size() != 1<<40 {
		t.Error(i, err)
	}
	for _, c := range []Command{
		&Clone{Path: b("f"), SourceUUID: UUID{1}, SourcePath: b("f"), SourceOffset: 0, Offset: 100, Len: 5000}, // overlaps itself
		&Clone{Path: b("f"), SourceUUID: UUID{2}, SourcePath: b("big"), Len: 600<<10 + 1},
		&Clone{Path: b("f"), SourceUUID: UUID{2}, SourcePath: b("../big"), Len: 1},
		&Utimes{Path: b("f"), Atime: Timespec{0, 1<<30 - 1}}, // UTIME_NOW
		&Write{Path: b("f"), Offset: 1<<63 - 1, Data: b("x")},
	} {
		if err := d.Apply(c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
	bad := &Dir{}
	if err := bad.Apply(&Subvol{Path: b("s")}); err == nil {
		t.Error("began nowhere")
	}
	if err := bad.Apply(mk("f")); !errors.Is(err, ErrOrder) {
		t.Error(err)
	}
}

// Many files: no descriptor is left open.
func TestDirLeaksNoDescriptor(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	root := t.TempDir()
	d := &Dir{Begin: func(c Command) (string, error) {
		dir := filepath.Join(root, string(c.Target()))
		return dir, os.Mkdir(dir, 0o755)
	}}
	for _, name := range []string{"a", "b", "c"} {
		applyDir(t, d, &Subvol{Path: []byte(name), UUID: UUID{name[0]}}, mkdir("d"), mkdir("d/e"), mk("d/f"), write("d/f", 0, "x"), mk("d/e/g"), write("d/e/g", 0, "x"))
		d.Apply(write("d/none", 0, "x"))
		d.Apply(mk("d/e/g/h"))
		if n := count(); n > before+3 { // the subvolume, a directory and a file
			t.Errorf("%d descriptors in the middle, %d before", n, before)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}
