package chain

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Names of credentials in $CREDENTIALS_DIRECTORY, where systemd puts what
// LoadCredentialEncrypted= names (systemd.exec(5)).
const (
	// CredentialLogKey is the secret log key as the file log.key has it, in
	// place of that file.
	CredentialLogKey = "gb-chain-log.key"
	// CredentialSealingKey is a key of 32 bytes, as they are or in base64,
	// under which log.key and epoch.key are kept encrypted.
	CredentialSealingKey = "gb-chain-sealing.key"
)

// credentials are the secrets that this process was started with.
type credentials struct {
	dir    string         // "" for none
	logKey *merkle.Signer // nil for none
	seal   *sealer        // nil for none
}

// maxCredential is systemd's own bound for one credential.
const maxCredential = 1 << 20

// readCredentials reads $CREDENTIALS_DIRECTORY. An epoch key among them, under
// whatever name, is refused: it could not be destroyed there, and whoever takes
// over this host could sign for what was before.
func readCredentials() (c credentials, err error) {
	if c.dir = os.Getenv("CREDENTIALS_DIRECTORY"); c.dir == "" {
		return c, nil
	}
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return c, fmt.Errorf("credentials: %w", err)
		}
		if !info.Mode().IsRegular() || info.Size() > maxCredential {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("credentials: %w", err)
		}
		if holdsEpochKey(data) {
			return c, &configError{fmt.Errorf("credential %s is an epoch key, which could not be destroyed there", path),
				"epoch keys live in the --keys directory alone; take the credential out of the unit"}
		}
		switch e.Name() {
		case CredentialLogKey:
			if c.logKey, err = merkle.ParseSecret(string(data)); err != nil {
				return c, &configError{fmt.Errorf("credential %s: %w", path, err), "it is the content of the file log.key, not sealed"}
			}
		case CredentialSealingKey:
			if c.seal, err = newSealer(data); err != nil {
				return c, &configError{fmt.Errorf("credential %s: %w", path, err), "head -c 32 /dev/urandom makes one"}
			}
		}
	}
	return c, nil
}

func holdsEpochKey(data []byte) bool {
	if bytes.Contains(data, []byte(slotMagic)) || bytes.Contains(data, []byte(slotMagicSealed)) {
		return true
	}
	for line := range bytes.Lines(data) {
		if s, err := merkle.ParseSecret(string(line)); err == nil && strings.HasSuffix(s.Verifier().Name(), layout.EpochKeyName("")) {
			return true
		}
	}
	return false
}

// A sealer encrypts secret keys with AES-256-GCM.
type sealer struct{ aead cipher.AEAD }

func newSealer(credential []byte) (*sealer, error) {
	key := credential
	if len(key) != 32 {
		var err error
		if key, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(credential))); err != nil || len(key) != 32 {
			return nil, errors.New("want 32 bytes, or their base64")
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead}, err
}

const (
	sealNonce    = 12
	sealOverhead = sealNonce + 16
)

// seal returns nonce, ciphertext and tag. What is sealed can only be opened
// as what it was sealed for.
func (s *sealer) seal(secret []byte, purpose string) []byte {
	nonce := make([]byte, sealNonce, sealOverhead+len(secret))
	rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, secret, []byte(purpose))
}

// open undoes seal. A nil sealer opens nothing.
func (s *sealer) open(sealed []byte, purpose string) ([]byte, error) {
	if s == nil {
		return nil, &configError{errors.New("it is sealed, and there is no sealing key"),
			"give the credential " + CredentialSealingKey + " ($CREDENTIALS_DIRECTORY) that it was sealed with"}
	}
	if len(sealed) < sealOverhead {
		return nil, errors.New("it is cut")
	}
	secret, err := s.aead.Open(nil, sealed[:sealNonce], sealed[sealNonce:], []byte(purpose))
	if err != nil {
		return nil, &configError{errors.New("the sealing key is not the one that it was sealed with"), ""}
	}
	return secret, nil
}

// sealedMark starts a sealed log.key; base64 of what seal returns follows.
const sealedMark = "SEALED+"

func sealPurpose(key merkle.Verifier) string { return "ghostbridge log key\n" + key.String() }

// logKeyText returns the content of the file log.key.
func logKeyText(key *merkle.Signer, s *sealer) []byte {
	text := key.Secret()
	if s != nil {
		text = sealedMark + base64.StdEncoding.EncodeToString(s.seal([]byte(text), sealPurpose(key.Verifier())))
	}
	return []byte(text + "\n")
}

// readLogKey reads the file log.key of the log with the given public key.
func readLogKey(file string, public merkle.Verifier, s *sealer) (*merkle.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if sealed, ok := bytes.CutPrefix(text, []byte(sealedMark)); ok {
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(sealed)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if text, err = s.open(raw, sealPurpose(public)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	key, err := merkle.ParseSecret(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// SealKeys stores the keys of the log in dir anew, sealed with the sealing key
// of $CREDENTIALS_DIRECTORY, or as they are if unseal is set. Nobody may have
// the log open.
func SealKeys(dir, keysDir string, unseal bool, o Options) error {
	l, err := open(dir, keysDir, o)
	if err != nil {
		return err
	}
	return errors.Join(l.keys.store(unseal), l.release())
}

func (k *Keys) store(unseal bool) error {
	s := k.epoch.seal
	if s == nil {
		return &configError{errors.New("there is no sealing key"), "give the credential " + CredentialSealingKey + " ($CREDENTIALS_DIRECTORY)"}
	}
	if unseal {
		s = nil
	}
	file := filepath.Join(k.dir, logKeyFile)
	if _, err := os.Stat(file); err == nil {
		if err := durable.Replace(file, logKeyText(k.log, s), 0o600); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) { // else it is a credential
		return err
	}
	k.epoch.seal = s
	for i, slot := range k.epoch.slots {
		if slot == nil {
			continue
		}
		// The other slot is free, so that a crash leaves the key in one.
		if k.epoch.slots[1-i] != nil {
			return errors.New("both slots of the epoch key are in use")
		}
		if err := k.epoch.write(1-i, slot); err != nil {
			return err
		}
		return k.epoch.write(i, nil)
	}
	return nil
}
