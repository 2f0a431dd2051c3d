package queue

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"a3os.app/libs/config"
)

// SigningKey signs messages. The zero key signs nothing.
type SigningKey struct {
	id      string
	private ed25519.PrivateKey
}

// NewSigningKey makes a key.
func NewSigningKey() (SigningKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make a key that signs messages: %w", err)
	}
	return keyOf(private), nil
}

// ParseSigningKey reads what Secret gave.
func ParseSigningKey(s config.Secret) (SigningKey, error) {
	seed, err := base64.RawURLEncoding.DecodeString(s.Reveal())
	if err != nil || len(seed) != ed25519.SeedSize {
		return SigningKey{}, fmt.Errorf("the key that signs messages is not base64url text of %d bytes", ed25519.SeedSize)
	}
	return keyOf(ed25519.NewKeyFromSeed(seed)), nil
}

// keyOf names a key by its public half, so that one id can't mean two keys.
func keyOf(private ed25519.PrivateKey) SigningKey {
	return SigningKey{id: keyID(private.Public().(ed25519.PublicKey)), private: private}
}

func keyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// ID names the key in envelopes.
func (k SigningKey) ID() string { return k.id }

// Secret is the key for a configuration file: the seed in base64url.
func (k SigningKey) Secret() config.Secret {
	if k.private == nil {
		return config.Secret{}
	}
	return config.NewSecret(base64.RawURLEncoding.EncodeToString(k.private.Seed()))
}

// Public is the half that verifies.
func (k SigningKey) Public() VerifyingKeys {
	if k.private == nil {
		return VerifyingKeys{}
	}
	return VerifyingKeys{k.id: k.private.Public().(ed25519.PublicKey)}
}

// Format and GoString keep the key out of every print.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// String names the key without showing it.
func (k SigningKey) String() string { return "signing key " + k.id }

// VerifyingKeys are public keys by id. While a key is exchanged there are two.
type VerifyingKeys map[string]ed25519.PublicKey

// String is the keys for a configuration file: base64url, joined by commas.
func (v VerifyingKeys) String() string {
	var all []string
	for _, key := range v {
		all = append(all, base64.RawURLEncoding.EncodeToString(key))
	}
	return strings.Join(all, ",")
}

// ParseVerifyingKeys reads what String gave. No key at all is refused.
func ParseVerifyingKeys(s string) (VerifyingKeys, error) {
	keys := make(VerifyingKeys)
	for part := range strings.SplitSeq(s, ",") {
		key, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, errors.New("the keys that verify messages are not base64url text of 32 bytes each, joined by commas")
		}
		keys[keyID(key)] = key
	}
	return keys, nil
}
