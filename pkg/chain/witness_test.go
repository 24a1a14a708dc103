package chain

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// witnessKey is a witness' key, and how it cosigns a note.
func witnessKey(t *testing.T, name string) (merkle.Witness, func(note string) string) {
	t.Helper()
	secret := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key := append([]byte{4}, secret.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), key...))
	w, err := merkle.ParseWitness(fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(key)))
	if err != nil {
		t.Fatal(err)
	}
	return w, func(note string) string {
		body, _, _ := strings.Cut(note, "\n\n")
		now := time.Now().Unix()
		sig := binary.BigEndian.AppendUint64(id[:4:4], uint64(now))
		sig = append(sig, ed25519.Sign(secret, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", now, body))...)
		return fmt.Sprintf("\u2014 %s %s\n", name, base64.StdEncoding.EncodeToString(sig))
	}
}

// Whatever a witness answers, what it did not cosign is not taken for
// cosigned, and the error says what it did. That a real one is served right is
// tested in integration/chain/peers.
func TestHostileWitness(t *testing.T) {
	dir, logKey := logOf(t, 20)
	key, cosign := witnessKey(t, "w.example/w")
	_, foreign := witnessKey(t, "other.example/w")
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, note string)
		want   string // in the error, "" for none
		code   int
	}{
		{"good", func(w http.ResponseWriter, note string) { io.WriteString(w, cosign(note)) }, "", 0},
		{"good among others", func(w http.ResponseWriter, note string) {
			io.WriteString(w, foreign(note)+"\u2014 w.example/w AAAA\n"+cosign(note))
		}, "", 0},
		{"another checkpoint", func(w http.ResponseWriter, note string) {
			io.WriteString(w, cosign(strings.Replace(note, "\n21\n", "\n20\n", 1)))
		}, "signature", 0},
		{"nothing", func(w http.ResponseWriter, note string) {}, "none by w.example/w", 0},
		{"somebody else's", func(w http.ResponseWriter, note string) { io.WriteString(w, foreign(note)) }, "none by w.example/w", 0},
		{"no end", func(w http.ResponseWriter, note string) { io.WriteString(w, strings.TrimSuffix(cosign(note), "\n")) }, "none by", 0},
		{"endless", func(w http.ResponseWriter, note string) {
			for range 100 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "none by", 0},
		{"a conflict without a size", func(w http.ResponseWriter, note string) { w.WriteHeader(409) }, "refuses with a conflict", 0},
		{"a conflict with a negative size", func(w http.ResponseWriter, note string) { w.WriteHeader(409); io.WriteString(w, "-1\n") }, "refuses with a conflict", 0},
		{"a conflict for ever", func(w http.ResponseWriter, note string) { w.WriteHeader(409); io.WriteString(w, "7\n") }, "stands at 7", 0},
		{"more events", func(w http.ResponseWriter, note string) { w.WriteHeader(409); io.WriteString(w, "22\n") }, "put back to an earlier state", 3},
		{"another log", func(w http.ResponseWriter, note string) { w.WriteHeader(422) }, "another log", 3},
		{"an unknown key", func(w http.ResponseWriter, note string) { w.WriteHeader(403) }, "does not know the log's key", 0},
		{"an unknown log", func(w http.ResponseWriter, note string) { w.WriteHeader(404) }, "does not know the log", 0},
		{"a failure", func(w http.ResponseWriter, note string) {
			w.WriteHeader(500)
			io.WriteString(w, strings.Repeat("x", 1000))
		}, "status 500", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, note, ok := strings.Cut(string(body), "\n\n")
				if !ok || r.URL.Path != "/sub/add-checkpoint" || r.Method != http.MethodPost {
					t.Errorf("%s %s: %q", r.Method, r.URL, body)
				}
				c.answer(w, note)
			}))
			defer server.Close()
			w := OpenWitnesses(os.DirFS(dir), t.TempDir(), logKey)
			x := Witness{URL: server.URL + "/sub/", Key: key}
			if err := w.Add(x); err != nil {
				t.Fatal(err)
			}
			err := w.OfferAll(context.Background())
			list, lerr := w.List()
			if lerr != nil || len(list) != 1 {
				t.Fatal(list, lerr)
			}
			note, nerr := w.Cosigned()
			if nerr != nil {
				t.Fatal(nerr)
			}
			if c.want == "" {
				if err != nil || list[0].Size != 21 || len(note) == 0 {
					t.Fatalf("%v, %+v", err, list[0])
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			var coded interface{ ExitCode() int }
			if got := errors.As(err, &coded) && coded.ExitCode() == 3; got != (c.code == 3) || list[0].Refused != got {
				t.Errorf("error %v, state %+v", err, list[0])
			}
			if len(note) > 0 || list[0].Note != "" || list[0].Error == "" {
				t.Errorf("state %+v, cosigned %q", list[0], note)
			}
		})
	}
}

// Witnesses that come, go, answer or not: Run offers to those that are there,
// and ends when it is told to.
func TestWitnessesRun(t *testing.T) {
	dir, logKey := logOf(t, 20)
	key, cosign := witnessKey(t, "w.example/w")
	silentKey, _ := witnessKey(t, "silent.example/w")
	var asked atomic.Int64
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		_, note, _ := strings.Cut(string(body), "\n\n")
		io.WriteString(w, cosign(note))
	}))
	defer good.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer silent.Close()
	w := OpenWitnesses(os.DirFS(dir), t.TempDir(), logKey)
	ctx, stop := context.WithCancel(context.Background())
	wake, ended := make(chan struct{}), make(chan struct{})
	go func() {
		w.Run(ctx, wake)
		close(ended)
	}()
	wake <- struct{}{} // nobody there yet
	for _, x := range []Witness{{silent.URL, silentKey}, {good.URL, key}} {
		if err := w.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	stands := func() int64 {
		list, err := w.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Key.Name() == "w.example/w" {
				return s.Size
			}
		}
		return 0
	}
	wake <- struct{}{}
	for deadline := time.Now().Add(20 * time.Second); stands() != 21; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not cosigned")
		}
	}
	wake <- struct{}{} // the same checkpoint: it is not offered again
	if err := w.Remove("w.example/w"); err != nil {
		t.Fatal(err)
	}
	wake <- struct{}{}
	stop()
	<-ended
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
