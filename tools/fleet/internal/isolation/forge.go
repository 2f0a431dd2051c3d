package isolation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"time"

	"a3os.app/libs/workload"
)

// forge issues a certificate in somebody else's name with the authority in a file, as one could who took over the component that
// holds it. libs/workload would refuse to.
func forge(authority string, who workload.Identity) (*tls.Certificate, error) {
	text, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	var signer crypto.Signer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("read the authority: %w", err)
			}
			chain = append(chain, c)
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the authority's key is not PKCS #8")
		}
		var ok bool
		if signer, ok = key.(crypto.Signer); !ok {
			return nil, errors.New("the authority's key signs nothing")
		}
	}
	if len(chain) == 0 || signer == nil {
		return nil, errors.New("the file holds no authority")
	}
	uri, err := url.Parse(who.URI())
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{uri}, DNSNames: []string{who.ServerName()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, chain[0], key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("issue the forged certificate: %w", err)
	}
	pair := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}
