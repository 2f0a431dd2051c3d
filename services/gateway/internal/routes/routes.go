// Package routes is a snapshot made ready to route by: from a host to a tenant's set, from a path to a component, from a workload
// to its address and to the roots that vouch for it. It promises that a look-up is one read of a map that never changes, that a
// host leads to the tenant of exactly that slug or nowhere, and that what did not change from one snapshot to the next is the same
// object, so that connections and counters outlive a change of routes. It relies on libs/snapshot for what a snapshot may hold.
package routes

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// Table is one snapshot. It never changes.
type Table struct {
	// Version is the snapshot's.
	Version int64

	plane   string
	hosts   map[string]*Route
	tenants map[id.Tenant]*Route
}

// Route is a tenant's set.
type Route struct {
	// Tenant is whose set it is.
	Tenant id.Tenant
	// Load is what is in flight for the tenant; it outlives changes of the route.
	Load *Load

	source   *registryv1.Route
	prefixes []prefix
	// addresses is by component.
	addresses map[string]string
	roots     func() (*x509.CertPool, error)
}

// Upstream is a component of a set, as requests reach it.
type Upstream struct {
	// Identity is who must answer.
	Identity workload.Identity
	// ServerName is the identity's pseudo-host.
	ServerName string
	// Service is how it fares; it outlives changes of the route.
	Service *Service
}

type prefix struct {
	path string
	to   *Upstream
}

// New makes a table from a verified snapshot. before is the table that it replaces; nil where there is none.
func New(snap *registryv1.Snapshot, before *Table) (*Table, error) {
	if before == nil {
		before = &Table{}
	}
	t := &Table{
		Version: snap.GetVersion(), plane: snap.GetPlane(),
		hosts:   make(map[string]*Route, len(snap.GetRoutes())),
		tenants: make(map[id.Tenant]*Route, len(snap.GetRoutes())),
	}
	for _, r := range snap.GetRoutes() {
		route, err := t.route(r, before)
		if err != nil {
			return nil, fmt.Errorf("route of %s: %w", r.GetSlug(), err)
		}
		t.hosts[r.GetSlug()], t.tenants[route.Tenant] = route, route
	}
	return t, nil
}

// Apply makes a table from the one before and a verified change of its snapshot.
func Apply(change *registryv1.SnapshotChange, before *Table) (*Table, error) {
	t := &Table{Version: change.GetVersion(), plane: change.GetPlane(), hosts: maps.Clone(before.hosts), tenants: maps.Clone(before.tenants)}
	for _, text := range change.GetRemovedTenantIds() {
		tenant, err := id.ParseTenant(text)
		if err != nil {
			return nil, err
		}
		t.remove(tenant)
	}
	changed := make([]*Route, 0, len(change.GetRoutes()))
	for _, r := range change.GetRoutes() {
		route, err := t.route(r, before)
		if err != nil {
			return nil, fmt.Errorf("route of %s: %w", r.GetSlug(), err)
		}
		// What any of them had is free before any of them takes something.
		t.remove(route.Tenant)
		changed = append(changed, route)
	}
	for _, route := range changed {
		r := route.source
		if other, taken := t.hosts[r.GetSlug()]; taken {
			return nil, fmt.Errorf("the slug %s leads to %s already, and is to lead to %s", r.GetSlug(), other.Tenant, route.Tenant)
		}
		t.hosts[r.GetSlug()], t.tenants[route.Tenant] = route, route
	}
	return t, nil
}

func (t *Table) remove(tenant id.Tenant) {
	if old, ok := t.tenants[tenant]; ok {
		delete(t.hosts, old.source.GetSlug())
		delete(t.tenants, tenant)
	}
}

func (t *Table) route(r *registryv1.Route, before *Table) (*Route, error) {
	// The same slug mostly leads to the same tenant: then its id needn't be read again.
	old := before.hosts[r.GetSlug()]
	if old != nil && same(old.source, r) {
		return old, nil
	}
	tenant, err := id.ParseTenant(r.GetTenantId())
	if err != nil {
		return nil, err
	}
	route := &Route{Tenant: tenant, source: r, addresses: make(map[string]string, len(r.GetComponents()))}
	if old = before.tenants[tenant]; old != nil {
		route.Load = old.Load
	} else {
		route.Load = newLoad(tenant)
	}
	if old != nil && old.source.GetCaCertificatesPem() == r.GetCaCertificatesPem() {
		route.roots = old.roots
	} else {
		domain, pem := workload.TrustDomain{Plane: t.plane, Tenant: tenant}, r.GetCaCertificatesPem()
		route.roots = sync.OnceValues(func() (*x509.CertPool, error) { return workload.ParseRoots(domain, []byte(pem)) })
	}
	for _, c := range r.GetComponents() {
		who := workload.Identity{Plane: t.plane, Tenant: tenant, Service: c.GetName()}
		if err := who.Validate(); err != nil {
			return nil, err
		}
		route.addresses[c.GetName()] = c.GetAddress()
		up := &Upstream{Identity: who, ServerName: who.ServerName(), Service: route.Load.of(c.GetName())}
		for _, p := range c.GetPathPrefixes() {
			route.prefixes = append(route.prefixes, prefix{path: p, to: up})
		}
	}
	// The longest comes first, so that the first that fits is the longest that fits.
	slices.SortStableFunc(route.prefixes, func(a, b prefix) int { return len(b.path) - len(a.path) })
	return route, nil
}

// same is proto.Equal for two routes, at a fraction of its cost: it is asked of every route at each change.
func same(a, b *registryv1.Route) bool {
	return a.GetSlug() == b.GetSlug() && a.GetTenantId() == b.GetTenantId() && a.GetCaCertificatesPem() == b.GetCaCertificatesPem() &&
		slices.EqualFunc(a.GetComponents(), b.GetComponents(), func(a, b *registryv1.Component) bool {
			return a.GetName() == b.GetName() && a.GetAddress() == b.GetAddress() && slices.Equal(a.GetPathPrefixes(), b.GetPathPrefixes())
		})
}

// Len is how many tenants the table leads to.
func (t *Table) Len() int { return len(t.hosts) }

// Route is the route of a slug.
func (t *Table) Route(slug string) (*Route, bool) {
	r, ok := t.hosts[slug]
	return r, ok
}

// Upstream is the component that serves a path: the one with the longest prefix of it.
func (r *Route) Upstream(path string) (*Upstream, bool) {
	for i := range r.prefixes {
		if strings.HasPrefix(path, r.prefixes[i].path) {
			return r.prefixes[i].to, true
		}
	}
	return nil, false
}

// Resolve implements workload.Resolver.
func (t *Table) Resolve(_ context.Context, want workload.Identity) (string, error) {
	if r, ok := t.tenants[want.Tenant]; ok && want.Plane == t.plane {
		if addr, ok := r.addresses[want.Service]; ok {
			return addr, nil
		}
	}
	return "", fmt.Errorf("no route leads to %s", want)
}

// Roots implements workload.Anchors for the tenants of the table.
func (t *Table) Roots(d workload.TrustDomain) (*x509.CertPool, error) {
	if r, ok := t.tenants[d.Tenant]; ok && d.Plane == t.plane {
		return r.roots()
	}
	return nil, fmt.Errorf("no route leads to %s", d)
}
