package rpc

import (
	"context"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/scope"
	"a3os.app/libs/workload"
)

// Presented is a verified envelope that a workload presented.
type Presented struct {
	// Workspace is what the work is for.
	Workspace id.Workspace
	// OnBehalfOf is who asked for it.
	OnBehalfOf scope.Principal
	// With puts the verified envelope into the handler's context.
	With func(ctx context.Context) context.Context
}

// caller is who is at the other end, as far as it was proven. The zero caller is unknown.
type caller struct {
	// peer is the workload that the certificate names; zero without one.
	peer workload.Identity
	// claims are the token's; nil without one.
	claims *authn.Claims
	// presented is the envelope's; nil without one.
	presented *Presented
}

// member says whether the caller is a service of the bound tenant's set.
func (c *caller) member(tenant id.Tenant) bool {
	return c.peer.Service != "" && c.peer.Tenant == tenant
}

// key is what load is shed by.
func (c *caller) key() string {
	switch {
	case c.claims != nil:
		return string(c.claims.Principal)
	case c.peer.Service != "":
		return c.peer.String()
	}
	return ""
}

// callerFrom never answers nil: nobody known is the zero caller.
func callerFrom(ctx context.Context) *caller {
	if c, ok := callctx.From(ctx).Caller.(*caller); ok {
		return c
	}
	return &caller{}
}
