package workload

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"

	"a3os.app/libs/clip"
)

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY" // PKCS #8
	// maxFile bounds what is read of a file that should hold a key and a few certificates.
	maxFile = 64 << 10
)

func encodeCertificates(certificates ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: c.Raw})...)
	}
	return out
}

func encodePair(key crypto.Signer, certificates ...*x509.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), encodeCertificates(certificates...)...), nil
}

// parseCertificates reads certificates and nothing else: a key among them, or text between them, is refused rather than skipped.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("there is text that is not PEM")
		}
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("there is a PEM block %q, want %s blocks alone", clip.Text(block.Type, mostTold), certificateBlock)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
		certificates = append(certificates, c)
	}
	if len(certificates) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return certificates, nil
}

// parsePair reads a key, then certificates, the first of which is for that key.
func parsePair(text []byte) (crypto.Signer, []*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, nil, fmt.Errorf("there is no PEM block %q at the beginning", keyBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, errors.New("the key can't be read, want PKCS #8")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("the key is a %T, which can't sign", parsed)
	}
	certificates, err := parseCertificates(rest)
	if err != nil {
		return nil, nil, err
	}
	if err := matches(key, certificates[0]); err != nil {
		return nil, nil, err
	}
	return key, certificates, nil
}

func matches(key crypto.Signer, certificate *x509.Certificate) error {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificate.PublicKey) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

// writeSecret replaces a file as a whole: key and certificate stand in one file because two can't change together, and a process
// killed between two renames would come back with a key that doesn't fit.
func writeSecret(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// The temporary file stands beside the file, never in a shared directory, and the mode is ours whatever was there before.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = file.Cleanup() }()
	if err := keepOwner(file.File, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if _, err := file.Write(text); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// keepOwner gives a file that root writes the owner of the one that it replaces, or else the directory's: a
// platform that renews a workload's keypair must not take it from the workload.
func keepOwner(file *os.File, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, like := range []string{path, filepath.Dir(path)} {
		if info, err := os.Lstat(like); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return file.Chown(int(st.Uid), int(st.Gid))
			}
		}
	}
	return nil
}

// readSecret refuses a key that other users of the machine can read.
func readSecret(path string) ([]byte, error) {
	file, err := os.OpenInRoot(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others can read the key: make it 0600 and issue a new one if somebody may have", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is longer than the %d octets that a key and its certificates take at most", path, maxFile)
	}
	return text, nil
}
