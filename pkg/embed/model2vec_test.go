package embed

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modelDir = "testdata/model2vec" // made by make.py in it, with the reference tokenizer

// Tokens and vectors are those of the reference implementation.
func TestModel2VecGolden(t *testing.T) {
	m, err := OpenModel2Vec(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(modelDir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		Text   string
		IDs    []int
		Vector []float64
	}
	if err := json.Unmarshal(data, &golden); err != nil || len(golden) == 0 {
		t.Fatal(err)
	}
	for _, g := range golden {
		if got := m.tokens.encode(g.Text); !slices.Equal(got, g.IDs) {
			t.Errorf("%q: tokens %v, want %v", g.Text, got, g.IDs)
		}
		v, err := m.Embed(t.Context(), Query, []string{g.Text})
		if err != nil || len(v) != 1 || len(v[0]) != len(g.Vector) {
			t.Fatalf("%q: %v, %v", g.Text, v, err)
		}
		for d, want := range g.Vector {
			if math.Abs(float64(v[0][d])-want) > 1e-5 {
				t.Errorf("%q: %v, want %v", g.Text, v[0], g.Vector)
				break
			}
		}
	}
	if m.Dim() != 8 || !strings.HasPrefix(m.ID(), "model2vec-") {
		t.Error(m.Dim(), m.ID())
	}
}

// Models that are damaged, or of a kind that is not there, are refused by name.
func TestModel2VecRefuses(t *testing.T) {
	tokenizer, err := os.ReadFile(filepath.Join(modelDir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(modelDir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	huge := slices.Clone(model)
	binary.LittleEndian.PutUint64(huge, 1<<60)
	for name, c := range map[string]struct {
		tokenizer, model []byte
		say              string
	}{
		"unigram":   {bytes.Replace(tokenizer, []byte(`"type":"WordPiece"`), []byte(`"type":"Unigram"`), 1), model, "only WordPiece"},
		"garbage":   {[]byte("{"), model, "tokenizer.json"},
		"empty":     {tokenizer, nil, "cut off"},
		"cut off":   {tokenizer, model[:len(model)-1], "does not hold"},
		"header":    {tokenizer, huge, "cut off"},
		"type":      {tokenizer, bytes.Replace(model, []byte(`"F16"`), []byte(`"F64"`), 1), "not supported"},
		"few rows":  {bytes.Replace(tokenizer, []byte(`"[PAD]":0`), []byte(`"[PAD]":9999`), 1), model, "has no vector"},
		"no tensor": {tokenizer, bytes.Replace(model, []byte("embeddings"), []byte("embeddingz"), 1), "no tensor"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), c.tokenizer, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), c.model, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenModel2Vec(dir); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenModel2Vec(t.TempDir()); err == nil {
		t.Error("an empty directory is a model")
	}
}

func TestHalf(t *testing.T) {
	for h, want := range map[uint16]float32{0: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 1.0 / (1 << 24), 0x8001: -1.0 / (1 << 24), 0x3555: 0.33325195} {
		if got := half(h); got != want {
			t.Errorf("%#04x: %v, want %v", h, got, want)
		}
	}
}

// Whatever a text holds, its tokens are of the vocabulary.
func FuzzWordPiece(f *testing.F) {
	m, err := OpenModel2Vec(modelDir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("The bridge é \xff 日")
	f.Fuzz(func(t *testing.T, s string) {
		for _, id := range m.tokens.encode(s) {
			if id < 2 || id >= len(m.vectors)/m.dim {
				t.Fatalf("%q: token %d", s, id)
			}
		}
	})
}
