package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/setup"
	"a3os.app/services/iam/internal/store"
)

// Users implements UserService, UserWriteService and AdminUserService.
type Users struct {
	rights Rights
	list   paging
}

// NewUsers makes them.
func NewUsers(rights Rights, pages *page.Sealer) *Users {
	return &Users{rights: rights, list: paging{pages, "ListUsers"}}
}

// GetUser implements UserServiceHandler.
func (s *Users) GetUser(ctx context.Context, req *connect.Request[iamv1.GetUserRequest]) (*connect.Response[iamv1.User], error) {
	user, err := id.ParseUser(req.Msg.GetUserId())
	if err != nil {
		return nil, errNoUser
	}
	var out *iamv1.User
	err = s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		u, err := q.GetUser(ctx, user)
		out = userMessage(u)
		return notFound(err, errNoUser)
	})
	return respond(out, err)
}

// ListUsers implements UserServiceHandler.
func (s *Users) ListUsers(ctx context.Context, req *connect.Request[iamv1.ListUsersRequest]) (*connect.Response[iamv1.ListUsersResponse], error) {
	after, err := s.list.after(ctx, req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := page.Size(req.Msg.GetPageSize())
	var rows []store.User
	err = s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		rows, err = q.ListUsers(ctx, store.ListUsersParams{After: after, Most: size + 1})
		return err
	})
	if err != nil {
		return nil, err
	}
	token, keep, err := s.list.next(ctx, len(rows), size, func(i int) [16]byte { return rows[i].ID.Bytes() })
	out := &iamv1.ListUsersResponse{NextPageToken: token}
	for _, u := range rows[:keep] {
		out.Users = append(out.Users, userMessage(u))
	}
	return respond(out, err)
}

// InviteUser implements UserWriteServiceHandler. A user who was deactivated comes back as one who is invited, with no memberships.
func (s *Users) InviteUser(ctx context.Context, req *connect.Request[iamv1.InviteUserRequest]) (*connect.Response[iamv1.InviteUserResponse], error) {
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.InviteUserResponse, error) {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return nil, err
		}
		user, err := invited(ctx, q, req.Msg)
		if err != nil {
			return nil, err
		}
		if err := s.rights.seated(ctx, tx); err != nil {
			return nil, err
		}
		code, err := setup.NewCode(ctx, q, user.ID, s.rights.Now())
		if err != nil {
			return nil, err
		}
		out := &iamv1.InviteUserResponse{User: userMessage(user), SetupCode: code.Text, SetupCodeExpiresAt: timestamppb.New(code.ExpiresAt)}
		return out, record.Append(ctx, tx, record.Event{Action: "iam.user.invited", Target: user.ID.String(), After: out})
	})
	return respond(out, err)
}

func invited(ctx context.Context, q *store.Queries, req *iamv1.InviteUserRequest) (store.User, error) {
	role, err := tenantRoleColumn(req.GetTenantRole())
	if err != nil {
		return store.User{}, err
	}
	email := strings.ToLower(strings.TrimSpace(req.GetEmail()))
	before, err := q.LockUserByEmail(ctx, email)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return q.AddUser(ctx, store.AddUserParams{ID: id.NewUser(), Email: email, DisplayName: req.GetDisplayName(), TenantRole: role})
	case err != nil:
		return before, err
	case before.State == "active":
		return before, fault.New(fault.AlreadyExists, "%s is a user already and can sign in", email)
	}
	return q.InviteAgain(ctx, store.InviteAgainParams{ID: before.ID, DisplayName: req.GetDisplayName(), TenantRole: role})
}

// DeactivateUser implements UserWriteServiceHandler.
func (s *Users) DeactivateUser(ctx context.Context, req *connect.Request[iamv1.DeactivateUserRequest]) (*connect.Response[iamv1.User], error) {
	out, err := s.change(ctx, req.Msg.GetUserId(), func(ctx context.Context, tx pgx.Tx, q *store.Queries, u store.User) (store.User, error) {
		if u.State == "deactivated" {
			return u, nil
		}
		if err := mayLeave(ctx, q, u); err != nil {
			return u, err
		}
		if _, err := q.EndSessionsOfUser(ctx, store.EndSessionsOfUserParams{UserID: u.ID, Now: s.rights.Now()}); err != nil {
			return u, err
		}
		if err := q.DropSetupCodesOfUser(ctx, u.ID); err != nil {
			return u, err
		}
		if _, err := q.RemoveMembershipsOfUser(ctx, u.ID); err != nil {
			return u, err
		}
		after, err := q.SetUserState(ctx, store.SetUserStateParams{ID: u.ID, State: "deactivated"})
		if err != nil {
			return u, err
		}
		return after, s.changed(ctx, tx, "iam.user.deactivated", req.Msg.GetReason(), u, after)
	})
	return respond(out, err)
}

// SetTenantRole implements UserWriteServiceHandler.
func (s *Users) SetTenantRole(ctx context.Context, req *connect.Request[iamv1.SetTenantRoleRequest]) (*connect.Response[iamv1.User], error) {
	role, err := tenantRoleColumn(req.Msg.GetTenantRole())
	if err != nil {
		return nil, err
	}
	out, err := s.change(ctx, req.Msg.GetUserId(), func(ctx context.Context, tx pgx.Tx, q *store.Queries, u store.User) (store.User, error) {
		switch {
		case u.State == "deactivated":
			return u, ErrNotActive.With("%s (%s) is deactivated: invite them again first", u.Email, u.ID)
		case tenantRole(u.TenantRole) == req.Msg.GetTenantRole():
			return u, nil
		}
		if err := adminRemains(ctx, q, u); err != nil {
			return u, err
		}
		after, err := q.SetUserTenantRole(ctx, store.SetUserTenantRoleParams{ID: u.ID, TenantRole: role})
		if err != nil {
			return u, err
		}
		return after, s.changed(ctx, tx, "iam.user.role_changed", "", u, after)
	})
	return respond(out, err)
}

// change runs a change of one user's rights, alone among such changes.
func (s *Users) change(ctx context.Context, userID string, fn func(context.Context, pgx.Tx, *store.Queries, store.User) (store.User, error)) (*iamv1.User, error) {
	user, err := id.ParseUser(userID)
	if err != nil {
		return nil, errNoUser
	}
	var after store.User
	err = s.rights.Tenant.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return err
		}
		before, err := q.LockUser(ctx, user)
		if err != nil {
			return notFound(err, errNoUser)
		}
		after, err = fn(ctx, tx, q, before)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.rights.Revoked()
	return userMessage(after), nil
}

// changed makes the user's tokens worthless and records the change.
func (s *Users) changed(ctx context.Context, tx pgx.Tx, action, reason string, before, after store.User) error {
	if err := store.New(tx).Revoke(ctx, store.RevokeParams{Principal: after.ID.String()}); err != nil {
		return err
	}
	return record.Append(ctx, tx, record.Event{
		Action: action, Target: after.ID.String(), Reason: reason, Before: userMessage(before), After: userMessage(after),
	})
}

// mayLeave fails where a workspace or the tenant would be left without its head.
func mayLeave(ctx context.Context, q *store.Queries, u store.User) error {
	const most = 20
	owned, err := q.WorkspacesOwnedBy(ctx, store.WorkspacesOwnedByParams{OwnerUserID: u.ID, Most: most})
	if err != nil {
		return err
	}
	if len(owned) > 0 {
		total, err := q.CountWorkspacesOwnedBy(ctx, u.ID)
		if err != nil {
			return err
		}
		names := make([]string, 0, len(owned)+1)
		for _, w := range owned {
			names = append(names, fmt.Sprintf("%q (%s)", w.Name, w.ID))
		}
		if more := total - int64(len(owned)); more > 0 {
			names = append(names, fmt.Sprintf("and %d more", more))
		}
		return ErrOwnsWorkspaces.With("%s (%s) owns workspaces, transfer them first: %s", u.Email, u.ID, strings.Join(names, ", "))
	}
	return adminRemains(ctx, q, u)
}

// adminRemains fails where u is a tenant admin and no other active user is one.
func adminRemains(ctx context.Context, q *store.Queries, u store.User) error {
	if tenantRole(u.TenantRole) != iamv1.TenantRole_TENANT_ROLE_ADMIN {
		return nil
	}
	others, err := q.CountOtherAdmins(ctx, u.ID)
	if err != nil {
		return err
	}
	if others == 0 {
		return ErrLastAdmin.With("%s (%s) is the last tenant admin who can sign in: make another active user one first", u.Email, u.ID)
	}
	return nil
}

// respond wraps a message, or passes the error on.
func respond[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}
