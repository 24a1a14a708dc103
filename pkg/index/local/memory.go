package local

import (
	"context"
	"database/sql"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A memory is what a reader holds of the templates: postings of their stems,
// and their vectors. It is brought forward as templates are added, and read
// anew when one was removed.
type memory struct {
	file  string // of which file it is: another one may take the place under a pool of connections
	epoch int64
	n     int // templates, removed ones too
	live  int

	stems   map[string]uint32
	names   int // stems read
	posts   [][]posting
	lengths []float32 // of each template, for BM25

	dim      int
	embedder string
	vectors  []int8    // n times dim
	norms    []float32 // 1/length; 0 for none
	sketches []uint64  // n times words: the signs
	origins  []origin  // by id
	ids      []int64
}

type posting struct {
	template uint32
	weight   uint8 // in quarters
}

// words is how many uint64 a sketch has.
func (m *memory) words() int { return (m.dim + 63) / 64 }

// refresh returns the memory as of the transaction t.
func (d *DB) refresh(ctx context.Context, t *sql.Tx) (m *memory, events int64, err error) {
	var epoch, n, origins int64
	var file, embedder string
	if err := t.QueryRowContext(ctx, `SELECT (SELECT value FROM meta WHERE key = 'file'), (SELECT value FROM meta WHERE key = 'epoch'), (SELECT value FROM meta WHERE key = 'templates'),
		(SELECT value FROM meta WHERE key = 'embedder'), (SELECT coalesce(max(id), 0) FROM origin),
		(SELECT value FROM meta WHERE key = 'events')`).Scan(&file, &epoch, &n, &embedder, &origins, &events); err != nil {
		return nil, 0, err
	}
	fresh := func(m *memory) bool {
		return m != nil && m.file == file && m.epoch == epoch && m.n == int(n) && m.embedder == embedder && (len(m.ids) == 0 && origins == 0 || len(m.ids) > 0 && m.ids[len(m.ids)-1] >= origins)
	}
	d.mu.RLock()
	m = d.mem
	d.mu.RUnlock()
	if fresh(m) {
		return m, events, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if fresh(d.mem) {
		return d.mem, events, nil
	}
	// What is handed out is never changed: slices grow behind what others see,
	// lists of postings are appended to likewise, and the map is copied.
	next := &memory{file: file, epoch: epoch, embedder: embedder, stems: make(map[string]uint32)}
	if d.mem != nil && d.mem.file == file && d.mem.epoch == epoch && d.mem.embedder == embedder && d.mem.n <= int(n) {
		*next = *d.mem
		next.posts = slices.Clone(d.mem.posts)
	}
	if err := next.load(ctx, t, int(n)); err != nil {
		return nil, 0, err
	}
	d.mem = next
	return next, events, nil
}

func (m *memory) load(ctx context.Context, t *sql.Tx, n int) error {
	rows, err := t.QueryContext(ctx, "SELECT id, host, source, type, severity, actor FROM origin WHERE id > ? ORDER BY id", lastOf(m.ids))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var o origin
		if err := rows.Scan(&id, &o.host, &o.source, &o.typ, &o.severity, &o.actor); err != nil {
			return err
		}
		m.ids, m.origins = append(m.ids, id), append(m.origins, o)
	}
	if err := rows.Err(); err != nil || n == m.n {
		return err
	}
	if err := m.loadStems(t); err != nil {
		return err
	}
	_, size, _ := strings.Cut(m.embedder, "/")
	m.dim = 0
	for _, c := range size[strings.LastIndexByte(size, '/')+1:] {
		m.dim = m.dim*10 + int(c-'0')
	}
	from := m.n
	m.n = n
	m.lengths = append(m.lengths, make([]float32, n-from)...)
	m.norms = append(m.norms, make([]float32, n-from)...)
	m.vectors = append(m.vectors, make([]int8, (n-from)*m.dim)...)
	m.sketches = append(m.sketches, make([]uint64, (n-from)*m.words())...)
	for no := from / packN; no*packN < n; no++ {
		b, err := getPack(t, packWords, no)
		if err != nil {
			return err
		}
		if err := eachWords(b, func(i int, length float64, list []stemWeight) {
			at := no*packN + i
			if at < from || at >= n || len(list) == 0 {
				return
			}
			m.live++
			m.lengths[at] = float32(length)
			for _, s := range list {
				if int(s.stem) < len(m.posts) {
					m.posts[s.stem] = append(m.posts[s.stem], posting{uint32(at), s.weight})
				}
			}
		}); err != nil {
			return err
		}
		if m.dim == 0 {
			continue
		}
		if b, err = getPack(t, packVectors, no); err != nil {
			return err
		}
		for i := 0; (i+1)*(1+m.dim) <= len(b); i++ {
			at := no*packN + i
			if row := b[i*(1+m.dim):]; at >= from && at < n && row[0] == 1 {
				m.setVector(at, row[1:1+m.dim])
			}
		}
	}
	return nil
}

func lastOf(list []int64) int64 {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

func (m *memory) loadStems(t *sql.Tx) error {
	stems := make(map[string]uint32, len(m.stems)+1024)
	for k, v := range m.stems {
		stems[k] = v
	}
	n := m.names
	for no := n / packStemsN; ; no++ {
		b, err := getPack(t, packStems, no)
		if err != nil {
			return err
		}
		i := no * packStemsN
		for len(b) > 0 && int(b[0]) < len(b) {
			if i >= n {
				stems[string(b[1:1+b[0]])] = uint32(i)
			}
			b = b[1+int(b[0]):]
			i++
		}
		n = max(n, i)
		if i < (no+1)*packStemsN {
			break
		}
	}
	m.stems, m.names = stems, n
	for len(m.posts) < n {
		m.posts = append(m.posts, nil)
	}
	return nil
}

func (m *memory) setVector(at int, row []byte) {
	v := m.vectors[at*m.dim : (at+1)*m.dim]
	sketch := m.sketches[at*m.words() : (at+1)*m.words()]
	var sum int64
	for i, b := range row {
		x := int8(b)
		v[i] = x
		sum += int64(x) * int64(x)
		if x > 0 {
			sketch[i/64] |= 1 << (i % 64)
		}
	}
	if sum > 0 {
		m.norms[at] = float32(1 / math.Sqrt(float64(sum)))
	}
}

func (m *memory) origin(id int64) origin {
	if i, ok := slices.BinarySearch(m.ids, id); ok {
		return m.origins[i]
	}
	return origin{}
}

// idf is Lucene's, which is never negative.
func (m *memory) idf(in int) float64 {
	return math.Log(1 + (float64(m.live)-float64(in)+0.5)/(float64(in)+0.5))
}

// A scored is a template's ordinal and score.
type scored struct {
	template uint32
	score    float32
}

// lexical returns all templates that have one of the terms, best first.
func (m *memory) lexical(terms []index.Term) []scored {
	score := make([]float32, m.n)
	var touched []uint32
	for _, t := range terms {
		n, ok := m.stems[t.Stem]
		if !ok || t.Weight <= 0 {
			continue
		}
		posts := m.posts[n]
		w := t.Weight * m.idf(len(posts))
		for _, p := range posts {
			if score[p.template] == 0 {
				touched = append(touched, p.template)
			}
			score[p.template] += float32(w * index.Saturate(float64(p.weight)/4, float64(m.lengths[p.template])))
		}
	}
	list := make([]scored, len(touched))
	for i, t := range touched {
		list[i] = scored{t, score[t]}
	}
	return list
}

const (
	// Below exactBelow templates all vectors are compared; above, those with
	// the nearest sketches: the larger of a share of all and rescore.
	exactBelow   = 8192
	rescore      = 1500
	rescoreShare = 50
)

// dense returns the templates with the nearest vectors to q, in no order; at
// least limit if there are so many.
func (m *memory) dense(q []float32, limit int, allowed func(uint32) bool) []scored {
	if m.dim == 0 || len(q) != m.dim {
		return nil
	}
	var most, sum float64
	for _, x := range q {
		most = max(most, math.Abs(float64(x)))
		sum += float64(x) * float64(x)
	}
	if most == 0 {
		return nil
	}
	q8 := make([]int32, m.dim)
	scale := 127 / most
	for i, x := range q {
		q8[i] = int32(math.Round(float64(x) * scale))
	}
	norm := float32(1 / (math.Sqrt(sum) * scale))
	cosine := func(t uint32) float32 {
		v := m.vectors[int(t)*m.dim:][:len(q8)]
		var dot int32
		for i, x := range q8 {
			dot += x * int32(v[i])
		}
		return float32(dot) * norm * m.norms[t]
	}
	var list []scored
	if m.n <= exactBelow {
		for t := range uint32(m.n) {
			if m.norms[t] > 0 && (allowed == nil || allowed(t)) {
				list = append(list, scored{t, cosine(t)})
			}
		}
		return list
	}
	w := m.words()
	sketch := make([]uint64, w)
	for i, x := range q8 {
		if x > 0 {
			sketch[i/64] |= 1 << (i % 64)
		}
	}
	// A histogram of the distances says where to cut.
	distance := make([]uint16, m.n)
	counts := make([]int, m.dim+1)
	for t := range m.n {
		distance[t] = math.MaxUint16
		if m.norms[t] == 0 || allowed != nil && !allowed(uint32(t)) {
			continue
		}
		d := 0
		for i, s := range m.sketches[t*w : (t+1)*w] {
			d += bits.OnesCount64(s ^ sketch[i])
		}
		distance[t] = uint16(d)
		counts[d]++
	}
	want, cut := max(rescore, m.n/rescoreShare, limit), 0
	for have := 0; cut < len(counts)-1; cut++ {
		if have += counts[cut]; have >= want {
			break
		}
	}
	for t, d := range distance {
		if int(d) <= cut {
			list = append(list, scored{uint32(t), cosine(uint32(t))})
		}
	}
	return list
}

// byScore sorts the best to the front; equals by ordinal.
func byScore(list []scored) {
	slices.SortFunc(list, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return int(a.template) - int(b.template)
	})
}

// best moves the n best to the front, in order, and returns them.
func best(list []scored, n int) []scored {
	if len(list) > 4*n {
		// A threshold from a sample leaves few to be sorted.
		for len(list) > 4*n {
			sample := make([]float32, 0, 64)
			for i := range 64 {
				sample = append(sample, list[i*len(list)/64].score)
			}
			slices.Sort(sample)
			pivot := sample[32]
			var high []scored
			for _, s := range list {
				if s.score > pivot {
					high = append(high, s)
				}
			}
			if len(high) < n || len(high) == len(list) {
				break
			}
			list = high
		}
	}
	byScore(list)
	return list[:min(len(list), n)]
}

// matches returns the ids of the origins that a filter lets through; all says
// that it asks nothing of them.
func (m *memory) matches(f *index.Filter) (ids map[int64]bool, all bool) {
	if len(f.Sources)+len(f.Types)+len(f.Hosts)+len(f.Actors) == 0 && !f.HasSeverity {
		return nil, true
	}
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	ids = make(map[int64]bool)
	for i, o := range m.origins {
		if in(f.Sources, o.source) && in(f.Types, o.typ) && in(f.Hosts, o.host) && in(f.Actors, o.actor) && (!f.HasSeverity || o.severity <= f.Severity) {
			ids[m.ids[i]] = true
		}
	}
	return ids, false
}
