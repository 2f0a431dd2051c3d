// Package welcome fills a new tenant with what a newcomer wants to see: people, workspaces, systems that were discovered, and an
// answer. It promises that it does so as a user would, through the public API with profiles, and that it can be repeated: what is
// there is left alone.
package welcome

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc/rpcclient"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/profile"
)

// Tenant is a tenant to fill, and how its API is reached.
type Tenant struct {
	// Slug, and URL of the API.
	Slug, URL string
	// CACert is the authority to trust, a file; empty for the machine's own. Dial is the gateway's address.
	CACert, Dial string
	// Machine connects this machine, Postgres the sample server, Upload the sample upload.
	Machine, Upload bool
	Postgres        *Postgres
	// Member invites a second person, into one workspace.
	Member bool
}

// Postgres is a server to connect to.
type Postgres struct {
	// Host and Port of it, and the Database to begin with.
	Host, Database, User string
	Port                 int
	// Password gives the password of User; each call may set a new one.
	Password func(ctx context.Context) (string, error)
	// Questions to ask; the first is shown.
	Question *Question
}

// Question is what to ask when everything was discovered.
type Question struct{ Text, Principal, Resource, Entitlement string }

// Guide fills tenants.
type Guide struct {
	// Profiles is where profiles are kept.
	Profiles profile.Store
	// Code gives the setup code of a tenant's first admin. Anew says that the code which it gave before no longer works.
	Code func(ctx context.Context, slug string, anew bool) (string, error)
	// Step does one thing, and tells it when it changed something.
	Step func(what string, do func() (bool, error)) error
}

// Result is what a tenant has now.
type Result struct {
	// Slug, and URL of the API.
	Slug, URL string
	// Systems that were discovered.
	Systems []System
	// Answer to the question, if one was asked.
	Answer *Answer
}

// homeWorkspace is where the systems are; quietWorkspace shows that a member of one workspace sees nothing of another.
const (
	homeWorkspace  = "operations"
	quietWorkspace = "finance"
)

// AdminProfile and MemberProfile are the names of a tenant's profiles.
func AdminProfile(slug string) string { return slug + "-admin" }

// MemberProfile is the profile of the member of one workspace.
func MemberProfile(slug string) string { return slug + "-member" }

// Fill makes what is missing.
func (g Guide) Fill(ctx context.Context, t Tenant) error {
	if err := g.Step(t.Slug+": first admin signed in, profile "+AdminProfile(t.Slug), func() (bool, error) { return g.admin(ctx, t) }); err != nil {
		return err
	}
	session, err := g.Profiles.Open(AdminProfile(t.Slug))
	if err != nil {
		return err
	}
	h := house{client: session.Client(), url: t.URL, session: session}
	var home *iamv1.Workspace
	err = g.Step(t.Slug+": workspaces "+homeWorkspace+" and "+quietWorkspace, func() (changed bool, err error) {
		if home, changed, err = h.workspace(ctx, homeWorkspace); err != nil {
			return changed, err
		}
		_, did, err := h.workspace(ctx, quietWorkspace)
		return changed || did, errors.Join(err, g.workIn(ctx, AdminProfile(t.Slug), home.GetId()))
	})
	if err != nil {
		return err
	}
	h.workspaceID = home.GetId()
	if t.Member {
		err := g.Step(t.Slug+": a member of "+homeWorkspace+" signed in, profile "+MemberProfile(t.Slug), func() (bool, error) { return g.member(ctx, h, t) })
		if err != nil {
			return err
		}
	}
	return g.systems(ctx, h, t)
}

// workIn sets the workspace that a profile's commands work in.
func (g Guide) workIn(ctx context.Context, name, workspace string) error {
	p, err := g.Profiles.Load(name)
	if err != nil || p.WorkspaceID != "" {
		return err
	}
	return g.Profiles.Update(ctx, name, func(p *profile.Profile) error {
		p.WorkspaceID = workspace
		return nil
	})
}

// admin signs the tenant's first admin in.
func (g Guide) admin(ctx context.Context, t Tenant) (bool, error) {
	if _, err := g.Profiles.Load(AdminProfile(t.Slug)); !errors.Is(err, profile.ErrNone) {
		return false, err
	}
	code, err := g.Code(ctx, t.Slug, false)
	if err != nil {
		return false, err
	}
	if code != "" {
		if err := g.redeem(ctx, t, AdminProfile(t.Slug), "", code); fault.KindOf(err) != fault.Unauthenticated {
			return err == nil, err
		}
	}
	// A code lives 15 minutes and works once: the command that made it may have been interrupted for longer, or killed when it had
	// redeemed it and not yet kept the session.
	if code, err = g.Code(ctx, t.Slug, true); err != nil {
		return false, err
	}
	err = g.redeem(ctx, t, AdminProfile(t.Slug), "", code)
	return err == nil, err
}

func (g Guide) redeem(ctx context.Context, t Tenant, name, workspace, code string) error {
	p := &profile.Profile{Name: name, URL: t.URL, Slug: t.Slug, CACert: t.CACert, DialAddress: t.Dial, WorkspaceID: workspace}
	_, err := g.Profiles.Redeem(ctx, p, code)
	return err
}

// member invites a second person into the workspace, and signs them in.
func (g Guide) member(ctx context.Context, h house, t Tenant) (bool, error) {
	if _, err := g.Profiles.Load(MemberProfile(t.Slug)); !errors.Is(err, profile.ErrNone) {
		return false, err
	}
	email := "member@" + t.Slug + ".example"
	code, err := h.invite(ctx, email, "Member of "+homeWorkspace)
	if err != nil {
		return false, err
	}
	if err := h.admit(ctx, email); err != nil {
		return false, err
	}
	return true, g.redeem(ctx, t, MemberProfile(t.Slug), h.workspaceID, code)
}

// house is a tenant's API, as its admin reaches it.
type house struct {
	client      *http.Client
	url         string
	session     *profile.Session
	workspaceID string
}

// tenantWide makes a client for calls about the tenant, inWorkspace one for calls about its workspace.
func tenantWide[C any](h house, construct func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	return rpcclient.ToTenant(h.client, h.url, h.session.TokenFor(""), construct)
}

func inWorkspace[C any](h house, construct func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	return rpcclient.ToTenant(h.client, h.url, h.session.TokenFor(h.workspaceID), construct)
}

func (h house) workspace(ctx context.Context, name string) (*iamv1.Workspace, bool, error) {
	res, err := tenantWide(h, iamv1connect.NewWorkspaceServiceClient).ListWorkspaces(ctx, connect.NewRequest(&iamv1.ListWorkspacesRequest{PageSize: 500}))
	if err != nil {
		return nil, false, err
	}
	for _, w := range res.Msg.GetWorkspaces() {
		if w.GetName() == name {
			return w, false, nil
		}
	}
	made, err := tenantWide(h, iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace(ctx, connect.NewRequest(&iamv1.CreateWorkspaceRequest{Name: name}))
	if err != nil {
		return nil, false, err
	}
	return made.Msg, true, nil
}

// invite invites a person, also one whose first session was lost before it was kept, and answers the setup code.
func (h house) invite(ctx context.Context, email, name string) (code string, err error) {
	res, err := tenantWide(h, iamv1connect.NewUserWriteServiceClient).InviteUser(ctx,
		connect.NewRequest(&iamv1.InviteUserRequest{Email: email, DisplayName: name}))
	if fault.KindOf(err) == fault.AlreadyExists {
		return h.reinvite(ctx, email)
	}
	if err != nil {
		return "", err
	}
	return res.Msg.GetSetupCode(), nil
}

func (h house) reinvite(ctx context.Context, email string) (code string, err error) {
	all, err := tenantWide(h, iamv1connect.NewUserServiceClient).ListUsers(ctx, connect.NewRequest(&iamv1.ListUsersRequest{PageSize: 500}))
	if err != nil {
		return "", err
	}
	for _, u := range all.Msg.GetUsers() {
		if u.GetEmail() != email {
			continue
		}
		res, err := tenantWide(h, iamv1connect.NewAdminUserServiceClient).ReissueSetupCode(ctx, connect.NewRequest(&iamv1.ReissueSetupCodeRequest{
			UserId: u.GetId(), Reason: "the first session was lost before it was kept", EndSessions: true}))
		if err != nil {
			return "", err
		}
		return res.Msg.GetSetupCode(), nil
	}
	return "", fmt.Errorf("%s is a user, and is not among the tenant's users", email)
}

// admit makes a user a member of the workspace.
func (h house) admit(ctx context.Context, email string) error {
	_, err := inWorkspace(h, iamv1connect.NewMemberWriteServiceClient).AddMember(ctx, connect.NewRequest(&iamv1.AddMemberRequest{
		Principal: email, Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER}))
	if fault.KindOf(err) == fault.AlreadyExists {
		return nil
	}
	return err
}
