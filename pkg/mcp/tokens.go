package mcp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// Scopes of a token, each of which includes none of the others.
const (
	ScopeRead    = "read"    // look
	ScopePropose = "propose" // make plans, ask for approvals
	ScopeExecute = "execute" // change what policy and people allow
)

// AllScopes in their order.
var AllScopes = []string{ScopeRead, ScopePropose, ScopeExecute}

// A Token lets an agent in. Its secret is shown once, when it is made; what is
// kept is its SHA-256, which is enough because the secret is 256 random bits.
type Token struct {
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"` // of the secret, in hex
	Scopes  []string  `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Expired says whether its time is over.
func (t Token) Expired(now time.Time) bool { return !now.Before(t.Expires) }

// Tokens is the file of them. Several processes may use it.
type Tokens struct {
	File string
	Now  func() time.Time // time.Now if nil

	mu   sync.Mutex
	from os.FileInfo // the file that list came from
	list []Token
}

// A TokenError says what is wrong with a token, or with the file: its exit code
// is 2.
type TokenError struct{ text, hint string }

func (e *TokenError) Error() string { return e.text }

// Hint says what a person can do.
func (e *TokenError) Hint() string { return e.hint }

// ExitCode is that of wrong usage.
func (e *TokenError) ExitCode() int { return 2 }

// ErrNoToken says that a secret is nobody's, or no longer.
var ErrNoToken = errors.New("the token is not valid")

const (
	tokenPrefix = "gbmcp_"
	maxTokens   = 1000
	maxFile     = 1 << 20
)

var tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (t *Tokens) now() time.Time {
	if t.Now != nil {
		return t.Now()
	}
	return time.Now()
}

type tokenFile struct {
	Version int     `json:"version"`
	Tokens  []Token `json:"tokens"`
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// read returns the tokens of the file; none if there is no file. One that
// others than root, or who runs this, may write is refused: who can write it
// lets in whom they like.
func (t *Tokens) read() ([]Token, os.FileInfo, error) {
	f, err := os.Open(t.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return nil, nil, &TokenError{fmt.Sprintf("%s belongs to uid %d, not to root", t.File, st.Uid), "chown root " + t.File}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, nil, &TokenError{fmt.Sprintf("%s: others may write it (mode %04o)", t.File, info.Mode().Perm()), "chmod 640 " + t.File}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var file tokenFile
	if err := dec.Decode(&file); err != nil || len(data) > maxFile {
		return nil, nil, &TokenError{fmt.Sprintf("%s: not a file of tokens: %v", t.File, err), ""}
	}
	if file.Version != 1 {
		return nil, nil, &TokenError{fmt.Sprintf("%s: version %d, this program knows 1", t.File, file.Version), ""}
	}
	return file.Tokens, info, nil
}

// List returns the tokens, by name.
func (t *Tokens) List() ([]Token, error) {
	list, _, err := t.read()
	slices.SortFunc(list, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// change calls do with the tokens, and keeps what it returns, while no other
// process changes the file.
func (t *Tokens) change(do func([]Token) ([]Token, error)) error {
	if err := os.MkdirAll(filepath.Dir(t.File), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(t.File+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := durable.WaitLock(lock); err != nil {
		return err
	}
	list, info, err := t.read()
	if err != nil {
		return err
	}
	if list, err = do(list); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.MarshalIndent(tokenFile{1, list}, "", "  ")
	if err != nil {
		return err
	}
	// Who may read it stays as it is.
	mode := os.FileMode(0o640)
	if info != nil {
		mode = info.Mode().Perm()
	}
	if err := durable.Replace(t.File, append(data, '\n'), mode); err != nil {
		return err
	}
	if info != nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return os.Chown(t.File, -1, int(st.Gid))
		}
	}
	return nil
}

// Plan returns the token that Add would make.
func (t *Tokens) Plan(name string, scopes []string, valid time.Duration) (Token, error) {
	if !tokenName.MatchString(name) {
		return Token{}, &TokenError{fmt.Sprintf("%q is no name for a token", name), "lower case letters, digits, dots, dashes and underscores: claude-laptop"}
	}
	if len(scopes) == 0 {
		return Token{}, &TokenError{"a token without scopes is good for nothing", "--scope read"}
	}
	var sorted []string
	for _, s := range AllScopes {
		if slices.Contains(scopes, s) {
			sorted = append(sorted, s)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(AllScopes, s) {
			return Token{}, &TokenError{fmt.Sprintf("scope %q: want read, propose or execute", s), ""}
		}
	}
	if valid <= 0 {
		return Token{}, &TokenError{fmt.Sprintf("a token that is valid for %s", valid), "--expires 720h"}
	}
	now := t.now().UTC().Truncate(time.Second)
	list, _, err := t.read()
	if err != nil {
		return Token{}, err
	}
	if slices.ContainsFunc(list, func(o Token) bool { return o.Name == name }) {
		return Token{}, &TokenError{fmt.Sprintf("there is a token %s", name), "opdbus token rm " + name + " takes it away"}
	}
	return Token{Name: name, Scopes: sorted, Created: now, Expires: now.Add(valid)}, nil
}

// Add makes a token and returns its secret. group is the gid that may read a
// file that is made anew, -1 for nobody.
func (t *Tokens) Add(name string, scopes []string, valid time.Duration, group int) (Token, string, error) {
	token, err := t.Plan(name, scopes, valid)
	if err != nil {
		return token, "", err
	}
	var random [32]byte
	rand.Read(random[:])
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	token.SHA256 = hashSecret(secret)
	_, statErr := os.Stat(t.File)
	err = t.change(func(list []Token) ([]Token, error) {
		if slices.ContainsFunc(list, func(o Token) bool { return o.Name == name }) {
			return nil, &TokenError{fmt.Sprintf("there is a token %s", name), ""}
		}
		if len(list) >= maxTokens {
			return nil, &TokenError{fmt.Sprintf("there are %d tokens already", len(list)), "opdbus token rm takes one away"}
		}
		return append(list, token), nil
	})
	if err == nil && statErr != nil && group >= 0 {
		err = os.Chown(t.File, -1, group)
	}
	return token, secret, err
}

// Remove takes a token away: from the next request on it is nobody's.
func (t *Tokens) Remove(name string) error {
	return t.change(func(list []Token) ([]Token, error) {
		kept := slices.DeleteFunc(slices.Clone(list), func(o Token) bool { return o.Name == name })
		if len(kept) == len(list) {
			return nil, &TokenError{fmt.Sprintf("there is no token %s", name), "opdbus token ls lists them"}
		}
		return kept, nil
	})
}

// Check returns whose secret it is. The file is read anew when it has changed.
func (t *Tokens) Check(secret string) (Token, error) {
	hash := hashSecret(secret)
	t.mu.Lock()
	defer t.mu.Unlock()
	info, err := os.Stat(t.File)
	if errors.Is(err, fs.ErrNotExist) {
		t.from, t.list = nil, nil
		return Token{}, ErrNoToken
	}
	if err != nil {
		return Token{}, err
	}
	if t.from == nil || !os.SameFile(info, t.from) || !info.ModTime().Equal(t.from.ModTime()) || info.Size() != t.from.Size() || info.Mode() != t.from.Mode() {
		list, from, err := t.read()
		if err != nil {
			t.from, t.list = nil, nil
			return Token{}, err
		}
		t.list, t.from = list, from
	}
	// All are compared, in constant time each.
	found := -1
	for i := range t.list {
		if subtle.ConstantTimeCompare([]byte(t.list[i].SHA256), []byte(hash)) == 1 {
			found = i
		}
	}
	if found < 0 || t.list[found].Expired(t.now()) {
		return Token{}, ErrNoToken
	}
	return t.list[found], nil
}
