package workload

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"a3os.app/libs/id"
)

// TrustFiles is Trust whose roots stand in files and are replaced there without a restart: first the new root is put beside the old
// one, then certificates of the new one are issued, then the old one is taken out, and what stood on it falls at its next request. A
// file that can't be read, or holds what isn't a root of the trust domain, changes nothing. Safe for concurrent use.
type TrustFiles struct {
	plane  string
	tenant id.Tenant
	// own is nil in a process of the control plane.
	own, control *rootsFile
}

// OpenTrust reads the files. In a process of the control plane tenant is zero and tenantRoots is not read.
func OpenTrust(plane string, tenant id.Tenant, tenantRoots, planeRoots string) (*TrustFiles, error) {
	t := &TrustFiles{plane: plane, tenant: tenant}
	var err error
	if t.control, err = openRoots(TrustDomain{Plane: plane}, planeRoots); err != nil {
		return nil, err
	}
	if !tenant.IsZero() {
		t.own, err = openRoots(TrustDomain{Plane: plane, Tenant: tenant}, tenantRoots)
	}
	return t, err
}

// Roots implements Anchors.
func (t *TrustFiles) Roots(d TrustDomain) (*x509.CertPool, error) {
	present := Trust{Plane: t.plane, Tenant: t.tenant, PlaneRoots: t.control.pool.Load()}
	if t.own != nil {
		present.TenantRoots = t.own.pool.Load()
	}
	return present.Roots(d)
}

// Reload takes what the files hold now, and says whether that is something new.
func (t *TrustFiles) Reload() (changed bool, err error) {
	for _, f := range []*rootsFile{t.control, t.own} {
		if f == nil {
			continue
		}
		did, ferr := f.reload()
		if changed = changed || did; ferr != nil {
			err = ferr
		}
	}
	return changed, err
}

// Follow reloads every minute until ctx ends, whose error it returns.
func (t *TrustFiles) Follow(ctx context.Context) error {
	for {
		if err := sleep(ctx, lookEvery); err != nil {
			return err
		}
		switch changed, err := t.Reload(); {
		case err != nil:
			slog.WarnContext(ctx, "the roots on disk are not usable, the present ones stay", "error", err)
		case changed:
			slog.InfoContext(ctx, "other roots are trusted from now on")
		}
	}
}

// rootsFile is the roots of one trust domain. reload is called by one at a time.
type rootsFile struct {
	path   string
	domain TrustDomain
	text   []byte
	pool   atomic.Pointer[x509.CertPool]
}

func openRoots(domain TrustDomain, path string) (*rootsFile, error) {
	f := &rootsFile{path: path, domain: domain}
	_, err := f.reload()
	return f, err
}

// reload keeps the pool where the file did not change: another pool counts as other roots (Anchors).
func (f *rootsFile) reload() (changed bool, err error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return false, fmt.Errorf("read the roots of %s: %w", f.domain, err)
	}
	if f.pool.Load() != nil && bytes.Equal(text, f.text) {
		return false, nil
	}
	pool, err := ParseRoots(f.domain, text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	f.text = text
	f.pool.Store(pool)
	return true, nil
}

var _ Anchors = (*TrustFiles)(nil)
