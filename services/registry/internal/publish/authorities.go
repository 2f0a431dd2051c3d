package publish

import (
	"crypto/x509"
	"fmt"
	"maps"
	"sync"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/store"
)

// authority is a tenant's roots, parsed when first asked for: of ten thousand tenants a process may see a few hundred.
type authority struct {
	pem string
	// reporter is the service that reports for the tenant's set.
	reporter string
	roots    func() (*x509.CertPool, error)
}

// authorities are those before with what changed. Those that did not change stay, for a pool that is another one counts as another root
// (workload.Anchors).
func (p *Publisher) authorities(before map[id.Tenant]*authority, changed []store.ChangedSetsRow) map[id.Tenant]*authority {
	now := make(map[id.Tenant]*authority, len(before)+len(changed))
	maps.Copy(now, before)
	for _, s := range changed {
		if s.CaCertificatesPem == nil {
			delete(now, s.ID)
			continue
		}
		domain, pem := workload.TrustDomain{Plane: p.plane, Tenant: s.ID}, *s.CaCertificatesPem
		var reporter string
		if s.Reporter != nil {
			reporter = *s.Reporter
		}
		if a, ok := before[s.ID]; ok && a.pem == pem {
			now[s.ID] = &authority{pem: pem, reporter: reporter, roots: a.roots}
			continue
		}
		now[s.ID] = &authority{pem: pem, reporter: reporter, roots: sync.OnceValues(func() (*x509.CertPool, error) {
			return workload.ParseRoots(domain, []byte(pem))
		})}
	}
	return now
}

// Reporter is the service that reports for a tenant's set; empty where none does.
func (p *Publisher) Reporter(tenant id.Tenant) string {
	if a, ok := p.present.Load().authorities[tenant]; ok {
		return a.reporter
	}
	return ""
}

// Anchors trusts the plane's own services as plane does, and those of every tenant that has a set and was not offboarded by that
// tenant's roots.
func (p *Publisher) Anchors(plane workload.Anchors) workload.Anchors {
	return workload.AnchorsFunc(func(d workload.TrustDomain) (*x509.CertPool, error) {
		switch {
		case d.Plane != p.plane:
			return nil, fmt.Errorf("%s is of another plane, this is %s", d, p.plane)
		case d.Tenant.IsZero():
			return plane.Roots(d)
		}
		a, ok := p.present.Load().authorities[d.Tenant]
		if !ok {
			return nil, fmt.Errorf("no set of %s is known", d)
		}
		return a.roots()
	})
}
