package accesstest

import (
	"context"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
)

// Memory holds edges in maps. It is safe for concurrent reads; Add must not run beside them.
type Memory struct {
	integration    id.Integration
	entitlements   map[id.Entitlement]access.Entitlement
	grants         map[id.Grant]access.Grant
	expansions     map[[2]id.Entitlement]access.Expansion
	entitlementsOn map[id.Resource][]id.Entitlement
	grantsFrom     map[id.Resource][]id.Grant
	grantsTo       map[id.Entitlement][]id.Grant
	expansionsFrom map[id.Entitlement][]id.Entitlement
	expansionsTo   map[id.Entitlement][]id.Entitlement
}

var _ access.Edges = (*Memory)(nil)

// NewMemory holds what the records of one integration say.
func NewMemory(integration id.Integration, records ...*discoveryv1.Record) *Memory {
	m := &Memory{
		integration:    integration,
		entitlements:   map[id.Entitlement]access.Entitlement{},
		grants:         map[id.Grant]access.Grant{},
		expansions:     map[[2]id.Entitlement]access.Expansion{},
		entitlementsOn: map[id.Resource][]id.Entitlement{},
		grantsFrom:     map[id.Resource][]id.Grant{},
		grantsTo:       map[id.Entitlement][]id.Grant{},
		expansionsFrom: map[id.Entitlement][]id.Entitlement{},
		expansionsTo:   map[id.Entitlement][]id.Entitlement{},
	}
	m.Add(records...)
	return m
}

// Add takes more records of the integration. A record seen before is replaced.
func (m *Memory) Add(records ...*discoveryv1.Record) {
	for _, r := range records {
		switch kind := r.GetKind().(type) {
		case *discoveryv1.Record_Entitlement:
			m.addEntitlement(kind.Entitlement)
		case *discoveryv1.Record_Grant:
			m.addGrant(kind.Grant)
		case *discoveryv1.Record_Expansion:
			m.addExpansion(kind.Expansion)
		case *discoveryv1.Record_Resource:
			// A resource by itself leads nowhere.
		}
	}
}

// Resource is the id of a resource of the integration.
func (m *Memory) Resource(resourceType, externalID string) id.Resource {
	return access.ResourceID(m.integration, resourceType, externalID)
}

// Entitlement is the id of an entitlement of the integration.
func (m *Memory) Entitlement(resourceType, externalID, name string) id.Entitlement {
	return access.EntitlementID(m.Resource(resourceType, externalID), name)
}

func (m *Memory) addEntitlement(e *discoveryv1.Entitlement) {
	resource := m.resource(e.GetResource())
	i := access.EntitlementID(resource, e.GetName())
	if _, known := m.entitlements[i]; !known {
		m.entitlementsOn[resource] = append(m.entitlementsOn[resource], i)
	}
	m.entitlements[i] = access.Entitlement{ID: i, Resource: resource, Name: e.GetName(), Purpose: e.GetPurpose()}
}

func (m *Memory) addGrant(g *discoveryv1.Grant) {
	principal, entitlement := m.resource(g.GetPrincipal()), m.entitlement(g.GetEntitlement())
	i := access.GrantID(principal, entitlement)
	if _, known := m.grants[i]; !known {
		m.grantsFrom[principal] = append(m.grantsFrom[principal], i)
		m.grantsTo[entitlement] = append(m.grantsTo[entitlement], i)
	}
	m.grants[i] = access.Grant{ID: i, Principal: principal, Entitlement: entitlement, NotInherited: g.GetNotInherited()}
}

func (m *Memory) addExpansion(x *discoveryv1.Expansion) {
	from, to := m.entitlement(x.GetFrom()), m.entitlement(x.GetTo())
	key := [2]id.Entitlement{from, to}
	if _, known := m.expansions[key]; !known {
		m.expansionsFrom[from] = append(m.expansionsFrom[from], to)
		m.expansionsTo[to] = append(m.expansionsTo[to], from)
	}
	m.expansions[key] = access.Expansion{From: from, To: to, Assumption: x.GetAssumption(), Reason: x.GetReason()}
}

func (m *Memory) resource(r *discoveryv1.ResourceRef) id.Resource {
	return m.Resource(r.GetType(), r.GetExternalId())
}

func (m *Memory) entitlement(e *discoveryv1.EntitlementRef) id.Entitlement {
	return access.EntitlementID(m.resource(e.GetResource()), e.GetName())
}

// GrantsFrom answers the grants of these principals.
func (m *Memory) GrantsFrom(_ context.Context, principals []id.Resource) ([]access.Grant, error) {
	return edges(principals, m.grantsFrom, func(_ id.Resource, g id.Grant) access.Grant { return m.grants[g] }), nil
}

// GrantsTo answers the grants of these entitlements.
func (m *Memory) GrantsTo(_ context.Context, entitlements []id.Entitlement) ([]access.Grant, error) {
	return edges(entitlements, m.grantsTo, func(_ id.Entitlement, g id.Grant) access.Grant { return m.grants[g] }), nil
}

// ExpansionsFrom answers the expansions that lead from these entitlements.
func (m *Memory) ExpansionsFrom(_ context.Context, entitlements []id.Entitlement) ([]access.Expansion, error) {
	return edges(entitlements, m.expansionsFrom, func(from, to id.Entitlement) access.Expansion { return m.expansions[[2]id.Entitlement{from, to}] }), nil
}

// ExpansionsTo answers the expansions that lead to these entitlements.
func (m *Memory) ExpansionsTo(_ context.Context, entitlements []id.Entitlement) ([]access.Expansion, error) {
	return edges(entitlements, m.expansionsTo, func(to, from id.Entitlement) access.Expansion { return m.expansions[[2]id.Entitlement{from, to}] }), nil
}

// Entitlements answers these entitlements; unknown ids are left out.
func (m *Memory) Entitlements(_ context.Context, ids []id.Entitlement) ([]access.Entitlement, error) {
	var out []access.Entitlement
	for i := range set(ids) {
		if e, known := m.entitlements[i]; known {
			out = append(out, e)
		}
	}
	return out, nil
}

// EntitlementsOn answers the entitlements on these resources, of any purpose.
func (m *Memory) EntitlementsOn(_ context.Context, resources []id.Resource) ([]access.Entitlement, error) {
	return edges(resources, m.entitlementsOn, func(_ id.Resource, e id.Entitlement) access.Entitlement { return m.entitlements[e] }), nil
}

// edges are those that an index has of what is asked for, each once.
func edges[K comparable, E, V any](asked []K, index map[K][]E, edge func(K, E) V) (out []V) {
	for k := range set(asked) {
		for _, e := range index[k] {
			out = append(out, edge(k, e))
		}
	}
	return out
}

// set is what is asked for, each once.
func set[K comparable](asked []K) map[K]bool {
	out := map[K]bool{}
	for _, k := range asked {
		out[k] = true
	}
	return out
}
