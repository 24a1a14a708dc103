package webauthn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

var challenge = []byte("a challenge of 32 bytes, or such")

func client(typ, origin string, challenge []byte) Bytes {
	return fmt.Appendf(nil, `{"type":%q,"challenge":%q,"origin":%q,"crossOrigin":false}`, typ, base64.RawURLEncoding.EncodeToString(challenge), origin)
}

func data(rp string, flags byte, count uint32, rest ...byte) Bytes {
	h := sha256.Sum256([]byte(rp))
	b := binary.BigEndian.AppendUint32(append(h[:], flags), count)
	return append(b, rest...)
}

func attested(id []byte) []byte {
	return append(append(make([]byte, 16), byte(len(id)>>8), byte(len(id))), id...)
}

// An authenticator as the specification has it, in software.
func sign(t *testing.T, signer crypto.Signer, a *Assertion) {
	t.Helper()
	h := sha256.Sum256(a.ClientData)
	msg := append(append([]byte{}, a.Data...), h[:]...)
	opts := crypto.SignerOpts(crypto.SHA256)
	if _, ok := signer.(ed25519.PrivateKey); ok {
		opts = crypto.Hash(0)
	} else {
		sum := sha256.Sum256(msg)
		msg = sum[:]
	}
	sig, err := signer.Sign(rand.Reader, msg, opts)
	if err != nil {
		t.Fatal(err)
	}
	a.Signature = sig
}

func TestKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	id := []byte("key-1")
	for name, signer := range map[string]crypto.Signer{"ES256": ec, "EdDSA": ed, "RS256": rs} {
		t.Run(name, func(t *testing.T) {
			public, err := x509.MarshalPKIXPublicKey(signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			good := Registration{ID: id, Public: public, Data: data("localhost", userPresent|attestedData, 3, attested(id)...), ClientData: client("webauthn.create", "http://localhost:8096", challenge)}
			k, err := Register(good, challenge, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for want, change := range map[string]func(*Registration){
				"another key":    func(r *Registration) { r.ID = []byte("key-2") },
				"another site":   func(r *Registration) { r.Data = data("evil.example", userPresent|attestedData, 3, attested(id)...) },
				"nobody touched": func(r *Registration) { r.Data = data("localhost", attestedData, 3, attested(id)...) },
				"no new key":     func(r *Registration) { r.Data = data("localhost", userPresent, 3) },
				"challenge": func(r *Registration) {
					r.ClientData = client("webauthn.create", "http://localhost:8096", []byte("old"))
				},
				"want https":         func(r *Registration) { r.ClientData = client("webauthn.create", "http://host.example", challenge) },
				"webauthn.create":    func(r *Registration) { r.ClientData = client("webauthn.get", "http://localhost:8096", challenge) },
				"public key":         func(r *Registration) { r.Public = []byte("x") },
				"authenticator data": func(r *Registration) { r.Data = r.Data[:30] },
			} {
				r := good
				change(&r)
				if _, err := Register(r, challenge, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", want, err)
				}
			}
			assert := Assertion{ID: id, Data: data("localhost", userPresent, 4), ClientData: client("webauthn.get", "http://localhost:8096", challenge)}
			sign(t, signer, &assert)
			for want, change := range map[string]func(*Assertion){
				"another key": func(a *Assertion) { a.ID = []byte("key-2") },
				"signature":   func(a *Assertion) { a.Signature = append(Bytes{}, a.Signature...); a.Signature[9] ^= 1 },
				"challenge": func(a *Assertion) {
					a.ClientData = client("webauthn.get", "http://localhost:8096", []byte("old"))
					sign(t, signer, a)
				},
				"registered at": func(a *Assertion) {
					a.ClientData = client("webauthn.get", "https://host.example", challenge)
					sign(t, signer, a)
				},
				"another site":   func(a *Assertion) { a.Data = data("host.example", userPresent, 4); sign(t, signer, a) },
				"nobody touched": func(a *Assertion) { a.Data = data("localhost", 0, 4); sign(t, signer, a) },
				"counter":        func(a *Assertion) { a.Data = data("localhost", userPresent, 3); sign(t, signer, a) },
			} {
				a := assert
				change(&a)
				if err := k.Check(a, challenge); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", want, err)
				}
			}
			if err := k.Check(assert, challenge); err != nil {
				t.Fatal(err)
			}
			if err := k.Check(assert, challenge); err == nil {
				t.Error("the same assertion was taken twice")
			}
		})
	}
}

// Whatever comes, there is an answer and it is no.
func FuzzNothingForgedIsTaken(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(data("localhost", userPresent, 4)), []byte(client("webauthn.get", "http://localhost", challenge)), []byte("0"))
	f.Fuzz(func(t *testing.T, d, c, s []byte) {
		k := Key{ID: []byte("k"), Public: public, RP: "localhost"}
		if k.Check(Assertion{ID: []byte("k"), Data: d, ClientData: c, Signature: s}, challenge) == nil {
			t.Fatal("taken")
		}
		Register(Registration{ID: d, Public: s, Data: d, ClientData: c}, challenge, time.Now())
	})
}
