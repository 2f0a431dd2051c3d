package state

import (
	"fmt"
	"slices"

	"a3os.app/libs/id"
)

// Tenant is what the platform remembers of a tenant. The registry is the truth about it; this is how far its making came.
type Tenant struct {
	// Slug and Name as they were asked for.
	Slug string `json:"slug"`
	Name string `json:"name"`
	// Dedicated says that it has a database server of its own, as the registry's isolation tier does.
	Dedicated bool `json:"dedicated,omitempty"`
	// Account of the cloud that it has to itself, as the registry knows; empty where it is in the plane's.
	Account string `json:"account,omitempty"`
	// Admin is the address of the first admin, as it was asked for.
	Admin string `json:"admin,omitempty"`
	// ID is zero until the registry gave it.
	ID id.Tenant `json:"id"`
	// URL is where the tenant was last reachable: the settings of another command may be others.
	URL string `json:"url,omitempty"`
	// Served says that its gateway has answered once: what follows is upkeep.
	Served bool `json:"served"`
	// Suspended says that an operation stopped it and none has had it served since: what a registry restored from a backup of before knows nothing of.
	Suspended bool `json:"suspended,omitempty"`
	// Welcomed says that it was filled with what a newcomer wants to see.
	Welcomed bool `json:"welcomed"`
}

// Remove forgets a tenant that left.
func (s *State) Remove(tenant id.Tenant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.noted.Tenants)
	s.noted.Tenants = slices.DeleteFunc(s.noted.Tenants, func(t Tenant) bool { return t.ID == tenant })
	if len(s.noted.Tenants) == before {
		return nil
	}
	return s.save()
}

// Drop forgets a tenant that never came to be.
func (s *State) Drop(slug string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted.Tenants = slices.DeleteFunc(s.noted.Tenants, func(t Tenant) bool { return t.Slug == slug && t.ID.IsZero() })
	return s.save()
}

// Tenant finds a tenant by slug or id, and answers a copy; see [State.Change].
func (s *State) Tenant(name string) (Tenant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.find(name); t != nil {
		return *t, true
	}
	return Tenant{}, false
}

func (s *State) find(name string) *Tenant {
	for i := range s.noted.Tenants {
		if t := &s.noted.Tenants[i]; t.Slug == name || !t.ID.IsZero() && t.ID.String() == name {
			return t
		}
	}
	return nil
}

// Tenants in the order in which they came; a copy.
func (s *State) Tenants() []Tenant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.noted.Tenants)
}

// Change changes what is remembered of a tenant, by slug or id, and answers a copy of what that is then.
func (s *State) Change(name string, change func(t *Tenant)) (Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.find(name)
	if t == nil {
		return Tenant{}, fmt.Errorf("the plane remembers no tenant %q", name)
	}
	return s.changed(t, change)
}

// Remember is Change for a tenant that may be new, by slug. One that left and whose slug another has now is not changed: an id that is
// remembered, and isn't the given one, is another tenant's.
func (s *State) Remember(slug string, tenant id.Tenant, change func(t *Tenant)) (Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.noted.Tenants {
		if t := &s.noted.Tenants[i]; t.Slug == slug && (tenant.IsZero() || t.ID.IsZero() || t.ID == tenant) {
			return s.changed(t, change)
		}
	}
	t := Tenant{Slug: slug, Name: slug}
	change(&t)
	s.noted.Tenants = append(s.noted.Tenants, t)
	return t, s.save()
}

func (s *State) changed(t *Tenant, change func(t *Tenant)) (Tenant, error) {
	before := *t
	if change(t); *t == before {
		return *t, nil
	}
	return *t, s.save()
}
