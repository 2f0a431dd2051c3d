package secret

import (
	"bytes"
	"encoding/base64"
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
	public, err := private.Public()
	if err != nil {
		return Keys{}, fmt.Errorf("take the public half of a secret store's key: %w", err)
	}
	var publicBytes, privateBytes bytes.Buffer
	err = errors.Join(
		public.WriteWithNoSecrets(keyset.NewBinaryWriter(&publicBytes)),
		insecurecleartextkeyset.Write(private, keyset.NewBinaryWriter(&privateBytes)),
	)
	if err != nil {
		return Keys{}, fmt.Errorf("write the keys of a secret store: %w", err)
	}
	return Keys{
		Public:  base64.RawURLEncoding.EncodeToString(publicBytes.Bytes()),
		Private: config.NewSecret(base64.RawURLEncoding.EncodeToString(privateBytes.Bytes())),
	}, nil
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

// opener reads a private keyset. Its errors leave tink's out, which may describe the key.
func opener(private config.Secret) (tink.HybridDecrypt, error) {
	b, err := base64.RawURLEncoding.DecodeString(private.Reveal())
	if err != nil {
		return nil, errors.New("the private key of the secret store is not base64url text")
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, errors.New("the private key of the secret store is not a keyset")
	}
	d, err := hybrid.NewHybridDecrypt(h)
	if err != nil {
		return nil, errors.New("the private key of the secret store is no private key: is it the public half?")
	}
	return d, nil
}
