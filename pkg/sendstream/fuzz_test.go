package sendstream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"testing"
)

// seeds adds streams, made and recorded, to a fuzz corpus. They are kept small,
// or a fuzzer spends its time in minimising them.
func seeds(f *testing.F) {
	for version := uint32(1); version <= MaxVersion; version++ {
		f.Add(encode(f, short(sample(version))...))
	}
	for _, name := range []string{"plain-v1", "zlib", "zstd", "lzo"} {
		raw, err := os.ReadFile("testdata/" + name + ".stream")
		if err != nil {
			f.Fatal(err)
		}
		cmds, err := readAll(bytes.NewReader(raw), Options{})
		if err != io.EOF {
			f.Fatal(err)
		}
		f.Add(encode(f, short(cmds)...))
	}
}

// short leaves out what writes much.
func short(cmds []Command) []Command {
	return slices.DeleteFunc(cmds, func(c Command) bool {
		switch c := c.(type) {
		case *Write:
			return len(c.Data) > 300
		case *EncodedWrite:
			return len(c.Data) > 300
		}
		return false
	})
}

// fix sets the checksums of commands right, so that a fuzzer comes to what is
// behind them.
func fix(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b; ; {
		if len(rest) >= headerSize && string(rest[:len(magic)]) == magic {
			rest = rest[headerSize:]
		}
		if len(rest) < cmdHeaderSize {
			return b
		}
		size := cmdHeaderSize + int(rest[0]) + int(rest[1])<<8 + int(rest[2])<<16
		if rest[3] != 0 || size > len(rest) {
			return b
		}
		copy(rest[6:], []byte{0, 0, 0, 0})
		sum := checksum(rest[:size])
		copy(rest[6:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
		rest = rest[size:]
	}
}

// Whatever the bytes, strict or lenient, nothing that reads them panics, and
// all that refuses them says where.
func FuzzReaderNeverPanics(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, b := range [][]byte{raw, fix(raw)} {
			for _, opts := range []Options{{}, {Lenient: true, MaxCommand: 5000}} {
				r := NewReader(bytes.NewReader(b), opts)
				var err error
				for err == nil {
					before := r.Offset()
					var c Command
					if c, err = r.Next(); err == nil {
						if r.CommandOffset() != before || r.Offset() <= before {
							t.Fatalf("command at %d, from %d to %d", r.CommandOffset(), before, r.Offset())
						}
						if e, ok := c.(*EncodedWrite); ok {
							data, derr := r.Decode(e)
							if derr == nil && uint64(len(data)) != e.UnencodedFileLen {
								t.Fatalf("decoded %d bytes instead of %d", len(data), e.UnencodedFileLen)
							}
						}
					}
				}
				var e *Error
				if err != io.EOF && (!errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(b))) {
					t.Fatalf("%#v", err)
				}
				WriteText(io.Discard, NewReader(bytes.NewReader(b), opts), TextOptions{All: true})
				WriteJSON(io.Discard, NewReader(bytes.NewReader(b), opts), JSONOptions{Data: true})
				Replay(&Memory{MaxBytes: 1 << 20}, NewReader(bytes.NewReader(b), opts))
			}
		}
	})
}

// What a Reader accepts, a Writer can write, and a Reader then reads the same.
// The second writing has the very bytes of the first.
func FuzzRoundTrip(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		first, err := readAll(bytes.NewReader(fix(raw)), Options{})
		if len(first) == 0 {
			return
		}
		var bytes1, bytes2 bytes.Buffer
		w := NewWriter(&bytes1)
		for _, c := range first {
			if err := w.WriteCommand(c); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
		}
		second, err2 := readAll(bytes.NewReader(bytes1.Bytes()), Options{})
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("read\n%+v\nwrote and read\n%+v (%v)", first, second, err2)
		}
		if (err == io.EOF) && err2 != io.EOF {
			t.Fatalf("the whole stream was read, and written is not: %v", err2)
		}
		w = NewWriter(&bytes2)
		for _, c := range second {
			if err := w.WriteCommand(c); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(bytes1.Bytes(), bytes2.Bytes()) {
			t.Fatal("written twice, the bytes differ")
		}
	})
}

// A block that decodes does so within its room, and the same way again.
func FuzzLZONeverLeavesItsRoom(f *testing.F) {
	_, blocks := lzoVectors(f)
	for _, b := range blocks {
		if len(b) < 2000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		room := make([]byte, 4096+16)
		for i := range room {
			room[i] = 0xa5
		}
		n, err := lzo1x(room[:4096:4096], block)
		if n > 4096 || bytes.Count(room[4096:], []byte{0xa5}) != 16 {
			t.Fatal("wrote beyond its room")
		}
		if err != nil {
			return
		}
		again := make([]byte, n)
		if m, err := lzo1x(again, block); err != nil || m != n || !bytes.Equal(again, room[:n]) {
			t.Fatalf("%d bytes, then %d: %v", n, m, err)
		}
	})
}
