package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/config"
)

const kekBytes = 32

// KEK makes the cipher that signing keys rest under, from what the platform gives: 32 bytes in base64 (AES-256-GCM), or a Tink
// keyset of AEAD keys, as JSON, whose primary key seals and any of whose keys opens, so that it can be rotated.
func KEK(secret config.Secret) (tink.AEAD, error) {
	text := strings.TrimSpace(secret.Reveal())
	if strings.HasPrefix(text, "{") {
		handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewBufferString(text)))
		if err != nil {
			return nil, errors.New("A3_KEK looks like a Tink keyset and can't be read as one")
		}
		kek, err := aead.New(handle)
		if err != nil {
			return nil, errors.New("A3_KEK is a Tink keyset, but not one of AEAD keys")
		}
		return kek, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(text); err == nil && len(raw) == kekBytes {
			return subtle.NewAESGCM(raw)
		}
	}
	return nil, errors.New("A3_KEK is neither 32 bytes in base64 nor a Tink keyset in JSON")
}
