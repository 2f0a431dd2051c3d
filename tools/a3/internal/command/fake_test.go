package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	"a3os.app/tools/a3/internal/command"
	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/profile/profiletest"
)

const requestID = "req_01h455vb4pex5vsknk084sn02q"

// fake is a tenant's API with small behaviours of its own, over real TLS. It shows how answers and refusals are told; the tests in
// tools/systemtest hold the same commands against a real plane.
type fake struct {
	iamv1connect.UnimplementedIdentityServiceHandler
	iamv1connect.UnimplementedSetupServiceHandler
	iamv1connect.UnimplementedUserServiceHandler
	iamv1connect.UnimplementedUserWriteServiceHandler
	iamv1connect.UnimplementedServiceAccountWriteServiceHandler
	iamv1connect.UnimplementedWorkspaceServiceHandler
	iamv1connect.UnimplementedWorkspaceWriteServiceHandler
	iamv1connect.UnimplementedAdminWorkspaceServiceHandler
	integrationsv1connect.UnimplementedIntegrationServiceHandler
	integrationsv1connect.UnimplementedIntegrationWriteServiceHandler
	discoveryv1connect.UnimplementedRunServiceHandler
	discoveryv1connect.UnimplementedRunWriteServiceHandler
	discoveryv1connect.UnimplementedAccessServiceHandler
	discoveryv1connect.UnimplementedDeadLetterServiceHandler
	discoveryv1connect.UnimplementedAdminDeadLetterServiceHandler
	auditv1connect.UnimplementedAuditServiceHandler
	auditv1connect.UnimplementedLogServiceHandler

	*profiletest.Tenant
	home string
	log  log

	mu           sync.Mutex
	users        []*iamv1.User
	workspaces   []*iamv1.Workspace
	integrations []*integrationsv1.Integration
	resources    []*discoveryv1.ResourceView
	answers      map[string]any
	refuse       map[string]error
	seen         map[string][]any
	keys         []string
	watch        func(send func(*discoveryv1.Run) error) error
}

var (
	admin     = id.NewUser().String()
	dave      = id.NewUser().String()
	workspace = id.NewWorkspace().String()
)

// newFake is a tenant where the profile "admin" is signed in.
func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		home: t.TempDir(), answers: map[string]any{}, refuse: map[string]error{}, seen: map[string][]any{},
		users: []*iamv1.User{
			{Id: admin, Email: "admin@acme.example", State: iamv1.UserState_USER_STATE_ACTIVE, TenantRole: iamv1.TenantRole_TENANT_ROLE_ADMIN},
			{Id: dave, Email: "dave@acme.example", State: iamv1.UserState_USER_STATE_ACTIVE},
		},
		workspaces: []*iamv1.Workspace{{
			Id: workspace, Name: "operations", OwnerUserId: admin, OwnerEmail: "admin@acme.example", YourRole: iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER,
		}},
	}
	mux := http.NewServeMux()
	observe := connect.WithInterceptors(connect.UnaryInterceptorFunc(f.observe))
	for _, mount := range []func() (string, http.Handler){
		func() (string, http.Handler) { return iamv1connect.NewIdentityServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewSetupServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewUserServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewUserWriteServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewServiceAccountWriteServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewWorkspaceServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewWorkspaceWriteServiceHandler(f, observe) },
		func() (string, http.Handler) { return iamv1connect.NewAdminWorkspaceServiceHandler(f, observe) },
		func() (string, http.Handler) { return integrationsv1connect.NewIntegrationServiceHandler(f, observe) },
		func() (string, http.Handler) {
			return integrationsv1connect.NewIntegrationWriteServiceHandler(f, observe)
		},
		func() (string, http.Handler) { return discoveryv1connect.NewRunServiceHandler(f, observe) },
		func() (string, http.Handler) { return discoveryv1connect.NewRunWriteServiceHandler(f, observe) },
		func() (string, http.Handler) { return discoveryv1connect.NewAccessServiceHandler(f, observe) },
		func() (string, http.Handler) { return discoveryv1connect.NewDeadLetterServiceHandler(f, observe) },
		func() (string, http.Handler) { return discoveryv1connect.NewAdminDeadLetterServiceHandler(f, observe) },
		func() (string, http.Handler) { return auditv1connect.NewAuditServiceHandler(f, observe) },
		func() (string, http.Handler) { return auditv1connect.NewLogServiceHandler(&f.log, observe) },
	} {
		path, h := mount()
		mux.Handle(path, h)
	}
	mux.HandleFunc("GET /audit/v1/log/{path...}", f.log.serveLayout)
	f.Tenant = profiletest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("A3-Request-Id", requestID)
		mux.ServeHTTP(w, r)
	}))
	f.Join(admin, workspace)
	if err := f.store().Save(f.Profile("admin", admin)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("A3_HOME", f.home)
	t.Setenv("A3_PROFILE", "")
	t.Setenv("A3_WORKSPACE", "")
	return f
}

func (f *fake) store() profile.Store { return profile.In(f.home) }

// observe notes every request, refuses those it was told to, and answers what it was given.
func (f *fake) observe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		name := req.Spec().Procedure[strings.LastIndexByte(req.Spec().Procedure, '/')+1:]
		f.mu.Lock()
		f.seen[name] = append(f.seen[name], req.Any())
		if k := req.Header().Get("Idempotency-Key"); k != "" {
			f.keys = append(f.keys, k)
		}
		err := f.refuse[name]
		f.mu.Unlock()
		if _, known := f.Caller(req.Header()); !known && name != "RedeemSetupCode" {
			err = fault.New(fault.Unauthenticated, "sign in")
		}
		if err != nil {
			return nil, fault.Connect(err)
		}
		return next(ctx, req)
	}
}

// given is the answer that a test put down for a method.
func given[S any](f *fake, method string) (*connect.Response[S], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.answers[method].(*S)
	if !ok {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("the test put down no answer for "+method))
	}
	return connect.NewResponse(m), nil
}

// last is the newest request to a method.
func last[Q any](t *testing.T, f *fake, method string) *Q {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.seen[method]
	if len(all) == 0 {
		t.Fatalf("%s was not called", method)
	}
	q, ok := all[len(all)-1].(*Q)
	if !ok {
		t.Fatalf("%s was called with %T", method, all[len(all)-1])
	}
	return q
}

func (f *fake) calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen[method])
}

// page cuts a list as the services do.
func page[I any](items []I, size int32, token string) ([]I, string) {
	from := 0
	if token != "" {
		_, _ = fmt.Sscanf(token, "after-%d", &from)
	}
	to := min(from+int(size), len(items))
	next := ""
	if to < len(items) {
		next = fmt.Sprintf("after-%d", to)
	}
	return items[from:to], next
}

// result is what a run of the program left.
type result struct {
	code     int
	out, err string
}

// a3 runs the program.
func a3(t *testing.T, args ...string) result {
	t.Helper()
	return a3With(t, t.Context(), "", args...)
}

func a3With(t *testing.T, ctx context.Context, in string, args ...string) result { //nolint:revive // t first, as in every helper here
	t.Helper()
	var out, errs bytes.Buffer
	code := command.Run(ctx, command.World{In: strings.NewReader(in), Out: &out, Err: &errs}, args)
	return result{code: code, out: out.String(), err: errs.String()}
}

func (f *fake) GetSelf(_ context.Context, req *connect.Request[iamv1.GetSelfRequest]) (*connect.Response[iamv1.GetSelfResponse], error) {
	g, _ := f.Caller(req.Header())
	return connect.NewResponse(&iamv1.GetSelfResponse{
		Plane: "dev", TenantSlug: "acme", PrincipalId: g.Subject, WorkspaceId: g.Workspace, DisplayName: "admin@acme.example", Permissions: []string{"audit.read", "self"},
	}), nil
}

func (f *fake) RedeemSetupCode(_ context.Context, req *connect.Request[iamv1.RedeemSetupCodeRequest]) (*connect.Response[iamv1.RedeemSetupCodeResponse], error) {
	if req.Msg.GetCode() != "GOODGOODGOODGOOD" {
		return nil, fault.Connect(fault.New(fault.Unauthenticated, "the setup code does not work"))
	}
	return connect.NewResponse(&iamv1.RedeemSetupCodeResponse{User: f.users[1], RefreshToken: f.Session(dave)}), nil
}

func (f *fake) ListUsers(_ context.Context, req *connect.Request[iamv1.ListUsersRequest]) (*connect.Response[iamv1.ListUsersResponse], error) {
	items, next := page(f.users, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	return connect.NewResponse(&iamv1.ListUsersResponse{Users: items, NextPageToken: next}), nil
}

func (f *fake) CreateServiceAccount(_ context.Context, req *connect.Request[iamv1.CreateServiceAccountRequest]) (*connect.Response[iamv1.ServiceAccount], error) {
	return connect.NewResponse(&iamv1.ServiceAccount{Id: id.NewServiceAccount().String(), Name: req.Msg.GetName()}), nil
}

func (f *fake) ListWorkspaces(_ context.Context, req *connect.Request[iamv1.ListWorkspacesRequest]) (*connect.Response[iamv1.ListWorkspacesResponse], error) {
	items, next := page(f.workspaces, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	return connect.NewResponse(&iamv1.ListWorkspacesResponse{Workspaces: items, NextPageToken: next}), nil
}

func (f *fake) CreateWorkspace(_ context.Context, req *connect.Request[iamv1.CreateWorkspaceRequest]) (*connect.Response[iamv1.Workspace], error) {
	return connect.NewResponse(&iamv1.Workspace{Id: workspace, Name: req.Msg.GetName(), OwnerUserId: admin}), nil
}

func (f *fake) TransferWorkspaceOwner(_ context.Context, req *connect.Request[iamv1.TransferWorkspaceOwnerRequest]) (*connect.Response[iamv1.TransferWorkspaceOwnerResponse], error) {
	return connect.NewResponse(&iamv1.TransferWorkspaceOwnerResponse{
		TransferId: "xfr_1", PreviousOwnerUserId: req.Msg.GetExpectedOwnerUserId(),
		Workspace: &iamv1.Workspace{Id: workspace, Name: "operations", OwnerUserId: dave, OwnerEmail: "dave@acme.example"},
	}), nil
}

func (f *fake) ListIntegrations(_ context.Context, req *connect.Request[integrationsv1.ListIntegrationsRequest]) (*connect.Response[integrationsv1.ListIntegrationsResponse], error) {
	items, next := page(f.integrations, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	return connect.NewResponse(&integrationsv1.ListIntegrationsResponse{Integrations: items, NextPageToken: next}), nil
}

func (f *fake) CreateIntegration(_ context.Context, req *connect.Request[integrationsv1.CreateIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := &integrationsv1.Integration{
		Id: id.NewIntegration().String(), Name: req.Msg.GetName(), Settings: req.Msg.GetSettings(), HasSecret: req.Msg.GetSecret() != "", Schedule: req.Msg.GetSchedule(),
	}
	f.integrations = append(f.integrations, i)
	return connect.NewResponse(i), nil
}

func (f *fake) UploadContent(_ context.Context, req *connect.Request[integrationsv1.UploadContentRequest]) (*connect.Response[integrationsv1.Integration], error) {
	return connect.NewResponse(&integrationsv1.Integration{Id: req.Msg.GetIntegrationId(), ContentSize: int64(len(req.Msg.GetContent()))}), nil
}

func (f *fake) DeleteIntegration(_ context.Context, req *connect.Request[integrationsv1.DeleteIntegrationRequest]) (*connect.Response[integrationsv1.DeleteIntegrationResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, n := range f.integrations {
		if n.GetId() == req.Msg.GetIntegrationId() {
			f.integrations = append(f.integrations[:i], f.integrations[i+1:]...)
			return connect.NewResponse(&integrationsv1.DeleteIntegrationResponse{}), nil
		}
	}
	return nil, fault.Connect(fault.New(fault.NotFound, "no such integration"))
}

func (f *fake) StartRun(context.Context, *connect.Request[discoveryv1.StartRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return given[discoveryv1.Run](f, "StartRun")
}

func (f *fake) WatchRun(_ context.Context, _ *connect.Request[discoveryv1.WatchRunRequest], stream *connect.ServerStream[discoveryv1.Run]) error {
	return f.watch(stream.Send)
}

func (f *fake) ListResources(_ context.Context, req *connect.Request[discoveryv1.ListResourcesRequest]) (*connect.Response[discoveryv1.ListResourcesResponse], error) {
	items, next := page(f.resources, req.Msg.GetPageSize(), req.Msg.GetPageToken())
	return connect.NewResponse(&discoveryv1.ListResourcesResponse{Resources: items, NextPageToken: next, Completeness: f.completeness()}), nil
}

func (f *fake) completeness() *discoveryv1.Completeness {
	c, _ := f.answers["completeness"].(*discoveryv1.Completeness)
	return c
}

func (f *fake) ListHolders(context.Context, *connect.Request[discoveryv1.ListHoldersRequest]) (*connect.Response[discoveryv1.ListHoldersResponse], error) {
	return given[discoveryv1.ListHoldersResponse](f, "ListHolders")
}

func (f *fake) ExplainAccess(context.Context, *connect.Request[discoveryv1.ExplainAccessRequest]) (*connect.Response[discoveryv1.ExplainAccessResponse], error) {
	return given[discoveryv1.ExplainAccessResponse](f, "ExplainAccess")
}

func (f *fake) GetIntegration(_ context.Context, req *connect.Request[integrationsv1.GetIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	for _, i := range f.integrations {
		if i.GetId() == req.Msg.GetIntegrationId() {
			return connect.NewResponse(i), nil
		}
	}
	return nil, fault.Connect(fault.New(fault.NotFound, "no such integration"))
}

func (f *fake) UpdateIntegration(_ context.Context, req *connect.Request[integrationsv1.UpdateIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	return connect.NewResponse(&integrationsv1.Integration{Id: req.Msg.GetIntegrationId(), Settings: req.Msg.GetSettings()}), nil
}
