// Package server answers iam's API: people, service accounts, workspaces, members. It promises that a workspace has exactly one owner,
// an active user, and that the tenant keeps an admin who can sign in, whatever is called and however much at once: changes of who may
// do what happen one after the other, and each that takes something away makes the tokens that rested on it worthless in the same
// transaction. It relies on the chain for who calls and whether they may.
package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"

	"a3os.app/services/iam/internal/store"
)

// Errors that callers may tell apart.
var (
	// ErrOwnsWorkspaces is returned for a user who must hand workspaces over first; the message names them.
	ErrOwnsWorkspaces = fault.Declare(fault.FailedPrecondition, "OWNS_WORKSPACES", "the user owns workspaces: transfer them first")
	// ErrLastAdmin is returned where nobody would be left to administer the tenant.
	ErrLastAdmin = fault.Declare(fault.FailedPrecondition, "LAST_TENANT_ADMIN", "the user is the last tenant admin: make another user one first")
	// ErrOwnerChanged is returned where the workspace's owner is another than the caller believes.
	ErrOwnerChanged = fault.Declare(fault.FailedPrecondition, "OWNER_CHANGED", "the workspace has another owner by now")
	// ErrOwnerStays is returned where a member's change would leave a workspace without its owner.
	ErrOwnerStays = fault.Declare(fault.FailedPrecondition, "OWNER_STAYS", "the member owns the workspace: a tenant admin transfers it first")
	// ErrNotActive is returned where an active user is needed.
	ErrNotActive = fault.Declare(fault.FailedPrecondition, "USER_NOT_ACTIVE", "the user can't sign in")

	errNoUser      = fault.New(fault.NotFound, "no such user")
	errNoAccount   = fault.New(fault.NotFound, "no such service account")
	errNoWorkspace = fault.New(fault.NotFound, "no such workspace")
	errNoMember    = fault.New(fault.NotFound, "no such member")
)

// Rights are the databases in which who may do what is changed, and who must hear of it.
type Rights struct {
	// Workspace is role_iam's database: one workspace at a time.
	Workspace *pg.DB
	// Tenant is role_iam_tenant's: the whole tenant.
	Tenant *pg.DB
	// Revoked is called after a revocation was committed.
	Revoked func()
	// Now is the clock.
	Now func() time.Time
	// Licence says how many seats there are.
	Licence *held.Licence
}

// read runs a read of the whole tenant.
func (r Rights) read(ctx context.Context, fn func(ctx context.Context, q *store.Queries) error) error {
	return r.Tenant.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, store.New(tx)) })
}

// notFound answers an error of a lookup: missing for no rows, the error itself for the rest.
func notFound(err error, missing *fault.Error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return missing
	}
	return err
}

// uuidOf is an id as a column that holds ids of more than one kind takes it.
func uuidOf[K id.Kind](i id.ID[K]) pgtype.UUID { return pgtype.UUID{Bytes: i.Bytes(), Valid: true} }

// principalUUID is the id of a user or service account as such a column takes it.
func principalUUID(principal string) (pgtype.UUID, error) {
	if u, err := id.ParseUser(principal); err == nil {
		return uuidOf(u), nil
	}
	a, err := id.ParseServiceAccount(principal)
	if err != nil {
		return pgtype.UUID{}, fmt.Errorf("%s is neither a user nor a service account", principal)
	}
	return uuidOf(a), nil
}

// callerUUID is the caller's own; for a workload it is one that nobody has.
func callerUUID(s scope.Scope) pgtype.UUID {
	u, err := principalUUID(string(s.Principal))
	if err != nil {
		return pgtype.UUID{Valid: true}
	}
	return u
}

// paging turns page tokens of one method into cursors, the id of the last row, and back.
type paging struct {
	sealer *page.Sealer
	method string
}

func (p paging) after(ctx context.Context, token string) (pgtype.UUID, error) {
	cursor := pgtype.UUID{Valid: true}
	err := p.sealer.Open(ctx, p.method, nil, token, &cursor.Bytes)
	return cursor, err
}

// next answers the token of the page after rows, empty where there is none, and how many rows the page keeps. One more row than the
// page holds was asked for.
func (p paging) next(ctx context.Context, rows int, size int32, last func(i int) [16]byte) (token string, keep int, err error) {
	if rows <= int(size) {
		return "", rows, nil
	}
	token, err = p.sealer.Seal(ctx, p.method, nil, last(int(size)-1))
	return token, int(size), err
}

func clean(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", fault.New(fault.InvalidArgument, "the name is empty")
	}
	return name, nil
}

func userMessage(u store.User) *iamv1.User {
	return &iamv1.User{
		Id: u.ID.String(), Email: u.Email, DisplayName: u.DisplayName, State: userStates[u.State],
		TenantRole: tenantRole(u.TenantRole), CreatedAt: timestamppb.New(u.CreatedAt),
	}
}

func serviceAccountMessage(a store.ServiceAccount) *iamv1.ServiceAccount {
	return &iamv1.ServiceAccount{
		Id: a.ID.String(), Name: a.Name, KeyId: a.KeyID, CreatedAt: timestamppb.New(a.CreatedAt), TenantRole: tenantRole(a.TenantRole),
	}
}

func workspaceMessage(w store.GetWorkspaceRow) *iamv1.Workspace {
	return &iamv1.Workspace{
		Id: w.ID.String(), Name: w.Name, OwnerUserId: w.OwnerUserID.String(), CreatedAt: timestamppb.New(w.CreatedAt),
		YourRole: workspaceRole(w.YourRole), OwnerEmail: w.OwnerEmail,
	}
}

func memberMessage(m store.GetMemberRow) *iamv1.Member {
	out := &iamv1.Member{Role: workspaceRoles[m.Role], AddedAt: timestamppb.New(m.AddedAt)}
	if !m.UserID.IsZero() {
		out.PrincipalId = m.UserID.String()
	} else {
		out.PrincipalId = m.ServiceAccountID.String()
	}
	switch {
	case m.Email != nil:
		out.DisplayName = *m.Email
	case m.ServiceAccountName != nil:
		out.DisplayName = *m.ServiceAccountName
	}
	return out
}

var (
	userStates = map[string]iamv1.UserState{
		"invited": iamv1.UserState_USER_STATE_INVITED, "active": iamv1.UserState_USER_STATE_ACTIVE,
		"deactivated": iamv1.UserState_USER_STATE_DEACTIVATED,
	}
	tenantRoles = map[string]iamv1.TenantRole{
		"admin": iamv1.TenantRole_TENANT_ROLE_ADMIN, "auditor": iamv1.TenantRole_TENANT_ROLE_AUDITOR,
	}
	workspaceRoles = map[string]iamv1.WorkspaceRole{
		"owner": iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER, "admin": iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN,
		"member": iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER, "viewer": iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER,
	}
)

func tenantRole(column *string) iamv1.TenantRole {
	if column == nil {
		return iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED
	}
	return tenantRoles[*column]
}

func workspaceRole(column *string) iamv1.WorkspaceRole {
	if column == nil {
		return iamv1.WorkspaceRole_WORKSPACE_ROLE_UNSPECIFIED
	}
	return workspaceRoles[*column]
}

// tenantRoleColumn is a role as it is stored; unspecified is none. An enum number that nobody knows is refused.
func tenantRoleColumn(r iamv1.TenantRole) (*string, error) {
	if r == iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED {
		return nil, nil //nolint:nilnil // no role is a value here
	}
	for name, known := range tenantRoles {
		if known == r {
			return &name, nil
		}
	}
	return nil, fault.New(fault.InvalidArgument, "no such tenant role")
}

// memberRoleColumn is a role that can be given; ownership can't.
func memberRoleColumn(r iamv1.WorkspaceRole) (string, error) {
	for name, known := range workspaceRoles {
		if known == r && name != "owner" {
			return name, nil
		}
	}
	return "", fault.New(fault.InvalidArgument, "the role must be admin, member or viewer: ownership is transferred by a tenant admin")
}
