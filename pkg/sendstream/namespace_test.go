package sendstream

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func apply(t testing.TB, n *Namespace, cmds ...Command) Effect {
	t.Helper()
	var e Effect
	for _, c := range cmds {
		var err error
		if e, err = n.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func mk(path string) Command           { return &Mkfile{Path: []byte(path), Ino: 9} }
func mkdir(path string) Command        { return &Mkdir{Path: []byte(path)} }
func mv(from, to string) Command       { return &Rename{Path: []byte(from), To: []byte(to)} }
func ln(path, existing string) Command { return &Link{Path: []byte(path), Existing: []byte(existing)} }
func rm(path string) Command           { return &Unlink{Path: []byte(path)} }
func write(path string, offset uint64, data string) Command {
	return &Write{Path: []byte(path), Offset: offset, Data: []byte(data)}
}

func begun(t testing.TB, cmds ...Command) *Namespace {
	n := NewNamespace()
	apply(t, n, &Header{Version: 1}, &Subvol{Path: []byte("s"), UUID: UUID{1}, Ctransid: 10})
	apply(t, n, cmds...)
	return n
}

// names lists a namespace as "path:id" of all names.
func names(n *Namespace) string {
	var all []string
	for f := range n.Files() {
		for _, p := range f.Paths() {
			all = append(all, fmt.Sprintf("%s:%d", p, f.ID))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestIdentityOutlivesNames(t *testing.T) {
	n := begun(t, mk("o257-8-0"), mv("o257-8-0", "log"), mkdir("d"), mk("d/x"))
	if got := names(n); got != ":1 d/x:4 d:3 log:2" {
		t.Fatal(got)
	}
	// Rotation, as a kernel sends it.
	apply(t, n, ln("log.1", "log"), rm("log"), mk("o300-9-0"), mv("o300-9-0", "log"))
	if e := apply(t, n, write("log.1", 5, "x")); e.File.ID != 2 || e.File.Size != 6 {
		t.Errorf("write to log.1: %+v", e.File)
	}
	if e := apply(t, n, write("log", 0, "x")); e.File.ID != 5 {
		t.Errorf("write to log: %+v", e.File)
	}
	// A directory's files move with it; a name that is taken over loses its file.
	apply(t, n, mkdir("e"), mv("d", "e/d2"))
	if got := names(n); got != ":1 e/d2/x:4 e/d2:3 e:6 log.1:2 log:5" {
		t.Fatal(got)
	}
	e := apply(t, n, mv("log.1", "e/d2/x"))
	if e.File.ID != 2 || e.Replaced.ID != 4 || e.Replaced.Nlink != 0 || n.File(4) != nil || len(e.Replaced.Paths()) != 0 {
		t.Errorf("%+v", e)
	}
	// Two names of one file: renaming one to the other changes nothing.
	apply(t, n, ln("y", "log"), mv("y", "log"))
	if got := names(n); got != ":1 e/d2/x:2 e/d2:3 e:6 log:5 y:5" {
		t.Fatal(got)
	}
	if f, err := n.Lookup([]byte("y")); err != nil || f.Nlink != 2 {
		t.Error(f, err)
	}
	apply(t, n, rm("log"), rm("y"), mk("log"))
	if got := names(n); got != ":1 e/d2/x:2 e/d2:3 e:6 log:7" { // 5 is not given again
		t.Fatal(got)
	}
	if path := n.File(3).Paths(); !slices.Equal(path, []string{"e/d2"}) {
		t.Error(path)
	}
}

func TestNamespaceFollowsTheRulesOfSystemCalls(t *testing.T) {
	setup := []Command{mkdir("d"), mkdir("d/sub"), mkdir("empty"), mk("f"), mk("d/g"), &Symlink{Path: []byte("l"), Dest: []byte("d")}, &Mkfifo{Path: []byte("p")}}
	b := func(s string) []byte { return []byte(s) }
	for _, test := range []struct {
		c    Command
		want error
	}{
		{mk("f"), syscall.EEXIST},
		{mkdir("d"), syscall.EEXIST},
		{mk("nowhere/f"), syscall.ENOENT},
		{mk("f/x"), syscall.ENOTDIR},
		{mk("l/x"), syscall.ENOTDIR}, // links are not followed
		{rm("none"), syscall.ENOENT},
		{rm("d"), syscall.EISDIR},
		{&Rmdir{Path: b("d")}, syscall.ENOTEMPTY},
		{&Rmdir{Path: b("f")}, syscall.ENOTDIR},
		{mv("none", "x"), syscall.ENOENT},
		{mv("d", "d/sub/d"), syscall.EINVAL},
		{mv("d", "d/d"), syscall.EINVAL},
		{mv("d", "f"), syscall.ENOTDIR},
		{mv("f", "d"), syscall.EISDIR},
		{mv("empty", "d"), syscall.ENOTEMPTY},
		{mv("f", "none/f"), syscall.ENOENT},
		{mv("d", "empty"), nil},
		{mv("d", "d"), nil},
		{ln("x", "d"), syscall.EPERM},
		{ln("f", "d/g"), syscall.EEXIST},
		{ln("x", "none"), syscall.ENOENT},
		{ln("x", "l"), nil},
		{write("d", 0, "x"), syscall.EISDIR},
		{write("p", 0, "x"), syscall.EINVAL},
		{write("l", 0, "x"), syscall.EINVAL},
		{write("none", 0, "x"), syscall.ENOENT},
		{&Truncate{Path: b("d")}, syscall.EISDIR},
		{&Chmod{Path: b("l"), Mode: 0o600}, syscall.EOPNOTSUPP},
		{&Chmod{Path: b(""), Mode: 0o700}, nil},
		{&Chown{Path: b("l"), UID: 5}, nil},
		{&RemoveXattr{Path: b("f"), Name: b("user.x")}, syscall.ENODATA},
		{&Mknod{Path: b("x"), Mode: ModeDir | 0o755}, syscall.EINVAL},
		{&Mknod{Path: b("x"), Mode: ModeChar | 0o755}, nil},
		{&Fallocate{Path: b("f"), Mode: FallocCollapseRange, Len: 1}, ErrUnsupported},
		{&EnableVerity{Path: b("f")}, nil},
		{&EnableVerity{Path: b("d")}, syscall.EISDIR},
		{&Snapshot{Path: b("t"), ParentUUID: UUID{1}, ParentCtransid: 9}, ErrParent},
		{&Snapshot{Path: b("t"), ParentUUID: UUID{2}, ParentCtransid: 10}, ErrParent},
		// A caller may bring paths that no Reader lets pass.
		{mk("../x"), ErrPath},
		{mk("d/.."), ErrPath},
		{mk("d/"), ErrPath},
		{mk(""), ErrPath},
		{rm(""), ErrPath},
		{mv("", "x"), ErrPath},
		{&Chmod{Path: b("d/./sub")}, ErrPath},
	} {
		n := begun(t, setup...)
		before := names(n)
		_, err := n.Apply(test.c)
		if !errors.Is(err, test.want) {
			t.Errorf("%v %q: %v, want %v", test.c.Kind(), test.c.Target(), err, test.want)
		}
		if err != nil && names(n) != before {
			t.Errorf("%v %q: %v, and yet a change", test.c.Kind(), test.c.Target(), err)
		}
	}
	if _, err := NewNamespace().Apply(mk("f")); !errors.Is(err, ErrOrder) {
		t.Errorf("before a subvolume: %v", err)
	}
	n := begun(t, &End{})
	if _, err := n.Apply(mk("f")); !errors.Is(err, ErrOrder) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := NewNamespace().Apply(&Snapshot{Path: b("s")}); !errors.Is(err, ErrParent) {
		t.Errorf("a snapshot of nothing: %v", err)
	}
}

func TestNamespaceAttributes(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	n := begun(t, mk("f"), write("f", 10, "abc"),
		&Chmod{Path: b("f"), Mode: 0o106755}, &Chown{Path: b("f"), UID: 5, GID: 6},
		&Utimes{Path: b("f"), Mtime: Timespec{-5, 6}, Otime: Timespec{1, 2}, HasOtime: true}, &Utimes{Path: b("f"), Mtime: Timespec{7, 8}},
		&Fileattr{Path: b("f"), Flags: 3}, &SetXattr{Path: b("f"), Name: b("user.a"), Value: b("1")},
		&SetXattr{Path: b("f"), Name: b("user.a"), Value: []byte{}}, &SetXattr{Path: b("f"), Name: b("user.b"), Value: b("2")},
		&RemoveXattr{Path: b("f"), Name: b("user.b")})
	f, err := n.Lookup(b("f"))
	if err != nil {
		t.Fatal(err)
	}
	want := File{ID: 2, Ino: 9, Mode: ModeRegular | 0o755, Nlink: 1, UID: 5, GID: 6, Size: 13, Flags: 3,
		Mtime: Timespec{7, 8}, Otime: Timespec{1, 2}}
	got := *f
	got.xattrs, got.link, got.links, got.Dest = nil, entry{}, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if x := maps.Collect(f.Xattrs()); len(x) != 1 || x["user.a"] == nil || len(x["user.a"]) != 0 {
		t.Errorf("%v", x)
	}
	for _, test := range []struct {
		c    Command
		want uint64
	}{
		{&Truncate{Path: b("f"), Size: 5}, 5},
		{&EncodedWrite{Path: b("f"), Offset: 2, UnencodedFileLen: 10, UnencodedLen: 99}, 12},
		{&Clone{Path: b("f"), Offset: 10, Len: 10}, 20},
		{&Fallocate{Path: b("f"), Mode: FallocKeepSize, Offset: 0, Len: 100}, 20},
		{&Fallocate{Path: b("f"), Offset: 0, Len: 100}, 100},
		{&UpdateExtent{Path: b("f"), Offset: 50, Len: 500}, 100},
		{&Write{Path: b("f"), Offset: 500}, 100}, // nothing at 500
	} {
		if apply(t, n, test.c); f.Size != test.want {
			t.Errorf("%v: size %d, want %d", test.c.Kind(), f.Size, test.want)
		}
	}
}

// randomCommand draws from the commands that change names.
func randomCommand(r *rand.Rand) Command {
	path := func() string {
		var parts []string
		for range 1 + r.IntN(3) {
			parts = append(parts, string(rune('a'+r.IntN(4))))
		}
		return strings.Join(parts, "/")
	}
	switch r.IntN(9) {
	case 0, 1:
		return mk(path())
	case 2, 3:
		return mkdir(path())
	case 4:
		return rm(path())
	case 5:
		return &Rmdir{Path: []byte(path())}
	case 6:
		return ln(path(), path())
	case 7:
		return &SetXattr{Path: []byte(path()), Name: []byte(path()), Value: []byte{byte(r.IntN(5))}}
	}
	return mv(path(), path())
}

type store map[string][]byte

// keep does what a user of Changes does.
func (s store) keep(n *Namespace) (records int) {
	for key, value := range n.Changes() {
		if records++; value == nil {
			delete(s, string(key))
		} else {
			s[string(key)] = bytes.Clone(value)
		}
	}
	n.Kept()
	return records
}

func (s store) all() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for k, v := range s {
			if !yield([]byte(k), v) {
				return
			}
		}
	}
}

// equal compares all that two namespaces know.
func equal(a, b *Namespace) bool {
	ra, rb := store{}, store{}
	for _, x := range []struct {
		n *Namespace
		s store
	}{{a, ra}, {b, rb}} {
		for f := range x.n.Files() {
			key := fileKey(f.ID)
			x.s[key] = fmt.Append(x.n.record(key), f.Nlink)
			for name := range f.Entries() {
				x.s[entryKey(f.ID, name)] = x.n.record(entryKey(f.ID, name))
			}
			for name, value := range f.Xattrs() {
				x.s[xattrKey(f.ID, name)] = value
			}
		}
		x.s[stateKey] = x.n.record(stateKey)
	}
	return names(a) == names(b) && reflect.DeepEqual(ra, rb)
}

func TestKeptNamespaceIsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 20 {
		n, kept := NewNamespace(), store{}
		uuid := byte(1)
		apply(t, n, &Subvol{Path: []byte("s"), UUID: UUID{uuid}})
		for range 30 {
			for range r.IntN(40) {
				n.Apply(randomCommand(r)) // many fail, as they should
			}
			apply(t, n, &End{})
			kept.keep(n)
			loaded, err := LoadNamespace(kept.all())
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if !equal(loaded, n) {
				t.Fatalf("round %d: kept\n%s\nloaded\n%s", round, names(n), names(loaded))
			}
			if loaded.used != n.used {
				t.Fatalf("round %d: %d bytes counted, %d after loading", round, n.used, loaded.used)
			}
			if r.IntN(2) == 0 {
				n = loaded
			}
			uuid++
			if r.IntN(10) == 0 {
				apply(t, n, &Subvol{Path: []byte("s"), UUID: UUID{uuid}})
			} else {
				parent, ctransid := n.UUID()
				apply(t, n, &Snapshot{Path: []byte("s"), UUID: UUID{uuid}, ParentUUID: parent, ParentCtransid: ctransid})
			}
		}
	}
}

func TestChangesAreFew(t *testing.T) {
	n, kept := begun(t), store{}
	for i := range 1000 {
		apply(t, n, mk(fmt.Sprint("segment", i)))
	}
	apply(t, n, &End{})
	kept.keep(n)
	// One second: an append, and a file replaced by rename.
	parent, ctransid := n.UUID()
	apply(t, n, &Snapshot{Path: []byte("t"), UUID: UUID{2}, ParentUUID: parent, ParentCtransid: ctransid},
		write("segment999", 0, "event"), &Utimes{Path: []byte("segment999")}, mk("o2000-3-0"), mv("o2000-3-0", "segment0"), &End{})
	if records := kept.keep(n); records > 8 {
		t.Errorf("%d records of %d change", records, len(kept))
	}
	if records := kept.keep(n); records != 0 {
		t.Errorf("%d records change again", records)
	}
	if n, err := LoadNamespace(store{}.all()); err != nil || names(n) != names(NewNamespace()) {
		t.Errorf("from no records: %v", err)
	}
}

func TestLoadRefusesWhatDoesNotFit(t *testing.T) {
	n := begun(t, mkdir("d"), mk("d/f"), mk("g"), ln("h", "g"), &SetXattr{Path: []byte("g"), Name: []byte("user.a"), Value: []byte("v")}, &End{})
	good := store{}
	good.keep(n)
	if _, err := LoadNamespace(good.all()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(s store){
		"no state":             func(s store) { s[stateKey] = nil },
		"state of another id":  func(s store) { s[stateKey] = append(make([]byte, 17), 2) },
		"no root":              func(s store) { s[fileKey(RootID)][3] = 0 },
		"file without a path":  func(s store) { delete(s, entryKey(2, "f")) },
		"entry of no file":     func(s store) { s[entryKey(2, "x")] = []byte{99} },
		"entry in no file":     func(s store) { s[entryKey(99, "x")] = []byte{3} },
		"entry in a file":      func(s store) { s[entryKey(3, "x")] = []byte{4} },
		"entry of the root":    func(s store) { s[entryKey(2, "x")] = []byte{1} },
		"two names of a dir":   func(s store) { s[entryKey(1, "d2")] = []byte{2} },
		"a directory's circle": func(s store) { delete(s, entryKey(1, "d")); s[entryKey(2, "d")] = []byte{2} },
		"entry called ..":      func(s store) { s[entryKey(1, "..")] = []byte{3} },
		"entry with a slash":   func(s store) { s[entryKey(1, "a/b")] = []byte{3} },
		"entry cut":            func(s store) { s[entryKey(1, "g")] = nil },
		"file cut":             func(s store) { s[fileKey(3)] = s[fileKey(3)][:5] },
		"attribute of no file": func(s store) { s[xattrKey(99, "user.b")] = []byte{} },
		"key of no kind":       func(s store) { s["y12345678"] = nil },
		"short key":            func(s store) { s["f123"] = nil },
	} {
		bad := store{}
		for k, v := range good {
			bad[k] = bytes.Clone(v)
		}
		spoil(bad)
		if _, err := LoadNamespace(bad.all()); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
