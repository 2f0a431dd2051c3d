package workload

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// AuthorityFile is an issuing intermediate that stands in a file and is replaced there, by who holds the root, long before it expires:
// each certificate is issued with what is newest, without a restart. It never turns into another trust domain's authority. Safe for
// concurrent use.
type AuthorityFile struct {
	path   string
	domain TrustDomain

	mu      sync.Mutex
	present Authority
}

// OpenAuthorityFile reads the intermediate in a file. It refuses a root, and an authority of another trust domain.
func OpenAuthorityFile(path string, domain TrustDomain) (*AuthorityFile, error) {
	f := &AuthorityFile{path: path, domain: domain}
	var err error
	f.present, err = f.read()
	return f, err
}

func (f *AuthorityFile) read() (Authority, error) {
	a, err := LoadAuthority(f.path)
	if err != nil {
		return Authority{}, err
	}
	switch {
	case a.isRoot():
		return Authority{}, fmt.Errorf("%s: it is a root, which stays with the platform: put an intermediate there", f.path)
	case a.domain != f.domain:
		return Authority{}, fmt.Errorf("%s: it is the authority of %s, this is %s", f.path, a.domain, f.domain)
	}
	return a, nil
}

// newest is what the file holds now, or what it held last where that is of no use. Certificates are issued every few days.
func (f *AuthorityFile) newest() Authority {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.read()
	if err == nil && a.NotAfter().Before(f.present.NotAfter()) {
		err = errors.New("it expires before the present one")
	}
	if err != nil {
		slog.Warn("the issuing intermediate on disk is not usable, the present one stays", "file", f.path, "expires_at", f.present.NotAfter(), "error", err)
		return f.present
	}
	f.present = a
	return a
}

// IssueLeaf is Authority.IssueLeaf with the newest intermediate.
func (f *AuthorityFile) IssueLeaf(csrDER []byte, identity Identity, now time.Time) ([]byte, error) {
	return f.newest().IssueLeaf(csrDER, identity, now)
}

// NotAfter is when the newest intermediate expires.
func (f *AuthorityFile) NotAfter() time.Time { return f.newest().NotAfter() }
