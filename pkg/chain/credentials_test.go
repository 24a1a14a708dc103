package chain

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A credentialLog is a log, the directory of its own keys, and
// $CREDENTIALS_DIRECTORY.
type credentialLog struct {
	dir, keys, own, cred string
	made                 *Created
}

func newCredentialLog(t *testing.T, sealing []byte) *credentialLog {
	t.Helper()
	c := &credentialLog{dir: filepath.Join(t.TempDir(), "log"), keys: t.TempDir(), cred: t.TempDir()}
	t.Setenv("CREDENTIALS_DIRECTORY", c.cred)
	if sealing != nil {
		c.put(t, CredentialSealingKey, sealing)
	}
	var err error
	if c.made, err = Create(c.dir, "cred.example/log", c.keys, Options{}); err != nil {
		t.Fatal(err)
	}
	c.own = filepath.Join(c.keys, KeysID(c.made.LogKey))
	return c
}

func (c *credentialLog) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.cred, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *credentialLog) take(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(c.cred, name)); err != nil {
		t.Fatal(err)
	}
}

// work appends, rotates, and verifies.
func (c *credentialLog) work(t *testing.T) {
	t.Helper()
	l, err := Open(c.dir, c.keys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendOne(t, l, "signed with the credential")
	if err := errors.Join(l.RotateKey(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(t.Context(), os.DirFS(c.dir), VerifyOptions{Key: c.made.LogKey}); err != nil || !r.OK {
		t.Fatal(err, r)
	}
}

// refused opens the log, which must be refused with all of the words.
func (c *credentialLog) refused(t *testing.T, words ...string) {
	t.Helper()
	l, err := Open(c.dir, c.keys, Options{})
	if err == nil {
		l.release()
		t.Fatal("the log was opened")
	}
	var hint interface{ Hint() string }
	text := err.Error()
	if errors.As(err, &hint) {
		text += " hint: " + hint.Hint()
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

func TestLogKeyFromCredentials(t *testing.T) {
	c := newCredentialLog(t, nil)
	if err := os.Rename(filepath.Join(c.own, logKeyFile), filepath.Join(c.cred, CredentialLogKey)); err != nil {
		t.Fatal(err)
	}
	c.work(t)
	if _, err := os.Stat(filepath.Join(c.own, logKeyFile)); err == nil {
		t.Error("the key was stored all the same")
	}
	// A log that is made anew gets another key.
	if _, err := Create(filepath.Join(t.TempDir(), "log"), "cred.example/log", c.keys, Options{}); err == nil || !strings.Contains(err.Error(), "two logs under one key") {
		t.Errorf("a second log under the key: %v", err)
	}
	other, err := merkle.NewKey("cred.example/log")
	if err != nil {
		t.Fatal(err)
	}
	c.put(t, CredentialLogKey, []byte(other.Secret()+"\n"))
	c.refused(t, CredentialLogKey, c.made.LogKey.String())
	c.put(t, CredentialLogKey, []byte("nonsense"))
	c.refused(t, CredentialLogKey)
}

// An epoch key in $CREDENTIALS_DIRECTORY is refused, whatever it is called and
// in whatever form, although the right one is where it belongs.
func TestEpochKeyInCredentialsIsRefused(t *testing.T) {
	c := newCredentialLog(t, nil)
	epoch, err := merkle.NewKey(layout.EpochKeyName("cred.example/log"))
	if err != nil {
		t.Fatal(err)
	}
	slots := data(t, filepath.Join(c.own, epochKeyFile))
	for name, content := range map[string][]byte{
		"epoch.key":        slots,
		"anything":         slots[:slotSize],
		"gb-chain-log.key": []byte(epoch.Secret() + "\n"),
		"note":             []byte("a key:\n" + epoch.Secret() + "\n"),
	} {
		c.put(t, name, content)
		c.refused(t, name, "epoch key", "--keys")
		c.take(t, name)
	}
	c.work(t)
}

func TestSealedKeys(t *testing.T) {
	for name, key := range map[string][]byte{
		"bytes":  sealingKey(t),
		"base64": []byte(base64.StdEncoding.EncodeToString(sealingKey(t)) + "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCredentialLog(t, key)
			c.work(t)
			c.work(t)
			if plain := c.plainKeys(t); plain != "" {
				t.Errorf("a secret is in the clear: %s", plain)
			}
			c.take(t, CredentialSealingKey)
			c.refused(t, logKeyFile, "sealed", CredentialSealingKey)
			c.put(t, CredentialSealingKey, sealingKey(t))
			c.refused(t, logKeyFile, "not the one")
			c.put(t, CredentialSealingKey, []byte("short"))
			c.refused(t, CredentialSealingKey, "32 bytes")
			c.put(t, CredentialSealingKey, key)
			c.work(t)
		})
	}
}

// plainKeys says what of the log's secrets can be read without the sealing key.
func (c *credentialLog) plainKeys(t *testing.T) string {
	t.Helper()
	l, err := Open(c.dir, c.keys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	logFile, epochFile := data(t, filepath.Join(c.own, logKeyFile)), data(t, filepath.Join(c.own, epochKeyFile))
	seed := l.keys.log.Seed()
	if bytes.Contains(logFile, []byte(l.keys.log.Secret())) || bytes.Contains(logFile, seed[:]) {
		return logKeyFile
	}
	for _, s := range l.keys.epoch.slots {
		if s == nil {
			continue
		}
		if seed := s.key.Seed(); bytes.Contains(epochFile, seed[:]) {
			return epochKeyFile
		}
	}
	return ""
}

// Keys are sealed and unsealed where they are, and each step that a crash
// leaves can be opened.
func TestSealAndUnseal(t *testing.T) {
	c := newCredentialLog(t, nil)
	c.work(t)
	if err := SealKeys(c.dir, c.keys, false, Options{}); err == nil || !strings.Contains(err.Error(), "no sealing key") {
		t.Errorf("without a sealing key: %v", err)
	}
	c.put(t, CredentialSealingKey, sealingKey(t))
	c.work(t) // a key that is not sealed yet
	plain := data(t, filepath.Join(c.own, logKeyFile))
	if err := SealKeys(c.dir, c.keys, false, Options{}); err != nil {
		t.Fatal(err)
	}
	if p := c.plainKeys(t); p != "" {
		t.Errorf("a secret is in the clear: %s", p)
	}
	c.work(t)
	sealed := data(t, filepath.Join(c.own, logKeyFile))
	// Killed behind log.key, before epoch.key.
	if err := os.WriteFile(filepath.Join(c.own, logKeyFile), plain, 0o600); err != nil {
		t.Fatal(err)
	}
	c.work(t)
	if err := os.WriteFile(filepath.Join(c.own, logKeyFile), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SealKeys(c.dir, c.keys, true, Options{}); err != nil {
		t.Fatal(err)
	}
	c.take(t, CredentialSealingKey)
	c.work(t)
}

func sealingKey(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return key
}
