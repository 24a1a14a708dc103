package sendstream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/iotest"
)

// flat is the plainest model of a file's content.
type flat []byte

func (f *flat) replace(offset int, data []byte) {
	if end := offset + len(data); end > len(*f) && len(data) > 0 {
		*f = append(*f, make([]byte, end-len(*f))...)
	}
	copy((*f)[min(offset, len(*f)):], data)
}

func TestExtentsHoldWhatBytesWould(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := &extentPool{random: r}
		var tree *extent
		var model flat
		type version struct {
			tree  *extent
			model flat
		}
		var old []version
		for range 300 {
			offset := r.IntN(3000)
			switch r.IntN(5) {
			case 0, 1:
				data := make([]byte, r.IntN(200))
				for i := range data {
					data[i] = byte(1 + r.IntN(255))
				}
				tree = p.replace(tree, uint64(offset), p.of(data))
				model.replace(offset, data)
			case 2:
				n := r.IntN(300)
				tree = p.replace(tree, uint64(offset), p.hole(uint64(n)))
				model.replace(offset, make([]byte, n))
			case 3:
				size := r.IntN(len(model) + 100)
				tree = p.resize(tree, uint64(size))
				model = append(bytes.Clone(model), make([]byte, max(0, size-len(model)))...)[:size]
			case 4: // a clone within the file, or of an older version
				from := version{tree, model}
				if len(old) > 0 && r.IntN(2) == 0 {
					from = old[r.IntN(len(old))]
				}
				if len(from.model) == 0 {
					continue
				}
				begin := r.IntN(len(from.model))
				n := r.IntN(len(from.model) - begin)
				tree = p.replace(tree, uint64(offset), p.slice(from.tree, uint64(begin), uint64(n)))
				model.replace(offset, bytes.Clone(from.model[begin:begin+n]))
			}
			if r.IntN(20) == 0 {
				old = append(old, version{tree, bytes.Clone(model)})
			}
			got := make([]byte, len(model)+10)
			n := tree.read(got, 0)
			if n != len(model) || uint64(n) != tree.len() || !bytes.Equal(got[:n], model) {
				t.Fatalf("seed %d: %d bytes in %d, want %d", seed, n, tree.len(), len(model))
			}
			if len(model) > 0 {
				at := r.IntN(len(model))
				part := make([]byte, r.IntN(100))
				if n := tree.read(part, uint64(at)); !bytes.Equal(part[:n], model[at:at+n]) || n != min(len(part), len(model)-at) {
					t.Fatalf("seed %d: part of %d bytes at %d", seed, n, at)
				}
			}
		}
		for _, v := range old { // no change reached an older version
			got := make([]byte, len(v.model))
			if v.tree.read(got, 0); !bytes.Equal(got, v.model) {
				t.Fatalf("seed %d: an old version changed", seed)
			}
		}
	}
}

// depth of a tree must stay logarithmic, or a stream could make commands slow.
func depth(x *extent) int {
	if x == nil {
		return 0
	}
	return 1 + max(depth(x.left), depth(x.right))
}

func TestExtentTreesStayShallow(t *testing.T) {
	p := &extentPool{random: rand.New(rand.NewPCG(1, 2))}
	for name, next := range map[string]func(x *extent, i int) *extent{
		"appends":  func(x *extent, i int) *extent { return p.replace(x, uint64(i), p.of([]byte{1})) },
		"prepends": func(x *extent, i int) *extent { return p.replace(x, uint64(1<<20-i), p.of([]byte{1})) },
		"one place": func(x *extent, i int) *extent {
			return p.replace(x, 1<<19, p.slice(x, 0, min(x.len(), uint64(i))))
		},
		"the same extent again": func(x *extent, i int) *extent {
			return p.join(x, p.slice(x, 0, 1))
		},
	} {
		x := p.of([]byte("seed"))
		for i := range 20000 {
			x = next(x, i)
		}
		if d := depth(x); d > 80 { // 2 log2(20000) is 29
			t.Errorf("%s: depth %d of %d extents", name, d, x.count)
		}
	}
	x := p.of([]byte("seed"))
	for x.size < 1<<60 {
		x = p.join(x, x)
	}
	levels := 0
	for y := x; y != nil; y = y.left {
		levels++
	}
	if levels > 300 {
		t.Errorf("%d levels of 2^58 extents", levels)
	}
}

func memory(t testing.TB, cmds ...Command) *Memory {
	t.Helper()
	m := new(Memory)
	for i, c := range cmds {
		if err := m.Apply(c); err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
	}
	return m
}

func content(t testing.TB, m *Memory, uuid UUID, path string) string {
	t.Helper()
	s, ok := m.Subvolume(uuid)
	if !ok {
		t.Fatalf("no subvolume %v", uuid)
	}
	f, err := s.Names().Lookup([]byte(path))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b, err := io.ReadAll(s.Open(f))
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(s.Open(f), b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMemoryClonesAndSnapshots(t *testing.T) {
	a, b, c := UUID{1}, UUID{2}, UUID{3}
	clone := func(to string, offset uint64, uuid UUID, from string, at, n uint64) Command {
		return &Clone{Path: []byte(to), Offset: offset, Len: n, SourceUUID: uuid, SourceCtransid: 10 * uint64(uuid[0]), SourcePath: []byte(from), SourceOffset: at}
	}
	m := memory(t,
		&Header{Version: 2}, &Subvol{Path: []byte("a"), UUID: a, Ctransid: 10}, mk("f"), write("f", 0, "hello, world"), mk("g"),
		clone("g", 3, a, "f", 7, 5), &End{},
		&Header{Version: 2}, &Snapshot{Path: []byte("b"), UUID: b, Ctransid: 20, ParentUUID: a, ParentCtransid: 10},
		write("f", 0, "HELLO"), mk("own"), clone("own", 0, b, "f", 0, 5), mk("parent"), clone("parent", 0, a, "f", 0, 5),
		&Truncate{Path: []byte("g"), Size: 4}, &Truncate{Path: []byte("g"), Size: 6}, mv("own", "f2"), rm("f"),
		// Its End is omitted, with the next header.
		&Subvol{Path: []byte("c"), UUID: c, Ctransid: 30}, mk("x"), clone("x", 0, b, "f2", 1, 3),
		&EncodedWrite{Path: []byte("x"), Offset: 4, UnencodedFileLen: 2, UnencodedLen: 9, UnencodedOffset: 1, Data: []byte("abcdef")},
		&Fallocate{Path: []byte("x"), Mode: FallocKeepSize | FallocPunchHole, Offset: 5, Len: 100},
		&Fallocate{Path: []byte("x"), Mode: FallocZeroRange, Offset: 0, Len: 1},
		&Fallocate{Path: []byte("x"), Offset: 6, Len: 2}, &Fallocate{Path: []byte("x"), Mode: FallocKeepSize, Offset: 6, Len: 200}, &End{})
	for _, test := range []struct {
		uuid UUID
		path string
		want string
	}{
		{a, "f", "hello, world"}, {a, "g", "\x00\x00\x00world"},
		{b, "f2", "HELLO"}, {b, "parent", "hello"}, {b, "g", "\x00\x00\x00w\x00\x00"},
		{c, "x", "\x00LL\x00b\x00\x00\x00"},
	} {
		if got := content(t, m, test.uuid, test.path); got != test.want {
			t.Errorf("%s in %v: %q, want %q", test.path, test.uuid, got, test.want)
		}
	}
	for s := range m.Subvolumes() {
		if !s.Complete {
			t.Errorf("%s is not complete", s.Path)
		}
	}

	for name, test := range map[string]struct {
		cmds []Command
		want error
	}{
		"no subvolume":       {[]Command{mk("f")}, ErrOrder},
		"the same again":     {[]Command{&Subvol{Path: []byte("a"), UUID: a}}, syscall.EEXIST},
		"unknown parent":     {[]Command{&Snapshot{Path: []byte("d"), UUID: UUID{4}, ParentUUID: UUID{9}}}, ErrParent},
		"parent has changed": {[]Command{&Snapshot{Path: []byte("d"), UUID: UUID{4}, ParentUUID: a, ParentCtransid: 11}}, ErrParent},
		"unknown source":     {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{4}}, mk("f"), clone("f", 0, UUID{9}, "f", 0, 1)}, ErrParent},
		"source has changed": {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{5}}, mk("f"), &Clone{Path: []byte("f"), SourceUUID: a, SourceCtransid: 9, SourcePath: []byte("f")}}, ErrParent},
		"no source file":     {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{6}}, mk("f"), clone("f", 0, a, "none", 0, 1)}, syscall.ENOENT},
		"beyond its end":     {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{7}}, mk("f"), clone("f", 0, a, "f", 0, 13)}, syscall.EINVAL},
		"source a directory": {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{8}}, mk("f"), mkdir("x"), clone("f", 0, UUID{8}, "x", 0, 0)}, syscall.EISDIR},
		"bad encoding": {[]Command{&Subvol{Path: []byte("d"), UUID: UUID{9}}, mk("f"),
			&EncodedWrite{Path: []byte("f"), Compression: CompressionZstd, Data: []byte("x")}}, ErrEncoding},
	} {
		var err error
		for _, c := range test.cmds {
			err = m.Apply(c)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if m.current != nil {
			m.Forget(m.current.UUID)
		}
	}
	m.Forget(a)
	if _, ok := m.Subvolume(a); ok {
		t.Error("forgotten, and there")
	}
	if err := m.Apply(&Snapshot{Path: []byte("d"), UUID: UUID{4}, ParentUUID: a, ParentCtransid: 10}); !errors.Is(err, ErrParent) {
		t.Error(err)
	}
}

func TestReplayTellsWhere(t *testing.T) {
	raw := encode(t, &Header{Version: 1}, &Subvol{Path: []byte("s"), UUID: UUID{1}}, mk("f"), mk("f"), &End{})
	err := Replay(new(Memory), NewReader(bytes.NewReader(raw), Options{}))
	var e *Error
	if !errors.As(err, &e) || e.Command != 3 || e.Kind != KindMkfile || e.Offset != int64(len(raw)-2*cmdHeaderSize-17) || !errors.Is(err, syscall.EEXIST) {
		t.Errorf("%v", err)
	}
	const want = `send stream: command 3 (mkfile) at offset 91: mkfile "f": file exists`
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	if err := Replay(new(Memory), NewReader(bytes.NewReader(raw[:len(raw)-10]), Options{})); !errors.Is(err, syscall.EEXIST) {
		t.Error(err)
	}
}
