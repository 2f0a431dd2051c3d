package workload_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

const plane = "dev"

func control(service string) workload.Identity {
	return workload.Identity{Plane: plane, Service: service}
}

func of(tenant id.Tenant, service string) workload.Identity {
	return workload.Identity{Plane: plane, Tenant: tenant, Service: service}
}

// ceremony is a trust domain's root and intermediate.
type ceremony struct{ root, issuer workload.Authority }

func hold(t testing.TB, domain workload.TrustDomain) ceremony {
	t.Helper()
	root, err := workload.NewRoot(domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ceremony{root: root, issuer: issuer}
}

func (c ceremony) roots(t testing.TB) *x509.CertPool {
	t.Helper()
	pool, err := workload.ParseRoots(c.root.TrustDomain(), c.root.CertificatePEM())
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func (c ceremony) keypair(t testing.TB, service string) workload.Keypair {
	t.Helper()
	d := c.root.TrustDomain()
	keypair, err := c.issuer.IssueKeypair(workload.Identity{Plane: d.Plane, Tenant: d.Tenant, Service: service}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return keypair
}

func (c ceremony) source(t testing.TB, service string) *workload.Source {
	t.Helper()
	return openIn(t, t.TempDir(), c.keypair(t, service))
}

func certificate(t testing.TB, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("not PEM")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestCertificatesHaveTheFormTheDesignDemands(t *testing.T) {
	identity := of(tenant(t), "discovery")
	authorities := hold(t, identity.TrustDomain())
	root, intermediate := certificate(t, authorities.root.CertificatePEM()), certificate(t, authorities.issuer.CertificatePEM())
	leaf := authorities.keypair(t, "discovery").Leaf()

	for _, c := range []struct {
		name       string
		got        *x509.Certificate
		life       time.Duration
		pathLength int
	}{
		{"root", root, workload.RootLife, 1},
		{"intermediate", intermediate, workload.IntermediateLife, 0},
	} {
		if !c.got.IsCA || c.got.MaxPathLen != c.pathLength || c.got.MaxPathLenZero != (c.pathLength == 0) {
			t.Errorf("%s: authority %v, path length %d", c.name, c.got.IsCA, c.got.MaxPathLen)
		}
		if !c.got.PermittedDNSDomainsCritical || len(c.got.ExcludedIPRanges) != 2 {
			t.Errorf("%s: its constraints are not critical or leave addresses open", c.name)
		}
		if life := c.got.NotAfter.Sub(c.got.NotBefore); life != c.life+5*time.Minute {
			t.Errorf("%s: lives %v", c.name, life)
		}
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != workload.LeafLife+5*time.Minute {
		t.Errorf("leaf lives %v", life)
	}
	if got := fmt.Sprint(leaf.URIs, leaf.DNSNames, leaf.EmailAddresses, leaf.IPAddresses); got != fmt.Sprintf("[%s] [%s] [] []", identity.URI(), identity.ServerName()) {
		t.Errorf("leaf is named %s", got)
	}
	for _, c := range []*x509.Certificate{root, intermediate, leaf} {
		if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: key is %T", c.Subject, c.PublicKey)
		}
		if c.SerialNumber.BitLen() < 96 {
			t.Errorf("%s: serial number has %d bits", c.Subject, c.SerialNumber.BitLen())
		}
	}
}

func TestLeafTakesTheKeyOfTheRequestAndNoName(t *testing.T) {
	identity := of(tenant(t), "audit")
	authorities := hold(t, identity.TrustDomain())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "iam"},
		DNSNames:    []string{"iam.plane.dev.a3os", "*"},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "plane.dev.a3os", Path: "/operator"}},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authorities.issuer.IssueLeaf(greedy, identity, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keypair, err := workload.NewKeypair(key, chain)
	if err != nil {
		t.Fatal(err)
	}
	leaf := keypair.Leaf()
	if keypair.Identity() != identity || len(leaf.DNSNames) != 1 || len(leaf.IPAddresses) != 0 || leaf.Subject.CommonName != "audit" {
		t.Errorf("the leaf took names from the request: %v %v %v %v", keypair.Identity(), leaf.DNSNames, leaf.IPAddresses, leaf.Subject)
	}
}

func TestRequestsThatProveNothingAreRefused(t *testing.T) {
	identity := of(tenant(t), "audit")
	authorities := hold(t, identity.TrustDomain())
	request := func(key crypto.Signer) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, _, err := workload.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		issuer   workload.Authority
		request  []byte
		identity workload.Identity
		now      time.Time
	}{
		"nothing":                   {authorities.issuer, nil, identity, time.Now()},
		"garbage":                   {authorities.issuer, []byte("garbage"), identity, time.Now()},
		"too long":                  {authorities.issuer, make([]byte, 9<<10), identity, time.Now()},
		"forged signature":          {authorities.issuer, forged, identity, time.Now()},
		"another kind of key":       {authorities.issuer, request(edwards), identity, time.Now()},
		"another curve":             {authorities.issuer, request(p384), identity, time.Now()},
		"nobody":                    {authorities.issuer, good, workload.Identity{}, time.Now()},
		"another tenant":            {authorities.issuer, good, of(id.NewTenant(), "audit"), time.Now()},
		"the control plane":         {authorities.issuer, good, control("operator"), time.Now()},
		"another plane":             {authorities.issuer, good, workload.Identity{Plane: "prod", Tenant: identity.Tenant, Service: "audit"}, time.Now()},
		"from a root":               {authorities.root, good, identity, time.Now()},
		"from no authority":         {workload.Authority{}, good, identity, time.Now()},
		"from an expired authority": {authorities.issuer, good, identity, time.Now().Add(workload.IntermediateLife)},
	} {
		t.Run(name, func(t *testing.T) {
			if chain, err := c.issuer.IssueLeaf(c.request, c.identity, c.now); err == nil || chain != nil {
				t.Errorf("it was issued")
			}
		})
	}
	if _, err := authorities.issuer.NewIntermediate(time.Now()); err == nil {
		t.Error("an intermediate made another")
	}
}

func TestLeafNeverOutlivesItsIssuer(t *testing.T) {
	identity := of(tenant(t), "audit")
	authorities := hold(t, identity.TrustDomain())
	keypair, err := authorities.issuer.IssueKeypair(identity, time.Now().Add(workload.IntermediateLife-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !keypair.Leaf().NotAfter.Equal(authorities.issuer.NotAfter()) {
		t.Errorf("leaf ends %v, its issuer %v", keypair.Leaf().NotAfter, authorities.issuer.NotAfter())
	}
}

func TestAuthorityComesBackFromItsFile(t *testing.T) {
	identity := of(tenant(t), "iam")
	authorities := hold(t, identity.TrustDomain())
	path := filepath.Join(t.TempDir(), "sealed", "issuer.pem")
	if err := authorities.issuer.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %04o", info.Mode().Perm())
	}
	loaded, err := workload.LoadAuthority(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.IssueKeypair(identity, time.Now()); err != nil || loaded.TrustDomain() != identity.TrustDomain() {
		t.Errorf("it came back as the authority of %v, %v", loaded.TrustDomain(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil { //nolint:gosec // G302: that is the mistake
		t.Fatal(err)
	}
	if _, err := workload.LoadAuthority(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a key that others can read was taken: %v", err)
	}
}

func TestRootsOfAnotherKindAreRefused(t *testing.T) {
	mine, other := workload.TrustDomain{Plane: plane, Tenant: tenant(t)}, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()}
	authorities := hold(t, mine)
	secret, err := authorities.root.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nothing":               nil,
		"text":                  []byte("hello"),
		"another tenant's root": hold(t, other).root.CertificatePEM(),
		"both roots":            append(authorities.root.CertificatePEM(), hold(t, other).root.CertificatePEM()...),
		"the plane's root":      hold(t, workload.TrustDomain{Plane: plane}).root.CertificatePEM(),
		"an intermediate":       authorities.issuer.CertificatePEM(),
		"a key beside the root": secret,
		"a root for anybody":    pemOf(rogueRoot(t).certificate),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := workload.ParseRoots(mine, text); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

func TestKeysDoNotSurfaceInLogs(t *testing.T) {
	authorities := hold(t, workload.TrustDomain{Plane: plane, Tenant: tenant(t)})
	keypair := authorities.keypair(t, "iam")
	for _, secret := range []struct {
		holder any
		encode func() ([]byte, error)
	}{
		{authorities.issuer, authorities.issuer.Encode},
		{keypair, keypair.Encode},
		{struct{ K workload.Keypair }{keypair}, keypair.Encode},
	} {
		text, err := secret.encode()
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		private, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			t.Fatalf("the key is %T", parsed)
		}
		scalar, err := private.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			printed := fmt.Sprintf(verb, secret.holder)
			for _, form := range []string{fmt.Sprintf("%x", scalar), fmt.Sprintf("%v", scalar), private.D.String()} { //nolint:staticcheck // SA1019: the number that fmt would print
				if strings.Contains(printed, strings.Trim(form, "[]")) {
					t.Errorf("%T printed with %s shows its key", secret.holder, verb)
				}
			}
		}
	}
}

// OpenSSL is the oracle: an independent implementation agrees on what the chain proves and what the constraints forbid.
func TestOpenSSLAgreesOnChainAndConstraints(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: there is no openssl on this machine to compare with")
	}
	identity := of(tenant(t), "discovery")
	mine, sibling := hold(t, identity.TrustDomain()), hold(t, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()})
	foreign := of(sibling.root.TrustDomain().Tenant, "discovery")
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, issuer := file("root.pem", mine.root.CertificatePEM()), file("issuer.pem", mine.issuer.CertificatePEM())
	forge := stolen(t, mine.issuer)
	for _, c := range []struct {
		name    string
		leaf    *x509.Certificate
		verdict string
	}{
		{"own name", mine.keypair(t, "discovery").Leaf(), "OK"},
		{"sibling's name under the sibling's root", sibling.keypair(t, "discovery").Leaf(), "unable to get local issuer certificate"},
		{"sibling's URI", forge.leaf(t, func(l *x509.Certificate) { name(t, l, foreign); l.DNSNames = nil }), "permitted subtree violation"},
		{"sibling's pseudo-host", forge.leaf(t, func(l *x509.Certificate) { name(t, l, identity); l.DNSNames = []string{foreign.ServerName()} }), "permitted subtree violation"},
		{"address", forge.leaf(t, func(l *x509.Certificate) { name(t, l, identity); l.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }), "excluded subtree violation"},
		{"mailbox", forge.leaf(t, func(l *x509.Certificate) { name(t, l, identity); l.EmailAddresses = []string{"root@example.com"} }), "permitted subtree violation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := file("leaf.pem", pemOf(c.leaf))
			for _, purpose := range []string{"sslserver", "sslclient"} {
				out, _ := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", root, "-untrusted", issuer, leaf).CombinedOutput() //nolint:gosec // G204: the oracle, on the test's own files
				if !strings.Contains(string(out), c.verdict) {
					t.Errorf("openssl says for %s: %s, want %q", purpose, out, c.verdict)
				}
			}
			pool := x509.NewCertPool()
			pool.AddCert(certificate(t, mine.issuer.CertificatePEM()))
			_, err := c.leaf.Verify(x509.VerifyOptions{Roots: mine.roots(t), Intermediates: pool})
			if (err == nil) != (c.verdict == "OK") {
				t.Errorf("Go disagrees with openssl: %v", err)
			}
		})
	}
}
