package server

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/scope"

	"a3os.app/services/iam/internal/store"
)

// Identity implements IdentityService.
type Identity struct {
	rights Rights
	slug   string
}

// NewIdentity makes it. slug is the tenant's.
func NewIdentity(rights Rights, slug string) *Identity { return &Identity{rights: rights, slug: slug} }

// GetSelf implements IdentityServiceHandler.
func (s *Identity) GetSelf(ctx context.Context, _ *connect.Request[iamv1.GetSelfRequest]) (*connect.Response[iamv1.GetSelfResponse], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	out := &iamv1.GetSelfResponse{
		Plane: sc.Plane, TenantId: sc.Tenant.String(), TenantSlug: s.slug, WorkspaceId: sc.Workspace.String(),
		PrincipalId: string(sc.Principal), Permissions: sc.Permissions,
	}
	if !sc.ExpiresAt.IsZero() {
		out.ExpiresAt = timestamppb.New(sc.ExpiresAt)
	}
	err = s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		out.DisplayName, err = displayName(ctx, q, sc.Principal)
		return err
	})
	return respond(out, err)
}

// displayName is the caller's address or name; empty for one who is gone, whose token has seconds left.
func displayName(ctx context.Context, q *store.Queries, p scope.Principal) (string, error) {
	var name string
	var err error
	if user := p.User(); !user.IsZero() {
		var u store.User
		u, err = q.GetUser(ctx, user)
		name = u.Email
	} else if account, perr := id.ParseServiceAccount(string(p)); perr == nil {
		var a store.ServiceAccount
		a, err = q.GetServiceAccount(ctx, account)
		name = a.Name
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return name, err
}
