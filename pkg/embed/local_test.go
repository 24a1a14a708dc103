package embed

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/words"
)

func cosine(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// The manifest is that of the vectors in the binary, which are small.
func TestManifest(t *testing.T) {
	manifest, err := os.ReadFile("vectors.manifest")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("# vectors.bin %d bytes sha256 %x\n", len(vectorFile), sha256.Sum256(vectorFile)); !strings.Contains(string(manifest), want) {
		t.Errorf("vectors.manifest is of other vectors; make vectors writes both")
	}
	if want := fmt.Sprintf(": %d bytes sha256 %x\n", len(synonymFile), sha256.Sum256(synonymFile)); !strings.HasSuffix(string(manifest), want) {
		t.Errorf("vectors.manifest is of other synonyms; make vectors writes both")
	}
	if len(vectorFile)+len(synonymFile) > 5<<20 {
		t.Errorf("%d bytes of vectors, %d of synonyms", len(vectorFile), len(synonymFile))
	}
}

// Texts about one thing are nearer to each other than to one about another.
func TestLocalMeaning(t *testing.T) {
	l := LoadLocal()
	for _, c := range [][3]string{
		{"the machine ran out of memory", "oom-killer invoked, killed process", "certificate will expire"},
		{"virtual switch port removed", "openvswitch interface deleted from bridge", "password changed for user"},
		{"log in over ssh", "accepted publickey for user", "disk write error"},
		{"file system is damaged", "btrfs checksum failed", "lease of the DHCP client renewed"},
		{"name lookup", "resolver DNS query", "kernel module loaded"},
	} {
		v, err := l.Embed(t.Context(), Document, c[:])
		if err != nil {
			t.Fatal(err)
		}
		if near, far := cosine(v[0], v[1]), cosine(v[0], v[2]); near <= far+0.1 {
			t.Errorf("%q: %.3f to %q, %.3f to %q", c[0], near, c[1], far, c[2])
		}
	}
}

func TestLocalVectors(t *testing.T) {
	l := LoadLocal()
	v, err := l.Embed(t.Context(), Query, []string{"memory", "zzqxj 12 ,", "", "memory"})
	if err != nil || len(v) != 4 || len(v[0]) != l.Dim() || v[1] != nil || v[2] != nil || !slices.Equal(v[0], v[3]) {
		t.Fatal(len(v), err)
	}
	if n := cosine(v[0], v[0]); math.Abs(n-1) > 1e-5 {
		t.Errorf("squared length %v", n)
	}
	if l.IDF("zzqxj") < l.IDF(words.Stem("memory")) {
		t.Error("an unknown word weighs less than a known one")
	}
}

// Each neighbour stands there once, for a word of the question, weighs less
// than that, and is none of the question's own.
func TestExpand(t *testing.T) {
	l := LoadLocal()
	for _, question := range []string{"memory ran out", "log in", "", "zzqxj", strings.Repeat("disk error network switch failed user memory boot ", 8)} {
		stems := words.Terms(question)
		seen := make(map[string]bool)
		for _, n := range l.Expand(stems) {
			if seen[n.Stem] || slices.Contains(stems, n.Stem) || n.Of < 0 || n.Of >= len(stems) || !(n.Weight > 0 && n.Weight <= 0.5) {
				t.Errorf("%q: %+v", question, n)
			}
			seen[n.Stem] = true
		}
		if len(seen) > maxNeighbours {
			t.Errorf("%q: %d neighbours", question, len(seen))
		}
		if question == "memory ran out" && !seen["oom"] {
			t.Errorf("%q: %v", question, seen)
		}
	}
}

// Words that mean the same in the language stand for each other, irregular forms
// too; those that only have a sense in common that manuals do not know do not.
func TestSynonyms(t *testing.T) {
	l := LoadLocal()
	for _, of := range [][2]string{{"relocated", "move"}, {"died", "die"}, {"frozen", "freeze"}, {"failure", "fail"}, {"erased", "delete"}, {"quit", "stop"}} {
		want := words.Stem(of[1])
		if !slices.ContainsFunc(l.Expand(words.Terms(of[0])), func(n Neighbour) bool { return n.Stem == want }) {
			t.Errorf("%s does not stand for %s: %v", of[1], of[0], l.Expand(words.Terms(of[0])))
		}
	}
	if list := l.Expand(words.Terms("bank")); slices.ContainsFunc(list, func(n Neighbour) bool { return n.Stem == words.Stem("slope") && n.Weight > 0.2 }) {
		t.Errorf("bank: %v", list)
	}
}

func TestParseSynonyms(t *testing.T) {
	known := len(LoadLocal().stems)
	for _, n := range []int{0, 1, len(SynonymMagic), len(SynonymMagic) + 4, len(SynonymMagic) + 9, len(synonymFile) / 2, len(synonymFile) - 1} {
		if _, err := parseSynonyms(synonymFile[:n], known); err == nil {
			t.Errorf("%d bytes are taken for a file", n)
		}
	}
	for at := len(SynonymMagic); at < len(SynonymMagic)+64; at++ {
		b := slices.Clone(synonymFile)
		b[at] ^= 0xff
		if s, err := parseSynonyms(b, known); err == nil {
			s.of("abandon", LoadLocal())
		}
	}
	if _, err := parseSynonyms(synonymFile, 10); err == nil {
		t.Error("synonyms of other vectors are taken")
	}
}

// A file that is cut off or damaged is refused or read, but nothing panics.
func TestParseVectors(t *testing.T) {
	for _, n := range []int{0, 1, 6, 11, 12, 100, 70000, len(vectorFile) / 2, len(vectorFile) - 1} {
		if _, err := parseVectors(vectorFile[:n]); err == nil {
			t.Errorf("%d bytes are taken for a file", n)
		}
	}
	for _, at := range []int{6, 7, 9, 10, 12, 13} {
		b := slices.Clone(vectorFile)
		b[at] ^= 0xff
		if l, err := parseVectors(b); err == nil {
			l.Vector([]string{"memori"}, nil)
		}
	}
}
