//go:build linux && cgo

package subvol

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
)

var sys System

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func info(t *testing.T, path string) Info {
	t.Helper()
	i, err := sys.Info(path)
	must(t, err)
	return i
}

// What the kernel says through this package is what btrfs-progs says.
func TestInfoAgreesWithBtrfsProgs(t *testing.T) {
	btrfs := require.Tool(t, "btrfs")
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src, snap := filepath.Join(dir, "src"), filepath.Join(dir, "snap")
	must(t, sys.Create(src))
	must(t, os.WriteFile(filepath.Join(src, "file"), []byte("x"), 0o600))
	must(t, sys.Snapshot(src, snap))
	i := info(t, snap)
	if s := info(t, src); i.ParentUUID != s.UUID || i.CTransID != s.CTransID || !i.ReadOnly || s.ReadOnly || i.ID <= s.ID {
		t.Errorf("source %+v\nsnapshot %+v", s, i)
	}
	out, err := exec.Command(btrfs, "subvolume", "show", snap).Output()
	must(t, err)
	for _, want := range []string{"UUID: " + i.UUID.String(), "Parent UUID: " + i.ParentUUID.String(), "Subvolume ID: ", "readonly"} {
		if !strings.Contains(strings.Join(strings.Fields(string(out)), " "), want) {
			t.Errorf("btrfs subvolume show lacks %q:\n%s", want, out)
		}
	}
	if d := time.Since(i.OTime); d < 0 || d > time.Minute {
		t.Errorf("created at %v", i.OTime)
	}
	must(t, os.Mkdir(filepath.Join(dir, "plain"), 0o700))
	for _, path := range []string{filepath.Join(dir, "plain"), filepath.Join(src, "file"), "/proc"} {
		if _, err := sys.Info(path); !errors.Is(err, ErrNotSubvolume) {
			t.Errorf("Info(%s): %v", path, err)
		}
	}
	if err := sys.Snapshot(src, snap); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second snapshot of that name: %v", err)
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(src, link))
	if info(t, link).UUID != info(t, src).UUID {
		t.Error("a symbolic link leads elsewhere")
	}
	names, err := sys.Names(dir)
	must(t, err)
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "plain snap src" {
		t.Errorf("names %s", got)
	}
}

// The transaction id moves with a synced change of this subvolume and with
// nothing else; the stamp moves with one that is not synced too.
func TestWhatMovesCTransIDAndStamp(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "noatime"}) // else the first reading would count
	src, other := filepath.Join(dir, "src"), filepath.Join(dir, "other")
	must(t, sys.Create(src))
	must(t, sys.Create(other))
	must(t, os.MkdirAll(filepath.Join(src, "a/b"), 0o700))
	f, err := os.Create(filepath.Join(src, "a/b/file"))
	must(t, err)
	defer f.Close()
	must(t, sys.Snapshot(src, filepath.Join(dir, "s0")))
	stamp := func(path string) Stamp {
		t.Helper()
		s, err := sys.Stamp(t.Context(), path)
		must(t, err)
		return s
	}
	if a, b := stamp(src), stamp(filepath.Join(dir, "s0")); a != b || a.Entries != 4 {
		t.Fatalf("source %+v, its snapshot %+v", a, b)
	}
	for n, c := range []struct {
		name               string
		do                 func() error
		ctransid, newStamp bool
	}{
		{"nothing", func() error { return nil }, false, false},
		{"reading", func() error { _, err := os.ReadFile(f.Name()); return err }, false, false},
		{"a write without fsync", func() error { _, err := f.WriteString("x"); return err }, false, true},
		{"a write with fsync", func() error { _, err := f.WriteString("y"); return errors.Join(err, f.Sync()) }, true, true},
		{"a write elsewhere", func() error { return os.WriteFile(filepath.Join(other, "f"), []byte("x"), 0o600) }, false, false},
		{"a snapshot", func() error { return sys.Snapshot(src, filepath.Join(dir, "s1")) }, false, false},
		{"a rename", func() error { return os.Rename(f.Name(), filepath.Join(src, "a/file")) }, true, true},
		{"an unlink", func() error { return os.Remove(filepath.Join(src, "a/file")) }, true, true},
	} {
		before, was := info(t, src).CTransID, stamp(src)
		must(t, c.do())
		if moved := info(t, src).CTransID != before; moved != c.ctransid {
			t.Errorf("%d %s: ctransid moved: %v", n, c.name, moved)
		}
		if moved := stamp(src) != was; moved != c.newStamp {
			t.Errorf("%d %s: stamp moved: %v", n, c.name, moved)
		}
		// To disk, so that the next case begins with nothing pending.
		must(t, exec.Command("sync", "-f", dir).Run())
	}
}

func TestDeleteTakesOnlyTheOneMeant(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "commit=1"}) // the cleaner wakes with each commit
	src := filepath.Join(dir, "src")
	must(t, sys.Create(src))
	must(t, sys.Snapshot(src, filepath.Join(dir, "a")))
	must(t, sys.Snapshot(src, filepath.Join(dir, "b")))
	a, b := info(t, filepath.Join(dir, "a")), info(t, filepath.Join(dir, "b"))
	if err := sys.Delete(dir, "a", b.ID); err == nil {
		t.Error("deleted a with the id of b")
	}
	for _, name := range []string{"", ".", "..", "../x", "a/"} {
		if err := sys.Delete(dir, name, a.ID); err == nil {
			t.Errorf("deleted %q", name)
		}
	}
	info(t, filepath.Join(dir, "a"))
	must(t, sys.Delete(dir, "a", a.ID))
	if _, err := sys.Info(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after deletion: %v", err)
	}
	info(t, filepath.Join(dir, "b"))
	n, err := sys.Backlog(dir)
	must(t, err)
	if n != 1 {
		t.Errorf("backlog %d after one deletion", n)
	}
	for deadline := time.Now().Add(30 * time.Second); n > 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		n, err = sys.Backlog(dir)
		must(t, err)
	}
	if n != 0 {
		t.Errorf("backlog %d after 30 s", n)
	}
}

// Both ways to count the cleaner's work agree, once the deletions are in a
// committed transaction.
func TestBacklogAgreesWithRootTree(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src := filepath.Join(dir, "src")
	must(t, sys.Create(src))
	for i := range 5 {
		must(t, sys.Snapshot(src, filepath.Join(dir, string(rune('a'+i)))))
	}
	for i := range 4 {
		name := string(rune('a' + i))
		must(t, sys.Delete(dir, name, info(t, filepath.Join(dir, name)).ID))
	}
	f, err := openDir(dir)
	must(t, err)
	defer f.Close()
	roots, err := countOrphans(f)
	must(t, err)
	queued, err := sys.Backlog(dir)
	must(t, err)
	// The cleaner may have finished some between the two.
	if roots < queued || roots > 4 {
		t.Errorf("root tree has %d deleted subvolumes, the kernel's queue %d", roots, queued)
	}
}

func TestChangedCountsNewExtents(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src := filepath.Join(dir, "src")
	must(t, sys.Create(src))
	data := make([]byte, 1<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(src, "big"), data, 0o600))
	must(t, sys.Snapshot(src, filepath.Join(dir, "s0")))
	must(t, os.WriteFile(filepath.Join(src, "more"), data[:256<<10], 0o600))
	must(t, os.WriteFile(filepath.Join(src, "small"), data[:100], 0o600)) // inline
	must(t, sys.Snapshot(src, filepath.Join(dir, "s1")))
	must(t, sys.Snapshot(src, filepath.Join(dir, "s2")))
	since := func(name string) uint64 { return info(t, filepath.Join(dir, name)).OTransID }
	for _, c := range []struct {
		of    string
		since uint64
		want  uint64
	}{
		{"s0", 0, 1 << 20}, {"s1", since("s0"), 256<<10 + 100}, {"s2", since("s1"), 0}, {"s2", since("s0"), 256<<10 + 100},
	} {
		got, err := sys.Changed(filepath.Join(dir, c.of), c.since)
		must(t, err)
		if got != c.want {
			t.Errorf("%s changed by %d bytes since %d, want %d", c.of, got, c.since, c.want)
		}
	}
}

func TestSpaceAndQgroups(t *testing.T) {
	btrfs := require.Tool(t, "btrfs")
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	sp, err := sys.Space(dir)
	must(t, err)
	if sp.Size != 1<<30 || sp.Available == 0 || sp.Available > sp.Size || sp.MetadataTotal == 0 || sp.MetadataUsed == 0 {
		t.Errorf("space %+v", sp)
	}
	for _, want := range []bool{false, true} {
		if want {
			must(t, exec.Command(btrfs, "quota", "enable", dir).Run())
		}
		if on, err := sys.Qgroups(dir); err != nil || on != want {
			t.Errorf("qgroups %v, %v, want %v", on, err, want)
		}
	}
	before, err := sys.Written(dir)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 4<<20), 0o600))
	must(t, exec.Command("sync", "-f", dir).Run())
	after, err := sys.Written(dir)
	must(t, err)
	if after < before+4<<20 {
		t.Errorf("written went from %d to %d by 4 MiB", before, after)
	}
	if _, err := sys.Space("/proc"); !errors.Is(err, ErrNotSubvolume) {
		t.Errorf("space of /proc: %v", err)
	}
}

// collect sends j into a pipe and returns the stream.
func collect(t *testing.T, j SendJob) ([]byte, error) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	got := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(r); got <- b }()
	j.Out = w
	err = sys.Send(t.Context(), j)
	w.Close()
	return <-got, err
}

// A full stream and an increment, in each version, make the same files when
// btrfs receive applies them.
func TestSendIsReceived(t *testing.T) {
	btrfs := require.Tool(t, "btrfs")
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "compress=zstd:9"})
	src := filepath.Join(dir, "src")
	must(t, sys.Create(src))
	text := bytes.Repeat([]byte("line of text\n"), 50000)
	must(t, os.WriteFile(filepath.Join(src, "log"), text, 0o600))
	must(t, sys.Snapshot(src, filepath.Join(dir, "s0")))
	more := append(slices.Clone(text), "the last line\n"...)
	must(t, os.WriteFile(filepath.Join(src, "log"), more, 0o600))
	must(t, sys.Snapshot(src, filepath.Join(dir, "s1")))
	s0, s1 := info(t, filepath.Join(dir, "s0")), info(t, filepath.Join(dir, "s1"))
	for _, version := range []int{0, 1, 2} {
		to := filepath.Join(dir, "to"+string(rune('0'+version)))
		must(t, os.Mkdir(to, 0o700))
		full, err := collect(t, SendJob{Path: filepath.Join(dir, "s0"), UUID: s0.UUID, Version: version})
		must(t, err)
		increment, err := collect(t, SendJob{Path: filepath.Join(dir, "s1"), UUID: s1.UUID, ParentPath: filepath.Join(dir, "s0"), ParentUUID: s0.UUID, Version: version})
		must(t, err)
		if wantVersion := max(version, 1); version > 0 && full[13] != byte(wantVersion) {
			t.Errorf("version %d asked for, stream has %d", version, full[13])
		}
		if version == 2 && len(full) > len(text)/4 {
			t.Errorf("a stream of %d bytes for %d: not compressed", len(full), len(text))
		}
		for _, stream := range [][]byte{full, increment} {
			cmd := exec.Command(btrfs, "receive", to)
			cmd.Stdin = bytes.NewReader(stream)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("receive: %v\n%s", err, out)
			}
		}
		for name, want := range map[string][]byte{"s0": text, "s1": more} {
			got, err := os.ReadFile(filepath.Join(to, name, "log"))
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("version %d: %s arrived different", version, name)
			}
		}
	}
}

func TestSendRefusesTheWrongOnes(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src, s0, s1 := filepath.Join(dir, "src"), filepath.Join(dir, "s0"), filepath.Join(dir, "s1")
	must(t, sys.Create(src))
	must(t, sys.Snapshot(src, s0))
	must(t, sys.Snapshot(src, s1))
	i0, i1 := info(t, s0), info(t, s1)
	var wrong *WrongSubvolumeError
	for _, j := range []SendJob{
		{Path: s1, UUID: i0.UUID},
		{Path: s1, UUID: i1.UUID, ParentPath: s0, ParentUUID: i1.UUID},
	} {
		if b, err := collect(t, j); !errors.As(err, &wrong) || len(b) > 0 {
			t.Errorf("%+v: %v, %d bytes", j, err, len(b))
		}
	}
	if _, err := collect(t, SendJob{Path: src, UUID: info(t, src).UUID}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a writable subvolume: %v", err)
	}
}

// While a snapshot is sent, it can't be deleted; and a reader that goes away,
// or a context that ends, ends the send.
func TestSendToAReaderThatStops(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src, s0 := filepath.Join(dir, "src"), filepath.Join(dir, "s0")
	must(t, sys.Create(src))
	data := make([]byte, 8<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(src, "big"), data, 0o600))
	must(t, sys.Snapshot(src, s0))
	i := info(t, s0)
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan error, 1)
	start := func() {
		go func() { sent <- sys.Send(ctx, SendJob{Path: s0, UUID: i.UUID, Out: w}) }()
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	start() // stops for want of room in the pipe, 1 MiB
	if err := sys.Delete(dir, "s0", i.ID); !errors.Is(err, syscall.EPERM) {
		t.Errorf("delete in the middle of a send: %v", err)
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled send: %v", err)
	}
	r.Close() // ends the kernel's side
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = sys.Delete(dir, "s0", i.ID); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("delete after the reader has gone: %v", err)
	}
}

// Signals that arrive while the pipe is full neither end the stream nor begin
// it anew.
func TestSignalsDoNotTouchTheStream(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	src, s0 := filepath.Join(dir, "src"), filepath.Join(dir, "s0")
	must(t, sys.Create(src))
	data := make([]byte, 8<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(src, "big"), data, 0o600))
	must(t, sys.Snapshot(src, s0))
	i := info(t, s0)
	calm, err := collect(t, SendJob{Path: s0, UUID: i.UUID})
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(sys.Send(t.Context(), SendJob{Path: s0, UUID: i.UUID, Out: w}), w.Close()) }()
	var got []byte
	buf := make([]byte, 256<<10)
	for {
		for range 20 {
			must(t, syscall.Kill(os.Getpid(), syscall.SIGURG)) // which Go takes as a reason to look around
		}
		threads, err := os.ReadDir("/proc/self/task")
		must(t, err)
		for _, th := range threads {
			var tid int
			for _, c := range th.Name() {
				tid = tid*10 + int(c-'0')
			}
			syscall.Tgkill(os.Getpid(), tid, syscall.SIGURG)
		}
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	must(t, <-sent)
	if !bytes.Equal(got, calm) {
		t.Errorf("a stream of %d bytes, %d without signals", len(got), len(calm))
	}
}

// What is compressed is counted by what it takes, shared extents once, and a
// file that is not compressed as it is.
func TestCompression(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "compress=zstd:3"})
	path := filepath.Join(dir, "s")
	must(t, sys.Create(path))
	measure := func() Compression {
		t.Helper()
		out, err := exec.Command("sync", "-f", path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
		c, err := sys.Compression(path)
		must(t, err)
		return c
	}
	if c := measure(); c != (Compression{}) {
		t.Errorf("an empty subvolume: %+v", c)
	}
	const size = 4 << 20
	must(t, os.WriteFile(filepath.Join(path, "text"), bytes.Repeat([]byte("the same again and again\n"), size/25), 0o600))
	c := measure()
	if c.Data < size*9/10 || c.Data > size*11/10 || c.Disk == 0 || c.Disk > size/5 {
		t.Errorf("text: %+v", c)
	}
	if out, err := exec.Command("cp", "--reflink=always", filepath.Join(path, "text"), filepath.Join(path, "copy")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if again := measure(); again != c {
		t.Errorf("a copy that shares its extents: %+v, before %+v", again, c)
	}
	noise := make([]byte, size)
	rand.Read(noise)
	must(t, os.WriteFile(filepath.Join(path, "noise"), noise, 0o600))
	if all := measure(); all.Data-c.Data != size || all.Disk-c.Disk != size {
		t.Errorf("noise: %+v, before %+v", all, c)
	}
	if _, err := sys.Compression("/proc"); err == nil {
		t.Error("/proc has extents")
	}
}

// A directory's properties are its own, and its new files' and directories':
// the file system is mounted without compression.
func TestProperty(t *testing.T) {
	dir := loopbtrfs.Mount(t, loopbtrfs.Options{})
	path := filepath.Join(dir, "s")
	must(t, sys.Create(path))
	look := func(path string, want Property) {
		t.Helper()
		if p, err := sys.Property(path); err != nil || p != want {
			t.Errorf("%s: %+v, %v; want %+v", path, p, err, want)
		}
	}
	look(path, Property{})
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", argv, err, out)
		}
	}
	work := filepath.Join(dir, "work")
	must(t, os.Mkdir(work, 0o755))
	// As systemd-tmpfiles sets them.
	conf := filepath.Join(t.TempDir(), "test.conf")
	must(t, os.WriteFile(conf, []byte("t- "+path+" - - - - btrfs.compression=zstd\nh "+work+" - - - - +C\n"), 0o600))
	run("systemd-tmpfiles", "--create", conf)
	look(path, Property{Compression: "zstd"})
	look(work, Property{NoCopy: true})
	below := filepath.Join(path, "below")
	must(t, os.Mkdir(below, 0o755))
	look(below, Property{Compression: "zstd"})
	const size = 4 << 20
	must(t, os.WriteFile(filepath.Join(below, "text"), bytes.Repeat([]byte("the same again and again\n"), size/25), 0o600))
	run("sync", "-f", path)
	if c, err := sys.Compression(path); err != nil || c.Disk > size/5 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := sys.Property("/proc"); err == nil {
		t.Error("/proc has properties of btrfs")
	}
}
