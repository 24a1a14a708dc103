package embed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// OpenAIOptions say where a server is and what it is asked for.
type OpenAIOptions struct {
	// URL is the base, as http://127.0.0.1:11434/v1; "/embeddings" is added.
	URL   string
	Model string
	// Key is sent as a bearer token if it is not empty.
	Key string
	// QueryPrefix and DocumentPrefix go before each text of that role, as many
	// models want it.
	QueryPrefix, DocumentPrefix string
	// Dim is the number of dimensions that answers must have.
	Dim int
	// Client is one with a timeout if nil.
	Client *http.Client
	// Wait is the first pause before another try, 200 ms if 0.
	Wait time.Duration
}

// OpenAI asks a server with the /v1/embeddings endpoint of OpenAI's API.
//
// A server that does not answer is left alone for a while: texts are embedded
// later, so that nobody waits for it again and again.
type OpenAI struct {
	o     OpenAIOptions
	mu    sync.Mutex
	until time.Time // when it is asked again
}

var _ Embedder = (*OpenAI)(nil)

const (
	openAIBatch   = 64      // texts a request
	openAIText    = 8 << 10 // bytes of a text that are sent
	openAITries   = 4       // for documents; a question is not worth the wait
	openAITimeout = 20 * time.Second
	openAIQuery   = 3 * time.Second // for a question
	openAIPause   = 30 * time.Second
	openAIAnswer  = 64 << 20 // bytes
)

// NewOpenAI returns the client of a server. It does not ask it yet.
func NewOpenAI(o OpenAIOptions) (*OpenAI, error) {
	if !strings.HasPrefix(o.URL, "http://") && !strings.HasPrefix(o.URL, "https://") {
		return nil, fmt.Errorf("embedder: %q: want an http or https URL, as http://127.0.0.1:11434/v1", o.URL)
	}
	if o.Model == "" || o.Dim < 1 || o.Dim > 8192 {
		return nil, fmt.Errorf("embedder %s: want the model's name and its number of dimensions", o.URL)
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: openAITimeout}
	}
	if o.Wait == 0 {
		o.Wait = 200 * time.Millisecond
	}
	return &OpenAI{o: o}, nil
}

// ID implements Embedder: by model and dimensions, since any server may serve a
// model.
func (c *OpenAI) ID() string {
	clean := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, c.o.Model)
	return fmt.Sprintf("openai-%s-%d", clean, c.o.Dim)
}

// Dim implements Embedder.
func (c *OpenAI) Dim() int { return c.o.Dim }

// Embed implements Embedder. The error is an *UnavailableError if the server
// can't be reached or is overloaded after several tries.
func (c *OpenAI) Embed(ctx context.Context, role Role, texts []string) ([][]float32, error) {
	c.mu.Lock()
	wait := time.Until(c.until)
	c.mu.Unlock()
	if wait > 0 {
		return nil, &UnavailableError{c.ID(), fmt.Errorf("it did not answer, and is asked again in %v", wait.Round(time.Second))}
	}
	prefix, tries := c.o.DocumentPrefix, openAITries
	if role == Query {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openAIQuery)
		defer cancel()
		prefix, tries = c.o.QueryPrefix, 1
	}
	out := make([][]float32, 0, len(texts))
	for len(texts) > 0 {
		n := min(len(texts), openAIBatch)
		batch := make([]string, n)
		for i, t := range texts[:n] {
			if len(t) > openAIText {
				t = strings.ToValidUTF8(t[:openAIText], "")
			}
			if batch[i] = prefix + t; strings.TrimSpace(batch[i]) == "" {
				batch[i] = "-" // servers refuse an empty text
			}
		}
		vectors, err := c.batch(ctx, batch, tries)
		if err != nil {
			var down *UnavailableError
			if errors.As(err, &down) {
				c.mu.Lock()
				c.until = time.Now().Add(openAIPause)
				c.mu.Unlock()
			}
			return nil, err
		}
		out, texts = append(out, vectors...), texts[n:]
	}
	return out, nil
}

// batch asks until the server answers, with pauses that grow and differ.
func (c *OpenAI) batch(ctx context.Context, texts []string, tries int) ([][]float32, error) {
	pause := c.o.Wait
	for try := 1; ; try++ {
		vectors, after, err := c.request(ctx, texts)
		var again *retryError
		if err == nil || !errors.As(err, &again) {
			return vectors, err
		}
		if try >= tries || ctx.Err() != nil || os.IsTimeout(again.error) {
			return nil, &UnavailableError{c.ID(), again.error}
		}
		wait := max(time.Duration(rand.Int64N(int64(pause)))+pause/2, min(after, 30*time.Second))
		select {
		case <-ctx.Done():
			return nil, &UnavailableError{c.ID(), ctx.Err()}
		case <-time.After(wait):
		}
		pause = min(2*pause, 20*time.Second)
	}
}

// A retryError is one after which another try may succeed.
type retryError struct{ error }

func (e *retryError) Unwrap() error { return e.error }

func (c *OpenAI) request(ctx context.Context, texts []string) (vectors [][]float32, after time.Duration, err error) {
	body, err := json.Marshal(struct {
		Model  string   `json:"model"`
		Input  []string `json:"input"`
		Format string   `json:"encoding_format"`
	}{c.o.Model, texts, "float"})
	if err != nil {
		return nil, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(c.o.URL, "/")+"/embeddings", bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("embedder %s: %w", c.o.URL, err)
	}
	r.Header.Set("Content-Type", "application/json")
	if c.o.Key != "" {
		r.Header.Set("Authorization", "Bearer "+c.o.Key)
	}
	resp, err := c.o.Client.Do(r)
	if err != nil {
		return nil, 0, &retryError{err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, openAIAnswer))
	if err != nil {
		return nil, 0, &retryError{err}
	}
	if resp.StatusCode != http.StatusOK {
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s < 3600 {
			after = time.Duration(s) * time.Second
		}
		err := fmt.Errorf("embedder %s: %s: %.200q", c.o.URL, resp.Status, answer)
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode >= 500 {
			return nil, after, &retryError{err}
		}
		return nil, 0, err
	}
	vectors, err = c.decode(answer, len(texts))
	return vectors, 0, err
}

// decode reads an answer to n texts. Vectors may come in any order; each must
// be there once and have the right number of dimensions.
func (c *OpenAI) decode(answer []byte, n int) ([][]float32, error) {
	var a struct {
		Data []struct {
			Index     int       `json:"index"`
			Embedding []float32 `json:"embedding"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("embedder %s: its answer: %w", c.o.URL, err)
	}
	if len(a.Data) != n {
		return nil, fmt.Errorf("embedder %s: %d vectors for %d texts", c.o.URL, len(a.Data), n)
	}
	vectors := make([][]float32, n)
	seen := make([]bool, n)
	for _, d := range a.Data {
		if d.Index < 0 || d.Index >= n || seen[d.Index] {
			return nil, fmt.Errorf("embedder %s: a vector for text %d of %d, or two", c.o.URL, d.Index, n)
		}
		if len(d.Embedding) != c.o.Dim {
			return nil, fmt.Errorf("embedder %s: model %s has %d dimensions, %d were named", c.o.URL, c.o.Model, len(d.Embedding), c.o.Dim)
		}
		seen[d.Index] = true
		vectors[d.Index] = normalize(d.Embedding)
	}
	return vectors, nil
}
