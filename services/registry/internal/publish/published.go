package publish

import (
	"cmp"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/snapshot"
)

// keptChanges is how far a gateway may have fallen behind and still be told what changed.
const keptChanges = 256

// Published is what is known at one version. It never changes.
type Published struct {
	version int64
	// routes are those of active tenants, by tenant.
	routes []*registryv1.Route
	// changes lead to the version from earlier ones, the newest last.
	changes     []step
	whole       func() (*registryv1.SignedSnapshot, error)
	authorities map[id.Tenant]*authority
	// replaced is closed when there is a newer one.
	replaced chan struct{}
}

// step is one change.
type step struct {
	from   int64
	signed *registryv1.SignedSnapshotChange
}

// Version is that of the snapshot; 0 until the database was read once.
func (p *Published) Version() int64 { return p.version }

// Replaced is closed when there is a newer one.
func (p *Published) Replaced() <-chan struct{} { return p.replaced }

// Whole is the snapshot, signed when it is first asked for: changes are what gateways mostly get.
func (p *Published) Whole() (*registryv1.SignedSnapshot, error) { return p.whole() }

// Since are the changes that lead from a version to the present one; false where they are not known any more.
func (p *Published) Since(version int64) ([]*registryv1.SignedSnapshotChange, bool) {
	first := slices.IndexFunc(p.changes, func(s step) bool { return s.from == version })
	if first < 0 {
		return nil, false
	}
	var out []*registryv1.SignedSnapshotChange
	for _, s := range p.changes[first:] {
		out = append(out, s.signed)
	}
	return out, true
}

// again is the same once more, for whoever waits for it to be replaced.
func (p *Published) again() *Published {
	next := *p
	next.replaced = make(chan struct{})
	return &next
}

func byTenant(r *registryv1.Route, tenant string) int { return cmp.Compare(r.GetTenantId(), tenant) }

// with is what there is after a change. The first one is signed whole, so that one which can't be is found; later ones as changes.
func (p *Published) with(c changed, plane string, signer *snapshot.Signer) (*Published, error) {
	next := &Published{version: c.version, routes: slices.Clone(p.routes), replaced: make(chan struct{})}
	change := &registryv1.SnapshotChange{Plane: plane, FromVersion: p.version, Version: c.version, SignedAt: timestamppb.New(c.changedAt)}
	for _, set := range c.sets {
		tenant := set.ID.String()
		at, had := slices.BinarySearchFunc(next.routes, tenant, byTenant)
		switch has := set.State == Active && set.CaCertificatesPem != nil; {
		case has:
			route := &registryv1.Route{Slug: set.Slug, TenantId: tenant, Components: c.components[set.ID], CaCertificatesPem: *set.CaCertificatesPem}
			if had {
				next.routes[at] = route
			} else {
				next.routes = slices.Insert(next.routes, at, route)
			}
			change.Routes = append(change.Routes, route)
		case had:
			next.routes = slices.Delete(next.routes, at, at+1)
			change.RemovedTenantIds = append(change.RemovedTenantIds, tenant)
		}
	}
	next.whole = sync.OnceValues(func() (*registryv1.SignedSnapshot, error) {
		// Its time is that of the change, so that all processes sign the same bytes.
		return signer.Sign(&registryv1.Snapshot{Plane: plane, Version: next.version, SignedAt: change.GetSignedAt(), Routes: next.routes})
	})
	if p.version == 0 {
		_, err := next.whole()
		return next, err
	}
	signed, err := signer.SignChange(change)
	if err != nil {
		return nil, err
	}
	next.changes = append(slices.Clone(p.changes[max(0, len(p.changes)-keptChanges+1):]), step{from: p.version, signed: signed})
	return next, nil
}
