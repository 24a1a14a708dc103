package merkle

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestManyHashesAtEachLength is about padding: every length up to three
// blocks, beside one of every other length.
func TestManyHashesAtEachLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var messages [][]byte
	for n := 1; n <= 3*blockSize+1; n++ {
		messages = append(messages, randomLeaf(r, n))
	}
	messages = append(messages, randomLeaf(r, 65536))
	for range 20 {
		r.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
		for n := range 8 {
			checkMany(t, messages[:n])
		}
		checkMany(t, messages)
	}
}

func FuzzManyHashesAreSHA256(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), uint8('\n'))
	f.Add(bytes.Repeat([]byte("0123456789abcdef"), 40), uint8('a'))
	f.Fuzz(func(t *testing.T, data []byte, separator uint8) {
		var messages [][]byte
		for part := range bytes.SplitSeq(data, []byte{separator}) {
			messages = append(messages, append([]byte{0}, part...))
		}
		checkMany(t, messages)
	})
}

func checkMany(t *testing.T, messages [][]byte) {
	t.Helper()
	hashes := make([]Hash, len(messages))
	PrefixedLeaves(hashes, messages)
	for i, m := range messages {
		if want := Hash(sha256.Sum256(m)); hashes[i] != want {
			t.Fatalf("message %d of %d, %d bytes: %s, want %s", i, len(messages), len(m), hashes[i], want)
		}
	}
	var one, many, halves Range
	for _, h := range hashes {
		one.Append(h)
	}
	many.AppendLeaves(slices.Clone(hashes))
	cut := len(hashes) / 3
	halves.AppendLeaves(slices.Clone(hashes[:cut]))
	halves.AppendLeaves(slices.Clone(hashes[cut:]))
	for _, r := range []*Range{&many, &halves} {
		if r.Size() != one.Size() || !slices.Equal(r.Roots(), one.Roots()) {
			t.Fatalf("%d leaves at once make another tree than one by one", len(hashes))
		}
	}
}

func randomLeaf(r *rand.Rand, n int) []byte {
	m := make([]byte, n)
	for i := range m[1:] {
		m[1+i] = byte(r.Uint32())
	}
	return m
}

// BenchmarkLeaves hashes lines of 380 bytes, as a log's are, and their tree.
func BenchmarkLeaves(b *testing.B) {
	const n = 256
	r := rand.New(rand.NewPCG(1, 2))
	messages := make([][]byte, n)
	hashes := make([]Hash, n)
	for i := range messages {
		messages[i] = randomLeaf(r, 381)
	}
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			var tree Range
			for _, m := range messages {
				tree.Append(PrefixedLeaf(m))
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/leaf")
	})
	b.Run("at once", func(b *testing.B) {
		for b.Loop() {
			var tree Range
			PrefixedLeaves(hashes, messages)
			tree.AppendLeaves(hashes)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/leaf")
	})
}
