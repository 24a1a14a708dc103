package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

// gbChain runs one command and returns its exit code and what it printed.
func gbChain(t *testing.T, stdin string, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = cli.Run(t.Context(), app(), args, cli.Streams{In: strings.NewReader(stdin), Out: &b, Err: &b})
	return code, b.String()
}

// must runs a command that has to succeed.
func must(t *testing.T, stdin string, args ...string) {
	t.Helper()
	if code, out := gbChain(t, stdin, args...); code != 0 {
		t.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
}

const pinEvent = `{"source":"demo","type":"note","message":"hello"}` + "\n"

// pinServer serves the files of a directory, and what goes wrong with servers.
func pinServer(dir string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code := map[string]int{"500": 500, "429": 429, "403": 403}[r.PathValue("code")]
		w.WriteHeader(code)
		good, _ := os.ReadFile(filepath.Join(dir, "good"))
		w.Write(good) // not to be taken, with such a status
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		good, _ := os.ReadFile(filepath.Join(dir, "good"))
		w.Write(good)
		w.Write(bytes.Repeat([]byte("x"), maxPin))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4000")
		w.Write([]byte("pin.example/log\n"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write([]byte("x"))
			http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/garbage", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>please sign in</html>")) })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	return mux
}

// verify --pin URL, against a real server on loopback.
func TestPinFromURL(t *testing.T) {
	dir := t.TempDir()
	log, fork, early, keys, served := filepath.Join(dir, "L"), filepath.Join(dir, "F"), filepath.Join(dir, "E"), filepath.Join(dir, "K"), filepath.Join(dir, "served")
	must(t, "", "init", "--log", log, "--keys", keys, "--origin", "pin.example/log")
	must(t, pinEvent, "append", "--log", log, "--keys", keys, "--witnesses", "")
	for _, to := range []string{fork, early} {
		if err := os.CopyFS(to, os.DirFS(log)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, pinEvent, "append", "--log", log, "--keys", keys, "--witnesses", "")
	// The keys know of the log's last checkpoint; without that memory, which
	// is what an intruder would remove, another history can be signed.
	last, err := filepath.Glob(filepath.Join(keys, "*", "last"))
	if err != nil || len(last) != 1 {
		t.Fatal(last, err)
	}
	if err := os.Remove(last[0]); err != nil {
		t.Fatal(err)
	}
	must(t, strings.Replace(pinEvent, "hello", "other", 1), "append", "--log", fork, "--keys", keys, "--witnesses", "")
	if err := os.Mkdir(served, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"good": log, "forked": fork, "earlier": early} {
		note, err := os.ReadFile(filepath.Join(from, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(served, name), note, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(pinServer(served))
	defer server.Close()
	timeout := pinClient.Timeout
	defer func() { pinClient.Timeout = timeout }()

	for _, c := range []struct {
		path string
		log  string
		code int
		want []string
	}{
		{"/good", log, 0, []string{"verified: ", "pins agreed with: " + server.URL + "/good"}},
		{"/earlier", log, 0, []string{"verified: ", "pins agreed with: "}},
		{"/moved", log, 0, []string{"pins agreed with: "}},
		{"/forked", log, 3, []string{"forked #0..#2", server.URL + "/forked", "NOT VERIFIED", "the log agrees with no pin"}},
		{"/good", fork, 3, []string{"forked #0..#2", "NOT VERIFIED"}},
		{"/good", early, 3, []string{"rolled-back #2", "NOT VERIFIED"}},
		{"/nothing", log, 1, []string{"404 Not Found"}},
		{"/status/403", log, 1, []string{"403 Forbidden"}},
		{"/status/500", log, 75, []string{"500 Internal", "hint: without the pin nothing was verified"}},
		{"/status/429", log, 75, []string{"429 Too Many"}},
		{"/long", log, 1, []string{"longer than 65536 bytes"}},
		{"/endless", log, 1, []string{"longer than 65536 bytes"}},
		{"/cut", log, 75, []string{"unexpected EOF"}},
		{"/slow", log, 75, []string{"exceeded"}},
		{"/silent", log, 75, []string{"exceeded"}},
		{"/garbage", log, 2, []string{"neither a cursor file nor a signed checkpoint"}},
		{"/empty", log, 2, []string{"neither a cursor file nor a signed checkpoint"}},
		{"/round", log, 75, []string{"more than five times"}},
	} {
		t.Run(c.path[1:]+" "+filepath.Base(c.log), func(t *testing.T) {
			pinClient.Timeout = 20 * time.Second
			if c.path == "/slow" || c.path == "/silent" {
				pinClient.Timeout = 200 * time.Millisecond
			}
			code, out := gbChain(t, "", "verify", "--log", c.log, "--pin", server.URL+c.path)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("does not say %q", w)
				}
			}
			if c.code != 0 && strings.Contains(out, "\nverified: ") {
				t.Error("says verified")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
	server.Close()
	if code, out := gbChain(t, "", "verify", "--log", log, "--pin", server.URL+"/good"); code != 75 || strings.Contains(out, "verified: ") {
		t.Errorf("no server: exit code %d\n%s", code, out)
	}
}

// A pin that was to come encrypted is not taken from where it is not.
func TestPinIsNotTakenWithoutEncryption(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "good"), []byte("anything"), 0o644); err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(pinServer(dir))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL+"/good", http.StatusFound))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()

	// Its certificate is nobody's whom this machine trusts.
	if _, err := get(t.Context(), secure.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	before := pinClient.Transport
	defer func() { pinClient.Transport = before }()
	pinClient.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	if data, err := get(t.Context(), secure.URL); err == nil || !strings.Contains(err.Error(), "without encryption") {
		t.Errorf("got %q, %v", data, err)
	}
}
