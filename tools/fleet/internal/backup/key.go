package backup

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/streamingaead"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/config"
)

// Key is a set's backup key, AES-256. It lies beside the set's other keys and is held by no component. Destroying it makes every backup
// of the set unreadable, wherever copies of them are, unless a recovery key was made: then a second copy of it, sealed to that, lies
// beside the backups (SealKey), and has to be destroyed as well.
type Key struct {
	aead tink.AEAD
	text config.Secret
}

const keyBytes = 32

// ParseKey reads 32 bytes in base64.
func ParseKey(text config.Secret) (Key, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text.Reveal()))
	if err != nil || len(raw) != keyBytes {
		return Key{}, errors.New("the backup key is not 32 bytes in base64")
	}
	aead, err := subtle.NewAESGCM(raw)
	if err != nil {
		return Key{}, errors.New("the backup key is not one of AES-256")
	}
	return Key{aead: aead, text: text}, nil
}

// Text is the key as a file holds it.
func (k Key) Text() config.Secret { return k.text }

// newPartsKey makes the key of one backup, and wraps it.
func (k Key) newPartsKey(m *Manifest) (tink.StreamingAEAD, error) {
	handle, err := keyset.NewHandle(streamingaead.AES256GCMHKDF1MBKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make the key of the backup: %w", err)
	}
	var wrapped bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&wrapped), k.aead, m.bound("key")); err != nil {
		return nil, fmt.Errorf("wrap the key of the backup: %w", err)
	}
	m.Key = wrapped.Bytes()
	return streamingaead.New(handle)
}

// partsKey unwraps it.
func (k Key) partsKey(m *Manifest) (tink.StreamingAEAD, error) {
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(m.Key)), k.aead, m.bound("key"))
	if err != nil {
		return nil, refuse("it does not open with the backup key of %s: it was made under another key, or of another set", m.Set)
	}
	return streamingaead.New(handle)
}

// Recovery opens backups on a machine that isn't the one that made them. Who runs the plane keeps it elsewhere.
type Recovery struct {
	// Plane and PlaneID are those of the plane.
	Plane   string `json:"plane"`
	PlaneID string `json:"plane_id"`
	// ManifestKey verifies manifests of that plane. It comes with the key, since whoever can write to the directory of backups could
	// seal another plane's key to the public half and sign with their own.
	ManifestKey string `json:"manifest_key"`
	// Private is the private half, a Tink keyset (HPKE, X25519) in base64url.
	Private string `json:"private_key"`
}

// NewRecovery makes a recovery key. The public half stays with the plane.
func NewRecovery(plane, planeID, manifestKey string) (r Recovery, public string, err error) {
	handle, err := keyset.NewHandle(hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	if err != nil {
		return r, "", fmt.Errorf("make the recovery key: %w", err)
	}
	var secret, open bytes.Buffer
	half, err := handle.Public()
	if err == nil {
		err = errors.Join(insecurecleartextkeyset.Write(handle, keyset.NewBinaryWriter(&secret)), half.WriteWithNoSecrets(keyset.NewBinaryWriter(&open)))
	}
	if err != nil {
		return r, "", errors.New("write the recovery key: the keyset has no such form")
	}
	r = Recovery{Plane: plane, PlaneID: planeID, ManifestKey: manifestKey, Private: base64.RawURLEncoding.EncodeToString(secret.Bytes())}
	return r, base64.RawURLEncoding.EncodeToString(open.Bytes()), nil
}

// ParseRecovery reads the file of a recovery key.
func ParseRecovery(file []byte) (*Recovery, error) {
	r := &Recovery{}
	if err := json.Unmarshal(file, r); err != nil || r.Private == "" || r.ManifestKey == "" {
		return nil, errors.New("this is not the file of a recovery key, which `fleet backup recovery-key` wrote")
	}
	return r, nil
}

func escrowBound(plane, planeID, set string) []byte {
	return []byte(strings.Join([]string{"a3os backup escrow v1", plane, planeID, set}, "\x00"))
}

// SealKey seals a set's backup key to a recovery key.
func SealKey(public string, k Key, plane, planeID, set string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(public))
	if err != nil {
		return nil, errors.New("the recovery key's public half is not base64url")
	}
	handle, err := keyset.ReadWithNoSecrets(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, errors.New("the recovery key's public half is no keyset, or holds private keys")
	}
	seal, err := hybrid.NewHybridEncrypt(handle)
	if err != nil {
		return nil, errors.New("the recovery key's public half can't seal")
	}
	return seal.Encrypt([]byte(k.text.Reveal()), escrowBound(plane, planeID, set))
}

// Release opens what SealKey sealed.
func (r *Recovery) Release(escrow []byte, set string) (Key, error) {
	raw, err := base64.RawURLEncoding.DecodeString(r.Private)
	if err != nil {
		return Key{}, errors.New("the recovery key is not base64url")
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return Key{}, errors.New("the recovery key is no keyset")
	}
	open, err := hybrid.NewHybridDecrypt(handle)
	if err != nil {
		return Key{}, errors.New("the recovery key is no private key")
	}
	text, err := open.Decrypt(escrow, escrowBound(r.Plane, r.PlaneID, set))
	if err != nil {
		return Key{}, refuse("the copy of the backup key of %s that lies beside its backups does not open with this recovery key", set)
	}
	return ParseKey(config.NewSecret(string(text)))
}
