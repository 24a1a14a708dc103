package sendstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// command makes the bytes of a command from its payload, with a right checksum.
func command(kind Kind, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint16(b, uint16(kind))
	b = append(append(b, 0, 0, 0, 0), payload...)
	binary.LittleEndian.PutUint32(b[6:], checksum(b))
	return b
}

func attr(typ int, value ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(typ))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

func header(version uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte(magic), version)
}

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestAttributeOrderIsFreeAndTheLastCounts(t *testing.T) {
	raw := join(header(1),
		command(KindTruncate, join(attr(attrSize, u64(1)...), attr(attrPath, 'o', 'l', 'd'), attr(attrSize, u64(2)...), attr(attrPath, 'n'))),
		command(KindWrite, join(attr(attrData, 'd'), attr(attrFileOffset, u64(9)...), attr(attrPath, 'n'))),
		command(KindEnd, attr(attrUID, 1, 2))) // an attribute that isn't asked for is of no matter
	cmds, err := readAll(bytes.NewReader(raw), Options{})
	if err != io.EOF {
		t.Fatal(err)
	}
	if c := cmds[1].(*Truncate); c.Size != 2 || string(c.Path) != "n" {
		t.Errorf("%+v", c)
	}
	if c := cmds[2].(*Write); c.Offset != 9 || string(c.Data) != "d" {
		t.Errorf("%+v", c)
	}
}

func TestReaderRefuses(t *testing.T) {
	path := attr(attrPath, 'f')
	long := make([]byte, 100)
	for name, test := range map[string]struct {
		raw    []byte
		want   error
		offset int64
		number uint64
	}{
		"nothing":                  {nil, ErrEmpty, 0, 0},
		"a header alone":           {header(1), ErrNoEnd, 17, 1},
		"a part of a header":       {header(1)[:16], ErrTruncated, 0, 0},
		"another file":             {[]byte("#!/bin/sh\necho hello world"), ErrMagic, 0, 0},
		"a short other file":       {[]byte("hello"), ErrMagic, 0, 0},
		"version 0":                {header(0), ErrVersion, 0, 0},
		"version 4":                {header(4), ErrVersion, 0, 0},
		"garbage after the end":    {join(header(1), command(KindEnd, nil), long), ErrMagic, 27, 1},
		"a part of another header": {join(header(1), command(KindEnd, nil), header(1)[:5]), ErrTruncated, 27, 1},
		"command 0":                {join(header(1), command(0, nil)), ErrUnknownCommand, 17, 1},
		"command 27":               {join(header(3), command(27, nil)), ErrUnknownCommand, 17, 1},
		"version 2 in version 1":   {join(header(1), command(KindFileattr, nil)), ErrUnknownCommand, 17, 1},
		"version 3 in version 2":   {join(header(2), command(KindEnableVerity, nil)), ErrUnknownCommand, 17, 1},
		"attribute 0":              {join(header(1), command(KindEnd, attr(0))), ErrAttribute, 17, 1},
		"attribute 36":             {join(header(1), command(KindEnd, attr(36))), ErrAttribute, 17, 1},
		"attribute cut in type":    {join(header(1), command(KindEnd, []byte{1})), ErrAttribute, 17, 1},
		"attribute cut in length":  {join(header(1), command(KindEnd, []byte{1, 0, 5})), ErrAttribute, 17, 1},
		"attribute cut in value":   {join(header(1), command(KindEnd, []byte{1, 0, 5, 0, 1})), ErrAttribute, 17, 1},
		"attribute missing":        {join(header(1), command(KindMkfile, path)), ErrAttribute, 17, 1},
		"number too short":         {join(header(1), command(KindTruncate, join(path, attr(attrSize, 1, 2, 3)))), ErrAttribute, 17, 1},
		"second command":           {join(header(1), command(KindMkdir, join(path, attr(attrIno, u64(1)...))), command(99, nil)), ErrUnknownCommand, 17 + 10 + 5 + 12, 2},
		"offset beyond 2^63":       {join(header(1), command(KindWrite, join(path, attr(attrFileOffset, u64(1<<63-1)...), attr(attrData, 'x')))), ErrAttribute, 17, 1},
		"size beyond 2^63":         {join(header(1), command(KindTruncate, join(path, attr(attrSize, u64(1<<63)...)))), ErrAttribute, 17, 1},
		"clone that wraps": {join(header(1), command(KindClone, join(path, attr(attrFileOffset, u64(1<<64-1)...), attr(attrCloneLen, u64(2)...),
			attr(attrCloneUUID, make([]byte, 16)...), attr(attrCloneCtransid, u64(0)...), attr(attrClonePath, 'f'), attr(attrCloneOffset, u64(0)...)))), ErrAttribute, 17, 1},
	} {
		for kind, src := range map[string]io.Reader{"": bytes.NewReader(test.raw), ", byte by byte": iotest.OneByteReader(bytes.NewReader(test.raw))} {
			r := NewReader(src, Options{})
			var err error
			for err == nil {
				_, err = r.Next()
			}
			var e *Error
			if !errors.Is(err, test.want) || !errors.As(err, &e) {
				t.Errorf("%s%s: %v, want %v", name, kind, err, test.want)
			} else if e.Offset != test.offset || e.Command != test.number {
				t.Errorf("%s%s: at offset %d command %d, want %d and %d", name, kind, e.Offset, e.Command, test.offset, test.number)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("%s%s: then %v", name, kind, again)
			}
		}
	}
}

func TestReaderRefusesPaths(t *testing.T) {
	for _, path := range []string{"/", "/etc/passwd", "..", "../x", "a/..", "a/../b", ".", "./a", "a/.", "a//b", "a/", "\x00", "a\x00b", "a/b\x00"} {
		for _, raw := range [][]byte{
			command(KindUnlink, attr(attrPath, []byte(path)...)),
			command(KindChmod, join(attr(attrPath, []byte(path)...), attr(attrMode, u64(0)...))),
			command(KindRename, join(attr(attrPath, 'a'), attr(attrPathTo, []byte(path)...))),
			command(KindLink, join(attr(attrPath, 'a'), attr(attrPathLink, []byte(path)...))),
			command(KindSubvol, join(attr(attrPath, []byte(path)...), attr(attrUUID, make([]byte, 16)...), attr(attrCtransid, u64(1)...))),
			command(KindClone, join(attr(attrPath, 'a'), attr(attrFileOffset, u64(0)...), attr(attrCloneLen, u64(2)...),
				attr(attrCloneUUID, make([]byte, 16)...), attr(attrCloneCtransid, u64(0)...), attr(attrClonePath, []byte(path)...), attr(attrCloneOffset, u64(0)...))),
		} {
			_, err := readAll(bytes.NewReader(join(header(1), raw)), Options{Lenient: true})
			if !errors.Is(err, ErrPath) {
				t.Errorf("%q in %v: %v", path, Kind(binary.LittleEndian.Uint16(raw[4:])), err)
			}
		}
	}
	for _, path := range []string{"", "a", "a/b", "...", ".a", "a.", "..a/b..", "\xff\n"} {
		if err := CheckPath([]byte(path)); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	// The empty path is the subvolume: it has a mode, and can't be unlinked.
	for kind, want := range map[Kind]error{KindChmod: ErrNoEnd, KindUnlink: ErrPath} {
		raw := join(header(1), command(kind, join(attr(attrPath), attr(attrMode, u64(0o755)...))))
		if _, err := readAll(bytes.NewReader(raw), Options{}); !errors.Is(err, want) {
			t.Errorf("%v of the subvolume: %v, want %v", kind, err, want)
		}
	}
	// The text of a symbolic link is no path.
	raw := join(header(1), command(KindSymlink, join(attr(attrPath, 'l'), attr(attrIno, u64(1)...), attr(attrPathLink, []byte("/../..")...))))
	if _, err := readAll(bytes.NewReader(raw), Options{}); !errors.Is(err, ErrNoEnd) {
		t.Error(err)
	}
}

func TestLenient(t *testing.T) {
	raw := join(header(1), command(99, []byte("payload")),
		command(KindFileattr, join(attr(99, 'x'), attr(attrPath, 'f'), attr(attrFileattr, u64(1)...))), command(KindEnd, nil))
	cmds, err := readAll(bytes.NewReader(raw), Options{Lenient: true})
	if err != io.EOF || len(cmds) != 4 {
		t.Fatal(cmds, err)
	}
	if c := cmds[1].(*Unknown); c.Number != 99 || string(c.Payload) != "payload" {
		t.Errorf("%+v", c)
	}
	if c := cmds[2].(*Fileattr); c.Flags != 1 {
		t.Errorf("%+v", c)
	}
}

func TestStreamsInARow(t *testing.T) {
	mk := func(name string) Command { return &Mkdir{Path: []byte(name), Ino: 1} }
	end, head := &End{}, &Header{Version: 2}
	sub, snap := &Subvol{Path: []byte("a"), UUID: UUID{1}}, &Snapshot{Path: []byte("b"), UUID: UUID{2}, ParentUUID: UUID{1}}
	for name, test := range map[string]struct {
		cmds []Command
		want error
	}{
		"each with header and end":     {[]Command{head, sub, mk("x"), end, &Header{Version: 1}, snap, mk("y"), end}, io.EOF},
		"one header and one end":       {[]Command{head, sub, mk("x"), snap, mk("y"), end}, io.EOF},
		"headers, and the ends absent": {[]Command{head, sub, mk("x"), head, snap, mk("y")}, ErrNoEnd},
		"the first end absent":         {[]Command{head, sub, mk("x"), head, snap, mk("y"), end}, io.EOF},
	} {
		raw := encode(t, test.cmds...)
		got, err := readAll(iotest.OneByteReader(bytes.NewReader(raw)), Options{})
		if !errors.Is(err, test.want) || len(got) != len(test.cmds) {
			t.Errorf("%s: %d commands, %v", name, len(got), err)
		}
	}
}

// A reader must return a command as soon as its last byte is there: the next
// one may be a second away.
func TestReaderDoesNotWaitForMore(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	r := NewReader(pr, Options{})
	for _, c := range sample(2) {
		raw := encode(t, &Header{Version: 2})
		if _, ok := c.(*Header); !ok {
			raw = encode(t, &Header{Version: 2}, c)[headerSize:]
		}
		go func() {
			for len(raw) > 0 {
				n := min(len(raw), 1000)
				pw.Write(raw[:n])
				raw = raw[n:]
			}
		}()
		got, err := r.Next() // would block for ever
		if err != nil || got.Kind() != c.Kind() {
			t.Fatal(got, err)
		}
	}
}

func TestReaderPassesOnErrorsOfItsSource(t *testing.T) {
	broken := errors.New("broken")
	raw := encode(t, sample(1)...)
	for _, at := range []int{0, 5, headerSize, headerSize + 3, headerSize + 40, len(raw)} {
		src := io.MultiReader(bytes.NewReader(raw[:at]), iotest.ErrReader(broken))
		if _, err := readAll(src, Options{}); !errors.Is(err, broken) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if _, err := readAll(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(raw))), Options{}); !errors.Is(err, iotest.ErrTimeout) {
		t.Error(err)
	}
	if _, err := readAll(nothing{}, Options{}); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

func TestNoAllocationPerCommand(t *testing.T) {
	cmds := sample(3)
	var stream []Command
	for range 200 {
		stream = append(stream, cmds[1:len(cmds)-1]...)
	}
	raw := encode(t, append(append([]Command{cmds[0]}, stream...), &End{})...)
	read := func() {
		r := NewReader(bytes.NewReader(raw), Options{})
		for {
			if _, err := r.Next(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	// The reader, its buffer, its growth, the bytes.Reader: of 5,000 commands
	// none may add to these.
	if n := testing.AllocsPerRun(3, read); n > 6 {
		t.Errorf("%v allocations for %d commands", n, len(stream))
	}
	w := NewWriter(io.Discard)
	write := func() {
		for _, c := range cmds {
			if err := w.WriteCommand(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := testing.AllocsPerRun(10, write); n > 0 {
		t.Errorf("writing: %v allocations for %d commands", n, len(cmds))
	}
}

// allocated returns how many bytes a function allocates, live or not: a bound
// for the memory that it holds at any time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestLengthsThatLieCostNothing(t *testing.T) {
	lie := join(header(2), []byte{0xff, 0xff, 0xff, 0xff, 15, 0, 0, 0, 0, 0})
	n := allocated(func() {
		if _, err := readAll(bytes.NewReader(lie), Options{}); !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	})
	if n > 1<<20 {
		t.Errorf("%d bytes for a length above the limit", n)
	}
	// Within a limit of 4 GiB, memory follows what really comes.
	for _, have := range []int{0, 1 << 20, 8 << 20} {
		n := allocated(func() {
			src := io.MultiReader(bytes.NewReader(lie), io.LimitReader(zeros{}, int64(have)))
			if _, err := readAll(src, Options{MaxCommand: 1<<32 + 100}); !errors.Is(err, ErrTruncated) {
				t.Error(err)
			}
		})
		if n > 1<<20+4*uint64(have) {
			t.Errorf("%d bytes allocated for %d", n, have)
		}
	}
	// A command of exactly the limit passes, one byte more doesn't.
	w := &Write{Path: []byte("f"), Data: make([]byte, 100000)}
	raw := encode(t, &Header{Version: 2}, w, &End{})
	size := len(raw) - headerSize - cmdHeaderSize
	if _, err := readAll(bytes.NewReader(raw), Options{MaxCommand: size}); err != io.EOF {
		t.Error(err)
	}
	if _, err := readAll(bytes.NewReader(raw), Options{MaxCommand: size - 1}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The largest that a reader with default limits ever holds: a buffer of the
// limit, while it grows from half of it, and what decoding takes.
func TestReaderStaysUnder64MiB(t *testing.T) {
	bomb := zstdData(t, make([]byte, 64<<20)) // a few KiB that decode to 64 MiB
	cmds := []Command{&Header{Version: 2}}
	for _, size := range []int{100, 1 << 20, DefaultMaxCommand - 100, 5} {
		cmds = append(cmds, &Write{Path: []byte("f"), Data: make([]byte, size)})
	}
	for _, c := range []Compression{CompressionZlib, CompressionZstd, CompressionLZO4K} {
		data := map[Compression][]byte{CompressionZlib: zlibData(make([]byte, 16<<20)), CompressionZstd: bomb,
			CompressionLZO4K: lzoSegments(4096, literal(make([]byte, 60000)))}[c]
		for _, n := range []uint64{DefaultMaxUnencoded, DefaultMaxUnencoded + 1, 1 << 40} {
			cmds = append(cmds, &EncodedWrite{Path: []byte("f"), UnencodedLen: n, UnencodedFileLen: n, Compression: c, Data: data})
		}
	}
	raw := encode(t, append(cmds, &End{})...)
	decoded := 0
	n := allocated(func() {
		r := NewReader(bytes.NewReader(raw), Options{})
		for c, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := c.(*EncodedWrite); ok {
				decoded++
				if _, err := r.Decode(e); !errors.Is(err, ErrEncoding) && !errors.Is(err, ErrTooLarge) {
					t.Errorf("%v to %d bytes: %v", e.Compression, e.UnencodedLen, err)
				}
			}
		}
	})
	if decoded != 9 || n > 64<<20 {
		t.Errorf("%d encoded writes, %d MiB allocated", decoded, n>>20)
	}
}

// work counts the steps that a Memory takes for a stream, by the extents that
// it makes: unlike time it doesn't depend on the machine.
func TestHostileStreamsCostNoMoreThanTheirSize(t *testing.T) {
	file := []byte("f")
	head := []Command{&Subvol{Path: []byte("s"), UUID: UUID{1}}, &Mkfile{Path: file}}
	clone := func(from, length, to uint64) Command {
		return &Clone{Path: file, SourceUUID: UUID{1}, SourcePath: file, SourceOffset: from, Len: length, Offset: to}
	}
	for name, next := range map[string]func(i int) Command{
		"a file that doubles": func(i int) Command {
			if i == 0 {
				return &Write{Path: file, Data: []byte("seed")}
			}
			if i > 60 {
				return clone(uint64(i), 1<<61, uint64(i*3))
			}
			return clone(0, 4<<(i-1), 4<<(i-1))
		},
		"the whole file again and again": func(i int) Command {
			if i < 2000 {
				return &Write{Path: file, Data: []byte("x"), Offset: uint64(2 * i)}
			}
			return clone(0, 3998, 1)
		},
		"writes from the end to the beginning": func(i int) Command {
			return &Write{Path: file, Data: []byte("x"), Offset: uint64(1<<62 - 2*i)}
		},
		"holes": func(i int) Command {
			if i%2 == 0 {
				return &Truncate{Path: file, Size: 1<<63 - 1 - uint64(i)}
			}
			return &Fallocate{Path: file, Mode: FallocKeepSize | FallocPunchHole, Offset: uint64(i), Len: 1 << 62}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Memory{MaxBytes: 256 << 20}
			for _, c := range head {
				if err := m.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			const n = 5000
			for i := range n {
				before := m.pool.allocated
				if err := m.Apply(next(i)); err != nil {
					t.Fatalf("command %d: %v", i, err)
				}
				if made := (m.pool.allocated - before) / extentCost; made > 1500 {
					t.Fatalf("command %d makes %d extents", i, made)
				}
			}
			f, err := m.current.names.Lookup(file)
			if err != nil {
				t.Fatal(err)
			}
			if x := m.current.content[f.ID]; x.len() > f.Size {
				t.Errorf("%d bytes of content in a file of %d", x.len(), f.Size)
			}
		})
	}
}

func TestMemoryStaysUnderItsLimit(t *testing.T) {
	const limit = 2 << 20
	big := make([]byte, 50000)
	for name, next := range map[string]func(i int) Command{
		"data":  func(i int) Command { return &Write{Path: []byte("f"), Offset: uint64(i) << 20, Data: big} },
		"files": func(i int) Command { return &Mkfile{Path: fmt.Appendf(nil, "file%d", i)} },
		"links": func(i int) Command { return &Link{Path: fmt.Appendf(nil, "link%d", i), Existing: []byte("f")} },
		"deep":  func(i int) Command { return &Mkdir{Path: []byte(strings.Repeat("d/", i) + "d")} },
		"xattrs": func(i int) Command {
			return &SetXattr{Path: []byte("f"), Name: fmt.Appendf(nil, "user.%d", i), Value: big}
		},
		"subvolumes": func(i int) Command {
			return &Subvol{Path: []byte("s"), UUID: UUID{2, byte(i), byte(i >> 8), byte(i >> 16)}}
		},
		"tiny writes": func(i int) Command { return &Write{Path: []byte("f"), Offset: uint64(2 * i), Data: []byte("x")} },
		"symlinks":    func(i int) Command { return &Symlink{Path: fmt.Appendf(nil, "l%d", i), Dest: big} },
		// All but one byte of each chunk is overwritten, and the chunks stay.
		"remains": func(i int) Command { return &Write{Path: []byte("f"), Offset: uint64(i), Data: big} },
	} {
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m := &Memory{MaxBytes: limit}
			var err error
			for _, c := range []Command{&Subvol{Path: []byte("s"), UUID: UUID{1}}, &Mkfile{Path: []byte("f")}} {
				if err := m.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for ; err == nil && n < 200000; n++ {
				err = m.Apply(next(n))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			if !errors.Is(err, ErrTooLarge) || held > limit {
				t.Errorf("%d commands, %d KiB held: %v", n, held>>10, err)
			}
			runtime.KeepAlive(m)
		})
	}
	// What is overwritten, deleted or forgotten no longer counts.
	m := &Memory{MaxBytes: limit}
	for i := range 500 {
		for _, c := range []Command{
			&Subvol{Path: []byte("s"), UUID: UUID{byte(i), byte(i >> 8)}}, &Mkfile{Path: []byte("f")},
			&Write{Path: []byte("f"), Data: big}, &Write{Path: []byte("f"), Data: big}, &End{},
		} {
			if err := m.Apply(c); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
		}
		m.Forget(UUID{byte(i), byte(i >> 8)})
	}
}
