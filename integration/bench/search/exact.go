package main

import (
	"context"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// exact is brute force: the vectors of all lines of an index, not quantised,
// one after the other in memory.
type exact struct {
	l       *embed.Local
	masked  []string
	vectors []float32
}

func loadExact(ctx context.Context, r index.Reader) (*exact, error) {
	all, err := r.Newest(ctx, index.Filter{}, 1<<30)
	if err != nil {
		return nil, err
	}
	x := &exact{l: embed.LoadLocal()}
	seen := make(map[string]bool)
	for _, c := range all {
		if seen[c.Masked] {
			continue
		}
		seen[c.Masked] = true
		if v := x.l.Vector(words.Terms(index.DenseText(c.Source, c.Type, c.Masked, c.Extra)), nil); v != nil {
			x.masked, x.vectors = append(x.masked, c.Masked), append(x.vectors, v...)
		}
	}
	return x, nil
}

// A neighbour is a line and the cosine of the angle to it.
type neighbour struct {
	masked string
	cos    float32
}

// nearest looks at every vector and returns the n nearest, the nearest first.
func (x *exact) nearest(q []float32, n int) []neighbour {
	compare := func(a, b neighbour) int {
		switch {
		case a.cos > b.cos:
			return -1
		case a.cos < b.cos:
			return 1
		}
		return strings.Compare(a.masked, b.masked)
	}
	best := make([]neighbour, 0, n+1)
	for i, m := range x.masked {
		var c float32
		for d, v := range x.vectors[i*len(q) : (i+1)*len(q)] {
			c += v * q[d]
		}
		if len(best) == n && c < best[n-1].cos {
			continue
		}
		v := neighbour{m, c}
		at, _ := slices.BinarySearchFunc(best, v, compare)
		best = slices.Insert(best, at, v)
		best = best[:min(len(best), n)]
	}
	return best
}

// foundOf is how many of the nearest are among what an index found.
func foundOf(best []neighbour, got []index.Candidate) int {
	n := 0
	for _, b := range best {
		if slices.ContainsFunc(got, func(c index.Candidate) bool { return c.Masked == b.masked }) {
			n++
		}
	}
	return n
}
