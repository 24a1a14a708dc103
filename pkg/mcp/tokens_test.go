package mcp

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	file := filepath.Join(t.TempDir(), "d", "tokens.json")
	tokens := &Tokens{File: file, Now: func() time.Time { return now }}
	if _, err := tokens.Check("x"); !errors.Is(err, ErrNoToken) {
		t.Error("without a file:", err)
	}
	made, secret, err := tokens.Add("claude", []string{ScopeExecute, ScopeRead}, time.Hour, -1)
	if err != nil || strings.Join(made.Scopes, ",") != "read,execute" {
		t.Fatal(made, err)
	}
	data, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(data), secret) || strings.Contains(string(data), strings.TrimPrefix(secret, tokenPrefix)) {
		t.Errorf("the file has the secret: %s %v", data, err)
	}
	if got, err := tokens.Check(secret); err != nil || got.Name != "claude" {
		t.Error(got, err)
	}
	_, second, err := tokens.Add("other", []string{ScopeRead}, 2*time.Hour, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "x", secret + "x", secret[:len(secret)-1], strings.ToUpper(secret), made.SHA256, " " + secret} {
		if _, err := tokens.Check(wrong); !errors.Is(err, ErrNoToken) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	for _, c := range []struct {
		name   string
		scopes []string
		valid  time.Duration
	}{{"claude", []string{ScopeRead}, time.Hour}, {"Claude", []string{ScopeRead}, time.Hour}, {"user:root", []string{ScopeRead}, time.Hour}, {"", []string{ScopeRead}, time.Hour}, {"-", []string{ScopeRead}, time.Hour}, {"n", nil, time.Hour}, {"n", []string{"admin"}, time.Hour}, {"n", []string{ScopeRead}, 0}} {
		var te *TokenError
		if _, _, err := tokens.Add(c.name, c.scopes, c.valid, -1); !errors.As(err, &te) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	now = now.Add(time.Hour)
	if _, err := tokens.Check(secret); !errors.Is(err, ErrNoToken) {
		t.Error("after its time:", err)
	}
	if _, err := tokens.Check(second); err != nil {
		t.Error(err)
	}
	if err := tokens.Remove("other"); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Check(second); !errors.Is(err, ErrNoToken) {
		t.Error("one that was removed:", err)
	}
	if err := tokens.Remove("other"); err == nil {
		t.Error("removed twice")
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Check(secret); err == nil || errors.Is(err, ErrNoToken) {
		t.Error("a file that everybody may write:", err)
	}
}
