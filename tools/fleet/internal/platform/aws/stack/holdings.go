package stack

import (
	"slices"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
)

// Holdings are what a tenant's stack holds, by the names that it gives them, and who of the set needs each.
type Holdings struct {
	Roles   []HeldRole
	Buckets []HeldBucket
	// Queue is its name, empty where there is none; Senders and Receivers are components.
	Queue              string
	Senders, Receivers []string
	// Secrets and Logs are names, by component.
	Secrets, Logs map[string]string
}

// HeldRole is one that a component's task calls as, or that ECS starts it with.
type HeldRole struct {
	Component, ARN string
	Starts         bool
}

// Name is the last part of its ARN.
func (r HeldRole) Name() string { return roleName(r.ARN) }

// HeldBucket is a store's, and the components that write and that read alone.
type HeldBucket struct {
	Name             string
	Writers, Readers []string
}

// HoldingsOf are those of a tenant's set at a place.
func HoldingsOf(place Place, of platform.Set) Holdings {
	s := newSet(Input{Place: place, Set: of})
	s.tenant, s.slug = of.Tenant.String(), of.Slug
	h := Holdings{Secrets: map[string]string{}, Logs: map[string]string{}}
	started := func(name string) {
		h.Roles = append(h.Roles, HeldRole{Component: name, ARN: s.startRole(name), Starts: true})
		h.Secrets[name], h.Logs[name] = s.secretName(name), s.logGroup(name)
	}
	for _, c := range s.blueprint.Components {
		h.Roles = append(h.Roles, HeldRole{Component: c.Name, ARN: s.taskRole(c.Name)})
		started(c.Name)
		if s.sends(c) {
			h.Queue, h.Senders = s.queue(), append(h.Senders, c.Name)
		}
		if s.receives(c) {
			h.Queue, h.Receivers = s.queue(), append(h.Receivers, c.Name)
		}
	}
	if s.migrates() {
		started(migration)
	}
	for name, store := range sorted(s.blueprint.Stores) {
		if store.Kind != blueprint.StoreBlob {
			continue
		}
		b := HeldBucket{Name: s.bucket(name)}
		for _, c := range s.blueprint.Components {
			switch {
			case slices.Contains(c.Needs.Stores, name):
				b.Writers = append(b.Writers, c.Name)
			case slices.Contains(c.Needs.ReadsStores, name):
				b.Readers = append(b.Readers, c.Name)
			}
		}
		h.Buckets = append(h.Buckets, b)
	}
	return h
}

// BucketOf is the bucket of a tenant's store.
func BucketOf(place Place, tenant, store string) string {
	return (&set{place: place, tenant: tenant}).bucket(store)
}
