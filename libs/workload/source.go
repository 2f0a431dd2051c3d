package workload

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Source is a workload's present keypair, which changes under running servers and clients without a restart: each handshake takes
// what is newest. It never turns into another identity. Safe for concurrent use.
type Source struct {
	path     string
	identity Identity
	current  atomic.Pointer[Keypair]

	writing sync.Mutex // one change at a time: file and memory must not end up with different keypairs
	onDisk  []byte     // what the file held when it was last read or written
}

// OpenSource reads the keypair in a workload's directory. It refuses one that belongs to another workload than the process that
// opens it. An expired keypair is opened, so that the process can wait for a new one (see Renewer).
func OpenSource(dir string, want Identity) (*Source, error) {
	if err := want.Validate(); err != nil {
		return nil, fmt.Errorf("open the keypair in %s: %w", dir, err)
	}
	s := &Source{path: filepath.Join(dir, keypairFile), identity: want}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// NewSource is a source of one keypair that is kept in memory alone, for a process that lives no longer than the keypair does. It is
// never renewed: Store and Reload fail.
func NewSource(k Keypair) (*Source, error) {
	if k.Leaf() == nil {
		return nil, errors.New("make a source: the keypair is empty")
	}
	s := &Source{identity: k.identity}
	s.current.Store(&k)
	return s, nil
}

// Identity is whose keypair it is.
func (s *Source) Identity() Identity { return s.identity }

// Leaf is the present certificate. The same pointer means that nothing changed.
func (s *Source) Leaf() *x509.Certificate { return s.current.Load().Leaf() }

// NotAfter is when the present certificate expires.
func (s *Source) NotAfter() time.Time { return s.Leaf().NotAfter }

// Store makes a keypair the present one, on disk first. It refuses another workload's, and one that expires no later than the present.
func (s *Source) Store(k Keypair) error {
	pair, err := k.Encode()
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.admits(k); err != nil {
		return err
	}
	if err := writeSecret(s.path, pair); err != nil {
		return err
	}
	s.onDisk = pair
	s.current.Store(&k)
	return nil
}

// Reload takes the keypair that stands on disk, where somebody else put it (`fleet` issues anew for a workload that can't renew),
// and says whether there was a new one.
func (s *Source) Reload() (changed bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	pair, err := readSecret(s.path)
	if err != nil {
		return false, err
	}
	if s.current.Load() != nil && bytes.Equal(pair, s.onDisk) {
		return false, nil
	}
	k, err := ParseKeypair(pair)
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.path, err)
	}
	if err := s.admits(k); err != nil {
		return false, fmt.Errorf("%s: %w", s.path, err)
	}
	s.onDisk = pair
	s.current.Store(&k)
	return true, nil
}

func (s *Source) admits(k Keypair) error {
	if k.identity != s.identity {
		return fmt.Errorf("the keypair is %s's, this is %s: check which directory the process was given", k.identity, s.identity)
	}
	present := s.current.Load()
	if present != nil && !k.Leaf().NotAfter.After(present.Leaf().NotAfter) {
		return fmt.Errorf("the keypair expires at %s, no later than the present one", k.Leaf().NotAfter.Format(time.RFC3339))
	}
	return nil
}

// GetCertificate is the hook of tls.Config for servers.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load().certificate, nil
}

// GetClientCertificate is the hook of tls.Config for clients.
func (s *Source) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.current.Load().certificate, nil
}
