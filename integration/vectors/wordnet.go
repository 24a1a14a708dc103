package main

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// What WordNet's relations are worth. The senses of a word are in the order of
// how often they are meant, those behind count less.
var (
	senseWorth = []float64{1, 0.8, 0.6, 0.45, 0.35}
	relations  = map[string]float64{
		"+": 0.9,  // derived: fail, failure
		"&": 0.5,  // similar, of adjectives
		"@": 0.45, // what it is a kind of
		"~": 0.4,  // kinds of it
		"*": 0.4,  // entailed, of verbs
		">": 0.5,  // caused, of verbs
		"$": 0.5,  // grouped, of verbs
		"^": 0.5,  // see also
	}
)

const (
	irregularWorth = 1.0
	leastWorth     = 0.22
	mostSynonyms   = 14
)

// A synset is one meaning.
type synset struct {
	lemmas []string
	links  []link
}

type link struct {
	relation string
	to       string // part of speech and offset
	from, of int    // lemma numbers from 1, 0 for the whole
}

// synonyms makes the file of synonyms from WordNet's in dir: for each stem that a
// question may have the stems that mean about the same, as far as the vectors
// know them. Of the meanings of a word those count that the word has in the texts
// that the vectors were trained on: where two words are not near each other
// there, they count less.
func synonyms(dir string, l *embed.Local) ([]byte, int, error) {
	sets := make(map[string]*synset)
	order := make(map[string][][]string)
	for _, pos := range []string{"noun", "verb", "adj", "adv"} {
		if err := readData(filepath.Join(dir, "data."+pos), pos, sets); err != nil {
			return nil, 0, err
		}
		if err := readIndex(filepath.Join(dir, "index."+pos), pos, order); err != nil {
			return nil, 0, err
		}
	}
	worth := make(map[string]map[string]float64)
	put := func(a, b string, w float64) {
		as, bs := words.Terms(a), words.Terms(b)
		if len(as) != 1 || len(bs) != 1 || as[0] == bs[0] {
			return // several words, or one that no search looks for
		}
		if worth[as[0]] == nil {
			worth[as[0]] = make(map[string]float64)
		}
		worth[as[0]][bs[0]] = max(worth[as[0]][bs[0]], w)
	}
	for lemma, lists := range order {
		for _, list := range lists {
			for k, id := range list {
				if k >= len(senseWorth) {
					break
				}
				s := sets[id]
				if s == nil {
					return nil, 0, fmt.Errorf("no synset %s", id)
				}
				own := slices.Index(s.lemmas, lemma) + 1
				for _, other := range s.lemmas {
					put(lemma, other, senseWorth[k])
				}
				kinds := 0
				for _, n := range s.links {
					w := relations[n.relation]
					if w == 0 || n.from != 0 && n.from != own {
						continue
					}
					if n.relation == "~" {
						if kinds++; kinds > 12 {
							continue
						}
					}
					to := sets[n.to]
					if to == nil {
						return nil, 0, fmt.Errorf("no synset %s", n.to)
					}
					if n.of > 0 {
						put(lemma, to.lemmas[n.of-1], w*senseWorth[k])
						continue
					}
					for _, other := range to.lemmas {
						put(lemma, other, w*senseWorth[k])
					}
				}
			}
		}
	}
	for _, pos := range []string{"noun", "verb", "adj", "adv"} {
		if err := eachLine(filepath.Join(dir, pos+".exc"), func(line string) error {
			f := strings.Fields(line)
			for _, base := range f[1:] {
				put(f[0], base, irregularWorth)
				put(base, f[0], irregularWorth)
				// What the base means the form does.
				for s, w := range maps.Clone(worth[stemOf(base)]) {
					put(f[0], s, 0.9*w)
				}
			}
			return nil
		}); err != nil {
			return nil, 0, err
		}
	}
	return packSynonyms(worth, l)
}

func stemOf(w string) string {
	if t := words.Terms(w); len(t) == 1 {
		return t[0]
	}
	return ""
}

func packSynonyms(worth map[string]map[string]float64, l *embed.Local) ([]byte, int, error) {
	type synonym struct {
		stem int
		w    float64
	}
	sources := make([]string, 0, len(worth))
	lists := make(map[string][]synonym)
	pairs := 0
	for s, of := range worth {
		var list []synonym
		for t, w := range of {
			i, ok := l.Index(t)
			if !ok {
				continue
			}
			if near, ok := l.Similarity(s, t); ok {
				w *= 0.35 + 0.65*min(1, max(0, near)/0.5)
			} else {
				w *= 0.8 // nobody knows which meaning it has there
			}
			if w >= leastWorth {
				list = append(list, synonym{i, w})
			}
		}
		if len(list) == 0 || len(s) > 40 {
			continue
		}
		slices.SortFunc(list, func(a, b synonym) int {
			if c := cmp.Compare(b.w, a.w); c != 0 {
				return c
			}
			return a.stem - b.stem
		})
		lists[s] = list[:min(len(list), mostSynonyms)]
		sources = append(sources, s)
		pairs += len(lists[s])
	}
	slices.Sort(sources)
	out := binary.LittleEndian.AppendUint32([]byte(embed.SynonymMagic), uint32(len(sources)))
	for _, s := range sources {
		out = append(out, byte(len(s)))
		out = append(out, s...)
		out = append(out, byte(len(lists[s])))
		for _, y := range lists[s] {
			out = binary.LittleEndian.AppendUint16(out, uint16(y.stem))
			out = append(out, byte(min(y.w, 1)*255))
		}
	}
	return out, pairs, nil
}

func eachLine(path string, f func(line string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if strings.HasPrefix(s.Text(), "  ") { // the licence
			continue
		}
		if err := f(s.Text()); err != nil {
			return fmt.Errorf("%s: %q: %w", path, s.Text(), err)
		}
	}
	return s.Err()
}

var letters = map[string]string{"noun": "n", "verb": "v", "adj": "a", "adv": "r"}

// readData reads the synsets (wndb(5)).
func readData(path, pos string, sets map[string]*synset) error {
	return eachLine(path, func(line string) error {
		line, _, _ = strings.Cut(line, " | ")
		f := strings.Fields(line)
		s := new(synset)
		n, err := strconv.ParseInt(f[3], 16, 32)
		if err != nil {
			return err
		}
		at := 4
		for range n {
			lemma, _, _ := strings.Cut(f[at], "(")
			s.lemmas = append(s.lemmas, strings.ToLower(lemma))
			at += 2
		}
		links, err := strconv.Atoi(f[at])
		if err != nil {
			return err
		}
		at++
		for range links {
			which, err := strconv.ParseUint(f[at+3], 16, 16)
			if err != nil {
				return err
			}
			p := f[at+2]
			if p == "s" {
				p = "a"
			}
			s.links = append(s.links, link{f[at], p + f[at+1], int(which >> 8), int(which & 0xff)})
			at += 4
		}
		sets[letters[pos]+f[0]] = s
		return nil
	})
}

// readIndex reads which synsets each lemma has, the one most often meant first.
func readIndex(path, pos string, order map[string][][]string) error {
	return eachLine(path, func(line string) error {
		f := strings.Fields(line)
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		var list []string
		for _, offset := range f[len(f)-n:] {
			list = append(list, letters[pos]+offset)
		}
		if !strings.Contains(f[0], "_") {
			order[f[0]] = append(order[f[0]], list)
		}
		return nil
	})
}
