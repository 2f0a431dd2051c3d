package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"

	"a3os.app/services/iam/internal/store"
)

// Workspaces implements WorkspaceService, WorkspaceWriteService and AdminWorkspaceService.
type Workspaces struct {
	rights Rights
	list   paging
}

// NewWorkspaces makes them.
func NewWorkspaces(rights Rights, pages *page.Sealer) *Workspaces {
	return &Workspaces{rights: rights, list: paging{pages, "ListWorkspaces"}}
}

// GetWorkspace implements WorkspaceServiceHandler.
func (s *Workspaces) GetWorkspace(ctx context.Context, _ *connect.Request[iamv1.GetWorkspaceRequest]) (*connect.Response[iamv1.Workspace], error) {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	var out *iamv1.Workspace
	err = s.rights.Workspace.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		w, err := store.New(tx).GetWorkspace(ctx, store.GetWorkspaceParams{ID: sc.Workspace, PrincipalID: callerUUID(sc)})
		out = workspaceMessage(w)
		return notFound(err, errNoWorkspace)
	})
	return respond(out, err)
}

// ListWorkspaces implements WorkspaceServiceHandler.
func (s *Workspaces) ListWorkspaces(ctx context.Context, req *connect.Request[iamv1.ListWorkspacesRequest]) (*connect.Response[iamv1.ListWorkspacesResponse], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	after, err := s.list.after(ctx, req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := page.Size(req.Msg.GetPageSize())
	var rows []store.ListWorkspacesRow
	err = s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		rows, err = q.ListWorkspaces(ctx, store.ListWorkspacesParams{
			PrincipalID: callerUUID(sc), After: after, EveryOne: sc.Has("iam.workspaces.read"), Most: size + 1,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	token, keep, err := s.list.next(ctx, len(rows), size, func(i int) [16]byte { return rows[i].ID.Bytes() })
	out := &iamv1.ListWorkspacesResponse{NextPageToken: token}
	for _, w := range rows[:keep] {
		out.Workspaces = append(out.Workspaces, workspaceMessage(store.GetWorkspaceRow(w)))
	}
	return respond(out, err)
}

// CreateWorkspace implements WorkspaceWriteServiceHandler.
func (s *Workspaces) CreateWorkspace(ctx context.Context, req *connect.Request[iamv1.CreateWorkspaceRequest]) (*connect.Response[iamv1.Workspace], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	owner := sc.Principal.User()
	if name := req.Msg.GetOwnerUserId(); name != "" {
		if owner, err = id.ParseUser(name); err != nil {
			return nil, errNoUser
		}
	}
	if owner.IsZero() {
		return nil, fault.New(fault.InvalidArgument, "a service account can't own a workspace: name a user in owner_user_id")
	}
	name, err := clean(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.Workspace, error) {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return nil, err
		}
		if _, err := activeUser(ctx, q, owner); err != nil {
			return nil, err
		}
		w, err := q.AddWorkspace(ctx, store.AddWorkspaceParams{ID: id.NewWorkspace(), Name: name, OwnerUserID: owner})
		if pg.IsUnique(err, "workspaces_name") {
			return nil, fault.New(fault.AlreadyExists, "a workspace of this name exists: choose another name")
		}
		if err != nil {
			return nil, err
		}
		if err := q.MakeOwner(ctx, store.MakeOwnerParams{WorkspaceID: w.ID, UserID: owner}); err != nil {
			return nil, err
		}
		out, err := s.get(ctx, q, w.ID, sc)
		if err != nil {
			return nil, err
		}
		return out, record.Append(ctx, tx, record.Event{Action: "iam.workspace.created", Target: out.GetId(), Workspace: w.ID, After: out})
	})
	return respond(out, err)
}

func (s *Workspaces) get(ctx context.Context, q *store.Queries, w id.Workspace, sc scope.Scope) (*iamv1.Workspace, error) {
	row, err := q.GetWorkspace(ctx, store.GetWorkspaceParams{ID: w, PrincipalID: callerUUID(sc)})
	return workspaceMessage(row), notFound(err, errNoWorkspace)
}

// activeUser locks a user who is to own a workspace: until the commit nobody deactivates them.
func activeUser(ctx context.Context, q *store.Queries, user id.User) (store.User, error) {
	u, err := q.LockUser(ctx, user)
	if err != nil {
		return u, notFound(err, errNoUser)
	}
	switch u.State {
	case "active":
		return u, nil
	case "invited":
		return u, ErrNotActive.With("%s (%s) was invited and has not signed in yet: an owner must be active", u.Email, u.ID)
	}
	return u, ErrNotActive.With("%s (%s) is deactivated: an owner must be active", u.Email, u.ID)
}

// TransferWorkspaceOwner implements AdminWorkspaceServiceHandler.
func (s *Workspaces) TransferWorkspaceOwner(ctx context.Context, req *connect.Request[iamv1.TransferWorkspaceOwnerRequest]) (*connect.Response[iamv1.TransferWorkspaceOwnerResponse], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	t, err := parseTransfer(req.Msg)
	if err != nil {
		return nil, err
	}
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.TransferWorkspaceOwnerResponse, error) {
		return s.transfer(ctx, tx, sc, t)
	})
	if err == nil {
		s.rights.Revoked()
	}
	return respond(out, err)
}

// transfer is a transfer as it was asked for.
type transfer struct {
	workspace id.Workspace
	from, to  id.User
	reason    string
}

func parseTransfer(req *iamv1.TransferWorkspaceOwnerRequest) (transfer, error) {
	t := transfer{reason: req.GetReason()}
	var err error
	if t.workspace, err = id.ParseWorkspace(req.GetWorkspaceId()); err != nil {
		return t, errNoWorkspace
	}
	if t.from, err = id.ParseUser(req.GetExpectedOwnerUserId()); err != nil {
		return t, errNoUser
	}
	if t.to, err = id.ParseUser(req.GetToUserId()); err != nil {
		return t, errNoUser
	}
	return t, nil
}

func (s *Workspaces) transfer(ctx context.Context, tx pgx.Tx, sc scope.Scope, t transfer) (*iamv1.TransferWorkspaceOwnerResponse, error) {
	q := store.New(tx)
	if _, err := q.LockRights(ctx); err != nil {
		return nil, err
	}
	locked, err := q.LockWorkspace(ctx, t.workspace)
	if err != nil {
		return nil, notFound(err, errNoWorkspace)
	}
	if locked.OwnerUserID != t.from {
		return nil, ErrOwnerChanged.With("workspace %q (%s) is owned by %s (%s) now: look again, and name them as the expected owner",
			locked.Name, locked.ID, locked.OwnerEmail, locked.OwnerUserID)
	}
	if t.from == t.to {
		return nil, fault.New(fault.InvalidArgument, "%s (%s) owns the workspace already", locked.OwnerEmail, locked.OwnerUserID)
	}
	if _, err := activeUser(ctx, q, t.to); err != nil {
		return nil, err
	}
	before, err := s.get(ctx, q, t.workspace, sc)
	if err != nil {
		return nil, err
	}
	xfr := id.NewTransfer()
	at, err := q.AddTransfer(ctx, store.AddTransferParams{
		WorkspaceID: t.workspace, ID: xfr, FromUserID: t.from, ToUserID: t.to, Reason: t.reason,
	})
	if err != nil {
		return nil, err
	}
	if err := move(ctx, q, t, xfr); err != nil {
		return nil, err
	}
	after, err := s.get(ctx, q, t.workspace, sc)
	if err != nil {
		return nil, err
	}
	err = record.Append(ctx, tx, record.Event{
		Action: "iam.workspace.owner_transferred", Target: t.workspace.String(), Workspace: t.workspace,
		Reason: t.reason, Before: before, After: after, Transfer: xfr,
	})
	return &iamv1.TransferWorkspaceOwnerResponse{
		TransferId: xfr.String(), Workspace: after, PreviousOwnerUserId: t.from.String(), TransferredAt: timestamppb.New(at),
	}, err
}

// move moves ownership, and makes both users' tokens for the workspace worthless.
func move(ctx context.Context, q *store.Queries, t transfer, xfr id.Transfer) error {
	// Down first: at no moment are there two.
	n, err := q.StepDown(ctx, store.StepDownParams{WorkspaceID: t.workspace, UserID: t.from, TransferID: xfr})
	if err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("workspace %s: %d members are its owner", t.workspace, n)
	}
	if err := q.MakeOwner(ctx, store.MakeOwnerParams{WorkspaceID: t.workspace, UserID: t.to, TransferID: xfr}); err != nil {
		return err
	}
	if err := q.SetWorkspaceOwner(ctx, store.SetWorkspaceOwnerParams{ID: t.workspace, OwnerUserID: t.to}); err != nil {
		return err
	}
	for _, u := range []id.User{t.from, t.to} {
		if err := q.Revoke(ctx, store.RevokeParams{Principal: u.String(), WorkspaceID: t.workspace}); err != nil {
			return err
		}
	}
	return nil
}
