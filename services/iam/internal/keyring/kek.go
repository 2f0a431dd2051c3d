package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/awskms"
	"a3os.app/libs/config"
)

const kekBytes = 32

// KEK is the tenant's key-encryption key, which signing keys rest under: one that seals, and those before it, which only open. It is
// changed in two restarts: first with the new one before the old one, whereupon what rests under the old one is sealed again, then
// without the old one.
type KEK struct {
	tink.AEADWithContext
	before []tink.AEADWithContext
	// mark begins what a Tink keyset's primary key sealed; empty for other keys.
	mark []byte
}

// Under has signing keys rest under keys of a key service instead, of which the first seals and the others open what it sealed before; what
// rests under k still opens, and is sealed again.
func (k *KEK) Under(keys ...tink.AEADWithContext) *KEK {
	if len(keys) == 0 {
		return k
	}
	return &KEK{AEADWithContext: keys[0], before: slices.Concat(keys[1:], []tink.AEADWithContext{k.AEADWithContext}, k.before)}
}

// open opens what was sealed, and says whether that was under a key-encryption key before the present one. A key service that could not be
// asked has not said no, and its error is answered. Errors: [awskms.ErrNotUnder].
func (k *KEK) open(ctx context.Context, sealed, bound []byte) (raw []byte, old bool, err error) {
	if raw, err = k.DecryptWithContext(ctx, sealed, bound); err == nil {
		return raw, !bytes.HasPrefix(sealed, k.mark), nil
	}
	for _, b := range k.before {
		if !errors.Is(err, awskms.ErrNotUnder) {
			return nil, false, err
		}
		if raw, err = b.DecryptWithContext(ctx, sealed, bound); err == nil {
			return raw, true, nil
		}
	}
	return nil, false, err
}

// given is a key that the platform gave, and that needs nobody to be asked.
type given struct{ key tink.AEAD }

// EncryptWithContext implements tink.AEADWithContext.
func (g given) EncryptWithContext(_ context.Context, plaintext, bound []byte) ([]byte, error) {
	return g.key.Encrypt(plaintext, bound)
}

// DecryptWithContext implements tink.AEADWithContext. Errors: [awskms.ErrNotUnder].
func (g given) DecryptWithContext(_ context.Context, sealed, bound []byte) ([]byte, error) {
	raw, err := g.key.Decrypt(sealed, bound)
	if err != nil {
		return nil, awskms.ErrNotUnder
	}
	return raw, nil
}

// NewKEK reads what the platform gives: keys of 32 bytes in base64 (AES-256-GCM), separated by blanks or line ends, the one that seals
// first; or a Tink keyset of AEAD keys, as JSON, whose primary key seals and any of whose keys opens.
func NewKEK(secret config.Secret) (*KEK, error) {
	text := strings.TrimSpace(secret.Reveal())
	if strings.HasPrefix(text, "{") {
		return tinkKEK(text)
	}
	var keys []tink.AEADWithContext
	for _, word := range strings.Fields(text) {
		key, err := rawKEK(word)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errNoKEK
	}
	return &KEK{AEADWithContext: keys[0], before: keys[1:]}, nil
}

var errNoKEK = errors.New("A3_KEK is neither 32 bytes in base64 nor a Tink keyset in JSON")

func rawKEK(word string) (tink.AEADWithContext, error) {
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(word); err == nil && len(raw) == kekBytes {
			key, err := subtle.NewAESGCM(raw)
			return given{key}, err
		}
	}
	return nil, errNoKEK
}

func tinkKEK(text string) (*KEK, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewBufferString(text)))
	if err != nil {
		return nil, errors.New("A3_KEK looks like a Tink keyset and can't be read as one")
	}
	whole, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("A3_KEK is a Tink keyset, but not one of AEAD keys")
	}
	kek := &KEK{AEADWithContext: given{whole}}
	info := handle.KeysetInfo()
	for _, key := range info.GetKeyInfo() {
		if key.GetKeyId() == info.GetPrimaryKeyId() && key.GetOutputPrefixType() == tinkpb.OutputPrefixType_TINK {
			// https://developers.google.com/tink/wire-format#tink-output-prefix
			kek.mark = binary.BigEndian.AppendUint32([]byte{1}, key.GetKeyId())
		}
	}
	return kek, nil
}
