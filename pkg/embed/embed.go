// Package embed turns text into vectors whose angle says how near two texts
// are in meaning.
//
// Local is word vectors that are built into the program; it also knows which
// words are near to a word. OpenAI asks a server with the /v1/embeddings
// endpoint of OpenAI's API: Ollama, text-embeddings-inference, llama.cpp, vLLM.
// Model2Vec is static token vectors, from a directory.
//
// Vectors of different embedders are never compared: ID names the space.
package embed

import (
	"context"
	"fmt"
	"math"
)

// A Role says what a text is: many models want a prefix that tells.
type Role int

// The roles of a text.
const (
	Document Role = iota
	Query
)

// An Embedder makes vectors. It may be used by several goroutines.
type Embedder interface {
	// ID names the vector space: another model or version has another ID. It
	// consists of letters, digits and -._ and is fit for the name of a
	// collection.
	ID() string
	// Dim is the number of dimensions, at least 1.
	Dim() int
	// Embed returns a vector of length 1 for each text, or nil for one in
	// which the model knows nothing.
	Embed(ctx context.Context, role Role, texts []string) ([][]float32, error)
}

// normalize scales v to length 1; it returns nil if v has none.
func normalize(v []float32) []float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return nil
	}
	s := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= s
	}
	return v
}

// An UnavailableError says that an embedder can't answer now: texts can be
// embedded later. Exit code 75.
type UnavailableError struct {
	ID  string
	Err error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("embedder %s: %v", e.ID, e.Err) }
func (e *UnavailableError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *UnavailableError) ExitCode() int { return 75 }
