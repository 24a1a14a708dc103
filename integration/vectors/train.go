package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/words"
)

const (
	vocabulary = 15500 // stems; the most frequent by number of pages
	minPages   = 3     // that a stem must stand in
	dim        = 256
	window     = 10   // stems to each side, weighted by 1/distance
	smoothing  = 0.75 // of the contexts' distribution (Levy, Goldberg, Dagan, TACL 2015)
	oversample = 16
	iterations = 6
	seed       = 20260101
)

// train returns the file that pkg/embed reads: positive pointwise mutual
// information between stems (PPMI), factored by a randomised truncated
// eigendecomposition (Halko, Martinsson, Tropp, 2011), and drawn together where
// the thesaurus says so (retrofitting: Faruqui et al., NAACL 2015).
func train(texts []string, thesaurus [][][]string) ([]byte, error) {
	pages := make([][][]string, len(texts)) // paragraphs of stems
	df := make(map[string]int)
	for i, t := range texts {
		in := make(map[string]bool)
		for p := range strings.SplitSeq(t, "\n\n") {
			stems := words.Terms(p)
			if len(stems) < 2 {
				continue
			}
			pages[i] = append(pages[i], stems)
			for _, s := range stems {
				in[s] = true
			}
		}
		for s := range in {
			df[s]++
		}
	}
	wanted := make(map[string]bool)
	for _, row := range thesaurus {
		for _, entry := range row {
			if len(entry) == 1 {
				wanted[entry[0]] = true
			}
		}
	}
	var vocab []string
	for s, n := range df {
		if n >= minPages || wanted[s] {
			vocab = append(vocab, s)
		}
	}
	slices.SortFunc(vocab, func(a, b string) int {
		if wanted[a] != wanted[b] {
			if wanted[a] {
				return -1
			}
			return 1
		}
		if df[a] != df[b] {
			return df[b] - df[a]
		}
		return strings.Compare(a, b)
	})
	vocab = vocab[:min(len(vocab), vocabulary)]
	slices.Sort(vocab)
	id := make(map[string]int32, len(vocab))
	for i, s := range vocab {
		id[s] = int32(i)
	}
	fmt.Fprintf(os.Stderr, "vectors: %d stems\n", len(vocab))
	m := count(pages, id, len(vocab))
	fmt.Fprintf(os.Stderr, "vectors: %d pairs\n", len(m.cols))
	vectors := factor(m)
	retrofit(vectors, thesaurus, id)
	return encode(vocab, df, len(texts), vectors)
}

// A matrix is symmetric and sparse, by rows.
type matrix struct {
	n     int
	start []int
	cols  []int32
	vals  []float32
}

// count returns the PPMI of the stems of the pages.
func count(pages [][][]string, id map[string]int32, n int) *matrix {
	rows := make([]map[int32]float64, n)
	for i := range rows {
		rows[i] = make(map[int32]float64)
	}
	for _, paragraphs := range pages {
		for _, stems := range paragraphs {
			for i, s := range stems {
				a, ok := id[s]
				if !ok {
					continue
				}
				for d := 1; d <= window && i+d < len(stems); d++ {
					if b, ok := id[stems[i+d]]; ok && a != b {
						w := 1 / float64(d)
						rows[a][b] += w
						rows[b][a] += w
					}
				}
			}
		}
	}
	sums, context, total, smooth := make([]float64, n), make([]float64, n), 0.0, 0.0
	sorted := make([][]int32, n)
	for i, r := range rows {
		for c := range r {
			sorted[i] = append(sorted[i], c)
		}
		slices.Sort(sorted[i])
		for _, c := range sorted[i] {
			sums[i] += r[c]
		}
		total += sums[i]
	}
	for i := range n {
		context[i] = math.Pow(sums[i], smoothing)
		smooth += context[i]
	}
	m := &matrix{n: n}
	for i, r := range rows {
		m.start = append(m.start, len(m.cols))
		for _, c := range sorted[i] {
			if r[c] < 0.3 {
				continue
			}
			// Both directions' mean keeps the matrix symmetric.
			p := math.Log(r[c]*smooth/(sums[i]*context[c]))/2 + math.Log(r[c]*smooth/(sums[c]*context[i]))/2
			if p > 0 {
				m.cols = append(m.cols, c)
				m.vals = append(m.vals, float32(p))
			}
		}
	}
	m.start = append(m.start, len(m.cols))
	return m
}

// multiply returns m times y, whose rows have k numbers.
func (m *matrix) multiply(y [][]float64) [][]float64 {
	out := make([][]float64, m.n)
	var wait sync.WaitGroup
	const workers = 2
	for w := range workers {
		wait.Go(func() {
			for i := w; i < m.n; i += workers {
				row := make([]float64, len(y[0]))
				for j := m.start[i]; j < m.start[i+1]; j++ {
					v, other := float64(m.vals[j]), y[m.cols[j]]
					for k, o := range other {
						row[k] += v * o
					}
				}
				out[i] = row
			}
		})
	}
	wait.Wait()
	return out
}

// factor returns a vector for each row: the leading eigenvectors, weighted by
// the square roots of their eigenvalues.
func factor(m *matrix) [][]float32 {
	k := min(dim+oversample, m.n)
	r := rand.New(rand.NewPCG(seed, seed))
	y := make([][]float64, m.n)
	for i := range y {
		y[i] = make([]float64, k)
		for j := range y[i] {
			y[i][j] = r.NormFloat64()
		}
	}
	for i := range iterations {
		y = m.multiply(y)
		orthonormalise(y)
		fmt.Fprintf(os.Stderr, "vectors: round %d of %d\n", i+1, iterations)
	}
	my := m.multiply(y)
	b := make([][]float64, k)
	for a := range k {
		b[a] = make([]float64, k)
	}
	for i := range m.n {
		for a := range k {
			for c := range k {
				b[a][c] += y[i][a] * my[i][c]
			}
		}
	}
	values, rotation := jacobi(b)
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, c int) int {
		switch {
		case values[a] > values[c]:
			return -1
		case values[a] < values[c]:
			return 1
		}
		return 0
	})
	vectors := make([][]float32, m.n)
	for i := range vectors {
		vectors[i] = make([]float32, dim)
		for d := range min(dim, k) {
			if values[order[d]] <= 0 {
				continue
			}
			var sum float64
			for a := range k {
				sum += y[i][a] * rotation[a][order[d]]
			}
			vectors[i][d] = float32(sum * math.Sqrt(values[order[d]]))
		}
	}
	return vectors
}

// orthonormalise makes the columns of y orthonormal (modified Gram-Schmidt).
func orthonormalise(y [][]float64) {
	n, k := len(y), len(y[0])
	cols := make([][]float64, k)
	for c := range cols {
		cols[c] = make([]float64, n)
		for i := range n {
			cols[c][i] = y[i][c]
		}
	}
	for c, col := range cols {
		for range 2 { // once more for accuracy
			for _, other := range cols[:c] {
				var dot float64
				for i, v := range other {
					dot += v * col[i]
				}
				for i, v := range other {
					col[i] -= dot * v
				}
			}
		}
		var sum float64
		for _, v := range col {
			sum += v * v
		}
		s := 1 / math.Sqrt(sum)
		for i := range col {
			col[i] *= s
			y[i][c] = col[i]
		}
	}
}

// jacobi returns the eigenvalues of a symmetric matrix and its eigenvectors as
// columns.
func jacobi(a [][]float64) (values []float64, vectors [][]float64) {
	n := len(a)
	v := make([][]float64, n)
	for i := range v {
		v[i] = make([]float64, n)
		v[i][i] = 1
		for j := range i {
			a[i][j] = (a[i][j] + a[j][i]) / 2
			a[j][i] = a[i][j]
		}
	}
	for range 30 {
		var off float64
		for i := range n {
			for j := range i {
				off += a[i][j] * a[i][j]
			}
		}
		if off < 1e-12 {
			break
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				if math.Abs(a[p][q]) < 1e-14 {
					continue
				}
				theta := (a[q][q] - a[p][p]) / (2 * a[p][q])
				t := 1 / (math.Abs(theta) + math.Sqrt(theta*theta+1))
				if theta < 0 {
					t = -t
				}
				c := 1 / math.Sqrt(t*t+1)
				s := t * c
				for i := range n {
					a[i][p], a[i][q] = c*a[i][p]-s*a[i][q], s*a[i][p]+c*a[i][q]
				}
				for i := range n {
					a[p][i], a[q][i] = c*a[p][i]-s*a[q][i], s*a[p][i]+c*a[q][i]
				}
				for i := range n {
					v[i][p], v[i][q] = c*v[i][p]-s*v[i][q], s*v[i][p]+c*v[i][q]
				}
			}
		}
	}
	values = make([]float64, n)
	for i := range values {
		values[i] = a[i][i]
	}
	return values, v
}

// retrofit moves words that the thesaurus puts together towards each other.
func retrofit(vectors [][]float32, thesaurus [][][]string, id map[string]int32) {
	for i := range vectors {
		unit(vectors[i])
	}
	near := make(map[int32]map[int32]float32)
	for _, row := range thesaurus {
		for _, a := range row {
			for _, b := range row {
				if len(a) != 1 || len(b) != 1 || a[0] == b[0] {
					continue
				}
				x, okx := id[a[0]]
				y, oky := id[b[0]]
				if !okx || !oky {
					continue
				}
				if near[x] == nil {
					near[x] = make(map[int32]float32)
				}
				near[x][y] += 1 / float32(len(row))
			}
		}
	}
	original := make([][]float32, len(vectors))
	for i := range vectors {
		original[i] = slices.Clone(vectors[i])
	}
	order := make([]int32, 0, len(near))
	for x := range near {
		order = append(order, x)
	}
	slices.Sort(order)
	for range 10 {
		for _, x := range order {
			next := slices.Clone(original[x])
			ys := make([]int32, 0, len(near[x]))
			for y := range near[x] {
				ys = append(ys, y)
			}
			slices.Sort(ys)
			var total float32
			for _, y := range ys {
				total += near[x][y]
			}
			for _, y := range ys {
				w := near[x][y] / max(total, 1)
				for d, v := range vectors[y] {
					next[d] += w * v
				}
			}
			unit(next)
			vectors[x] = next
		}
	}
}

func unit(v []float32) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return
	}
	s := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= s
	}
}

// encode writes what pkg/embed's Local describes.
func encode(vocab []string, df map[string]int, pages int, vectors [][]float32) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("GBWV1\n")
	binary.Write(&b, binary.LittleEndian, uint32(len(vocab)))
	binary.Write(&b, binary.LittleEndian, uint16(dim))
	common := make([]float32, dim)
	for i, s := range vocab {
		if len(s) > 255 {
			return nil, fmt.Errorf("stem %q is too long", s)
		}
		b.WriteByte(byte(len(s)))
		b.WriteString(s)
		binary.Write(&b, binary.LittleEndian, float32(math.Log(float64(pages+1)/float64(df[s]+1))))
		for d, v := range vectors[i] {
			common[d] += v * float32(df[s]) / float32(pages)
		}
	}
	unit(common)
	binary.Write(&b, binary.LittleEndian, common)
	for _, v := range vectors {
		var most float32
		for _, x := range v {
			most = max(most, float32(math.Abs(float64(x))))
		}
		scale := most / 127
		if scale == 0 {
			scale = 1
		}
		binary.Write(&b, binary.LittleEndian, scale)
		for _, x := range v {
			b.WriteByte(byte(int8(math.Round(float64(x / scale)))))
		}
	}
	for _, n := range neighbours(vectors) {
		binary.Write(&b, binary.LittleEndian, uint16(n.stem))
		b.WriteByte(byte(math.Round(255 * max(n.similarity, 0))))
	}
	return b.Bytes(), nil
}

type neighbour struct {
	stem       int
	similarity float64
}

// neighbours returns the nearest four of each vector, all of length 1.
func neighbours(vectors [][]float32) []neighbour {
	const nearest = 4
	out := make([]neighbour, len(vectors)*nearest)
	for i, v := range vectors {
		list := out[i*nearest : (i+1)*nearest]
		for j := range list {
			list[j].similarity = -1
		}
		for j, w := range vectors {
			if i == j {
				continue
			}
			var dot float32
			for d, x := range v {
				dot += x * w[d]
			}
			c := float64(dot)
			for k := range list {
				if c > list[k].similarity {
					copy(list[k+1:], list[k:])
					list[k] = neighbour{j, c}
					break
				}
			}
		}
	}
	return out
}
