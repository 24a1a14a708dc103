// Package dbusjsontest makes random types and values, for tests of codecs.
package dbusjsontest

import (
	"math"
	"math/rand/v2"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A Maker makes random types and values. FDs are made only if it is told to.
type Maker struct {
	R   *rand.Rand
	FDs bool
	// Twins lets a dict have a key twice, which most codecs can't keep.
	Twins bool
	// OneNaN makes the usual NaN only: other codecs know no other in text.
	OneNaN bool
}

// New returns a maker with its own sequence.
func New(seed uint64) *Maker { return &Maker{R: rand.New(rand.NewPCG(seed, 0x6762))} }

const basics = "ybnqiuxtdsog"

// Type returns a type of at most depth containers within each other.
func (m *Maker) Type(depth int) *dbusjson.Type {
	t, err := dbusjson.ParseType(m.signature(depth))
	if err != nil {
		panic(err)
	}
	return t
}

// Types returns up to n types, whose signature is not too long.
func (m *Maker) Types(n, depth int) []*dbusjson.Type {
	for {
		var list []*dbusjson.Type
		for range m.R.IntN(n + 1) {
			list = append(list, m.Type(depth))
		}
		if len(dbusjson.JoinSignature(list)) <= dbusjson.MaxSignature {
			return list
		}
	}
}

func (m *Maker) signature(depth int) string {
	for {
		if s := m.part(depth); len(s) <= 200 {
			return s
		}
	}
}

func (m *Maker) part(depth int) string {
	n := m.R.IntN(18)
	if depth <= 0 {
		n %= len(basics)
	}
	switch {
	case n < len(basics):
		return basics[n : n+1]
	case n == 12:
		return "v"
	case n == 13 && m.FDs:
		return "h"
	case n <= 14:
		return "a" + m.part(depth-1)
	case n == 15:
		k := m.R.IntN(len(basics))
		return "a{" + basics[k:k+1] + m.part(depth-1) + "}"
	}
	var b strings.Builder
	b.WriteByte('(')
	for range 1 + m.R.IntN(4) {
		b.WriteString(m.part(depth - 1))
	}
	b.WriteByte(')')
	return b.String()
}

var integers = []uint64{0, 1, 2, 127, 128, 255, 32767, 32768, 65535, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32,
	1 << 53, 1<<53 + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64}

func (m *Maker) integer() uint64 {
	if m.R.IntN(2) == 0 {
		return integers[m.R.IntN(len(integers))]
	}
	return m.R.Uint64()
}

var floats = []uint64{0, 1 << 63, math.Float64bits(1), math.Float64bits(-0.1), math.Float64bits(math.MaxFloat64), math.Float64bits(math.SmallestNonzeroFloat64),
	math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)), 0x7ff8000000000000, math.Float64bits(1e21), math.Float64bits(1e-7), math.Float64bits(123456789012345680)}

var runes = []rune("abcXYZ 09\"\\/<>&\n\t\r\x01\x1f\x7f\u00e4\u20ac\u2028\u202e\uFEFF\uFFFD\U0001F600\U0010FFFD")

// Text returns a string.
func (m *Maker) Text() string {
	var b strings.Builder
	for range m.R.IntN(12) {
		b.WriteRune(runes[m.R.IntN(len(runes))])
	}
	return b.String()
}

// Value returns a value of type t. Variants in it are at most depth deep.
func (m *Maker) Value(t *dbusjson.Type, depth int) any {
	switch t.Code {
	case 'y':
		return uint8(m.integer())
	case 'b':
		return m.R.IntN(2) == 0
	case 'n':
		return int16(m.integer())
	case 'q':
		return uint16(m.integer())
	case 'i':
		return int32(m.integer())
	case 'u':
		return uint32(m.integer())
	case 'x':
		return int64(m.integer())
	case 't':
		return m.integer()
	case 'd':
		bits := floats[m.R.IntN(len(floats))]
		if m.R.IntN(2) == 0 {
			bits = m.R.Uint64()
			if m.OneNaN && math.IsNaN(math.Float64frombits(bits)) {
				bits = 0x7ff8000000000000
			}
		}
		return math.Float64frombits(bits)
	case 's':
		return m.Text()
	case 'o':
		var b strings.Builder
		for range m.R.IntN(4) {
			b.WriteString([]string{"/a", "/_0", "/org", "/X9_y"}[m.R.IntN(4)])
		}
		if b.Len() == 0 {
			return dbusjson.Path("/")
		}
		return dbusjson.Path(b.String())
	case 'g':
		if m.R.IntN(4) == 0 {
			return dbusjson.Signature("")
		}
		return dbusjson.Signature(m.signature(3))
	case 'h':
		return dbusjson.FD{Index: uint32(m.R.IntN(4)), Kind: []string{"", "pipe", "socket"}[m.R.IntN(3)]}
	case 'v':
		inner := m.Type(min(depth, 3))
		return dbusjson.Variant{Type: inner, Value: m.Value(inner, depth-1)}
	case '(':
		s := make([]any, len(t.Elem))
		for i, e := range t.Elem {
			s[i] = m.Value(e, depth)
		}
		return s
	}
	n := m.R.IntN(4)
	if t.IsBytes() {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(m.integer())
		}
		return b
	}
	if t.IsDict() {
		d := dbusjson.Dict{}
		seen := map[any]bool{}
		for range n {
			key := m.Value(t.Elem[0].Elem[0], depth)
			if f, ok := key.(float64); ok {
				if math.IsNaN(f) || f == 0 { // neither is a key for most codecs
					continue
				}
			}
			if !m.Twins && seen[key] {
				continue
			}
			seen[key] = true
			d = append(d, dbusjson.Entry{Key: key, Value: m.Value(t.Elem[0].Elem[1], depth)})
		}
		return d
	}
	s := make([]any, n)
	for i := range s {
		s[i] = m.Value(t.Elem[0], depth)
	}
	return s
}
