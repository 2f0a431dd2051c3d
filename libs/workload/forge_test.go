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
	"net"
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

// forgery is a certificate that proves nothing to a process of `mine`.
type forgery struct {
	presents tls.Certificate
	// because is part of the reason a server must give, so that no forgery fails for another flaw than its own.
	because string
	// trust is what the victim trusts.
	trust workload.Trust
}

func (f forgery) under(trust workload.Trust) forgery {
	f.trust = trust
	return f
}

// forgeries try to be `as`, which the victim trusts when it is real.
func forgeries(t testing.TB, w world, as workload.Identity) map[string]forgery {
	t.Helper()
	issuer, root, rogue := stolen(t, w.mine.issuer), stolen(t, w.mine.root), rogueRoot(t)
	foreign := of(w.sibling.root.TrustDomain().Tenant, as.Service)
	genuine := w.mine.keypair(t, as.Service)
	byLeaf := forger{certificate: genuine.Leaf(), key: keyOf(t, genuine), above: []*x509.Certificate{issuer.certificate}}
	wider := root.below(t, func(c *x509.Certificate) {
		c.PermittedURIDomains = []string{foreign.TrustDomain().Host()}
		c.PermittedDNSDomains = c.PermittedURIDomains
	})
	// Roots without constraints that ended up in a pool: the names alone must hold the line.
	anyTenant, anyPlane := w.trust, w.trust
	anyTenant.TenantRoots = pool(certificate(t, w.mine.root.CertificatePEM()), rogue.certificate)
	anyPlane.PlaneRoots = pool(certificate(t, w.control.root.CertificatePEM()), rogue.certificate)
	expired, err := w.mine.issuer.IssueKeypair(as, time.Now().Add(-workload.LeafLife-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	headless, endless := pair(t, genuine), pair(t, genuine)
	headless.Certificate = headless.Certificate[:1]
	for range 8 {
		endless.Certificate = append(endless.Certificate, rogueRoot(t).certificate.Raw)
	}

	nothing := func(*x509.Certificate) {}
	usage := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(l *x509.Certificate) { l.ExtKeyUsage = usages }
	}
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(l *x509.Certificate) {
			l.URIs = nil
			for _, text := range texts {
				parsed, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				l.URIs = append(l.URIs, parsed)
			}
		}
	}
	signedBy := func(f forger, because string, change func(*x509.Certificate)) forgery {
		return forgery{presents: f.presents(t, func(l *x509.Certificate) { name(t, l, as); change(l) }), because: because}
	}
	byIssuer := func(because string, change func(*x509.Certificate)) forgery { return signedBy(issuer, because, change) }
	const (
		unknown   = "signed by unknown authority"
		untrusted = "is not trusted here"
	)
	named := func(identity workload.Identity) func(*x509.Certificate) {
		return func(l *x509.Certificate) { name(t, l, identity) }
	}
	all := map[string]forgery{
		"the right name from a root nobody trusts":     signedBy(rogue, unknown, nothing),
		"the right name from the sibling tenant":       signedBy(stolen(t, w.sibling.issuer), unknown, nothing),
		"the right name from the plane's authority":    signedBy(stolen(t, w.control.issuer), unknown, nothing),
		"the sibling's own certificate":                {presents: pair(t, w.sibling.keypair(t, as.Service)), because: untrusted},
		"the same tenant of another plane":             {presents: pair(t, w.prod.keypair(t, as.Service)), because: "is of another plane"},
		"the control plane's name from the tenant":     byIssuer(unknown, named(control("operator"))),
		"the sibling's name from the tenant":           byIssuer(untrusted, named(foreign)),
		"the sibling's name from a root for anybody":   signedBy(rogue, untrusted, named(foreign)).under(anyTenant),
		"a plane's name from a tenant's loose root":    signedBy(rogue, unknown, named(control("operator"))).under(anyTenant),
		"a tenant's name from a plane's loose root":    signedBy(rogue, unknown, nothing).under(anyPlane),
		"the plane's name from a loose intermediate":   signedBy(root.below(t, nothing), unknown, named(control("gateway"))),
		"the sibling's name from a wider intermediate": signedBy(wider, untrusted, named(foreign)),
		"a pseudo-host of the sibling beside the name": byIssuer("not permitted", func(l *x509.Certificate) { l.DNSNames = append(l.DNSNames, foreign.ServerName()) }),
		"an address beside the name":                   byIssuer("excluded", func(l *x509.Certificate) { l.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }),
		"an intermediate below an intermediate":        signedBy(issuer.below(t, nothing), "too many intermediates", nothing),
		"a leaf signed by a leaf":                      signedBy(byLeaf, unknown, nothing),
		"an expired leaf":                              {presents: pair(t, expired), because: "expired"},
		"a leaf from tomorrow":                         byIssuer("not yet valid", func(l *x509.Certificate) { l.NotBefore = time.Now().Add(30 * time.Minute) }),
		"a leaf for signing mail":                      byIssuer("incompatible key usage", usage(x509.ExtKeyUsageEmailProtection)),
		"a key for certificates":                       byIssuer("is an authority's", func(l *x509.Certificate) { l.KeyUsage |= x509.KeyUsageCertSign }),
		"an authority as a workload":                   byIssuer("is an authority's", func(l *x509.Certificate) { l.IsCA = true }),
		"no URI":                                       byIssuer("has 0 URI names", uri()),
		"two URIs":                                     byIssuer("has 2 URI names", uri(as.URI(), of(as.Tenant, "audit").URI())),
		"a URI with a port":                            byIssuer("is not a trust domain", uri("spiffe://"+as.TrustDomain().Host()+":443/"+as.Service)),
		"a URI with a user":                            byIssuer("is not a trust domain", uri("spiffe://root@"+as.TrustDomain().Host()+"/"+as.Service)),
		"a URI with a query":                           byIssuer("is not a service name", uri(as.URI()+"?admin=1")),
		"a URI in another case":                        byIssuer("is not a service name", uri("spiffe://"+as.TrustDomain().Host()+"/IAM")),
		"a URI of another scheme":                      byIssuer("is not a workload's URI", uri("https://"+as.TrustDomain().Host()+"/"+as.Service)),
		"a chain without its intermediate":             {presents: headless, because: unknown},
		"a chain without end":                          {presents: endless, because: "at most 4 are read"},
	}
	for name, f := range all {
		if f.trust == (workload.Trust{}) {
			all[name] = f.under(w.trust)
		}
	}
	return all
}

func pair(t testing.TB, keypair workload.Keypair) tls.Certificate {
	t.Helper()
	text, err := keypair.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
