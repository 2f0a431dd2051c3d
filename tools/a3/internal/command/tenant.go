package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc/rpcclient"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/profile"
)

// tenant is the tenant's API as the profile may use it.
type tenant struct {
	*profile.Session
	store   profile.Store
	profile *profile.Profile
	// workspace is the one that calls of a workspace's level are for; empty where none was chosen.
	workspace string
}

// newClient is a generated constructor.
type newClient[C any] = func(connect.HTTPClient, string, ...connect.ClientOption) C

// across makes a client that acts in the tenant as a whole.
func across[C any](t *tenant, make newClient[C]) C {
	return rpcclient.ToTenant(t.API(""), t.profile.URL, t.TokenFor(""), make)
}

// within makes a client that acts in the chosen workspace.
func within[C any](t *tenant, make newClient[C]) C {
	return rpcclient.ToTenant(t.API(t.workspace), t.profile.URL, t.TokenFor(t.workspace), make)
}

// method is a generated unary method.
type method[Q, S any] = func(context.Context, *connect.Request[Q]) (*connect.Response[S], error)

// ask calls a method.
func ask[Q, S any](ctx context.Context, m method[Q, S], msg *Q) (*S, error) {
	res, err := m(ctx, connect.NewRequest(msg))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// create calls a method that makes something, with a key under which the tenant does it once however often it is asked.
func create[Q, S any](ctx context.Context, a *app, m method[Q, S], msg *Q) (*S, error) {
	key := a.key
	if key == "" {
		key = rand.Text()
	}
	req := connect.NewRequest(msg)
	req.Header().Set("Idempotency-Key", key)
	res, err := m(ctx, req)
	if kind := fault.KindOf(err); err != nil && (kind == fault.Unavailable || kind == fault.DeadlineExceeded) && !errors.Is(err, fault.ErrUnchanged) {
		a.say("whether it was done is not known: to make sure, run the same command again with --idempotency-key %s%s", key, a.again)
	}
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// creates gives a command the flag that create reads.
func (a *app) creates(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.key, "idempotency-key", "", "key under which this is done once, however often it is run; random when not given")
	return cmd
}

// whole is all pages of a list as one response. limit bounds the items, 0 means all of them; where it cut the list, the response
// still has the token of the next page.
func whole[S, I any](limit int, page func(size int32, token string) (*S, error), parts func(*S) (*[]I, *string)) (*S, error) {
	const most = 500
	var all *S
	for token := ""; ; {
		size := most
		if all != nil && limit > 0 {
			items, _ := parts(all)
			size = min(most, limit-len(*items))
		} else if limit > 0 {
			size = min(most, limit)
		}
		res, err := page(int32(size), token) //nolint:gosec // at most 500
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = res
		} else {
			items, next := parts(all)
			more, after := parts(res)
			*items, *next = append(*items, *more...), *after
		}
		items, next := parts(all)
		if *next == "" || limit > 0 && len(*items) >= limit {
			return all, nil
		}
		if *next == token {
			return nil, fmt.Errorf("the tenant answers the same page over and over: tell whoever runs it")
		}
		token = *next
	}
}

// more says that a list was cut.
func (a *app) more(nextPageToken string) {
	if nextPageToken != "" {
		a.say("there are more: raise --limit, or set it to 0 for all")
	}
}

// open readies the profile for calls in the tenant as a whole.
func (a *app) open() (*tenant, error) {
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	name, err := a.choose(s)
	if err != nil {
		return nil, err
	}
	session, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	p, err := session.Profile()
	if err != nil {
		return nil, err
	}
	return &tenant{Session: session, store: s, profile: p}, nil
}

// choose is the profile that was named, or the only one.
func (a *app) choose(s profile.Store) (string, error) {
	if a.profile != "" {
		return a.profile, nil
	}
	names, err := s.List()
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return "", profile.ErrNone.With("there is no profile in %s yet: make one with `a3 login`, or set A3_HOME", s.Dir)
	case 1:
		return names[0], nil
	}
	return "", usage(fmt.Errorf("which profile? choose one with --profile: %s", strings.Join(names, ", ")))
}

// enter readies the profile for calls in a workspace: the one that was named, or the profile's, or the only one it is a member of.
func (a *app) enter(ctx context.Context) (*tenant, error) {
	t, err := a.open()
	if err != nil {
		return nil, err
	}
	name := a.workspace
	if name == "" {
		name = t.profile.WorkspaceID
	}
	if name != "" {
		w, err := t.findWorkspace(ctx, name)
		t.workspace = w.GetId()
		return t, err
	}
	all, err := t.workspaces(ctx)
	if err != nil {
		return nil, err
	}
	var mine []*iamv1.Workspace
	var names []string
	for _, w := range all.GetWorkspaces() {
		if w.GetYourRole() != iamv1.WorkspaceRole_WORKSPACE_ROLE_UNSPECIFIED {
			mine, names = append(mine, w), append(names, w.GetName())
		}
	}
	switch len(mine) {
	case 0:
		return nil, fault.New(fault.NotFound, "%s is a member of no workspace yet: have somebody use `a3 member add`, or make one with `a3 workspace create`", t.who())
	case 1:
		t.workspace = mine[0].GetId()
		return t, nil
	}
	return nil, usage(fmt.Errorf("which workspace? choose one with --workspace: %s", strings.Join(names, ", ")))
}

func (t *tenant) who() string {
	if t.profile.Principal != "" {
		return t.profile.Principal
	}
	return "profile " + t.profile.Name
}

func (t *tenant) workspaces(ctx context.Context) (*iamv1.ListWorkspacesResponse, error) {
	c := across(t, iamv1connect.NewWorkspaceServiceClient)
	return whole(0, func(size int32, token string) (*iamv1.ListWorkspacesResponse, error) {
		return ask(ctx, c.ListWorkspaces, &iamv1.ListWorkspacesRequest{PageSize: size, PageToken: token})
	}, func(r *iamv1.ListWorkspacesResponse) (*[]*iamv1.Workspace, *string) {
		return &r.Workspaces, &r.NextPageToken
	})
}

// findWorkspace is a workspace by name or id. An id is taken as it is: only its id is set then.
func (t *tenant) findWorkspace(ctx context.Context, name string) (*iamv1.Workspace, error) {
	if _, err := id.ParseWorkspace(name); err == nil {
		return &iamv1.Workspace{Id: name}, nil
	}
	return t.lookUpWorkspace(ctx, name)
}

// lookUpWorkspace is a workspace by name or id, as the list has it.
func (t *tenant) lookUpWorkspace(ctx context.Context, name string) (*iamv1.Workspace, error) {
	all, err := t.workspaces(ctx)
	if err != nil {
		return nil, err
	}
	var found *iamv1.Workspace
	for _, w := range all.GetWorkspaces() {
		if w.GetId() == name || w.GetName() == name {
			return w, nil
		}
		if strings.EqualFold(w.GetName(), name) {
			found = w
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "there is no workspace %q that you may see: look at `a3 workspace list`", name)
	}
	return found, nil
}

// findUser is a user by id or address.
func (t *tenant) findUser(ctx context.Context, name string) (string, error) {
	if _, err := id.ParseUser(name); err == nil {
		return name, nil
	}
	all, err := t.users(ctx, 0)
	if err != nil {
		return "", err
	}
	for _, u := range all.GetUsers() {
		if strings.EqualFold(u.GetEmail(), name) {
			return u.GetId(), nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no user %q: look at `a3 user list`", name)
}

func (t *tenant) users(ctx context.Context, limit int) (*iamv1.ListUsersResponse, error) {
	c := across(t, iamv1connect.NewUserServiceClient)
	return whole(limit, func(size int32, token string) (*iamv1.ListUsersResponse, error) {
		return ask(ctx, c.ListUsers, &iamv1.ListUsersRequest{PageSize: size, PageToken: token})
	}, func(r *iamv1.ListUsersResponse) (*[]*iamv1.User, *string) { return &r.Users, &r.NextPageToken })
}
