package embed

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Model2Vec embeds with static token vectors, as the library of that name saves
// them: a text's vector is the mean of those of its tokens.
type Model2Vec struct {
	id      string
	dim     int
	vectors []float32 // tokens times dim
	tokens  *wordPiece
}

var _ Embedder = (*Model2Vec)(nil)

const (
	maxModelFile   = 1 << 30 // bytes
	maxModelTokens = 512     // of one text
)

// OpenModel2Vec reads the model in a directory: model.safetensors with a tensor
// "embeddings" (F32, F16, BF16 or I8) and tokenizer.json with a WordPiece
// model. Other tokenizers (Unigram, BPE) are refused.
func OpenModel2Vec(dir string) (*Model2Vec, error) {
	m, err := openModel2Vec(dir)
	if err != nil {
		return nil, fmt.Errorf("embedder %s: %w", dir, err)
	}
	return m, nil
}

func openModel2Vec(dir string) (*Model2Vec, error) {
	tokenizer, err := readModelFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return nil, err
	}
	model, err := readModelFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return nil, err
	}
	m := new(Model2Vec)
	if m.tokens, err = parseWordPiece(tokenizer); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	var rows int
	if m.vectors, rows, m.dim, err = parseEmbeddings(model); err != nil {
		return nil, fmt.Errorf("model.safetensors: %w", err)
	}
	for _, id := range m.tokens.vocab {
		if id < 0 || id >= rows {
			return nil, fmt.Errorf("token %d has no vector: there are %d", id, rows)
		}
	}
	// The space is that of both files.
	h := sha256.New()
	h.Write(model)
	h.Write(tokenizer)
	m.id = fmt.Sprintf("model2vec-%x-%d", h.Sum(nil)[:8], m.dim)
	return m, nil
}

func readModelFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxModelFile {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", filepath.Base(path), maxModelFile)
	}
	return os.ReadFile(path)
}

// ID implements Embedder.
func (m *Model2Vec) ID() string { return m.id }

// Dim implements Embedder.
func (m *Model2Vec) Dim() int { return m.dim }

// Embed implements Embedder.
func (m *Model2Vec) Embed(_ context.Context, _ Role, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, t := range texts {
		ids := m.tokens.encode(t)
		if ids = ids[:min(len(ids), maxModelTokens)]; len(ids) == 0 {
			continue
		}
		v := make([]float32, m.dim)
		for _, id := range ids {
			for d, x := range m.vectors[id*m.dim : (id+1)*m.dim] {
				v[d] += x
			}
		}
		out[i] = normalize(v) // the mean's length does not matter then
	}
	return out, nil
}

// parseEmbeddings reads the tensor "embeddings" of a safetensors file: eight
// bytes with the length of a JSON header, little-endian, the header, the data
// (huggingface.co/docs/safetensors).
func parseEmbeddings(file []byte) (vectors []float32, rows, dim int, err error) {
	if len(file) < 8 {
		return nil, 0, 0, errors.New("the file is cut off")
	}
	n := binary.LittleEndian.Uint64(file)
	if n > uint64(len(file)-8) {
		return nil, 0, 0, errors.New("the file is cut off")
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		return nil, 0, 0, fmt.Errorf("header: %w", err)
	}
	var t struct {
		Type    string    `json:"dtype"`
		Shape   []int     `json:"shape"`
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if header["embeddings"] == nil {
		return nil, 0, 0, errors.New("no tensor embeddings")
	}
	for _, other := range []string{"weights", "mapping"} {
		if header[other] != nil {
			return nil, 0, 0, fmt.Errorf("tensor %s: models with a reduced vocabulary are not supported", other)
		}
	}
	if err := json.Unmarshal(header["embeddings"], &t); err != nil {
		return nil, 0, 0, fmt.Errorf("tensor embeddings: %w", err)
	}
	data := file[8+n:]
	width, ok := map[string]int{"F32": 4, "F16": 2, "BF16": 2, "I8": 1}[t.Type]
	if !ok {
		return nil, 0, 0, fmt.Errorf("tensor embeddings: type %q is not supported", t.Type)
	}
	if len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[1] < 1 || t.Shape[0] > maxModelFile/t.Shape[1] {
		return nil, 0, 0, fmt.Errorf("tensor embeddings: shape %v", t.Shape)
	}
	rows, dim = t.Shape[0], t.Shape[1]
	if t.Offsets[1] > uint64(len(data)) || t.Offsets[0] > t.Offsets[1] || t.Offsets[1]-t.Offsets[0] != uint64(rows*dim*width) {
		return nil, 0, 0, errors.New("tensor embeddings: the file does not hold all of it")
	}
	data = data[t.Offsets[0]:t.Offsets[1]]
	vectors = make([]float32, rows*dim)
	for i := range vectors {
		switch t.Type {
		case "F32":
			vectors[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		case "F16":
			vectors[i] = half(binary.LittleEndian.Uint16(data[2*i:]))
		case "BF16":
			vectors[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
		case "I8":
			vectors[i] = float32(int8(data[i]))
		}
		if v := vectors[i]; v != v || math.IsInf(float64(v), 0) {
			return nil, 0, 0, errors.New("tensor embeddings: a number is not finite")
		}
	}
	return vectors, rows, dim, nil
}

// half returns the value of an IEEE 754 binary16.
func half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch exp {
	case 0:
		v := float32(frac) / (1 << 24)
		if sign != 0 {
			return -v
		}
		return v
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// A wordPiece cuts text into tokens as BERT's tokenizer does.
type wordPiece struct {
	vocab    map[string]int
	unknown  string
	prefix   string // of a token that goes on a word
	longest  int    // characters of a word; longer ones are unknown
	lower    bool
	accents  bool // are taken off
	clean    bool
	ideogram bool // stand by themselves
}

func parseWordPiece(file []byte) (*wordPiece, error) {
	var t struct {
		Normalizer *struct {
			Type     string `json:"type"`
			Clean    bool   `json:"clean_text"`
			Ideogram bool   `json:"handle_chinese_chars"`
			Accents  *bool  `json:"strip_accents"`
			Lower    bool   `json:"lowercase"`
		} `json:"normalizer"`
		PreTokenizer *struct {
			Type string `json:"type"`
		} `json:"pre_tokenizer"`
		Model struct {
			Type    string         `json:"type"`
			Unknown string         `json:"unk_token"`
			Prefix  string         `json:"continuing_subword_prefix"`
			Longest int            `json:"max_input_chars_per_word"`
			Vocab   map[string]int `json:"vocab"`
		} `json:"model"`
	}
	// The vocabulary of other models is a list.
	var kind struct {
		Model struct {
			Type string `json:"type"`
		} `json:"model"`
	}
	if err := json.Unmarshal(file, &kind); err != nil {
		return nil, err
	}
	if kind.Model.Type != "WordPiece" {
		return nil, fmt.Errorf("a tokenizer %q; only WordPiece is supported", kind.Model.Type)
	}
	if err := json.Unmarshal(file, &t); err != nil {
		return nil, err
	}
	if t.Normalizer == nil || t.Normalizer.Type != "BertNormalizer" || t.PreTokenizer == nil || t.PreTokenizer.Type != "BertPreTokenizer" {
		return nil, errors.New("only BertNormalizer and BertPreTokenizer are supported")
	}
	w := &wordPiece{vocab: t.Model.Vocab, unknown: t.Model.Unknown, prefix: t.Model.Prefix, longest: t.Model.Longest,
		lower: t.Normalizer.Lower, accents: t.Normalizer.Lower, clean: t.Normalizer.Clean, ideogram: t.Normalizer.Ideogram}
	if t.Normalizer.Accents != nil {
		w.accents = *t.Normalizer.Accents
	}
	if w.prefix == "" {
		w.prefix = "##"
	}
	if w.longest <= 0 {
		w.longest = 100
	}
	if len(w.vocab) == 0 {
		return nil, errors.New("no vocabulary")
	}
	return w, nil
}

// encode returns the tokens of a text, without those that are unknown.
func (w *wordPiece) encode(text string) (ids []int) {
	for _, word := range w.split(text) {
		ids = w.pieces(ids, []rune(word))
		if len(ids) >= maxModelTokens {
			break
		}
	}
	return ids
}

// pieces appends the longest pieces of a word, from its start on; none if a
// part of it is unknown.
func (w *wordPiece) pieces(ids []int, word []rune) []int {
	if len(word) > w.longest {
		return ids
	}
	before := len(ids)
	for start := 0; start < len(word); {
		end, prefix := len(word), ""
		if start > 0 {
			prefix = w.prefix
		}
		for ; end > start; end-- {
			if id, ok := w.vocab[prefix+string(word[start:end])]; ok {
				if piece := prefix + string(word[start:end]); piece != w.unknown {
					ids = append(ids, id)
				}
				break
			}
		}
		if end == start {
			return ids[:before]
		}
		start = end
	}
	return ids
}

// split normalises a text and cuts it at spaces and around punctuation.
func (w *wordPiece) split(text string) []string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(text, "\ufffd") {
		if w.clean {
			if r == 0 || r == 0xfffd || control(r) {
				continue
			}
			if space(r) {
				r = ' '
			}
		}
		if w.ideogram && ideograph(r) || punctuation(r) {
			b.WriteString(" " + string(r) + " ")
			continue
		}
		b.WriteRune(r)
	}
	text = b.String()
	if w.accents {
		text = withoutAccents(text)
	}
	if w.lower {
		text = strings.ToLower(text)
	}
	return strings.FieldsFunc(text, space)
}

// The character classes are those of BERT's tokenizer.
func space(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) }

func control(r rune) bool {
	return r != '\t' && r != '\n' && r != '\r' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs)
}

func punctuation(r rune) bool {
	return r < 0x80 && r > ' ' && r < 0x7f && !unicode.IsLetter(r) && !unicode.IsDigit(r) || unicode.IsPunct(r)
}

func ideograph(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0x20000 && r <= 0x2a6df || r >= 0x2a700 && r <= 0x2ceaf ||
		r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 && r <= 0x2fa1f
}

func withoutAccents(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(s))
}
