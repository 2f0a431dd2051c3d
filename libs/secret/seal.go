package secret

import (
	"encoding/binary"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/config"
)

// A sealed credential is magic, version (8 bytes, big endian), ciphertext. The version stands outside the seal so that a writer, who
// can't open it, can count on; the seal is bound to it.
const (
	magic      = "a3s1"
	headerSize = len(magic) + 8
	// mostFile is the largest that was ever written, with room for what tink puts around the value: values of 64 KiB were allowed once.
	mostFile = headerSize + 64<<10 + 1024
)

// Sealer seals credentials for a driver.
type Sealer struct{ seal tink.HybridEncrypt }

// NewSealer takes the public half of a store's key.
func NewSealer(publicKey string) (*Sealer, error) {
	seal, err := sealer(publicKey)
	if err != nil {
		return nil, err
	}
	return &Sealer{seal}, nil
}

// Seal binds a value to its path and version.
func (s *Sealer) Seal(path Path, version int64, value config.Secret) ([]byte, error) {
	sealed, err := s.seal.Encrypt([]byte(value.Reveal()), contextInfo(path, version))
	if err != nil {
		return nil, fmt.Errorf("seal the secret of %s: the public key does not work", path)
	}
	file := binary.BigEndian.AppendUint64([]byte(magic), uint64(version)) //nolint:gosec // versions are microseconds since 1970
	return append(file, sealed...), nil
}

// Opener opens what a Sealer sealed.
type Opener struct {
	open   tink.HybridDecrypt
	public string
}

// NewOpener takes the private half of a store's key.
func NewOpener(privateKey config.Secret) (*Opener, error) {
	open, public, err := opener(privateKey)
	if err != nil {
		return nil, err
	}
	return &Opener{open, public}, nil
}

// PublicKey is the other half of the key.
func (o *Opener) PublicKey() string { return o.public }

// Open answers what was sealed for a path, and its version. Errors: [ErrUnreadable].
func (o *Opener) Open(path Path, sealed []byte) (config.Secret, int64, error) {
	version, ok := versionOf(sealed)
	if !ok || len(sealed) > mostFile {
		return config.Secret{}, 0, ErrUnreadable
	}
	value, err := o.open.Decrypt(sealed[headerSize:], contextInfo(path, version))
	if err != nil {
		return config.Secret{}, 0, ErrUnreadable
	}
	return config.NewSecret(string(value)), version, nil
}

// CheckSealed refuses what no Sealer made, as far as who has no key can tell.
func CheckSealed(sealed []byte) error {
	if _, ok := versionOf(sealed); !ok || len(sealed) > mostFile {
		return ErrUnreadable
	}
	return nil
}

func versionOf(file []byte) (int64, bool) {
	if len(file) < headerSize || string(file[:len(magic)]) != magic {
		return 0, false
	}
	v := int64(binary.BigEndian.Uint64(file[len(magic):headerSize])) //nolint:gosec // a negative one is refused below
	return v, v > 0
}
