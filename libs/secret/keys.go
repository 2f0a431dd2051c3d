package secret

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/config"
)

// Keys are the two halves of a store's key, as base64url text of tink's binary keysets, for configuration. A platform gives the
// public half to who writes and the private half to who reads, and to nobody both.
type Keys struct {
	Public  string
	Private config.Secret
}

// NewKeys makes a key pair.
func NewKeys() (Keys, error) {
	private, err := keyset.NewHandle(hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	if err != nil {
		return Keys{}, fmt.Errorf("make the keys of a secret store: %w", err)
	}
	public, err := publicOf(private)
	if err != nil {
		return Keys{}, err
	}
	var privateBytes bytes.Buffer
	if err := insecurecleartextkeyset.Write(private, keyset.NewBinaryWriter(&privateBytes)); err != nil {
		return Keys{}, fmt.Errorf("write the keys of a secret store: %w", err)
	}
	return Keys{
		Public:  public,
		Private: config.NewSecret(base64.RawURLEncoding.EncodeToString(privateBytes.Bytes())),
	}, nil
}

// publicOf is the public half of a keyset, as it is written.
func publicOf(private *keyset.Handle) (string, error) {
	public, err := private.Public()
	if err != nil {
		return "", errors.New("the private key of the secret store has no public half")
	}
	var b bytes.Buffer
	if err := public.WriteWithNoSecrets(keyset.NewBinaryWriter(&b)); err != nil {
		return "", fmt.Errorf("write the public key of a secret store: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b.Bytes()), nil
}

// KeyID names a key by its public half, so that one name can't mean two keys.
func KeyID(public string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil {
		return "", errors.New("the public key of the secret store is not base64url text")
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// sealer reads a public keyset. A keyset with private keys in it is refused: who writes must not hold one.
func sealer(public string) (tink.HybridEncrypt, error) {
	b, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil {
		return nil, errors.New("the public key of the secret store is not base64url text")
	}
	h, err := keyset.ReadWithNoSecrets(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, errors.New("the public key of the secret store is not a keyset, or holds private keys that a writer must not have")
	}
	return hybrid.NewHybridEncrypt(h)
}

// opener reads a private keyset, and answers its public half too. Its errors leave tink's out, which may describe the key.
func opener(private config.Secret) (open tink.HybridDecrypt, public string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(private.Reveal())
	if err != nil {
		return nil, "", errors.New("the private key of the secret store is not base64url text")
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, "", errors.New("the private key of the secret store is not a keyset")
	}
	d, err := hybrid.NewHybridDecrypt(h)
	if err != nil {
		return nil, "", errors.New("the private key of the secret store is no private key: is it the public half?")
	}
	public, err = publicOf(h)
	return d, public, err
}

// Opens says whether a private key opens what is sealed to a public one, by sealing something: nil where it does, [ErrUnreadable] where
// it doesn't, and another error where one of them is no key.
func Opens(public string, private config.Secret) error {
	seal, err := sealer(public)
	if err != nil {
		return err
	}
	open, _, err := opener(private)
	if err != nil {
		return err
	}
	const text, info = "whose is this?", "a3os.secret.probe.v1"
	sealed, err := seal.Encrypt([]byte(text), []byte(info))
	if err != nil {
		return errors.New("the public key of the secret store does not work")
	}
	if got, err := open.Decrypt(sealed, []byte(info)); err != nil || string(got) != text {
		return ErrUnreadable
	}
	return nil
}
