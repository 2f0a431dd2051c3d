// Package server is integrations' API: connections of a workspace to systems. It promises that a secret goes in and never comes out,
// and that an id of another workspace is as unknown as one that never was.
package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/blob"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"
	"a3os.app/libs/secret"
	"a3os.app/services/integrations/internal/store"
)

// Declared errors.
var (
	// ErrNone is the answer for every id that names no integration of the workspace.
	ErrNone = fault.Declare(fault.NotFound, "NO_INTEGRATION", "there is no such integration")
	// ErrName is returned when the workspace has an integration of that name.
	ErrName = fault.Declare(fault.AlreadyExists, "INTEGRATION_NAME", "the workspace has an integration of this name: choose another")
	// ErrVersion is returned when the integration changed since the caller read it.
	ErrVersion = fault.Declare(fault.FailedPrecondition, "INTEGRATION_VERSION", "the integration changed since you read it: read it again and repeat the change")
	// ErrUnix is returned where the plane doesn't let this tenant read the worker's own machine.
	ErrUnix = fault.Declare(fault.FailedPrecondition, "UNIX_NOT_ALLOWED",
		"the connector unix reads the plane's own machine, and this tenant may not: its operator names the tenants that may in A3_UNIX_TENANTS")
)

// Tester has the worker reach a system; it is the client of discovery-worker.
type Tester interface {
	TestSource(ctx context.Context, req *connect.Request[discoveryv1.TestSourceRequest]) (*connect.Response[discoveryv1.TestSourceResponse], error)
}

// Retirer has discovery close what a removed integration showed; it is the client of discovery.
type Retirer interface {
	RetireSource(ctx context.Context, req *connect.Request[discoveryv1.RetireSourceRequest]) (*connect.Response[discoveryv1.RetireSourceResponse], error)
}

// Config is what a Server needs.
type Config struct {
	// DB is the pool of the service's own role, Wide that of its second one, which claims what is due.
	DB, Wide *pg.DB
	Pages    *page.Sealer
	Secrets  secret.Writer
	Content  blob.Writer
	Tester   Tester
	Retirer  Retirer
	// Licence says which kinds of systems may be connected.
	Licence *held.Licence
	// AllowUnix says that the tenant may read the worker's own machine.
	AllowUnix bool
}

// Server serves every service of integrations.v1.
type Server struct {
	cfg Config
	// checking holds who checks an upload.
	checking chan struct{}
}

// New makes a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg, checking: make(chan struct{}, 1)} }

// GetIntegration answers one integration.
func (s *Server) GetIntegration(ctx context.Context, req *connect.Request[integrationsv1.GetIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	row, err := s.get(ctx, req.Msg.GetIntegrationId())
	if err != nil {
		return nil, err
	}
	return answer(view(row))
}

func (s *Server) get(ctx context.Context, text string) (store.Integration, error) {
	integration, err := id.ParseIntegration(text)
	if err != nil {
		return store.Integration{}, ErrNone
	}
	var row store.Integration
	err = s.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err = store.New(tx).GetIntegration(ctx, integration)
		return found(err)
	})
	return row, err
}

// ListIntegrations pages through the workspace's integrations.
func (s *Server) ListIntegrations(ctx context.Context, req *connect.Request[integrationsv1.ListIntegrationsRequest]) (*connect.Response[integrationsv1.ListIntegrationsResponse], error) {
	rows, next, err := s.page(ctx, "ListIntegrations", req.Msg.GetPageSize(), req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	res := &integrationsv1.ListIntegrationsResponse{NextPageToken: next}
	for _, row := range rows {
		v, err := view(row)
		if err != nil {
			return nil, err
		}
		res.Integrations = append(res.Integrations, v)
	}
	return connect.NewResponse(res), nil
}

// GetRunSource hands discovery what a run needs.
func (s *Server) GetRunSource(ctx context.Context, req *connect.Request[integrationsv1.GetRunSourceRequest]) (*connect.Response[integrationsv1.GetRunSourceResponse], error) {
	row, err := s.get(ctx, req.Msg.GetIntegrationId())
	if err != nil {
		return nil, err
	}
	src, err := s.source(ctx, row)
	return answer(&integrationsv1.GetRunSourceResponse{Source: src}, err)
}

// ListSources pages through the workspace's integrations for answers.
func (s *Server) ListSources(ctx context.Context, req *connect.Request[integrationsv1.ListSourcesRequest]) (*connect.Response[integrationsv1.ListSourcesResponse], error) {
	rows, next, err := s.page(ctx, "ListSources", req.Msg.GetPageSize(), req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	res := &integrationsv1.ListSourcesResponse{NextPageToken: next}
	for _, row := range rows {
		res.Sources = append(res.Sources, &integrationsv1.KnownSource{IntegrationId: row.ID.String(), Name: row.Name, CreatedAt: timestamppb.New(row.CreatedAt)})
	}
	return connect.NewResponse(res), nil
}

// page is a page of the workspace's integrations, by id.
func (s *Server) page(ctx context.Context, method string, pageSize int32, token string) (rows []store.Integration, next string, err error) {
	var after id.Integration
	if err := s.cfg.Pages.Open(ctx, method, nil, token, &after); err != nil {
		return nil, "", err
	}
	size := page.Size(pageSize)
	err = s.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		from, _ := after.UUIDValue()
		rows, err = store.New(tx).ListIntegrations(ctx, store.ListIntegrationsParams{After: from, Most: size + 1})
		return err
	})
	if err != nil || len(rows) <= int(size) {
		return rows, "", err
	}
	rows = rows[:size]
	next, err = s.cfg.Pages.Seal(ctx, method, nil, rows[size-1].ID)
	return rows, next, err
}

// source is what a worker needs to read the integration's system.
func (s *Server) source(ctx context.Context, row store.Integration) (*integrationsv1.Source, error) {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	settings, err := readSettings(row.Settings)
	if err != nil {
		return nil, err
	}
	if row.Connector == "unix" && !s.cfg.AllowUnix {
		return nil, ErrUnix
	}
	src := &integrationsv1.Source{IntegrationId: row.ID.String(), Name: row.Name, Settings: settings, Version: row.Version}
	if row.HasSecret {
		src.SecretPath = secret.Path{Tenant: sc.Tenant, Workspace: sc.Workspace, Integration: row.ID}.String()
	}
	if row.ContentSize > 0 {
		src.ContentPath = contentKey(sc.Workspace, row)
	}
	return src, nil
}

// ReportRun notes how a run ended.
func (s *Server) ReportRun(ctx context.Context, req *connect.Request[integrationsv1.ReportRunRequest]) (*connect.Response[integrationsv1.ReportRunResponse], error) {
	integration, err := id.ParseIntegration(req.Msg.GetIntegrationId())
	if err != nil {
		return nil, ErrNone
	}
	last := req.Msg.GetLastRun()
	run, err := id.ParseRun(last.GetRunId())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "last_run.run_id: %v", err)
	}
	err = s.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if _, err := q.GetIntegration(ctx, integration); err != nil {
			return found(err)
		}
		_, err := q.NoteRun(ctx, store.NoteRunParams{ID: integration, LastRunID: run, LastRunState: last.GetState().String(), LastRunAt: new(last.GetFinishedAt().AsTime())})
		return err
	})
	return answer(&integrationsv1.ReportRunResponse{}, err)
}

// ClaimDue answers what is due over all workspaces, and moves each on.
func (s *Server) ClaimDue(ctx context.Context, req *connect.Request[integrationsv1.ClaimDueRequest]) (*connect.Response[integrationsv1.ClaimDueResponse], error) {
	res := &integrationsv1.ClaimDueResponse{}
	err := s.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := store.New(tx).ClaimDue(ctx, req.Msg.GetLimit())
		if err != nil {
			return fmt.Errorf("claim what is due: %w", err)
		}
		res.Due = res.Due[:0]
		for _, r := range rows {
			res.Due = append(res.Due, &integrationsv1.Due{WorkspaceId: r.WorkspaceID.String(), IntegrationId: r.ID.String(), DueAt: timestamppb.New(*r.DueAt)})
		}
		return nil
	})
	return answer(res, err)
}

func found(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNone
	}
	return err
}

func readSettings(raw []byte) (*integrationsv1.Settings, error) {
	s := new(integrationsv1.Settings)
	if err := proto.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	return s, nil
}

// view is an integration as it is shown.
func view(row store.Integration) (*integrationsv1.Integration, error) {
	settings, err := readSettings(row.Settings)
	if err != nil {
		return nil, err
	}
	v := &integrationsv1.Integration{Id: row.ID.String(), Name: row.Name, Connector: row.Connector, Settings: settings,
		HasSecret: row.HasSecret, ContentSize: row.ContentSize, CreatedAt: timestamppb.New(row.CreatedAt), Version: row.Version}
	if row.Schedule != nil {
		v.Schedule = durationpb.New(*row.Schedule)
	}
	if !row.LastRunID.IsZero() {
		v.LastRun = &integrationsv1.LastRun{RunId: row.LastRunID.String(), State: integrationsv1.RunState(integrationsv1.RunState_value[row.LastRunState])}
		if row.LastRunAt != nil {
			v.LastRun.FinishedAt = timestamppb.New(*row.LastRunAt)
		}
	}
	return v, nil
}

func connectorOf(s *integrationsv1.Settings) string {
	switch s.GetConnector().(type) {
	case *integrationsv1.Settings_Postgres:
		return "postgres"
	case *integrationsv1.Settings_Unix:
		return "unix"
	case *integrationsv1.Settings_Csv:
		return "csv"
	}
	return ""
}

func scheduleOf(d *durationpb.Duration) *time.Duration {
	if d == nil || d.AsDuration() == 0 {
		return nil
	}
	return new(d.AsDuration())
}

func answer[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}
