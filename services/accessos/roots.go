package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"slices"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsOfSystems are where machines keep the authorities that they trust (crypto/x509/root_linux.go), or say that they are elsewhere.
var rootsOfSystems = []string{"/etc/ssl", "/etc/pki", "/system/etc/security/cacerts", "/var/ssl/certs"}

// publicRoots has the process trust the authorities that Mozilla trusts, where the machine has none of its own: an image that is this
// program alone. A machine that has some decides by itself, and pays nothing for these.
func publicRoots() error {
	named := os.Getenv("SSL_CERT_FILE") + os.Getenv("SSL_CERT_DIR")
	if named != "" || slices.ContainsFunc(rootsOfSystems, func(path string) bool { _, err := os.Stat(path); return err == nil }) {
		return nil
	}
	pool, err := bundled()
	if err != nil {
		return err
	}
	x509.SetFallbackRoots(pool)
	return nil
}

func bundled() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("read the public authorities: %w", err)
		}
		if root.Constraint == nil {
			pool.AddCert(cert)
		} else {
			pool.AddCertWithConstraint(cert, root.Constraint)
		}
	}
	return pool, nil
}
