// Package webauthn checks what security keys say (W3C Web Authentication,
// level 2), as far as a step-up needs it: the registration of a key without
// attestation, and its assertions.
//
// Nothing of CBOR is read: browsers give a new key's public half as
// SubjectPublicKeyInfo (getPublicKey), and with no attestation there is no
// signature over the rest that one could check.
package webauthn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// A Key is a registered security key.
type Key struct {
	ID     Bytes     `json:"id"`
	Public Bytes     `json:"public_key"` // SubjectPublicKeyInfo, DER
	RP     string    `json:"rp"`         // host name of the pages that it was registered at
	Name   string    `json:"name"`       // for people
	Added  time.Time `json:"added"`
	Count  uint32    `json:"sign_count"`
}

// Bytes are bytes, base64url without padding in JSON.
type Bytes []byte

// MarshalText gives base64url.
func (b Bytes) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

// UnmarshalText takes base64url.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	*b = v
	return err
}

// A Registration is what a browser says of a new key.
type Registration struct {
	ID         Bytes  `json:"id"`
	Public     Bytes  `json:"public_key"`         // getPublicKey()
	Data       Bytes  `json:"authenticator_data"` // getAuthenticatorData()
	ClientData Bytes  `json:"client_data"`        // clientDataJSON
	Name       string `json:"name"`
}

// An Assertion is a key's answer to a challenge.
type Assertion struct {
	ID         Bytes `json:"id"`
	Data       Bytes `json:"authenticator_data"`
	ClientData Bytes `json:"client_data"`
	Signature  Bytes `json:"signature"`
}

// Limits of what is taken.
const (
	maxID         = 1023 // of the specification
	maxPublic     = 2 << 10
	maxClientData = 4 << 10
	maxData       = 16 << 10
)

// clientData is what the browser says of the page.
type clientData struct {
	Type        string `json:"type"`
	Challenge   Bytes  `json:"challenge"`
	Origin      string `json:"origin"`
	CrossOrigin bool   `json:"crossOrigin"`
}

func checkClient(raw []byte, typ string, challenge []byte) (rp string, err error) {
	if len(raw) > maxClientData {
		return "", errors.New("client data: too long")
	}
	var c clientData
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("client data: %w", err)
	}
	u, err := url.Parse(c.Origin)
	switch {
	case c.Type != typ:
		return "", fmt.Errorf("client data: type %q, want %s", c.Type, typ)
	case subtle.ConstantTimeCompare(c.Challenge, challenge) != 1:
		return "", errors.New("the challenge is another one")
	case c.CrossOrigin:
		return "", errors.New("the page was framed by another site")
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost"):
		return "", fmt.Errorf("origin %q: want https, or http of localhost", c.Origin)
	}
	return u.Hostname(), nil
}

// authData is the fixed part of authenticator data: section 6.1.
type authData struct {
	rpHash [32]byte
	flags  byte
	count  uint32
	rest   []byte
}

// Flags of authenticator data.
const (
	userPresent  = 1 << 0
	attestedData = 1 << 6
)

func parseData(raw []byte, rp string) (authData, error) {
	var d authData
	if len(raw) < 37 || len(raw) > maxData {
		return d, fmt.Errorf("authenticator data of %d bytes", len(raw))
	}
	copy(d.rpHash[:], raw)
	d.flags, d.count, d.rest = raw[32], binary.BigEndian.Uint32(raw[33:]), raw[37:]
	if d.rpHash != sha256.Sum256([]byte(rp)) {
		return d, fmt.Errorf("the key answered for another site than %s", rp)
	}
	if d.flags&userPresent == 0 {
		return d, errors.New("nobody touched the key")
	}
	return d, nil
}

// Register checks a registration that answers challenge.
func Register(r Registration, challenge []byte, now time.Time) (*Key, error) {
	rp, err := checkClient(r.ClientData, "webauthn.create", challenge)
	if err != nil {
		return nil, err
	}
	d, err := parseData(r.Data, rp)
	if err != nil {
		return nil, err
	}
	if len(r.ID) == 0 || len(r.ID) > maxID || len(r.Public) > maxPublic {
		return nil, errors.New("the key's id or public key is of no possible size")
	}
	// Attested credential data: AAGUID, length of the id, id, COSE key.
	if d.flags&attestedData == 0 || len(d.rest) < 18 {
		return nil, errors.New("there is no new key in the authenticator data")
	}
	n := int(binary.BigEndian.Uint16(d.rest[16:]))
	if len(d.rest) < 18+n || !slices.Equal(d.rest[18:18+n], r.ID) {
		return nil, errors.New("the authenticator data is of another key")
	}
	if _, err := parseKey(r.Public); err != nil {
		return nil, err
	}
	return &Key{ID: r.ID, Public: r.Public, RP: rp, Name: r.Name, Added: now.UTC(), Count: d.count}, nil
}

func parseKey(der []byte) (crypto.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch k := k.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return k, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("public key: RSA of %d bits", k.N.BitLen())
		}
		return k, nil
	}
	return nil, fmt.Errorf("public key: a %T is not supported", k)
}

// Check checks an assertion that answers challenge, and updates the key's
// counter, which the caller is to store.
func (k *Key) Check(a Assertion, challenge []byte) error {
	if !slices.Equal(a.ID, k.ID) {
		return errors.New("the assertion is of another key")
	}
	rp, err := checkClient(a.ClientData, "webauthn.get", challenge)
	if err != nil {
		return err
	}
	if rp != k.RP {
		return fmt.Errorf("the key was registered at %s, not at %s", k.RP, rp)
	}
	d, err := parseData(a.Data, rp)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(a.ClientData)
	signed := append(slices.Clone([]byte(a.Data)), hash[:]...)
	public, err := parseKey(k.Public)
	if err != nil {
		return err
	}
	good := false
	sum := sha256.Sum256(signed)
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(p, sum[:], a.Signature)
	case ed25519.PublicKey:
		good = ed25519.Verify(p, signed, a.Signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], a.Signature) == nil
	}
	if !good {
		return errors.New("the key's signature is not good")
	}
	// A counter that stands still tells of a copy, where the key counts at all.
	if (d.count != 0 || k.Count != 0) && d.count <= k.Count {
		return errors.New("the key's counter has not grown: there may be a copy of it")
	}
	k.Count = d.count
	return nil
}
