package embed

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"sync"
)

// The file of synonyms, made by "make vectors" from WordNet 3.0, little-endian:
//
//	SynonymMagic
//	uint32 n
//	n times, in order: uint8 length, stem, uint8 count, count times: uint16 stem of vectors.bin, uint8 worth/255
//
//go:embed synonyms.bin
var synonymFile []byte

// SynonymMagic begins the file of synonyms. WordNet's licence asks for the rest
// of it.
const SynonymMagic = "GBSYN1\nThis is made from WordNet 3.0, Copyright 2006 by Princeton University. All rights reserved. See synonyms.license.\n"

// synonyms are stems that mean about the same as others.
type synonyms struct {
	stems []string
	lists [][]byte
}

var loadSynonyms = sync.OnceValue(func() *synonyms {
	s, err := parseSynonyms(synonymFile, len(LoadLocal().stems))
	if err != nil {
		panic("embed: built-in synonyms: " + err.Error()) // a broken build
	}
	return s
})

func parseSynonyms(file []byte, known int) (*synonyms, error) {
	if len(file) < len(SynonymMagic)+4 || string(file[:len(SynonymMagic)]) != SynonymMagic {
		return nil, errors.New("not a file of synonyms")
	}
	b := file[len(SynonymMagic):]
	n := int(binary.LittleEndian.Uint32(b))
	if b = b[4:]; n > len(b)/2 {
		return nil, errors.New("the file is cut off")
	}
	text := string(b) // one allocation for all stems
	s := &synonyms{stems: make([]string, n), lists: make([][]byte, n)}
	at := 0
	for i := range n {
		if at >= len(b) || at+2+int(b[at]) > len(b) {
			return nil, errors.New("the file is cut off")
		}
		end := at + 1 + int(b[at])
		s.stems[i] = text[at+1 : end]
		if i > 0 && s.stems[i-1] >= s.stems[i] {
			return nil, fmt.Errorf("%q is out of order", s.stems[i])
		}
		at = end + 1 + 3*int(b[end])
		if at > len(b) {
			return nil, errors.New("the file is cut off")
		}
		s.lists[i] = b[end+1 : at]
		for j := 0; j < len(s.lists[i]); j += 3 {
			if int(binary.LittleEndian.Uint16(s.lists[i][j:])) >= known {
				return nil, errors.New("a synonym is not there")
			}
		}
	}
	return s, nil
}

// of returns what means about the same as a stem, its worth as Weight.
func (s *synonyms) of(stem string, l *Local) []Neighbour {
	i := sort.SearchStrings(s.stems, stem)
	if i == len(s.stems) || s.stems[i] != stem {
		return nil
	}
	var list []Neighbour
	for b := s.lists[i]; len(b) > 0; b = b[3:] {
		list = append(list, Neighbour{Stem: l.stems[binary.LittleEndian.Uint16(b)], Weight: float64(b[2]) / 255})
	}
	return list
}

// Index returns the number of a stem.
func (l *Local) Index(stem string) (int, bool) { return l.index(stem) }

// Similarity returns the cosine between the vectors of two stems; ok says that
// both have one.
func (l *Local) Similarity(a, b string) (cosine float64, ok bool) {
	i, ok := l.index(a)
	if !ok {
		return 0, false
	}
	j, ok := l.index(b)
	if !ok {
		return 0, false
	}
	x, y := make([]float32, l.dim), make([]float32, l.dim)
	l.add(x, i, 1)
	l.add(y, j, 1)
	var dot, xx, yy float64
	for d := range x {
		dot += float64(x[d]) * float64(y[d])
		xx += float64(x[d]) * float64(x[d])
		yy += float64(y[d]) * float64(y[d])
	}
	if xx == 0 || yy == 0 {
		return 0, false
	}
	return dot / math.Sqrt(xx*yy), true
}
