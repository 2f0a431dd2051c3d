package server

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"

	"a3os.app/services/iam/internal/store"
)

// Members implements MemberService and MemberWriteService.
type Members struct {
	rights Rights
	list   paging
}

// NewMembers makes them.
func NewMembers(rights Rights, pages *page.Sealer) *Members {
	return &Members{rights: rights, list: paging{pages, "ListMembers"}}
}

// ListMembers implements MemberServiceHandler.
func (s *Members) ListMembers(ctx context.Context, req *connect.Request[iamv1.ListMembersRequest]) (*connect.Response[iamv1.ListMembersResponse], error) {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	after, err := s.list.after(ctx, req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := page.Size(req.Msg.GetPageSize())
	var rows []store.ListMembersRow
	err = s.rights.Workspace.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err = store.New(tx).ListMembers(ctx, store.ListMembersParams{WorkspaceID: sc.Workspace, After: after, Most: size + 1})
		return err
	})
	if err != nil {
		return nil, err
	}
	token, keep, err := s.list.next(ctx, len(rows), size, func(i int) [16]byte { return rows[i].PrincipalID.Bytes })
	out := &iamv1.ListMembersResponse{NextPageToken: token}
	for _, m := range rows[:keep] {
		out.Members = append(out.Members, memberMessage(store.GetMemberRow(m)))
	}
	return respond(out, err)
}

// AddMember implements MemberWriteServiceHandler.
func (s *Members) AddMember(ctx context.Context, req *connect.Request[iamv1.AddMemberRequest]) (*connect.Response[iamv1.Member], error) {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	role, err := memberRoleColumn(req.Msg.GetRole())
	if err != nil {
		return nil, err
	}
	out, err := pg.Deed(ctx, s.rights.Workspace.Workspace, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.Member, error) {
		q := store.New(tx)
		// A user who is being deactivated must not come in behind it.
		if _, err := q.LockRights(ctx); err != nil {
			return nil, err
		}
		add, err := findPrincipal(ctx, q, req.Msg.GetPrincipal())
		if err != nil {
			return nil, err
		}
		add.WorkspaceID, add.Role = sc.Workspace, role
		m, err := q.AddMember(ctx, add)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, fault.New(fault.AlreadyExists, "they are a member already: change their role instead")
		}
		if err != nil {
			return nil, err
		}
		out, err := s.get(ctx, q, sc.Workspace, m.PrincipalID)
		if err != nil {
			return nil, err
		}
		return out, record.Append(ctx, tx, record.Event{Action: "iam.member.added", Target: out.GetPrincipalId(), After: out})
	})
	return respond(out, err)
}

// findPrincipal finds who is to be a member: by `usr_…`, `svc_…`, or a user's address.
func findPrincipal(ctx context.Context, q *store.Queries, principal string) (store.AddMemberParams, error) {
	missing := fault.New(fault.NotFound, "no such user or service account in this tenant: a tenant admin invites users first")
	if account, err := id.ParseServiceAccount(principal); err == nil {
		a, err := q.MemberServiceAccount(ctx, account)
		return store.AddMemberParams{ServiceAccountID: a.ID}, notFound(err, missing)
	}
	var u store.MemberUserByIDRow
	user, err := id.ParseUser(principal)
	if err == nil {
		u, err = q.MemberUserByID(ctx, user)
	} else {
		var row store.MemberUserByEmailRow
		row, err = q.MemberUserByEmail(ctx, strings.ToLower(strings.TrimSpace(principal)))
		u = store.MemberUserByIDRow(row)
	}
	if err != nil {
		return store.AddMemberParams{}, notFound(err, missing)
	}
	if u.State == "deactivated" {
		return store.AddMemberParams{}, ErrNotActive.With("%s (%s) is deactivated: a tenant admin invites them again first", u.Email, u.ID)
	}
	return store.AddMemberParams{UserID: u.ID}, nil
}

// RemoveMember implements MemberWriteServiceHandler.
func (s *Members) RemoveMember(ctx context.Context, req *connect.Request[iamv1.RemoveMemberRequest]) (*connect.Response[iamv1.RemoveMemberResponse], error) {
	err := s.change(ctx, req.Msg.GetPrincipalId(), func(ctx context.Context, tx pgx.Tx, m member) error {
		n, err := store.New(tx).RemoveMember(ctx, store.RemoveMemberParams{WorkspaceID: m.workspace, PrincipalID: m.id})
		if err != nil || n != 1 {
			return errors.Join(err, onlyOne(n))
		}
		return record.Append(ctx, tx, record.Event{Action: "iam.member.removed", Target: m.before.GetPrincipalId(), Before: m.before})
	})
	return respond(&iamv1.RemoveMemberResponse{}, err)
}

// SetMemberRole implements MemberWriteServiceHandler.
func (s *Members) SetMemberRole(ctx context.Context, req *connect.Request[iamv1.SetMemberRoleRequest]) (*connect.Response[iamv1.Member], error) {
	role, err := memberRoleColumn(req.Msg.GetRole())
	if err != nil {
		return nil, err
	}
	var out *iamv1.Member
	err = s.change(ctx, req.Msg.GetPrincipalId(), func(ctx context.Context, tx pgx.Tx, m member) error {
		q := store.New(tx)
		n, err := q.SetMemberRole(ctx, store.SetMemberRoleParams{WorkspaceID: m.workspace, PrincipalID: m.id, Role: role})
		if err != nil || n != 1 {
			return errors.Join(err, onlyOne(n))
		}
		if out, err = s.get(ctx, q, m.workspace, m.id); err != nil {
			return err
		}
		return record.Append(ctx, tx, record.Event{Action: "iam.member.role_changed", Target: out.GetPrincipalId(), Before: m.before, After: out})
	})
	return respond(out, err)
}

// member is a member who is being changed.
type member struct {
	workspace id.Workspace
	id        pgtype.UUID
	before    *iamv1.Member
}

// change runs a change of one member of the caller's workspace, alone among changes of rights, and makes the member's tokens for the
// workspace worthless. It fails with ErrOwnerStays for the owner.
func (s *Members) change(ctx context.Context, principal string, fn func(context.Context, pgx.Tx, member) error) error {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	m := member{workspace: sc.Workspace}
	if m.id, err = principalUUID(principal); err != nil {
		return errNoMember
	}
	err = s.rights.Workspace.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return err
		}
		before, err := s.get(ctx, q, m.workspace, m.id)
		if err != nil {
			return err
		}
		m.before = before
		if before.GetRole() == iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER {
			w, err := q.GetWorkspace(ctx, store.GetWorkspaceParams{ID: m.workspace, PrincipalID: m.id})
			if err != nil {
				return err
			}
			return ErrOwnerStays.With("%s (%s) owns the workspace %q (%s): a tenant admin transfers it first",
				before.GetDisplayName(), before.GetPrincipalId(), w.Name, w.ID)
		}
		if err := fn(ctx, tx, m); err != nil {
			return err
		}
		return q.Revoke(ctx, store.RevokeParams{Principal: before.GetPrincipalId(), WorkspaceID: m.workspace})
	})
	if err == nil {
		s.rights.Revoked()
	}
	return err
}

func (s *Members) get(ctx context.Context, q *store.Queries, w id.Workspace, principal pgtype.UUID) (*iamv1.Member, error) {
	m, err := q.GetMember(ctx, store.GetMemberParams{WorkspaceID: w, PrincipalID: principal})
	if err != nil {
		return nil, notFound(err, errNoMember)
	}
	return memberMessage(m), nil
}

// onlyOne says what can't be: the row was seen a moment ago under the lock that all changes of rights take.
func onlyOne(n int64) error {
	if n == 1 {
		return nil
	}
	return fault.New(fault.Aborted, "the member changed meanwhile; try again")
}
