package mcp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// A requestState is what a client carries from one round of a call to the next
// (MCP 2026-07-28, "Multi Round-Trip Requests"). The client is free to change
// it, or to send somebody else's: so it is sealed, and bound to who has got it
// and to the very call.
type requestState struct {
	Nonce    string    `json:"n"`
	Expires  time.Time `json:"e"`
	Client   string    `json:"c"`
	Tool     string    `json:"t"`
	SHA256   string    `json:"a"` // of the arguments
	Approval string    `json:"i,omitempty"`
}

// A sealer seals states with a key that lives as long as the process, and
// opens each once.
type sealer struct {
	key [32]byte
	now func() time.Time

	mu   sync.Mutex
	used map[string]time.Time // nonces to when they expire
}

const (
	stateLife = 10 * time.Minute
	maxUsed   = 10_000
)

var errState = errors.New("requestState is not valid: it was changed, used before, is over, or belongs to another call")

func newSealer() *sealer {
	s := &sealer{now: time.Now, used: map[string]time.Time{}}
	rand.Read(s.key[:])
	return s
}

func (s *sealer) mac(payload []byte) []byte {
	m := hmac.New(sha256.New, s.key[:])
	m.Write(payload)
	return m.Sum(nil)
}

// seal returns the text for a client.
func (s *sealer) seal(st requestState) string {
	st.Nonce, st.Expires = rand.Text(), s.now().Add(stateLife).UTC()
	payload, err := json.Marshal(st)
	if err != nil { // strings and a time
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(append(s.mac(payload), payload...))
}

// open returns what was sealed, if it was for this client, tool and arguments,
// and not opened before.
func (s *sealer) open(text, client, tool, sha256sum string) (requestState, error) {
	var st requestState
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < sha256.Size || !hmac.Equal(raw[:sha256.Size], s.mac(raw[sha256.Size:])) {
		return st, errState
	}
	if err := json.Unmarshal(raw[sha256.Size:], &st); err != nil {
		return st, errState
	}
	now := s.now()
	if !now.Before(st.Expires) || st.Client != client || st.Tool != tool || st.SHA256 != sha256sum {
		return st, errState
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.used[st.Nonce]; again {
		return st, errState
	}
	if len(s.used) >= maxUsed {
		for nonce, until := range s.used {
			if !now.Before(until) {
				delete(s.used, nonce)
			}
		}
		if len(s.used) >= maxUsed {
			return st, errState
		}
	}
	s.used[st.Nonce] = st.Expires
	return st, nil
}
