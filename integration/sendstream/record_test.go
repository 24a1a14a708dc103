//go:build linux && record

package sendstream_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
)

var record = flag.String("record", "", "record streams into this directory, which is pkg/sendstream/testdata")

// TestRecord makes the recorded streams in pkg/sendstream/testdata, each a full
// and an incremental one, and what find and sha256sum say of the two subvolumes
// that btrfs receive made of it. It is no test of anything, so it is built with
// its tag only:
//
//	go test -tags record ./integration/sendstream -run TestRecord -record $PWD/pkg/sendstream/testdata
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Fatal("-record DIRECTORY is missing")
	}
	require.Tool(t, "btrfs")
	for _, kind := range []struct {
		name, options string
		flags         []string
	}{
		{"plain-v1", "compress=no", []string{"--proto", "1"}},
		{"plain-v2", "compress=no", []string{"--proto", "2"}},
		{"zlib", "compress-force=zlib", []string{"--proto", "2", "--compressed-data"}},
		{"zstd", "compress-force=zstd", []string{"--proto", "2", "--compressed-data"}},
		{"lzo", "compress-force=lzo", []string{"--proto", "2", "--compressed-data"}},
	} {
		source := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: kind.options})
		target := loopbtrfs.Mount(t, loopbtrfs.Options{})
		tree := filepath.Join(source, "tree")
		run(t, "btrfs", "subvolume", "create", tree)
		for i, change := range []func(string) error{recordFirst, recordSecond} {
			if err := change(tree); err != nil {
				t.Fatal(err)
			}
			run(t, "btrfs", "subvolume", "snapshot", "-r", tree, filepath.Join(source, fmt.Sprint("s", i+1)))
		}
		var stream []byte
		for _, args := range [][]string{{"s1"}, {"-p", "s1", "s2"}} {
			stream = append(stream, output(t, source, "btrfs", append(append([]string{"send", "-q"}, kind.flags...), args...)...)...)
		}
		receive(t, target, stream)
		base := filepath.Join(*record, kind.name)
		if err := os.WriteFile(base+".stream", stream, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(base+".tree", []byte(listing(t, target, "s1")+listing(t, target, "s2")), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", kind.name, len(stream))
	}
}

// listing has a line for each file of a subvolume: the path, quoted, type,
// permissions, links, size (0 for directories) and hash.
func listing(t *testing.T, dir, name string) string {
	var lines []string
	fields := strings.Split(output(t, dir, "find", name, "-printf", `%p\0%y\0%m\0%n\0%s\0`), "\x00")
	for ; len(fields) > 5; fields = fields[5:] {
		path, typ, size, hash := fields[0], fields[1], fields[4], "-"
		switch typ {
		case "d":
			size = "0"
		case "f":
			hash = strings.Fields(output(t, dir, "sha256sum", "-z", path))[0]
		}
		lines = append(lines, fmt.Sprintf("%q %s %s %s %s %s\n", path, typ, fields[2], fields[3], size, hash))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// text is n lines that compress well.
func text(n, from int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "%06d a line of the log, and of no other file\n", from+i)
	}
	return b.Bytes()
}

func recordFirst(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []func() error{
		func() error { return os.WriteFile(at("log"), text(400, 0), 0o640) },
		func() error { return os.WriteFile(at("small"), []byte(strings.Repeat("inline ", 30)), 0o600) },
		func() error {
			return os.WriteFile(at("noise"), []byte("\x8f\x01\xe3 not long enough to compress"), 0o600)
		},
		func() error { return os.Mkdir(at("dir"), 0o755) },
		func() error { return os.Mkdir(at("dir/sub"), 0o700) },
		func() error { return os.WriteFile(at("dir/sub/new\nline \xff\\"), text(3, 7), 0o644) },
		func() error { return os.Link(at("log"), at("dir/hard")) },
		func() error { return os.Symlink("../nowhere", at("link")) },
		func() error { return unix.Mkfifo(at("fifo"), 0o600) },
		func() error { return unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		func() error { return unix.Lsetxattr(at("log"), "user.origin", []byte("here\x00there"), 0) },
		func() error { return os.WriteFile(at("big"), text(1200, 0), 0o644) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func recordSecond(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []func() error{
		func() error { return os.Rename(at("log"), at("log.1")) },
		func() error { return os.WriteFile(at("log"), text(5, 400), 0o640) },
		func() error {
			f, err := os.OpenFile(at("dir/hard"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(text(2, 900))
			return err
		},
		func() error { return os.Rename(at("dir"), at("moved")) },
		func() error { return os.Rename(at("moved/sub"), at("dir")) },
		func() error { return os.Rename(at("moved"), at("dir/below")) },
		func() error { return os.Truncate(at("small"), 5) },
		func() error { return os.Remove(at("fifo")) },
		func() error { return unix.Lremovexattr(at("log.1"), "user.origin") },
		func() error { return os.Chmod(at("noise"), 0o4711) },
		func() error { return os.Chown(at("noise"), 5, 6) },
		func() error {
			big, err := os.OpenFile(at("big"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer big.Close()
			copied, err := os.Create(at("copy"))
			if err != nil {
				return err
			}
			defer copied.Close()
			if err := unix.IoctlFileClone(int(copied.Fd()), int(big.Fd())); err != nil {
				return err
			}
			return unix.Fallocate(int(big.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 20000)
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
