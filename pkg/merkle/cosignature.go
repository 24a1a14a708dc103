package merkle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Witness is the public key with which a witness cosigns checkpoints: a vkey
// of type 0x04 (c2sp.org/tlog-cosignature).
type Witness struct {
	vkey string
	name string
	id   uint32
	key  ed25519.PublicKey
}

// cosignatureV1 is the signature type of Ed25519 cosignatures.
const cosignatureV1 = 0x04

// ParseWitness parses a witness' vkey.
func ParseWitness(vkey string) (Witness, error) {
	bad := fmt.Errorf("witness key %.100q: want NAME+HASH+KEY of type 4, as the witness prints it", vkey)
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return Witness{}, bad
	}
	id, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil || len(parts[1]) != 8 || CheckName(parts[0]) != nil {
		return Witness{}, bad
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureV1 {
		return Witness{}, bad
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(id) {
		return Witness{}, bad
	}
	return Witness{vkey, parts[0], uint32(id), ed25519.PublicKey(key[1:])}, nil
}

// String returns the vkey.
func (w Witness) String() string { return w.vkey }

// Name returns the witness' name.
func (w Witness) Name() string { return w.name }

// MarshalText encodes w like String.
func (w Witness) MarshalText() ([]byte, error) { return []byte(w.vkey), nil }

// UnmarshalText parses a vkey.
func (w *Witness) UnmarshalText(text []byte) (err error) {
	*w, err = ParseWitness(string(text))
	return err
}

// Cosignature returns w's signature line, with its newline, among those in
// lines, and when it was made. It must be a good one of the checkpoint that
// the signed note has; others in lines are passed over. The error wraps
// ErrSignature.
func (w Witness) Cosignature(note, lines []byte) (line []byte, at time.Time, err error) {
	body, _, ok := bytes.Cut(note, []byte("\n\n"))
	if !ok {
		return nil, at, errors.New("checkpoint is not a signed note")
	}
	for l := range bytes.Lines(lines) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(string(l), "\n"), "\u2014 "+w.name+" ")
		if !ok || l[len(l)-1] != '\n' {
			continue
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(rest)
		if err != nil || len(sig) != 4+8+ed25519.SignatureSize || binary.BigEndian.Uint32(sig) != w.id {
			continue
		}
		seconds := binary.BigEndian.Uint64(sig[4:])
		// Section "Format": the checkpoint's body, newline included, below a
		// header of two lines.
		message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", seconds, body)
		if seconds >= 1<<62 || !ed25519.Verify(w.key, message, sig[12:]) {
			return nil, at, fmt.Errorf("cosignature by %s: %w", w.name, ErrSignature)
		}
		return l, time.Unix(int64(seconds), 0), nil
	}
	return nil, at, fmt.Errorf("%w: none by %s", ErrSignature, w.name)
}
