package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"golang.org/x/mod/sumdb/note"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// storage is x/mod's own stored-hash form of a tree: the reference.
type storage []tlog.Hash

func (s storage) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func TestRangeAgreesWithReference(t *testing.T) {
	var ref storage
	var r Range
	var h Hasher
	if r.Root() != EmptyRoot {
		t.Error("root of the empty tree")
	}
	for n := range int64(1100) {
		leaf := fmt.Appendf(nil, "leaf %d", n)
		hs, err := tlog.StoredHashes(n, leaf, ref)
		if err != nil {
			t.Fatal(err)
		}
		ref = append(ref, hs...)
		r.Append(h.Leaf(leaf))
		want, err := tlog.TreeHash(n+1, ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Root(); got != Hash(want) || r.Size() != n+1 {
			t.Fatalf("size %d: root %v, want %v", r.Size(), got, want)
		}
		back, err := NewRange(r.Size(), r.Roots())
		if err != nil || back.Root() != r.Root() {
			t.Fatalf("size %d: %v", n, err)
		}
	}
}

func TestSubtreesAddUp(t *testing.T) {
	var h Hasher
	var whole, parts, sub Range
	for n := range 1000 {
		leaf := h.Leaf(fmt.Appendf(nil, "leaf %d", n))
		whole.Append(leaf)
		if n >= 960 {
			parts.Append(leaf)
			continue
		}
		sub.Append(leaf)
		if sub.Size() == 64 {
			if err := parts.AppendSubtree(sub.Root(), 6); err != nil {
				t.Fatal(err)
			}
			sub = Range{}
		}
	}
	if whole.Root() != parts.Root() {
		t.Error("roots differ")
	}
	if err := parts.AppendSubtree(Hash{}, 6); err == nil {
		t.Error("a subtree of 64 was taken at size 1000")
	}
	for n := range 65 {
		var left, right, all Range
		for i := range 128 + n {
			leaf := h.Leaf(fmt.Appendf(nil, "leaf %d", i))
			all.Append(leaf)
			if i < 128 {
				left.Append(leaf)
			} else {
				right.Append(leaf)
			}
		}
		j, err := left.Join(&right)
		if err != nil || j.Root() != all.Root() || j.Size() != all.Size() {
			t.Errorf("128 and %d: %v", n, err)
		}
	}
	c := whole.Clone()
	c.Append(Hash{})
	if whole.Root() != parts.Root() || c.Root() == whole.Root() {
		t.Error("clone is not independent")
	}
}

func TestProofs(t *testing.T) {
	var ref storage
	var h Hasher
	var leaves, roots []Hash
	roots = append(roots, EmptyRoot)
	var r Range
	for n := range int64(70) {
		leaf := fmt.Appendf(nil, "leaf %d", n)
		hs, _ := tlog.StoredHashes(n, leaf, ref)
		ref = append(ref, hs...)
		leaves = append(leaves, h.Leaf(leaf))
		r.Append(leaves[n])
		roots = append(roots, r.Root())
	}
	nodes := NodeReader(func(level int, n int64) (Hash, error) { return Hash(ref[tlog.StoredHashIndex(level, n)]), nil })
	for size := int64(1); size <= 70; size++ {
		for i := range size {
			p, err := ProveInclusion(size, i, nodes)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(p, size, roots[size], i, leaves[i]); err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(p, size, roots[size-1], i, leaves[i]); !errors.Is(err, ErrProof) {
				t.Fatalf("wrong root: %v", err)
			}
			c, err := ProveConsistency(size, i, nodes)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(c, size, roots[size], i, roots[i]); err != nil {
				t.Fatalf("%d in %d: %v", i, size, err)
			}
			if err := CheckConsistency(c, size, roots[size], i, leaves[i]); i > 1 && !errors.Is(err, ErrProof) {
				t.Fatalf("wrong old root: %v", err)
			}
		}
	}
	for _, bad := range [][2]int64{{5, 5}, {5, -1}, {0, 0}} {
		if _, err := ProveInclusion(bad[0], bad[1], nodes); err == nil {
			t.Errorf("index %d in size %d", bad[1], bad[0])
		}
		if err := CheckInclusion(nil, bad[0], Hash{}, bad[1], Hash{}); err == nil {
			t.Errorf("index %d in size %d", bad[1], bad[0])
		}
	}
}

func key(t testing.TB, name string, b byte) *Signer {
	t.Helper()
	s, err := KeyFromSeed(name, [32]byte{b})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignAndOpen(t *testing.T) {
	log, epoch, other := key(t, "demo.example/log", 1), key(t, "demo.example/log/epoch", 2), key(t, "demo.example/log/epoch", 3)
	c := Checkpoint{"demo.example/log", 12, Hash{5}}
	msg, err := Sign(c, log, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(msg, log.Verifier(), epoch.Verifier()); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for name, bad := range map[string]struct {
		msg  []byte
		keys []Verifier
	}{
		"other epoch key": {msg, []Verifier{log.Verifier(), other.Verifier()}},
		"only other key":  {msg, []Verifier{other.Verifier()}},
		"changed size":    {bytes.Replace(msg, []byte("\n12\n"), []byte("\n13\n"), 1), []Verifier{log.Verifier(), epoch.Verifier()}},
	} {
		if _, err := Open(bad.msg, bad.keys...); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open([]byte("garbage"), log.Verifier()); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("garbage: %v", err)
	}
	sig := log.SignBytes([]byte("m"))
	if !log.Verifier().VerifyBytes([]byte("m"), sig) || log.Verifier().VerifyBytes([]byte("n"), sig) || other.Verifier().VerifyBytes([]byte("m"), sig) {
		t.Error("bare signatures")
	}
}

// Keys whose base64 has a '+' must work like the others.
func TestKeysOfAllShapes(t *testing.T) {
	for b := range 200 {
		s := key(t, "demo.example/log", byte(b))
		v, err := ParseVerifier(s.Verifier().String())
		if err != nil || v.String() != s.Verifier().String() {
			t.Fatal(err)
		}
		if back, err := ParseSecret(s.Secret() + "\n"); err != nil || back.Seed() != s.Seed() {
			t.Fatal(err)
		}
		if !v.VerifyBytes([]byte("m"), s.SignBytes([]byte("m"))) {
			t.Errorf("seed %d, vkey %s", b, v)
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\n", strings.Repeat("x", 201), "a\u2028b", "\xff"} {
		if _, err := KeyFromSeed(name, [32]byte{}); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}

func TestParseTextRefuses(t *testing.T) {
	root := Hash{1}.String()
	for _, bad := range []string{"", "o\n1\n", "o\n01\n" + root + "\n", "o\n-1\n" + root + "\n", "o\n1\n" + root, "o\n1\nx\n",
		"o\n1\n" + root + "\n\nx\n", "\n1\n" + root + "\n", "o\n9223372036854775808\n" + root + "\n"} {
		if c, err := ParseText(bad); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
	if c, err := ParseText("o\n1\n" + root + "\nextension\n"); err != nil || c.Size != 1 {
		t.Error(err)
	}
}

func TestSplitNotes(t *testing.T) {
	s := key(t, "o", 1)
	var file []byte
	var want [][]byte
	for n := range int64(3) {
		msg, err := Sign(Checkpoint{"o", n, Hash{byte(n)}}, s, key(t, "o/epoch", 2))
		if err != nil {
			t.Fatal(err)
		}
		file = append(append(file, msg...), '\n')
		want = append(want, msg)
	}
	notes, rest := SplitNotes(file)
	if len(rest) != 0 || len(notes) != 3 {
		t.Fatalf("%d notes, rest %q", len(notes), rest)
	}
	for i := range want {
		if !bytes.Equal(notes[i], want[i]) {
			t.Errorf("note %d: %q", i, notes[i])
		}
	}
	// Cut anywhere, every note that is returned opens.
	for cut := range file {
		notes, _ := SplitNotes(file[:cut])
		for i, n := range notes {
			if !bytes.Equal(n, want[i]) {
				t.Errorf("cut at %d: note %d is %q", cut, i, n)
			}
		}
	}
}

func FuzzOpenNeverPanics(f *testing.F) {
	s, _ := KeyFromSeed("o", [32]byte{1})
	msg, _ := Sign(Checkpoint{"o", 3, Hash{1}}, s)
	f.Add(msg)
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := Open(in, s.Verifier()); err == nil && !strings.HasPrefix(string(in), c.Text()) {
			t.Errorf("%q opened as %+v", in, c)
		}
		notes, rest := SplitNotes(in)
		n := len(rest)
		for _, note := range notes {
			n += len(note)
		}
		if n > len(in) {
			t.Error("more came out than went in")
		}
	})
}

func BenchmarkLeafAndAppend(b *testing.B) {
	line := bytes.Repeat([]byte("x"), 300)
	var h Hasher
	var r Range
	b.ReportAllocs()
	for b.Loop() {
		r.Append(h.Leaf(line))
	}
}

// Splitting loses no byte, every part is one note, and what opens here opens in
// x/mod with the same text.
func FuzzNotesSplitAndOpen(f *testing.F) {
	s, err := KeyFromSeed("o", [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	note1, err := Sign(Checkpoint{Origin: "o", Size: 1}, s)
	if err != nil {
		f.Fatal(err)
	}
	v, err := note.NewVerifier(s.Verifier().String())
	if err != nil {
		f.Fatal(err)
	}
	w, err := ParseWitness("witness.example/w+2af25264+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	if err == nil {
		f.Fatal("a witness key with a wrong id")
	}
	f.Add(append(append(bytes.Clone(note1), '\n'), note1...))
	f.Add(append(bytes.Clone(note1), '\n'))
	f.Add([]byte("o\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u2014 o AAAA\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		notes, rest := SplitNotes(data)
		var joined []byte
		for _, n := range notes {
			joined = append(append(joined, n...), '\n')
			if more, rest := SplitNotes(append(bytes.Clone(n), '\n')); len(more) != 1 || len(rest) != 0 {
				t.Fatalf("%q is %d notes", n, len(more))
			}
		}
		if !bytes.Equal(append(joined, rest...), data) {
			t.Fatalf("%q was split into %q and %q", data, notes, rest)
		}
		for _, n := range append(notes, data) {
			c, perr := ParseNote(n)
			w.Cosignature(n, n)
			opened, err := Open(n, s.Verifier())
			if err != nil {
				continue
			}
			if perr != nil || c != opened {
				t.Fatalf("%q: read %v, opened %v, %v", n, c, opened, perr)
			}
			if x, err := note.Open(n, note.VerifierList(v)); err != nil || !strings.HasPrefix(x.Text, opened.Text()) {
				t.Fatalf("%q: x/mod says %v", n, err)
			}
		}
	})
}
