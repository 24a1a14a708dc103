package sendstream

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
)

// sample has one command of each type that a version defines.
func sample(version uint32) []Command {
	path := []byte("dir/\xff\n file")
	cmds := []Command{
		&Header{Version: version},
		&Subvol{Path: []byte("sub"), UUID: UUID{1, 2, 3}, Ctransid: 7},
		&Snapshot{Path: []byte("snap"), UUID: UUID{4}, Ctransid: 9, ParentUUID: UUID{1, 2, 3}, ParentCtransid: 7},
		&Mkfile{Path: []byte("o257-8-0"), Ino: 257},
		&Mkdir{Path: []byte("dir"), Ino: 258},
		&Mknod{Path: []byte("null"), Ino: 259, Mode: 0o20666, Rdev: 0x103},
		&Mkfifo{Path: []byte("fifo"), Ino: 260, Mode: 0o10600},
		&Mksock{Path: []byte("sock"), Ino: 261},
		&Symlink{Path: []byte("link"), Ino: 262, Dest: []byte("/../etc")},
		&Rename{Path: []byte("o257-8-0"), To: path},
		&Link{Path: []byte("hard"), Existing: path},
		&Unlink{Path: []byte("hard")},
		&Rmdir{Path: []byte("gone")},
		&SetXattr{Path: path, Name: []byte("user.a"), Value: []byte{0, 1, 2}},
		&RemoveXattr{Path: path, Name: []byte("user.a")},
		&Write{Path: path, Offset: 4096, Data: []byte("hello")},
		&Clone{Path: path, Offset: 8192, Len: 4096, SourceUUID: UUID{4}, SourceCtransid: 9, SourcePath: path, SourceOffset: 4096},
		&Truncate{Path: path, Size: 5000},
		&Chmod{Path: path, Mode: 0o644},
		&Chown{Path: path, UID: 1000, GID: 100},
		&Utimes{Path: []byte{}, Atime: Timespec{1, 2}, Mtime: Timespec{-3, 4}, Ctime: Timespec{5, 6}},
		&UpdateExtent{Path: path, Offset: 4096, Len: 4096},
	}
	if version >= 2 {
		cmds = append(cmds,
			&Utimes{Path: path, Otime: Timespec{7, 8}, HasOtime: true},
			&Fallocate{Path: path, Mode: FallocKeepSize | FallocPunchHole, Offset: 4096, Len: 8192},
			&Fileattr{Path: path, Flags: 0x10},
			&EncodedWrite{Path: path, Offset: 0, UnencodedFileLen: 3, UnencodedLen: 5, UnencodedOffset: 1, Data: []byte("abcde")},
			&Write{Path: path, Offset: 1, Data: bytes.Repeat([]byte("x"), 100000)},
		)
	}
	if version >= 3 {
		cmds = append(cmds, &EnableVerity{Path: path, Algorithm: 1, BlockSize: 4096, Salt: []byte("salt"), Signature: []byte{}})
	}
	return append(cmds, &End{})
}

func encode(t testing.TB, cmds ...Command) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, c := range cmds {
		if err := w.WriteCommand(c); err != nil {
			t.Fatalf("%v: %v", c.Kind(), err)
		}
	}
	return b.Bytes()
}

func readAll(src io.Reader, opts Options) ([]Command, error) {
	var cmds []Command
	r := NewReader(src, opts)
	for {
		c, err := r.Next()
		if err != nil {
			return cmds, err
		}
		cmds = append(cmds, Copy(c))
	}
}

func TestReaderGivesWhatWriterWrote(t *testing.T) {
	for version := uint32(1); version <= MaxVersion; version++ {
		want := append(sample(version), sample(1)...) // two streams in a row
		raw := encode(t, want...)
		for name, src := range map[string]io.Reader{
			"whole":         bytes.NewReader(raw),
			"byte by byte":  iotest.OneByteReader(bytes.NewReader(raw)),
			"data with EOF": iotest.DataErrReader(bytes.NewReader(raw)),
		} {
			got, err := readAll(src, Options{})
			if err != io.EOF {
				t.Fatalf("version %d, %s: %v", version, name, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("version %d, %s: got\n%+v\nwant\n%+v", version, name, got, want)
			}
		}
	}
}

func TestReaderRefusesEachCutAndEachFlippedBit(t *testing.T) {
	raw := encode(t, sample(1)...)
	for cut := range raw {
		_, err := readAll(bytes.NewReader(raw[:cut]), Options{})
		switch {
		case cut == 0 && errors.Is(err, ErrEmpty):
		case errors.Is(err, ErrTruncated), errors.Is(err, ErrNoEnd):
		default:
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	for bit := range len(raw) * 8 {
		flipped := bytes.Clone(raw)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := readAll(bytes.NewReader(flipped), Options{}); err == io.EOF {
			// No checksum covers the header: a 1 can become a 3.
			if bit/8 >= len(magic) && bit/8 < headerSize {
				continue
			}
			t.Fatalf("bit %d of byte %d flipped: accepted", bit%8, bit/8)
		}
	}
}
