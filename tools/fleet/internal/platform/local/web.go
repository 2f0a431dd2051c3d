package local

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"a3os.app/deploy/blueprint"
)

const (
	webRootLife = 10 * 365 * 24 * time.Hour
	// webLeafLife is what browsers accept of a server.
	webLeafLife  = 397 * 24 * time.Hour
	webRenewLeft = 60 * 24 * time.Hour
	clockSkew    = 5 * time.Minute
)

// WebCA is the file with the certificate that clients need to trust; empty where the plane has a certificate of its owner's.
func (p *Platform) WebCA() string {
	if p.Settings.TLSCert != "" {
		return ""
	}
	return p.home("web", "ca.pem")
}

// TrustedChain is the file that a client on this machine believes a certificate of the owner's by, where the machine itself does not
// know who issued it; empty where it does.
func (p *Platform) TrustedChain() string {
	pair, err := tls.LoadX509KeyPair(p.Settings.TLSCert, p.Settings.TLSKey)
	if err != nil {
		return ""
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Intermediates: between, CurrentTime: p.Now()}); err == nil {
		return ""
	}
	return p.Settings.TLSCert
}

// Web makes what is missing of the local authority and of the certificate that the gateway shows for the hosts of slugs. It is shown to whoever
// connects and names no tenant, but right below a top-level domain, as `localhost`, where it names those of slugs and nobody else.
func (p *Platform) Web(slugs []string) (changed bool, err error) {
	if p.Settings.TLSCert != "" {
		if err := p.ownCertificate(slugs); err != nil {
			return false, err
		}
		return p.handOverCertificate()
	}
	ca, changed, err := p.webRoot()
	if err != nil {
		return false, err
	}
	names := []string{p.Settings.Domain, "*." + p.Settings.Domain}
	if !strings.Contains(p.Settings.Domain, ".") {
		// A wildcard right below a top-level domain is refused by browsers.
		for _, s := range slugs {
			names = append(names, s+"."+p.Settings.Domain)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if pair, err := tls.LoadX509KeyPair(p.frontFile("certificate.pem"), p.frontFile("key.pem")); err == nil {
		if slices.Equal(pair.Leaf.DNSNames, names) && pair.Leaf.NotAfter.Sub(p.Now()) > webRenewLeft && pair.Leaf.CheckSignatureFrom(ca.Leaf) == nil {
			return changed, nil
		}
	}
	return true, p.webLeaf(ca, names)
}

// ownCertificate sees that the certificate which the plane was given fits its tenants' hosts.
func (p *Platform) ownCertificate(slugs []string) error {
	pair, err := tls.LoadX509KeyPair(p.Settings.TLSCert, p.Settings.TLSKey)
	if err != nil {
		return fmt.Errorf("A3_TLS_CERT and A3_TLS_KEY can't be used: %w", err)
	}
	if !p.Now().Before(pair.Leaf.NotAfter) {
		return fmt.Errorf("the certificate in A3_TLS_CERT expired at %s: renew it", pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	for _, s := range slugs {
		host := s + "." + p.Settings.Domain
		if p.Settings.Apex() == s {
			host = p.Settings.Domain
		}
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			return fmt.Errorf("the certificate in A3_TLS_CERT is not for %s: get one that is, or choose other names with A3_DOMAIN and A3_TENANTS", host)
		}
	}
	return nil
}

func (p *Platform) webRoot() (ca tls.Certificate, changed bool, err error) {
	certFile, keyFile := p.home("web", "ca.pem"), p.home("web", "ca-key.pem")
	if ca, err = tls.LoadX509KeyPair(certFile, keyFile); err == nil && permits(ca.Leaf, p.Settings.Domain) {
		return ca, false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return ca, false, fmt.Errorf("the local authority: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return ca, false, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"AccessOS"}, CommonName: "AccessOS local authority " + p.State.ID},
		NotBefore: p.Now().Add(-clockSkew), NotAfter: p.Now().Add(webRootLife),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		// Whoever trusts it trusts it for this plane's hosts alone, whoever gets hold of its key.
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{p.Settings.Domain},
		PermittedIPRanges: []*net.IPNet{{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, {IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return ca, false, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return ca, false, fmt.Errorf("make the local authority: %w", err)
	}
	// The key first: where the certificate is, both are.
	if err := errors.Join(writeKey(keyFile, key), writeFile(certFile, encodeCertificate(der))); err != nil {
		return ca, false, err
	}
	ca, err = tls.LoadX509KeyPair(certFile, keyFile)
	return ca, true, err
}

func permits(ca *x509.Certificate, domain string) bool {
	return slices.Contains(ca.PermittedDNSDomains, domain)
}

func (p *Platform) webLeaf(ca tls.Certificate, names []string) error {
	serial, err := serialNumber()
	if err != nil {
		return err
	}
	signer, ok := ca.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the local authority's key can't sign")
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"AccessOS"}, CommonName: p.Settings.Domain},
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: p.Now().Add(-clockSkew), NotAfter: p.Now().Add(webLeafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("make the gateway's certificate: %w", err)
	}
	return errors.Join(writeKey(p.frontFile("key.pem"), key), writeFile(p.frontFile("certificate.pem"), encodeCertificate(der)))
}

// frontFile is a file of the certificate that clients see.
func (p *Platform) frontFile(name string) string { return p.served("web", name) }

// frontOf is the certificate that the front door shows, and its key. The owner's own is copied to where a front door with a user of
// its own can read it.
func (p *Platform) frontOf() *blueprint.Front {
	switch {
	case p.Settings.TLSCert == "":
		return &blueprint.Front{Certificate: p.frontFile("certificate.pem"), Key: p.frontFile("key.pem")}
	case p.Separated():
		return &blueprint.Front{Certificate: p.frontFile("own-certificate.pem"), Key: p.frontFile("own-key.pem")}
	default:
		return &blueprint.Front{Certificate: p.Settings.TLSCert, Key: p.Settings.TLSKey}
	}
}

// handOverCertificate brings the copy of the owner's certificate up to date.
func (p *Platform) handOverCertificate() (changed bool, err error) {
	if !p.Separated() {
		return false, nil
	}
	front := p.frontOf()
	for _, f := range [][2]string{{p.Settings.TLSKey, front.Key}, {p.Settings.TLSCert, front.Certificate}} {
		text, err := os.ReadFile(f[0])
		if err != nil {
			return changed, fmt.Errorf("read the certificate that the plane was given: %w", err)
		}
		if have, err := os.ReadFile(f[1]); err == nil && bytes.Equal(have, text) {
			continue
		}
		changed = true
		if err := writeFile(f[1], string(text)); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func encodeCertificate(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func serialNumber() (*big.Int, error) {
	const bits = 127
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits))
}
