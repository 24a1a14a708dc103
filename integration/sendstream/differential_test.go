//go:build linux

// Package sendstream_test compares pkg/sendstream with btrfs-progs: what it
// makes of a stream with what btrfs receive makes of it, and its dump with
// theirs. It needs root, loop devices and the programs of btrfs-progs, attr,
// findutils and coreutils.
package sendstream_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// mountOptions are the ways in which the source file system stores data.
var mountOptions = []string{"compress=no", "compress=zstd:1", "compress-force=zstd:9", "compress-force=zlib", "compress-force=lzo"}

// protocols are the kinds of stream that a kernel can send.
var protocols = []struct {
	name  string
	flags []string
}{
	{"v1", []string{"--proto", "1"}},
	{"v2", []string{"--proto", "2"}},
	{"v2 compressed", []string{"--proto", "2", "--compressed-data"}},
}

// firstSeed is that of the first case.
const firstSeed = 20240601

func TestReplayAndDumpAgreeWithBtrfsProgs(t *testing.T) { compare(t, firstSeed, 12) }

// TestTorture is the same with 1,000 cases, or GB_TORTURE_CASES, from the seed
// GB_TORTURE_SEED on.
func TestTorture(t *testing.T) {
	require.Torture(t)
	compare(t, number(t, "GB_TORTURE_SEED", firstSeed), int(number(t, "GB_TORTURE_CASES", 1000)))
}

func number(t *testing.T, name string, value uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return value
	}
	v, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func compare(t *testing.T, seed uint64, n int) {
	for _, tool := range []string{"btrfs", "find", "sha256sum", "stat", "getfattr", "mount"} {
		require.Tool(t, tool)
	}
	source := loopbtrfs.Mount(t, loopbtrfs.Options{Size: 4 << 30, MountOptions: "nodev,nosuid"})
	target := loopbtrfs.Mount(t, loopbtrfs.Options{Size: 4 << 30, MountOptions: "nodev,nosuid"})
	commands, encoded := map[sendstream.Kind]int{}, map[sendstream.Compression]int{}
	start := time.Now()
	for i := range n {
		c := &testCase{seed: seed + uint64(i), source: source, target: target, commands: commands, encoded: encoded}
		if !t.Run(fmt.Sprintf("seed=%d", c.seed), c.run) {
			t.Logf("repeat: GB_TORTURE=1 GB_TORTURE_CASES=1 GB_TORTURE_SEED=%d go test -run TestTorture", c.seed)
		}
		if (i+1)%100 == 0 {
			t.Logf("%d cases, %v", i+1, time.Since(start).Round(time.Second))
		}
	}
	t.Logf("%d cases from seed %d: commands %v, encoded writes %v", n, seed, commands, encoded)
	if n < 12 || t.Failed() {
		return
	}
	// Or the generator doesn't do its work.
	for kind := sendstream.KindSubvol; kind <= sendstream.KindEncodedWrite; kind++ {
		if commands[kind] == 0 {
			t.Errorf("no %v in any stream", kind)
		}
	}
	for _, k := range []sendstream.Compression{sendstream.CompressionZlib, sendstream.CompressionZstd, sendstream.CompressionLZO4K} {
		if encoded[k] == 0 {
			t.Errorf("no %v in any stream", k)
		}
	}
}

// A testCase is one random tree with its snapshots and their streams.
type testCase struct {
	seed           uint64
	source, target string // file systems
	commands       map[sendstream.Kind]int
	encoded        map[sendstream.Compression]int

	r     *rand.Rand
	src   string // directory of this case on source
	snaps []string
}

func (c *testCase) run(t *testing.T) {
	c.r = rand.New(rand.NewPCG(c.seed, 1))
	options := mountOptions[c.r.IntN(len(mountOptions))]
	run(t, "mount", "-o", "remount,nodev,nosuid,"+options, c.source)
	c.src = filepath.Join(c.source, fmt.Sprint("case", c.seed))
	if err := os.Mkdir(c.src, 0o755); err != nil {
		t.Fatal(err)
	}
	defer deleteSubvolumes(t, c.src)
	c.grow(t)

	// All intermediate states of one kind of stream are compared, of the
	// others the last.
	whole := c.r.IntN(len(protocols))
	for i, p := range protocols {
		var streams [][]byte
		for j, snap := range c.snaps {
			args := append([]string{"send", "-q"}, p.flags...)
			if j > 1 {
				args = append(args, "-p", c.snaps[j-1], "-c", c.snaps[0])
			}
			streams = append(streams, []byte(output(t, c.src, "btrfs", append(args, snap)...)))
		}
		t.Logf("%s, %s", options, p.name)
		c.compareDumps(t, streams)
		c.compareTrees(t, streams, i == whole)
	}
	c.special(t)
}

// grow makes the subvolumes and their read-only snapshots: snaps[0] of another
// subvolume, to clone from, and the others of the one that changes.
func (c *testCase) grow(t *testing.T) {
	other, main := filepath.Join(c.src, "other"), filepath.Join(c.src, "main")
	run(t, "btrfs", "subvolume", "create", other)
	run(t, "btrfs", "subvolume", "create", main)
	g := newGenerator(t, c.seed, main, other)
	if err := g.makeOther(other); err != nil {
		t.Fatal(err)
	}
	snapshot := func(of, name string) {
		snap := filepath.Join(c.src, name)
		run(t, "btrfs", "subvolume", "snapshot", "-r", of, snap)
		c.snaps = append(c.snaps, snap)
	}
	snapshot(other, "o1")
	for i := range 2 + c.r.IntN(3) {
		g.run(10 + c.r.IntN(90))
		snapshot(main, fmt.Sprint("s", i+1))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("operations:\n%s", strings.Join(g.log, "\n"))
		}
	})
}

// compareDumps holds our text against that of the installed btrfs-progs, and
// of another program if GB_DUMP_NEWEST names one that prints the newest text.
func (c *testCase) compareDumps(t *testing.T, streams [][]byte) {
	t.Helper()
	for _, raw := range streams {
		oracles := map[sendstream.Progs]*exec.Cmd{installedProgs(t): exec.Command("btrfs", "receive", "--dump")}
		if newest := os.Getenv("GB_DUMP_NEWEST"); newest != "" {
			oracles[sendstream.ProgsNewest] = exec.Command(newest)
		}
		for progs, oracle := range oracles {
			oracle.Stdin = bytes.NewReader(raw)
			want, err := oracle.Output()
			if err != nil {
				t.Fatalf("%v: %v", oracle, err)
			}
			var got bytes.Buffer
			r := sendstream.NewReader(bytes.NewReader(raw), sendstream.Options{})
			if err := sendstream.WriteText(&got, r, sendstream.TextOptions{Progs: progs}); err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Fatalf("dump (+ ours, - that of btrfs-progs):\n%s", diff(got.String(), string(want)))
			}
		}
		// Written again, a stream is the same.
		var again bytes.Buffer
		w := sendstream.NewWriter(&again)
		r := sendstream.NewReader(bytes.NewReader(raw), sendstream.Options{})
		for cmd, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			c.commands[cmd.Kind()]++
			if e, ok := cmd.(*sendstream.EncodedWrite); ok {
				c.encoded[e.Compression]++
			}
			if err := w.WriteCommand(cmd); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again.Bytes(), raw) {
			at := 0
			for again.Bytes()[at] == raw[at] {
				at++
			}
			t.Fatalf("a stream that was read and written differs at offset %d", at)
		}
	}
}

// compareTrees applies the streams with btrfs receive, to a Dir and to a
// Memory, and compares.
func (c *testCase) compareTrees(t *testing.T, streams [][]byte, whole bool) {
	t.Helper()
	received := filepath.Join(c.target, "received")
	replayed := filepath.Join(c.target, "replayed")
	for _, dir := range []string{received, replayed} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer deleteSubvolumes(t, dir)
	}
	all := bytes.Join(streams, nil)
	since := time.Now()
	receive(t, received, all)

	want, now := map[string]string{}, map[string]map[string]bool{}
	for i, snap := range c.snaps {
		name := filepath.Base(snap)
		if whole || i == len(c.snaps)-1 {
			want[name], now[name] = walk(t, filepath.Join(received, name), since)
		}
	}
	c.replayDir(t, replayed, all)
	for name := range want {
		if got, _ := walk(t, filepath.Join(replayed, name), since); got != want[name] {
			t.Fatalf("%s in a directory (+ replayed, - received):\n%s", name, diff(got, want[name]))
		}
	}
	memory := new(sendstream.Memory)
	if err := sendstream.Replay(memory, sendstream.NewReader(bytes.NewReader(all), sendstream.Options{})); err != nil {
		t.Fatal(err)
	}
	for s := range memory.Subvolumes() {
		if want[s.Path] == "" {
			continue
		}
		if got := walkMemory(t, s, now[s.Path]); got != want[s.Path] {
			t.Fatalf("%s in memory (+ replayed, - received):\n%s", s.Path, diff(got, want[s.Path]))
		}
	}
}

func receive(t *testing.T, dir string, stream []byte) {
	t.Helper()
	cmd := exec.Command("btrfs", "-q", "receive", dir)
	cmd.Stdin = bytes.NewReader(stream)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("btrfs receive: %v\n%s", err, out)
	}
}

// replayDir applies streams to subvolumes that it makes in dir.
func (c *testCase) replayDir(t *testing.T, dir string, streams []byte) {
	t.Helper()
	made := map[sendstream.UUID]string{}
	find := func(uuid sendstream.UUID) (string, error) {
		if path := made[uuid]; path != "" {
			return path, nil
		}
		return "", fmt.Errorf("%w: %v", sendstream.ErrParent, uuid)
	}
	d := &sendstream.Dir{
		Devices: true,
		Begin: func(cmd sendstream.Command) (string, error) {
			path := filepath.Join(dir, string(cmd.Target()))
			switch cmd := cmd.(type) {
			case *sendstream.Subvol:
				run(t, "btrfs", "subvolume", "create", path)
				made[cmd.UUID] = path
			case *sendstream.Snapshot:
				parent, err := find(cmd.ParentUUID)
				if err != nil {
					return "", err
				}
				run(t, "btrfs", "subvolume", "snapshot", parent, path)
				made[cmd.UUID] = path
			}
			return path, nil
		},
		Source: func(uuid sendstream.UUID, _ uint64) (string, error) { return find(uuid) },
	}
	err := sendstream.Replay(d, sendstream.NewReader(bytes.NewReader(streams), sendstream.Options{}))
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// special compares the kinds of stream that have a form of their own: several
// subvolumes with one header and one end, and no data.
func (c *testCase) special(t *testing.T) {
	switch c.r.IntN(3) {
	case 0:
		stream := []byte(output(t, c.src, "btrfs", "send", "-q", "-e", c.snaps[0], c.snaps[1]))
		r := sendstream.NewReader(bytes.NewReader(stream), sendstream.Options{})
		counts := map[sendstream.Kind]int{}
		for cmd, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			counts[cmd.Kind()]++
		}
		if counts[sendstream.KindHeader] != 1 || counts[sendstream.KindEnd] != 1 || counts[sendstream.KindSubvol]+counts[sendstream.KindSnapshot] != 2 {
			t.Fatalf("send -e: %v", counts)
		}
		c.compareDumps(t, [][]byte{stream})
	case 1:
		last := len(c.snaps) - 1
		stream := []byte(output(t, c.src, "btrfs", "send", "-q", "--no-data", "--proto", fmt.Sprint(1+c.r.IntN(2)), "-p", c.snaps[last-1], c.snaps[last]))
		c.compareDumps(t, [][]byte{stream})
	}
}

// walkMemory describes a subvolume in the words of walk; now are the directories
// whose mtime the stream leaves open.
func walkMemory(t *testing.T, s *sendstream.Subvolume, now map[string]bool) string {
	t.Helper()
	letters := map[uint32]string{sendstream.ModeSocket: "s", sendstream.ModeSymlink: "l", sendstream.ModeRegular: "f",
		sendstream.ModeBlock: "b", sendstream.ModeDir: "d", sendstream.ModeChar: "c", sendstream.ModeFifo: "p"}
	var lines []string
	for f := range s.Names().Files() {
		paths := f.Paths()
		sort.Strings(paths)
		size := "0"
		switch f.Mode & sendstream.ModeType {
		case sendstream.ModeDir:
			size = "-"
		case sendstream.ModeRegular:
			size = fmt.Sprint(f.Size)
		case sendstream.ModeSymlink:
			size = fmt.Sprint(len(f.Dest))
		}
		for _, path := range paths {
			mtime := fmt.Sprintf("%d.%09d0", f.Mtime.Sec, f.Mtime.Nsec)
			if now[path] {
				mtime = "now"
			}
			lines = append(lines, fmt.Sprintf("%q is %s %o owner %d:%d links %d as %q size %s mtime %s to %q", path,
				letters[f.Mode&sendstream.ModeType], f.Mode&0o7777, f.UID, f.GID, f.Nlink, paths[0], size, mtime, f.Dest))
			switch f.Mode & sendstream.ModeType {
			case sendstream.ModeRegular:
				h := sha256.New()
				if n, err := io.Copy(h, s.Open(f)); err != nil || uint64(n) != f.Size {
					t.Fatalf("read %q: %d bytes, %v", path, n, err)
				}
				lines = append(lines, fmt.Sprintf("%q has sha256 %x", path, h.Sum(nil)))
			case sendstream.ModeBlock, sendstream.ModeChar:
				lines = append(lines, fmt.Sprintf("%q is device %x:%x", path, unix.Major(f.Rdev), unix.Minor(f.Rdev)))
			}
			for name, value := range f.Xattrs() {
				lines = append(lines, fmt.Sprintf("%q has %q = %x", path, name, value))
			}
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// installedProgs returns the text that the installed btrfs-progs print.
func installedProgs(t *testing.T) sendstream.Progs {
	version := strings.Fields(output(t, "/", "btrfs", "--version"))[1]
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err1 != nil || err2 != nil {
		t.Fatalf("btrfs-progs %s", version)
	}
	if a < 6 || a == 6 && b < 10 {
		return sendstream.Progs62
	}
	return sendstream.ProgsNewest
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// deleteSubvolumes deletes the subvolumes in dir, and dir.
func deleteSubvolumes(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"subvolume", "delete"}
	for _, e := range entries {
		args = append(args, filepath.Join(dir, e.Name()))
	}
	if len(entries) > 0 {
		run(t, "btrfs", args...)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
}
