// Package scope is who acts where: plane, tenant, optional workspace, principal and permissions. A scope is made from verified
// claims by libs and from nothing else; handlers take it from their context with From. It promises that a consumer never sees the
// zero scope, and relies on libs/authn and libs/queue for the verification.
package scope

import (
	"context"
	"fmt"
	"slices"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/scopectx"
)

// Principal is who calls: `usr_…`, `svc_…`, or `workload:<service>`.
type Principal string

// Workload is the principal of a service of the set.
func Workload(service string) Principal { return Principal("workload:" + service) }

// User is the id of the user who calls; the zero id where the principal isn't a user.
func (p Principal) User() id.User {
	u, err := id.ParseUser(string(p))
	if err != nil {
		return id.User{}
	}
	return u
}

// Scope is who acts where. Its zero value is no scope.
type Scope struct {
	// Plane is `dev` or `prod`.
	Plane string
	// Tenant is the tenant that the server is bound to and the claims name.
	Tenant id.Tenant
	// Workspace is the workspace of the claims; zero for a tenant-wide scope.
	Workspace id.Workspace
	// Principal is who acts.
	Principal Principal
	// OnBehalfOf is for whom a workload acts, where it presented what authorised it.
	OnBehalfOf Principal
	// Permissions are sorted.
	Permissions []string
	// Transfer is the transfer of ownership that the principal's role rests on, if any.
	Transfer id.Transfer
	// ExpiresAt is when the presented token ends; zero where no token was presented.
	ExpiresAt time.Time
}

// ErrNone is returned where a context carries no scope: the call did not come through the chain.
var ErrNone = fault.Declare(fault.Internal, "NO_SCOPE", "no scope: the call did not come through the chain")

// From is the scope of the call. It fails with ErrNone where there is none, or where it lacks tenant or principal.
func From(ctx context.Context) (Scope, error) {
	s, ok := scopectx.From[Scope](ctx)
	if !ok || s.Tenant.IsZero() || s.Principal == "" || s.Plane == "" {
		return Scope{}, ErrNone
	}
	return s, nil
}

// InWorkspace is the scope of the call, with a workspace. It fails where there is none.
func InWorkspace(ctx context.Context) (Scope, error) {
	s, err := From(ctx)
	if err != nil {
		return Scope{}, err
	}
	if s.Workspace.IsZero() {
		return Scope{}, fmt.Errorf("scope of %s names no workspace: %w", s.Principal, ErrNone)
	}
	return s, nil
}

// Has says whether the scope carries a permission.
func (s Scope) Has(permission string) bool {
	_, ok := slices.BinarySearch(s.Permissions, permission)
	return ok
}
