package local

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"math"
)

// A pack is a row with what many templates have, so that all of it is read
// quickly. The row's id is its kind times 2^32 plus its number.
//
//   - packStems: packStemsN stems, each with a byte for its length before it;
//     the n-th stem of all has number n.
//   - packWords: the stems of packN templates: for each their number and
//     BM25's length in sixteenths (both uvarint), then for each stem its number
//     (uvarint) and weight in quarters (a byte). A template that was removed
//     has none.
//   - packVectors: the vectors of packN templates: for each a byte, 1 if there
//     is one, and dim times int8, of which the vector is a positive multiple.
const (
	packStems = iota
	packWords
	packVectors
)

const (
	packN      = 128
	packStemsN = 512
)

func packID(kind, no int) int64 { return int64(kind)<<32 | int64(no) }

func getPack(q interface {
	QueryRow(string, ...any) *sql.Row
}, kind, no int) ([]byte, error) {
	var data []byte
	err := q.QueryRow("SELECT data FROM pack WHERE id = ?", packID(kind, no)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return data, err
}

// words are the stems of one template, by number.
type stemWeight struct {
	stem   uint32
	weight uint8 // in quarters
}

func appendWords(b []byte, length float64, list []stemWeight) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	b = binary.AppendUvarint(b, uint64(math.Round(length*16)))
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(s.stem))
		b = append(b, s.weight)
	}
	return b
}

var errPack = errors.New("a pack of templates is damaged")

// eachWords calls f with the stems of each template in a pack; at is where its
// bytes begin and end.
func eachWords(b []byte, f func(n int, length float64, list []stemWeight)) error {
	var list []stemWeight
	for n := 0; len(b) > 0; n++ {
		count, k := binary.Uvarint(b)
		if k <= 0 || count > uint64(len(b)) {
			return errPack
		}
		b = b[k:]
		length, k := binary.Uvarint(b)
		if k <= 0 {
			return errPack
		}
		b = b[k:]
		list = list[:0]
		for range count {
			stem, k := binary.Uvarint(b)
			if k <= 0 || len(b) <= k || stem > math.MaxUint32 {
				return errPack
			}
			list = append(list, stemWeight{uint32(stem), b[k]})
			b = b[k+1:]
		}
		f(n, float64(length)/16, list)
	}
	return nil
}

// quantize appends v's row of a pack of vectors.
func quantize(b []byte, v []float32, dim int) []byte {
	if len(v) != dim {
		return append(b, make([]byte, 1+dim)...)
	}
	var most float32
	for _, x := range v {
		most = max(most, float32(math.Abs(float64(x))))
	}
	if most == 0 {
		return append(b, make([]byte, 1+dim)...)
	}
	b = append(b, 1)
	for _, x := range v {
		b = append(b, byte(int8(math.Round(float64(x/most*127)))))
	}
	return b
}

// quarters returns the weights of stems as packs keep them.
func quarters(w float64) uint8 { return uint8(min(math.Round(w*4), 255)) }
