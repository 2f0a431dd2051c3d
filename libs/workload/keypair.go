package workload

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
)

// keypairFile is where a workload's key and certificates stand in its directory.
const keypairFile = "workload.pem"

// Keypair is a workload's key and the certificates that vouch for it, leaf first.
type Keypair struct {
	identity    Identity
	certificate *tls.Certificate
}

// NewRequest makes a key and the signing request (PKCS #10, DER) for it. The request carries no name.
func NewRequest() (csrDER []byte, key crypto.Signer, err error) {
	private, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	csrDER, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signing request: %w", err)
	}
	return csrDER, private, nil
}

// NewKeypair joins a key with the answer to its signing request (PEM, leaf first). It refuses a leaf that is for another key or
// names no workload; who signed it, it doesn't ask.
func NewKeypair(key crypto.Signer, chainPEM []byte) (Keypair, error) {
	chain, err := parseCertificates(chainPEM)
	if err != nil {
		return Keypair{}, fmt.Errorf("read a certificate chain: %w", err)
	}
	return newKeypair(key, chain)
}

func newKeypair(key crypto.Signer, chain []*x509.Certificate) (Keypair, error) {
	if err := matches(key, chain[0]); err != nil {
		return Keypair{}, err
	}
	identity, err := FromCertificate(chain[0])
	if err != nil {
		return Keypair{}, err
	}
	certificate := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return Keypair{identity: identity, certificate: certificate}, nil
}

// ParseKeypair reads what Encode writes.
func ParseKeypair(pair []byte) (Keypair, error) {
	key, chain, err := parsePair(pair)
	if err != nil {
		return Keypair{}, fmt.Errorf("read a workload's keypair: %w", err)
	}
	return newKeypair(key, chain)
}

// Identity is who its leaf says it is.
func (k Keypair) Identity() Identity { return k.identity }

// Leaf is the workload's own certificate; nil for the zero Keypair.
func (k Keypair) Leaf() *x509.Certificate {
	if k.certificate == nil {
		return nil
	}
	return k.certificate.Leaf
}

// Encode is key and certificates as PEM. It is a secret.
func (k Keypair) Encode() ([]byte, error) {
	if k.certificate == nil {
		return nil, errors.New("encode a keypair: it is empty")
	}
	key, ok := k.certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("encode a keypair: its key can't sign")
	}
	chain, err := k.chain()
	if err != nil {
		return nil, err
	}
	return encodePair(key, chain...)
}

// Save writes the keypair to a workload's directory, whole or not at all, readable by its owner alone. The directory must be the
// workload's own, because it writes its renewed keypairs there; who saves for a workload that runs as another user hands the file
// over to that user afterwards.
func (k Keypair) Save(dir string) error {
	pair, err := k.Encode()
	if err != nil {
		return err
	}
	return writeSecret(filepath.Join(dir, keypairFile), pair)
}

func (k Keypair) chain() ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, 0, len(k.certificate.Certificate))
	for _, der := range k.certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}
