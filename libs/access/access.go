// Package access is the meaning of the access graph: who holds which entitlement, at once or by acting, and by which paths. It
// promises that every answer follows from the edges it was given by the rules written at Graph, and it relies on its Edges for
// what the edges are: a map in memory, or rows in PostgreSQL.
//
// The rules. A principal P holds entitlement E
//
//  1. when a grant says so;
//  2. when P holds a membership of resource R, and R was granted E, unless that grant is marked not inherited;
//  3. when P holds an assumption of R (SET ROLE, sudo, a private key): then P, by acting, holds all that R holds, the grants that
//     are not inherited included;
//  4. when P holds F and an expansion leads from F to E; the expansion says whether it takes an act.
//
// Rules apply again and again; cycles add nothing.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"iter"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/id"
)

// Purpose is what holding an entitlement means for the paths that go on from it.
type Purpose = discoveryv1.EntitlementPurpose

// Entitlement is a node of the graph: something that can be held.
type Entitlement struct {
	ID       id.Entitlement
	Resource id.Resource
	Name     string
	Purpose  Purpose
	Since    Instant
}

// Instant is when an edge was first seen, in microseconds since 1970; 0 where nobody asked.
type Instant int64

// Grant is an edge from a resource that acts to an entitlement.
type Grant struct {
	ID           id.Grant
	Principal    id.Resource
	Entitlement  id.Entitlement
	NotInherited bool
	Since        Instant
}

// Expansion is an edge from an entitlement to another.
type Expansion struct {
	From, To   id.Entitlement
	Assumption bool
	Reason     string
	Since      Instant
}

// Edges answers what leads from and to nodes, in batches, so that a walk costs a few queries a level and not one a node.
// Implementations answer within the caller's scope only. Order of the answers doesn't matter.
type Edges interface {
	// GrantsFrom answers the grants of these principals.
	GrantsFrom(ctx context.Context, principals []id.Resource) ([]Grant, error)
	// GrantsTo answers the grants of these entitlements.
	GrantsTo(ctx context.Context, entitlements []id.Entitlement) ([]Grant, error)
	// ExpansionsFrom answers the expansions that lead from these entitlements.
	ExpansionsFrom(ctx context.Context, entitlements []id.Entitlement) ([]Expansion, error)
	// ExpansionsTo answers the expansions that lead to these entitlements.
	ExpansionsTo(ctx context.Context, entitlements []id.Entitlement) ([]Expansion, error)
	// Entitlements answers these entitlements; unknown ids are left out.
	Entitlements(ctx context.Context, ids []id.Entitlement) ([]Entitlement, error)
	// EntitlementsOn answers the entitlements on these resources, of any purpose.
	EntitlementsOn(ctx context.Context, resources []id.Resource) ([]Entitlement, error)
}

// Holding is an entitlement that a principal holds.
type Holding struct {
	// Principal holds it …
	Principal id.Resource
	// … this one.
	Entitlement id.Entitlement
	// Assumption says that every way to it takes an act.
	Assumption bool
	// Direct says that it was granted to the principal itself.
	Direct bool
	// Distance counts the steps of the shortest path.
	Distance int
	// Since is when the way that has stood longest came to stand: of a way that is its newest edge. Where Assumption is false, only ways
	// that take no act count.
	Since Instant
}

// Step is one edge of a path: Principal holds Entitlement, by Grant, or, when Grant is zero, by Expansion from the step before.
type Step struct {
	Principal   id.Resource
	Entitlement Entitlement
	Grant       id.Grant
	Expansion   *Expansion
	// Assumption says that going on from here, or coming here, takes an act.
	Assumption bool
}

// Path leads from a principal to an entitlement.
type Path struct {
	Steps []Step
	// Assumption says that some step takes an act.
	Assumption bool
}

// Graph answers access questions over edges.
type Graph struct {
	edges Edges
	spend func(edges int) error
}

// NewGraph makes a graph over edges.
func NewGraph(edges Edges) *Graph { return &Graph{edges: edges, spend: func(int) error { return nil }} }

// Spending is the graph with a bound on what a question may hold in memory: spend is told of edges as they are read, and its error ends
// the question.
func (g *Graph) Spending(spend func(edges int) error) *Graph {
	return &Graph{edges: g.edges, spend: spend}
}

// Holds answers everything the principals hold: one holding per principal and entitlement, nearest first.
func (g *Graph) Holds(ctx context.Context, principals []id.Resource) ([]Holding, error) {
	return g.holds(ctx, principals)
}

// Holders answers every principal (accounts, groups and roles alike) that holds any of the entitlements: one holding per principal
// and entitlement, nearest first.
func (g *Graph) Holders(ctx context.Context, entitlements []id.Entitlement) ([]Holding, error) {
	return g.holders(ctx, entitlements)
}

// Paths yields every simple path (no entitlement twice) from the principal to any of the entitlements, shortest first; among equals
// those that take no act come first, then by the ids of their steps, so that the order is the same each time. It reads the edges once, when the iteration starts; an error ends it.
func (g *Graph) Paths(ctx context.Context, principal id.Resource, entitlements []id.Entitlement) iter.Seq2[Path, error] {
	return g.paths(ctx, principal, entitlements)
}

// ResourceID is the id of a resource: the same thing of the same integration has the same id in every run.
func ResourceID(integration id.Integration, resourceType, externalID string) id.Resource {
	i := integration.Bytes()
	return id.FromBytes[id.ResourceKind](digest("resource", i[:], resourceType, externalID))
}

// EntitlementID is the id of an entitlement on a resource.
func EntitlementID(resource id.Resource, name string) id.Entitlement {
	r := resource.Bytes()
	return id.FromBytes[id.EntitlementKind](digest("entitlement", r[:], name))
}

// GrantID is the id of a grant of an entitlement to a principal.
func GrantID(principal id.Resource, entitlement id.Entitlement) id.Grant {
	p, e := principal.Bytes(), entitlement.Bytes()
	return id.FromBytes[id.GrantKind](digest("grant", p[:], string(e[:])))
}

// digest is the first 16 bytes of SHA-256 over a domain, a fixed part and length-prefixed texts, marked as a UUIDv8 (RFC 9562 §5.8).
func digest(domain string, fixed []byte, texts ...string) [16]byte {
	h := make([]byte, 0, 256)
	h = append(h, domain...)
	h = append(h, 0)
	h = append(h, fixed...)
	for _, t := range texts {
		h = binary.BigEndian.AppendUint32(h, uint32(len(t))) //nolint:gosec // texts are bounded far below 4 GiB by the proto's rules
		h = append(h, t...)
	}
	sum := sha256.Sum256(h)
	var out [16]byte
	copy(out[:], sum[:])
	out[6] = out[6]&0x0f | 0x80
	out[8] = out[8]&0x3f | 0x80
	return out
}
