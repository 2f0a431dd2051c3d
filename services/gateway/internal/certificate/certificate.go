// Package certificate is the certificate that the gateway shows to the world. It promises that a new one on disk is taken up
// without a restart, and that one which can't be used never takes the place of one that can. It relies on whoever writes the files
// for who signed it.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files are looked at.
const lookEvery = 2 * time.Second

// Source is the present certificate.
type Source struct {
	certFile, keyFile string

	current atomic.Pointer[tls.Certificate]

	reloading sync.Mutex
	seen      [2][]byte // content of both files when they were last read
}

// Open reads a certificate chain and its key, both PEM.
func Open(certFile, keyFile string) (*Source, error) {
	s := &Source{certFile: certFile, keyFile: keyFile}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload takes up what is on disk, and says whether it was new. Between the two files of a pair that is being replaced there is a
// moment when they don't fit: that is an error, the present certificate stays, and the next look finds both.
func (s *Source) Reload() (changed bool, err error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cert, err := os.ReadFile(s.certFile)
	if err != nil {
		return false, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := os.ReadFile(s.keyFile)
	if err != nil {
		return false, fmt.Errorf("read the certificate's key: %w", err)
	}
	if bytes.Equal(cert, s.seen[0]) && bytes.Equal(key, s.seen[1]) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("the certificate in %s and the key in %s can't be used: %w", s.certFile, s.keyFile, err)
	}
	s.seen = [2][]byte{cert, key}
	s.current.Store(&pair)
	return true, nil
}

// Follow reloads until ctx ends, whose error it returns.
func (s *Source) Follow(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := ""
	for {
		changed, err := s.Reload()
		switch {
		case err != nil && err.Error() != told:
			slog.WarnContext(ctx, "the certificate on disk is not usable, the present one stays", "error", err)
			told = err.Error()
		case changed:
			slog.InfoContext(ctx, "certificate taken up", "expires_at", s.current.Load().Leaf.NotAfter)
			told = ""
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// NotAfter is when the present certificate expires.
func (s *Source) NotAfter() time.Time { return s.current.Load().Leaf.NotAfter }

// GetCertificate is the hook of tls.Config. Every name gets the same certificate, so that a handshake tells nothing of tenants.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}
