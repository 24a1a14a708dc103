package sendstream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var writeStreams = flag.String("write-streams", "", "write the streams of the dump tests to this directory, for btrfs receive --dump")

// dumpSample is a stream whose text tells releases of btrfs-progs apart, and
// any mistake in escaping and alignment.
func dumpSample() []Command {
	var odd []byte
	for c := 1; c < 256; c++ {
		if c != '/' {
			odd = append(odd, byte(c))
		}
	}
	value := append([]byte{'a', 0}, odd...)
	cmds := []Command{
		&Header{Version: 3},
		&Chmod{Path: []byte{}, Mode: 0o7777},
		&Subvol{Path: []byte("sub vol\n"), UUID: UUID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, Ctransid: 1<<64 - 1},
		&Snapshot{Path: []byte("s"), UUID: UUID{1}, Ctransid: 1, ParentUUID: UUID{2}, ParentCtransid: 3},
		&Mkfile{Path: odd, Ino: 300},
		&SetXattr{Path: []byte("x"), Name: append([]byte("user."), odd...), Value: value},
		&SetXattr{Path: []byte{}, Name: []byte("user.empty"), Value: []byte{}},
		&RemoveXattr{Path: []byte("x"), Name: odd},
		&Symlink{Path: []byte("l"), Ino: 1, Dest: odd},
		&Rename{Path: odd, To: odd},
		&Link{Path: odd, Existing: odd},
		&Clone{Path: odd, Offset: 1 << 62, Len: 5, SourceUUID: UUID{9}, SourcePath: odd, SourceOffset: 7},
		&Mknod{Path: []byte("n"), Ino: 1, Mode: 1<<64 - 1, Rdev: 1<<64 - 1},
		&Truncate{Path: []byte("f"), Size: 1<<63 - 1},
		&Chown{Path: []byte("f"), UID: 1<<64 - 1, GID: 0},
		&Fallocate{Path: []byte("f"), Mode: 1 << 31, Offset: 1, Len: 1<<63 - 2},
		&Fileattr{Path: []byte("f"), Flags: 255},
		&Utimes{Path: []byte("f"), Atime: Timespec{-1, 0}, Mtime: Timespec{1<<33 + 1, 5}, Ctime: Timespec{-62198755200, 1 << 31}},
		&Utimes{Path: []byte("f"), Atime: Timespec{253402300800, 0}, Mtime: Timespec{67767976233532799, 5}, Ctime: Timespec{67768036191676799, 0}},
	}
	for n := 20; n < 40; n++ { // around the width of the column
		cmds = append(cmds, &Truncate{Path: bytes.Repeat([]byte("p"), n)}, &Unlink{Path: bytes.Repeat([]byte("p"), n)})
	}
	return append(cmds, sample(3)[3:]...)
}

// The golden files are the output of btrfs receive --dump of the releases that
// their names say, on the files that -write-streams leaves (TZ=UTC; 6.2 knows
// no version 3, so its stream says 2).
func TestTextIsThatOfBtrfsProgs(t *testing.T) {
	raw := encode(t, dumpSample()...)
	raw2 := bytes.Clone(raw)
	raw2[len(magic)] = 2
	if *writeStreams != "" {
		for name, b := range map[string][]byte{"dump-6.19.stream": raw, "dump-6.2.stream": raw2} {
			if err := os.WriteFile(filepath.Join(*writeStreams, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		raw    []byte
		progs  Progs
		golden string
	}{
		{"newest", raw, ProgsNewest, "dump-6.19.txt"},
		{"6.2", raw2, Progs62, "dump-6.2.txt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", test.golden))
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			// What follows an END is not printed.
			input := bytes.NewReader(append(bytes.Clone(test.raw), raw...))
			err = WriteText(&got, NewReader(input, Options{Lenient: true}), TextOptions{Progs: test.progs, Location: time.UTC})
			if err != nil {
				t.Fatal(err)
			}
			compareLines(t, got.String(), string(want))
		})
	}
	if err := WriteText(io.Discard, NewReader(bytes.NewReader(raw), Options{}), TextOptions{Progs: "5.0"}); err == nil {
		t.Error("an unknown release is accepted")
	}
}

func compareLines(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d:\ngot  %q\nwant %q", i+1, g[i], w[i])
		}
	}
	t.Fatalf("got %d lines, want %d", len(g), len(w))
}

func TestTextStopsWhereBtrfsProgsDoes(t *testing.T) {
	good := []Command{&Header{Version: 1}, &Subvol{Path: []byte("s")}, &Mkfile{Path: []byte("f"), Ino: 1}}
	for name, bad := range map[string]Command{
		"long path":   &Mkfile{Path: bytes.Repeat([]byte("x"), pathMax-len("./s")-2)},
		"long subvol": &Subvol{Path: bytes.Repeat([]byte("x"), pathMax-3)},
		"long target": &Rename{Path: []byte("f"), To: bytes.Repeat([]byte("x"), pathMax)},
		"no year":     &Utimes{Path: []byte("f"), Mtime: Timespec{Sec: 67768036191676800}},
		"no time":     &Utimes{Path: []byte("f"), Ctime: Timespec{Sec: -1 << 63}},
	} {
		var got bytes.Buffer
		err := WriteText(&got, NewReader(bytes.NewReader(encode(t, append(good, bad, &End{})...)), Options{}), TextOptions{Location: time.UTC})
		if e, ok := err.(*Error); !ok || e.Command != 3 || e.Kind != bad.Kind() {
			t.Errorf("%s: %v", name, err)
		}
		if n := strings.Count(got.String(), "\n"); n != 2 {
			t.Errorf("%s: %d lines before the error, want 2", name, n)
		}
	}
	fits := &Mkfile{Path: bytes.Repeat([]byte("x"), pathMax-len("./s")-3)}
	if err := WriteText(io.Discard, NewReader(bytes.NewReader(encode(t, append(good, fits, &End{})...)), Options{}), TextOptions{}); err != nil {
		t.Error(err)
	}
}

func TestTextOfAllStreams(t *testing.T) {
	raw := encode(t, append(sample(1), sample(2)...)...)
	lines := func(all bool) int {
		var got bytes.Buffer
		if err := WriteText(&got, NewReader(bytes.NewReader(raw), Options{}), TextOptions{All: all}); err != nil {
			t.Fatal(err)
		}
		return strings.Count(got.String(), "\n")
	}
	if one, all := lines(false), lines(true); one != len(sample(1))-2 || all != one+len(sample(2))-2 {
		t.Errorf("%d lines of the first stream, %d of both", one, all)
	}
}

func TestJSONIsOneObjectACommand(t *testing.T) {
	cmds := append(sample(3), &Header{Version: 1}, &Symlink{Path: []byte("\xff\"\\\n\x7f"), Dest: []byte("ü")}, &End{})
	raw := encode(t, cmds...)
	var got bytes.Buffer
	if err := WriteJSON(&got, NewReader(bytes.NewReader(raw), Options{}), JSONOptions{Data: true}); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&got)
	n := 0.0
	for i, c := range cmds {
		var o map[string]any
		if err := d.Decode(&o); err != nil {
			t.Fatalf("object %d: %v", i, err)
		}
		if o["command"] != c.Kind().String() {
			t.Fatalf("object %d: %v instead of %v", i, o["command"], c.Kind())
		}
		if c.Kind() != KindHeader {
			if n++; o["n"] != n {
				t.Fatalf("object %d: number %v instead of %v", i, o["n"], n)
			}
		}
		if path := c.Target(); path != nil {
			want := strings.ToValidUTF8(string(path), "\ufffd")
			if o["path"] != want {
				t.Errorf("object %d: path %q instead of %q", i, o["path"], want)
			}
			exact, ok := o["path_base64"]
			if ok != (want != string(path)) || ok && exact != base64.StdEncoding.EncodeToString(path) {
				t.Errorf("object %d: path_base64 %v for %q", i, exact, path)
			}
		}
		if w, ok := c.(*Write); ok && o["data"] != base64.StdEncoding.EncodeToString(w.Data) {
			t.Errorf("object %d: data %v", i, o["data"])
		}
	}
	if _, err := d.Token(); err != io.EOF {
		t.Errorf("after the last object: %v", err)
	}

	got.Reset()
	j := jsonDumper{}
	j.time("a", Timespec{1700000000, 1})
	j.time("b", Timespec{1 << 60, 2e9})
	if want := `,"a":"2023-11-14T22:13:20.000000001Z","b":"@1152921504606846976.2000000000"`; string(j.out) != want {
		t.Errorf("times: %s, want %s", j.out, want)
	}
}
