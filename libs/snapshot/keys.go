package snapshot

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"a3os.app/libs/clip"
)

// keyIDBytes of the public key's SHA-256 name it. The id only selects a key; the signature decides.
const keyIDBytes = 8

// KeyID names a public key: 16 hexadecimal digits.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:keyIDBytes])
}

// FormatPrivateKey writes a signing key as PKCS #8 PEM. It is a secret.
func FormatPrivateKey(key ed25519.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode the signing key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// ParsePrivateKey reads what FormatPrivateKey writes. Its errors do not repeat the text.
func ParsePrivateKey(text string) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the snapshot signing key is not a PEM block of type PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the snapshot signing key can't be read, want PKCS #8")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the snapshot signing key is a %T, want Ed25519", parsed)
	}
	return key, nil
}

// FormatPublicKey writes a public key as it stands in a gateway's configuration: base64 (RFC 4648 §4) of its 32 octets.
func FormatPublicKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// ParsePublicKey reads what FormatPublicKey writes.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	// The decoder passes over line ends: a key has one form.
	if err != nil || len(raw) != ed25519.PublicKeySize || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%q is not a snapshot key, want base64 of %d octets", clip.Text(text, mostTold), ed25519.PublicKeySize)
	}
	return raw, nil
}
