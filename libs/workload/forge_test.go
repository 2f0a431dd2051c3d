package workload_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/url"
	"testing"
	"time"

	"a3os.app/libs/workload"
)

// forger is an authority in the wrong hands: it signs whatever it is told to. The package under test has none.
type forger struct {
	certificate *x509.Certificate
	key         crypto.Signer
	above       []*x509.Certificate // what it presents between itself and the root
}

func rogueRoot(t testing.TB) forger {
	t.Helper()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "root for anybody"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	key := newKey(t)
	return forger{certificate: signed(t, template, template, key.Public(), key), key: key}
}

// stolen is a real authority as a forger.
func stolen(t testing.TB, authority workload.Authority) forger {
	t.Helper()
	return forger{certificate: certificate(t, authority.CertificatePEM()), key: keyOf(t, authority)}
}

func keyOf(t testing.TB, holder interface{ Encode() ([]byte, error) }) crypto.Signer {
	t.Helper()
	text, err := holder.Encode()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		t.Fatalf("the key is %T", key)
	}
	return signer
}

// below is an authority that this one signs.
func (f forger) below(t testing.TB, change func(*x509.Certificate)) forger {
	t.Helper()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "authority of a forger"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	change(template)
	key := newKey(t)
	return forger{
		certificate: signed(t, template, f.certificate, key.Public(), f.key),
		key:         key,
		above:       append([]*x509.Certificate{f.certificate}, f.above...),
	}
}

// leaf is a leaf that this authority signs, good but for what change does to it.
func (f forger) leaf(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	leaf, _ := f.issue(t, change)
	return leaf
}

// presents is a leaf with its chain, ready for a handshake.
func (f forger) presents(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	leaf, key := f.issue(t, change)
	chain := tls.Certificate{Certificate: [][]byte{leaf.Raw, f.certificate.Raw}, PrivateKey: key}
	for _, c := range f.above {
		chain.Certificate = append(chain.Certificate, c.Raw)
	}
	return chain
}

func (f forger) issue(t testing.TB, change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "leaf of a forger"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	change(template)
	key := newKey(t)
	return signed(t, template, f.certificate, key.Public(), f.key), key
}

// name puts an identity's names on a certificate.
func name(t testing.TB, template *x509.Certificate, identity workload.Identity) {
	t.Helper()
	uri, err := url.Parse(identity.URI())
	if err != nil {
		t.Fatal(err)
	}
	template.URIs, template.DNSNames = []*url.URL{uri}, []string{identity.ServerName()}
}

func signed(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(certificates ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
