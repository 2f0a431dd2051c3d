package main

import (
	"crypto/x509"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// A process whose machine trusts nobody trusts the public authorities, and only then.
func TestPublicAuthoritiesAreTrustedWhereTheMachineHasNone(t *testing.T) {
	// The machine's own count for nothing in this test.
	t.Setenv("GODEBUG", "x509usefallbackroots=1")
	t.Setenv("SSL_CERT_FILE", "")
	t.Setenv("SSL_CERT_DIR", "")
	before := rootsOfSystems
	t.Cleanup(func() { rootsOfSystems = before })
	verified := func() (n int) {
		t.Helper()
		for root := range bundle.Roots() {
			cert, err := x509.ParseCertificate(root.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if root.Constraint != nil || time.Now().After(cert.NotAfter) {
				continue
			}
			pool := x509.NewCertPool() // empty: what is not found there is looked for nowhere
			if _, err := cert.Verify(x509.VerifyOptions{Roots: pool}); err == nil {
				t.Fatalf("%s is trusted by who trusts nobody", cert.Subject)
			}
			if _, err := cert.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
				n++
			}
		}
		return n
	}
	rootsOfSystems = []string{t.TempDir()}
	if err := publicRoots(); err != nil {
		t.Fatal(err)
	}
	rootsOfSystems = nil
	if err := publicRoots(); err != nil { // a second time would panic: the first set none
		t.Fatal(err)
	}
	const most = 50
	if n := verified(); n < most {
		t.Errorf("%d public authorities are trusted", n)
	}
}
