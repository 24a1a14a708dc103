package merkle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// A Checkpoint is what a log signs: its origin, size and root.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// Text returns the body of the signed note, with its final newline.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseText parses the body of a signed note. Extension lines after the root
// are allowed, as the format asks, and ignored.
func ParseText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return Checkpoint{}, errors.New("checkpoint has fewer than three lines")
	}
	for _, l := range lines[:len(lines)-1] {
		if l == "" {
			return Checkpoint{}, errors.New("checkpoint has an empty line")
		}
	}
	c := Checkpoint{Origin: lines[0]}
	n, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("checkpoint size %.30q", lines[1])
	}
	c.Size = int64(n)
	if c.Root, err = ParseHash(lines[2]); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint root %w", err)
	}
	return c, nil
}

// A Signer makes signatures with an Ed25519 key.
type Signer struct {
	seed     [ed25519.SeedSize]byte
	signer   note.Signer
	verifier Verifier
}

// A Verifier checks signatures. Its text is the vkey of c2sp.org/signed-note.
type Verifier struct {
	vkey string
	v    note.Verifier
}

// NewKey makes a new key with the given name from the system's randomness.
func NewKey(name string) (*Signer, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	return KeyFromSeed(name, seed)
}

// KeyFromSeed returns the key with an Ed25519 seed (RFC 8032, section 5.1.5).
func KeyFromSeed(name string, seed [ed25519.SeedSize]byte) (*Signer, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	pub := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		return nil, err
	}
	v, err := ParseVerifier(vkey)
	if err != nil {
		return nil, err
	}
	k := &Signer{seed: seed, verifier: v}
	if k.signer, err = note.NewSigner(k.Secret()); err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return k, nil
}

// ParseSecret parses what Secret returns.
func ParseSecret(skey string) (*Signer, error) {
	bad := errors.New("not a secret key of the form PRIVATE+KEY+NAME+HASH+KEY")
	parts := strings.SplitN(strings.TrimSpace(skey), "+", 5)
	if len(parts) != 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return nil, bad
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != 1 {
		return nil, bad
	}
	k, err := KeyFromSeed(parts[2], [ed25519.SeedSize]byte(key[1:]))
	if err != nil {
		return nil, err
	}
	if k.verifier.ID() != parts[3] {
		return nil, bad
	}
	return k, nil
}

// CheckName says whether name can be an origin or a key's name.
func CheckName(name string) error {
	if name == "" || len(name) > 200 || strings.ContainsAny(name, "+ \t\r\n") || strings.ToValidUTF8(name, "") != name {
		return fmt.Errorf("name %.60q: want 1 to 200 bytes without spaces and '+', such as host.example/log", name)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f || r == 0x85 || r == 0xa0 || r >= 0x2000 && r <= 0x200f || r >= 0x2028 && r <= 0x202f || r == 0x3000 || r == 0x1680 || r == 0x205f {
			return fmt.Errorf("name %.60q has a space or control character", name)
		}
	}
	return nil
}

// Seed returns the key's secret.
func (s *Signer) Seed() [ed25519.SeedSize]byte { return s.seed }

// Secret returns the key as golang.org/x/mod/sumdb/note writes private keys:
// PRIVATE+KEY+NAME+HASH+KEY.
func (s *Signer) Secret() string {
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", s.verifier.Name(), s.verifier.ID(),
		base64.StdEncoding.EncodeToString(append([]byte{1}, s.seed[:]...)))
}

// Verifier returns the public half.
func (s *Signer) Verifier() Verifier { return s.verifier }

// SignBytes returns the bare Ed25519 signature of message.
func (s *Signer) SignBytes(message []byte) []byte {
	return ed25519.Sign(ed25519.NewKeyFromSeed(s.seed[:]), message)
}

// ParseVerifier parses a vkey: NAME+HASH+KEY.
func ParseVerifier(vkey string) (Verifier, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Verifier{}, fmt.Errorf("verifier key %.100q: %w", vkey, err)
	}
	return Verifier{vkey, v}, nil
}

// String returns the vkey, "" for the zero Verifier.
func (v Verifier) String() string { return v.vkey }

// IsZero says whether v is no key.
func (v Verifier) IsZero() bool { return v.v == nil }

// Name returns the key's name.
func (v Verifier) Name() string { return v.v.Name() }

// ID returns the key's 4-byte hash as 8 hex digits.
func (v Verifier) ID() string { return fmt.Sprintf("%08x", v.v.KeyHash()) }

// MarshalText encodes v like String.
func (v Verifier) MarshalText() ([]byte, error) { return []byte(v.vkey), nil }

// UnmarshalText parses a vkey.
func (v *Verifier) UnmarshalText(text []byte) error {
	p, err := ParseVerifier(string(text))
	if err != nil {
		return err
	}
	*v = p
	return nil
}

// VerifyBytes checks a bare Ed25519 signature that SignBytes made.
func (v Verifier) VerifyBytes(message, sig []byte) bool {
	// NAME+HASH+KEY: only the key's base64 may have a '+' of its own.
	key, err := base64.StdEncoding.DecodeString(strings.SplitN(v.vkey, "+", 3)[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return false
	}
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(key[1:]), message, sig)
}

// ErrSignature says that a note lacks a signature that it must have.
var ErrSignature = errors.New("signature missing or wrong")

// Sign returns the signed note of c.
func Sign(c Checkpoint, signers ...*Signer) ([]byte, error) {
	ns := make([]note.Signer, len(signers))
	for i, s := range signers {
		ns[i] = s.signer
	}
	return note.Sign(&note.Note{Text: c.Text()}, ns...)
}

// Open parses a signed note and checks that it has a good signature by every
// one of keys. The error wraps ErrSignature if a signature lacks, and is
// another one if the note cannot be read.
func Open(msg []byte, keys ...Verifier) (Checkpoint, error) {
	vs := make([]note.Verifier, len(keys))
	for i, k := range keys {
		vs[i] = k.v
	}
	n, err := note.Open(msg, note.VerifierList(vs...))
	if err != nil {
		var unverified *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &unverified) || errors.As(err, &invalid) {
			return Checkpoint{}, fmt.Errorf("checkpoint: %w (%w)", ErrSignature, err)
		}
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	for _, k := range keys {
		found := false
		for _, s := range n.Sigs {
			// The note package ignores bits behind the end of a signature's
			// base64; nothing in a note of ours may change unseen.
			_, err := base64.StdEncoding.Strict().DecodeString(s.Base64)
			found = found || err == nil && s.Name == k.Name() && s.Hash == k.v.KeyHash()
		}
		if !found {
			return Checkpoint{}, fmt.Errorf("checkpoint: %w: none by %s+%s", ErrSignature, k.Name(), k.ID())
		}
	}
	return ParseText(n.Text)
}

// SplitNotes cuts a file of signed notes, each followed by an empty line, into
// notes. What is no whole note at the end, as a crash leaves it, is returned
// as rest.
func SplitNotes(data []byte) (notes [][]byte, rest []byte) {
	for len(data) > 0 {
		// text, empty line, signature lines, empty line
		body := bytes.Index(data, []byte("\n\n"))
		if body < 0 {
			return notes, data
		}
		end := body + 2
		for bytes.HasPrefix(data[end:], []byte("\u2014 ")) {
			nl := bytes.IndexByte(data[end:], '\n')
			if nl < 0 {
				return notes, data
			}
			end += nl + 1
		}
		if end == body+2 || end == len(data) || data[end] != '\n' {
			return notes, data
		}
		notes = append(notes, data[:end:end])
		data = data[end+1:]
	}
	return notes, nil
}

// ParseNote reads the checkpoint in a signed note without checking any
// signature.
func ParseNote(msg []byte) (Checkpoint, error) {
	text, sigs, ok := bytes.Cut(msg, []byte("\n\n"))
	if !ok || !bytes.HasPrefix(sigs, []byte("\u2014 ")) {
		return Checkpoint{}, errors.New("checkpoint is not a signed note")
	}
	return ParseText(string(text) + "\n")
}
