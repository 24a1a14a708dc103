package embed

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// The file of the word vectors, made by "make vectors" (integration/vectors),
// little-endian:
//
//	"GBWV1\n"
//	uint32 n, uint16 dim
//	n times: uint8 length, stem, float32 inverse document frequency; the stems in order
//	dim times float32: the direction that all texts share
//	n times: float32 scale, dim times int8: the vector is scale times these
//	n times 4 times: uint16 stem, uint8 similarity/255: the nearest by their vectors, in order
//
//go:embed vectors.bin
var vectorFile []byte

const vectorMagic = "GBWV1\n"

// Local embeds with the word vectors that are built in. It needs no set-up; use
// LoadLocal.
type Local struct {
	dim    int
	stems  []string // sorted
	idf    []float32
	common []float32
	data   []byte // n times scale and int8s
	nearby []byte // n times the nearest
	unseen float32
}

var _ Embedder = (*Local)(nil)

// LoadLocal returns the built-in embedder.
var LoadLocal = sync.OnceValue(func() *Local {
	l, err := parseVectors(vectorFile)
	if err != nil {
		panic("embed: built-in word vectors: " + err.Error()) // a broken build
	}
	return l
})

// ReadLocal reads vectors that are not built in: for the tool that makes what
// goes with them.
func ReadLocal(file []byte) (*Local, error) { return parseVectors(file) }

func parseVectors(file []byte) (*Local, error) {
	short := errors.New("the file is cut off")
	if !bytes.HasPrefix(file, []byte(vectorMagic)) || len(file) < len(vectorMagic)+6 {
		return nil, errors.New("not a file of word vectors")
	}
	b := file[len(vectorMagic):]
	n, dim := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint16(b[4:]))
	b = b[6:]
	if n > len(b)/6 || dim == 0 {
		return nil, short
	}
	l := &Local{dim: dim, stems: make([]string, n), idf: make([]float32, n)}
	text := string(b[:min(len(b), n*64)]) // one allocation for all stems
	at := 0
	for i := range n {
		if at >= len(text) || at+1+int(text[at])+4 > len(text) {
			return nil, short
		}
		size := int(text[at])
		l.stems[i] = text[at+1 : at+1+size]
		at += 1 + size
		l.idf[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[at:]))
		l.unseen = max(l.unseen, l.idf[i])
		at += 4
	}
	b = b[at:]
	if len(b) != 4*dim+n*(4+dim+3*nearest) {
		return nil, short
	}
	l.common = make([]float32, dim)
	for d := range l.common {
		l.common[d] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*d:]))
	}
	l.data, l.nearby = b[4*dim:4*dim+n*(4+dim)], b[4*dim+n*(4+dim):]
	for i := 0; i < len(l.nearby); i += 3 {
		if int(binary.LittleEndian.Uint16(l.nearby[i:])) >= n {
			return nil, errors.New("a neighbour is not there")
		}
	}
	return l, nil
}

// ID implements Embedder. It changes with vectors.bin and with how texts are
// put together from words.
func (l *Local) ID() string { return "local-1" }

// Dim implements Embedder.
func (l *Local) Dim() int { return l.dim }

func (l *Local) index(stem string) (int, bool) {
	i := sort.SearchStrings(l.stems, stem)
	return i, i < len(l.stems) && l.stems[i] == stem
}

// add adds weight times the vector of stem i to v.
func (l *Local) add(v []float32, i int, weight float32) {
	row := l.data[i*(4+l.dim):]
	scale := weight * math.Float32frombits(binary.LittleEndian.Uint32(row))
	row = row[4 : 4+l.dim]
	for d, x := range row {
		v[d] += scale * float32(int8(x))
	}
}

// IDF returns the inverse document frequency of a stem in the training texts,
// the greatest there is for one that is not in them.
func (l *Local) IDF(stem string) float64 {
	if i, ok := l.index(stem); ok {
		return float64(l.idf[i])
	}
	return float64(l.unseen)
}

// Embed implements Embedder: the mean of the words' vectors, weighted by how
// rare they are, without the direction that all texts share.
func (l *Local) Embed(_ context.Context, _ Role, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = l.Vector(words.Terms(t), nil)
	}
	return out, nil
}

// Vector is Embed for one text that is cut into stems already. weight, which
// may be nil, gives some stems another weight than 1.
func (l *Local) Vector(stems []string, weight func(i int) float32) []float32 {
	v := make([]float32, l.dim)
	seen := make(map[string]int, len(stems))
	for k, s := range stems {
		seen[s]++
		i, ok := l.index(s)
		if !ok {
			continue
		}
		w := l.idf[i] / float32(seen[s]) // 1 + 1/2 + 1/3: often is more, but not much
		if weight != nil {
			w *= weight(k)
		}
		l.add(v, i, w)
	}
	var dot float32
	for d, c := range l.common {
		dot += c * v[d]
	}
	for d, c := range l.common {
		v[d] -= dot * c
	}
	return normalize(v)
}

// A Neighbour is a stem that stands for one of a question's.
type Neighbour struct {
	Stem   string
	Of     int     // position of that one
	Weight float64 // 0 to 1, below that of the question's own words
}

const (
	// thesaurusWeight is what a reviewed synonym counts.
	thesaurusWeight = 0.45
	// synonymWeight is what a synonym of the language counts, times its worth.
	synonymWeight = 0.36
	// neighbourWeight is what the nearest words by their vectors count, times
	// their similarity.
	neighbourWeight = 0.25
	// nearest is how many of these there are for a word, and leastSimilar how
	// similar they must be.
	nearest      = 4
	leastSimilar = 0.55
	// maxNeighbours bounds all for one question.
	maxNeighbours = 96
)

// Expand returns other stems that a text which answers a question may have in
// place of its own: from the thesaurus, and the nearest by their vectors. Each
// stem stands there once, for the word that it is nearest to.
func (l *Local) Expand(stems []string) []Neighbour {
	own := make(map[string]bool, len(stems))
	for _, s := range stems {
		own[s] = true
	}
	best := make(map[string]Neighbour)
	put := func(n Neighbour) {
		if old, ok := best[n.Stem]; !own[n.Stem] && (!ok || n.Weight > old.Weight) {
			best[n.Stem] = n
		}
	}
	list := loadThesaurus().expand(stems)
	total := make(map[int]int)
	for _, s := range list {
		total[s.of]++
	}
	for _, s := range list {
		// Words of many rows are vague: what stands for them counts less.
		vague := 1.0
		if n := total[s.of]; n > 24 {
			vague = math.Sqrt(24 / float64(n))
		}
		put(Neighbour{s.stem, s.of, min(thesaurusWeight*s.gain*vague, 0.5)})
	}
	general := loadSynonyms()
	for i, s := range stems {
		for _, n := range general.of(s, l) {
			put(Neighbour{n.Stem, i, synonymWeight * n.Weight})
		}
		for _, n := range l.near(s) {
			put(Neighbour{n.Stem, i, n.Weight * neighbourWeight})
		}
	}
	out := make([]Neighbour, 0, len(best))
	for _, n := range best {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Neighbour) int {
		switch {
		case a.Weight != b.Weight && a.Weight > b.Weight:
			return -1
		case a.Weight != b.Weight:
			return 1
		case a.Stem < b.Stem:
			return -1
		}
		return 1
	})
	return out[:min(len(out), maxNeighbours)]
}

// near returns the nearest stems to s, their similarity as Weight.
func (l *Local) near(s string) []Neighbour {
	at, ok := l.index(s)
	if !ok {
		return nil
	}
	var list []Neighbour
	for i := range nearest {
		e := l.nearby[(at*nearest+i)*3:]
		if c := float64(e[2]) / 255; c >= leastSimilar {
			list = append(list, Neighbour{Stem: l.stems[binary.LittleEndian.Uint16(e)], Weight: c})
		}
	}
	return list
}
