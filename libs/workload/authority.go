package workload

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"a3os.app/libs/clip"
)

const (
	// RootLife is how long a trust domain's root lives.
	RootLife = 10 * 365 * 24 * time.Hour
	// IntermediateLife is how long an issuing intermediate lives.
	IntermediateLife = 365 * 24 * time.Hour
	// LeafLife is how long a workload's certificate lives. It renews at two thirds.
	LeafLife = 7 * 24 * time.Hour

	// clockSkew is how far behind a verifier's clock may be and still accept a certificate made this instant.
	clockSkew = 5 * time.Minute
	// maxRequest bounds a signing request; one with a P-256 key takes about 250 octets.
	maxRequest = 8 << 10
)

// Authority issues certificates for one trust domain: its root, which the platform keeps sealed, or an intermediate of it. Both are
// ECDSA P-256 and critically name-constrained to the trust domain (RFC 5280 §4.2.1.10), so that their signature on any other name
// is worth nothing to any verifier. The zero Authority issues nothing.
type Authority struct {
	domain      TrustDomain
	certificate *x509.Certificate
	key         crypto.Signer
}

// NewRoot makes the root of a trust domain, with a new key.
func NewRoot(domain TrustDomain, now time.Time) (Authority, error) {
	if err := domain.Validate(); err != nil {
		return Authority{}, fmt.Errorf("make a root: %w", err)
	}
	template := authorityTemplate(domain, "root authority", 1)
	template.NotBefore, template.NotAfter = now.Add(-clockSkew), now.Add(RootLife)
	key, err := newKey()
	if err != nil {
		return Authority{}, err
	}
	certificate, err := sign(template, template, key.Public(), key)
	if err != nil {
		return Authority{}, fmt.Errorf("make the root of %s: %w", domain, err)
	}
	return Authority{domain: domain, certificate: certificate, key: key}, nil
}

// NewIntermediate makes an authority, with a new key, that issues leaves and no further authorities.
func (a Authority) NewIntermediate(now time.Time) (Authority, error) {
	if err := a.usable(now); err != nil {
		return Authority{}, fmt.Errorf("make an intermediate: %w", err)
	}
	if !a.isRoot() {
		return Authority{}, fmt.Errorf("make an intermediate of %s: an intermediate issues leaves only, use the root", a.domain)
	}
	template := authorityTemplate(a.domain, "issuing authority", 0)
	template.NotBefore, template.NotAfter = now.Add(-clockSkew), earlier(now.Add(IntermediateLife), a.certificate.NotAfter)
	key, err := newKey()
	if err != nil {
		return Authority{}, err
	}
	certificate, err := sign(template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Authority{}, fmt.Errorf("make an intermediate of %s: %w", a.domain, err)
	}
	return Authority{domain: a.domain, certificate: certificate, key: key}, nil
}

// IssueLeaf answers a signing request (PKCS #10, DER) with a certificate for the identity, as PEM: leaf first, then the
// intermediate. Only the request's key is taken, and only when its signature proves that the requester holds it and it is ECDSA
// P-256; the names in the request are ignored, because the caller's proven identity says who it is. The leaf never outlives the
// intermediate.
func (a Authority) IssueLeaf(csrDER []byte, identity Identity, now time.Time) ([]byte, error) {
	return a.IssueLeafFor(csrDER, identity, now, LeafLife)
}

// IssueLeafFor is IssueLeaf for a certificate that nothing renews by itself: a person's, who comes for another.
func (a Authority) IssueLeafFor(csrDER []byte, identity Identity, now time.Time, life time.Duration) ([]byte, error) {
	if len(csrDER) > maxRequest {
		return nil, fmt.Errorf("the signing request has %d octets, at most %d are read", len(csrDER), maxRequest)
	}
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("read the signing request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the signing request doesn't prove that its sender holds the key: %w", err)
	}
	leaf, err := a.issue(request.PublicKey, identity, now, life)
	if err != nil {
		return nil, err
	}
	return encodeCertificates(leaf, a.certificate), nil
}

// IssueKeypair makes a key and a certificate for it: a workload's first, before it can ask for its own.
func (a Authority) IssueKeypair(identity Identity, now time.Time) (Keypair, error) {
	return a.IssueKeypairFor(identity, now, LeafLife)
}

// IssueKeypairFor makes one that lives for as long as a workload may be started with it, where it is handed over long before. A Renewer replaces it
// when it would replace one of LeafLife.
func (a Authority) IssueKeypairFor(identity Identity, now time.Time, life time.Duration) (Keypair, error) {
	key, err := newKey()
	if err != nil {
		return Keypair{}, err
	}
	leaf, err := a.issue(key.Public(), identity, now, life)
	if err != nil {
		return Keypair{}, err
	}
	return newKeypair(key, []*x509.Certificate{leaf, a.certificate})
}

func (a Authority) issue(public crypto.PublicKey, identity Identity, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if err := identity.Validate(); err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if err := a.usable(now); err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", identity, err)
	}
	if a.isRoot() {
		return nil, fmt.Errorf("issue a certificate for %s: a root issues intermediates only", identity)
	}
	if identity.TrustDomain() != a.domain {
		return nil, fmt.Errorf("issue a certificate for %s: this is the authority of %s", identity, a.domain)
	}
	if key, ok := public.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("issue a certificate for %s: the key is %T, want ECDSA P-256", identity, public)
	}
	uri, err := url.Parse(identity.URI())
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", identity, err)
	}
	leaf, err := sign(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{a.domain.Host()}, CommonName: identity.Service},
		URIs:                  []*url.URL{uri},
		DNSNames:              []string{identity.ServerName()},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              earlier(now.Add(life), a.certificate.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", identity, err)
	}
	return leaf, nil
}

// TrustDomain is the one trust domain it issues for.
func (a Authority) TrustDomain() TrustDomain { return a.domain }

// NotAfter is when its certificate expires.
func (a Authority) NotAfter() time.Time {
	if a.certificate == nil {
		return time.Time{}
	}
	return a.certificate.NotAfter
}

// CertificatePEM is its certificate without its key: what others need to trust it.
func (a Authority) CertificatePEM() []byte {
	if a.certificate == nil {
		return nil
	}
	return encodeCertificates(a.certificate)
}

// Encode is its certificate and key as PEM. It is a secret.
func (a Authority) Encode() ([]byte, error) {
	if a.certificate == nil {
		return nil, errors.New("encode an authority: it is empty")
	}
	return encodePair(a.key, a.certificate)
}

// ParseAuthority reads what Encode writes. An authority that isn't critically name-constrained to exactly one trust domain is
// refused.
func ParseAuthority(pair []byte) (Authority, error) {
	key, certificates, err := parsePair(pair)
	if err != nil {
		return Authority{}, fmt.Errorf("read an authority: %w", err)
	}
	if len(certificates) != 1 {
		return Authority{}, fmt.Errorf("read an authority: there are %d certificates, want its own alone", len(certificates))
	}
	domain, err := constrainedTo(certificates[0])
	if err != nil {
		return Authority{}, fmt.Errorf("read an authority: %w", err)
	}
	return Authority{domain: domain, certificate: certificates[0], key: key}, nil
}

// Save writes certificate and key to a file, whole or not at all, readable by its owner alone.
func (a Authority) Save(path string) error {
	pair, err := a.Encode()
	if err != nil {
		return err
	}
	return writeSecret(path, pair)
}

// LoadAuthority reads what Save wrote. It refuses a file that others can read.
func LoadAuthority(path string) (Authority, error) {
	pair, err := readSecret(path)
	if err != nil {
		return Authority{}, err
	}
	a, err := ParseAuthority(pair)
	if err != nil {
		return Authority{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func (a Authority) usable(now time.Time) error {
	switch {
	case a.certificate == nil:
		return errors.New("the authority is empty")
	case !now.Before(a.certificate.NotAfter):
		return fmt.Errorf("the authority of %s expired at %s: make a new one from the root", a.domain, a.certificate.NotAfter.Format(time.RFC3339))
	default:
		return nil
	}
}

func (a Authority) isRoot() bool {
	return bytes.Equal(a.certificate.RawIssuer, a.certificate.RawSubject)
}

// authorityTemplate constrains an authority to its trust domain's host, for URIs and for DNS names, which take in the hosts below
// it: the pseudo-hosts. Addresses and mailboxes are excluded, for a constraint on one kind of name says nothing about another.
func authorityTemplate(domain TrustDomain, name string, pathLength int) *x509.Certificate {
	host := []string{domain.Host()}
	return &x509.Certificate{
		Subject:                     pkix.Name{Organization: host, CommonName: name},
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLen:                  pathLength,
		MaxPathLenZero:              pathLength == 0,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedURIDomains:         host,
		PermittedDNSDomains:         host,
		PermittedEmailAddresses:     host,
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
}

// constrainedTo is the one trust domain that an authority's certificate is good for.
func constrainedTo(certificate *x509.Certificate) (TrustDomain, error) {
	if !certificate.BasicConstraintsValid || !certificate.IsCA || certificate.KeyUsage&x509.KeyUsageCertSign == 0 {
		return TrustDomain{}, fmt.Errorf("the certificate of %q is not an authority's", clip.Text(certificate.Subject.String(), mostTold))
	}
	if len(certificate.PermittedURIDomains) != 1 || !certificate.PermittedDNSDomainsCritical ||
		!slices.Equal(certificate.PermittedURIDomains, certificate.PermittedDNSDomains) {
		return TrustDomain{}, fmt.Errorf("the authority %q is not critically constrained to one trust domain for URI and DNS names", clip.Text(certificate.Subject.String(), mostTold))
	}
	return ParseTrustDomain(certificate.PermittedURIDomains[0])
}

// sign leaves the serial number to x509, which takes it from the random source (RFC 5280 §4.1.2.2).
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return x509.ParseCertificate(der)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
