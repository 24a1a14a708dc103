package embed

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// embeddings is a server of the API: a text's vector is its length, 1 and 0,
// and answers are in reverse order.
func embeddings(t *testing.T, before func(w http.ResponseWriter, r *http.Request, input []string) bool) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Model string   `json:"model"`
			Input []string `json:"input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/embeddings" || q.Model != "m/x" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		if before != nil && !before(w, r, q.Input) {
			return
		}
		var data []string
		for i, text := range q.Input {
			data = append(data, fmt.Sprintf(`{"object":"embedding","index":%d,"embedding":[%d,1,0]}`, i, len(text)))
		}
		slices.Reverse(data)
		fmt.Fprintf(w, `{"object":"list","data":[%s]}`, strings.Join(data, ","))
	}))
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, s *httptest.Server, o OpenAIOptions) *OpenAI {
	t.Helper()
	o.URL, o.Model, o.Wait = s.URL+"/v1", "m/x", time.Millisecond
	if o.Dim == 0 {
		o.Dim = 3
	}
	c, err := NewOpenAI(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenAIBatches(t *testing.T) {
	var sizes []int
	var key string
	s := embeddings(t, func(_ http.ResponseWriter, r *http.Request, input []string) bool {
		sizes, key = append(sizes, len(input)), r.Header.Get("Authorization")
		for _, text := range input {
			if !strings.HasPrefix(text, "doc: ") {
				t.Errorf("%q has no prefix", text)
			}
		}
		return true
	})
	c := client(t, s, OpenAIOptions{Key: "k", DocumentPrefix: "doc: "})
	texts := make([]string, 150)
	for i := range texts {
		texts[i] = strings.Repeat("x", i)
	}
	v, err := c.Embed(t.Context(), Document, texts)
	if err != nil || len(v) != len(texts) || fmt.Sprint(sizes) != "[64 64 22]" || key != "Bearer k" {
		t.Fatal(len(v), sizes, key, err)
	}
	for i := range v {
		if got := v[i][0] / v[i][1]; int(got+0.5) != i+len("doc: ") {
			t.Errorf("text %d has the vector of another one: %v", i, v[i])
		}
	}
	if c.ID() != "openai-m_x-3" || c.Dim() != 3 {
		t.Error(c.ID(), c.Dim())
	}
}

func TestOpenAIRetries(t *testing.T) {
	var n atomic.Int32
	s := embeddings(t, func(w http.ResponseWriter, _ *http.Request, _ []string) bool {
		if n.Add(1) < 3 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return false
		}
		return true
	})
	if v, err := client(t, s, OpenAIOptions{}).Embed(t.Context(), Document, []string{"a"}); err != nil || len(v) != 1 || n.Load() != 3 {
		t.Error(v, err, n.Load())
	}
}

func TestOpenAIErrors(t *testing.T) {
	answer := func(code int, text string) func(http.ResponseWriter, *http.Request, []string) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ []string) bool {
			w.WriteHeader(code)
			fmt.Fprint(w, text)
			return false
		}
	}
	for name, c := range map[string]struct {
		code        int
		text        string
		unavailable bool
		say         string
	}{
		"down":       {503, "x", true, "503"},
		"many":       {429, "x", true, "429"},
		"key":        {401, "no key", false, "401"},
		"garbage":    {200, "{", false, "answer"},
		"few":        {200, `{"data":[]}`, false, "0 vectors for 1"},
		"dimensions": {200, `{"data":[{"index":0,"embedding":[1,2]}]}`, false, "2 dimensions, 3 were named"},
		"index":      {200, `{"data":[{"index":7,"embedding":[1,2,3]}]}`, false, "text 7 of 1"},
	} {
		s := embeddings(t, answer(c.code, c.text))
		_, err := client(t, s, OpenAIOptions{}).Embed(t.Context(), Query, []string{"a"})
		var u *UnavailableError
		if err == nil || errors.As(err, &u) != c.unavailable || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := embeddings(t, nil)
	c := client(t, s, OpenAIOptions{})
	s.Close()
	var u *UnavailableError
	if _, err := c.Embed(t.Context(), Query, []string{"a"}); !errors.As(err, &u) || u.ExitCode() != 75 {
		t.Error(err)
	}
	// It is not asked again at once.
	if _, err := c.Embed(t.Context(), Document, []string{"a"}); !errors.As(err, &u) || !strings.Contains(err.Error(), "asked again in") {
		t.Error(err)
	}
	for _, o := range []OpenAIOptions{{}, {URL: "x"}, {URL: "http://x", Model: "m"}, {URL: "http://x", Dim: 3}, {URL: "http://x", Model: "m", Dim: 1 << 20}} {
		if _, err := NewOpenAI(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
