package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/config"
	"a3os.app/libs/csvupload"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/libs/secret"
	"a3os.app/services/integrations/internal/store"
)

const nameConstraint = "integrations_workspace_id_name_key"

// CreateIntegration connects the workspace to a system.
func (s *Server) CreateIntegration(ctx context.Context, req *connect.Request[integrationsv1.CreateIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	if err := s.check(req.Msg.GetSettings()); err != nil {
		return nil, err
	}
	if err := s.licensed(ctx, connectorOf(req.Msg.GetSettings())); err != nil {
		return nil, err
	}
	settings, err := proto.Marshal(req.Msg.GetSettings())
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	return answer(pg.Deed(ctx, s.cfg.DB.Workspace, req.Msg, func(ctx context.Context, tx pgx.Tx) (*integrationsv1.Integration, error) {
		integration := id.NewIntegration()
		row, err := store.New(tx).InsertIntegration(ctx, store.InsertIntegrationParams{ID: integration, Name: req.Msg.GetName(),
			Connector: connectorOf(req.Msg.GetSettings()), Settings: settings, HasSecret: req.Msg.GetSecret() != "",
			Schedule: scheduleOf(req.Msg.GetSchedule())})
		if pg.IsUnique(err, nameConstraint) {
			return nil, ErrName
		}
		if err != nil {
			return nil, fmt.Errorf("insert the integration: %w", err)
		}
		// Before the commit: a credential without an integration is harmless, the reverse is not.
		if req.Msg.GetSecret() != "" {
			if err := s.putSecret(ctx, integration, req.Msg.GetSecret()); err != nil {
				return nil, err
			}
		}
		v, err := view(row)
		if err != nil {
			return nil, err
		}
		return v, record.Append(ctx, tx, record.Event{Action: "integrations.integration.created", Target: v.GetId(), After: v})
	}))
}

// check refuses settings that hold by themselves and not here.
func (s *Server) check(settings *integrationsv1.Settings) error {
	if settings.GetUnix() != nil && !s.cfg.AllowUnix {
		return ErrUnix
	}
	if p := settings.GetPostgres(); p != nil && p.GetSslMode() == "verify-ca" && p.GetCaCertificatePem() == "" {
		return fault.New(fault.InvalidArgument, "settings.postgres: ssl_mode verify-ca needs ca_certificate_pem")
	}
	if c := settings.GetCsv(); c != nil {
		if bad, ok := csvupload.IsWrong(csvupload.CheckColumns(c)); ok {
			return fault.New(fault.InvalidArgument, "settings.csv.columns: %s", bad)
		}
	}
	return nil
}

func (s *Server) putSecret(ctx context.Context, integration id.Integration, value string) error {
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	path := secret.Path{Tenant: sc.Tenant, Workspace: sc.Workspace, Integration: integration}
	if err := s.cfg.Secrets.Put(ctx, path, config.NewSecret(value)); err != nil {
		return fmt.Errorf("store the secret: %w", err)
	}
	return nil
}

// UpdateIntegration changes an integration at the version the caller saw.
func (s *Server) UpdateIntegration(ctx context.Context, req *connect.Request[integrationsv1.UpdateIntegrationRequest]) (*connect.Response[integrationsv1.Integration], error) {
	integration, err := id.ParseIntegration(req.Msg.GetIntegrationId())
	if err != nil {
		return nil, ErrNone
	}
	if req.Msg.GetSettings() != nil {
		if err := s.check(req.Msg.GetSettings()); err != nil {
			return nil, err
		}
	}
	if d := req.Msg.GetSchedule(); d != nil && d.AsDuration() != 0 && d.AsDuration() < 5*time.Minute {
		return nil, fault.New(fault.InvalidArgument, "schedule: at least 5 minutes, or 0 to switch it off")
	}
	return answer(pg.Deed(ctx, s.cfg.DB.Workspace, req.Msg, func(ctx context.Context, tx pgx.Tx) (*integrationsv1.Integration, error) {
		row, err := s.lock(ctx, tx, integration)
		if err != nil {
			return nil, err
		}
		if row.Version != req.Msg.GetVersion() {
			return nil, ErrVersion
		}
		p, err := s.change(row, req.Msg)
		if err != nil {
			return nil, err
		}
		if v := req.Msg.GetSecret(); v != "" {
			if err := s.putSecret(ctx, integration, v); err != nil {
				return nil, err
			}
		}
		return s.update(ctx, tx, row, p, "integrations.integration.updated")
	}))
}

func (s *Server) change(row store.Integration, req *integrationsv1.UpdateIntegrationRequest) (store.UpdateIntegrationParams, error) {
	p := keep(row)
	if req.Name != nil {
		p.Name = req.GetName()
	}
	if req.GetSettings() != nil {
		if c := connectorOf(req.GetSettings()); c != row.Connector {
			return p, fault.New(fault.InvalidArgument, "settings: the integration's connector is %s and can't become %s: add another integration", row.Connector, c)
		}
		var err error
		if p.Settings, err = proto.Marshal(req.GetSettings()); err != nil {
			return p, fmt.Errorf("encode the settings: %w", err)
		}
	}
	if req.GetSecret() != "" {
		p.HasSecret = true
	}
	if req.GetSchedule() != nil {
		p.Schedule = scheduleOf(req.GetSchedule())
	}
	return p, nil
}

func keep(row store.Integration) store.UpdateIntegrationParams {
	return store.UpdateIntegrationParams{ID: row.ID, Name: row.Name, Settings: row.Settings, HasSecret: row.HasSecret,
		ContentSize: row.ContentSize, ContentKey: row.ContentKey, Schedule: row.Schedule}
}

func (s *Server) lock(ctx context.Context, tx pgx.Tx, integration id.Integration) (store.Integration, error) {
	row, err := store.New(tx).LockIntegration(ctx, integration)
	return row, found(err)
}

func (s *Server) update(ctx context.Context, tx pgx.Tx, row store.Integration, p store.UpdateIntegrationParams, action string) (*integrationsv1.Integration, error) {
	before, err := view(row)
	if err != nil {
		return nil, err
	}
	changed, err := store.New(tx).UpdateIntegration(ctx, p)
	if pg.IsUnique(err, nameConstraint) {
		return nil, ErrName
	}
	if err != nil {
		return nil, fmt.Errorf("update the integration: %w", err)
	}
	after, err := view(changed)
	if err != nil {
		return nil, err
	}
	return after, record.Append(ctx, tx, record.Event{Action: action, Target: after.GetId(), Before: before, After: after})
}

// DeleteIntegration removes an integration, its secret and its content.
func (s *Server) DeleteIntegration(ctx context.Context, req *connect.Request[integrationsv1.DeleteIntegrationRequest]) (*connect.Response[integrationsv1.DeleteIntegrationResponse], error) {
	integration, err := id.ParseIntegration(req.Msg.GetIntegrationId())
	if err != nil {
		return nil, ErrNone
	}
	sc, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	var contents []string
	res, err := pg.Deed(ctx, s.cfg.DB.Workspace, req.Msg, func(ctx context.Context, tx pgx.Tx) (*integrationsv1.DeleteIntegrationResponse, error) {
		row, err := s.lock(ctx, tx, integration)
		if err != nil {
			return nil, err
		}
		before, err := view(row)
		if err != nil {
			return nil, err
		}
		if contents, err = store.New(tx).ListReplaced(ctx, integration); err != nil {
			return nil, fmt.Errorf("list the uploads: %w", err)
		}
		contents = append(contents, contentKey(sc.Workspace, row))
		if err := store.New(tx).DeleteIntegration(ctx, integration); err != nil {
			return nil, fmt.Errorf("delete the integration: %w", err)
		}
		// Before the commit: an integration must not be gone while what it showed still reads as current. Told again is told once.
		if _, err := s.cfg.Retirer.RetireSource(ctx, connect.NewRequest(&discoveryv1.RetireSourceRequest{IntegrationId: integration.String()})); err != nil {
			return nil, fmt.Errorf("close what the integration showed: %w", fault.FromRPC(err))
		}
		return &integrationsv1.DeleteIntegrationResponse{}, record.Append(ctx, tx,
			record.Event{Action: "integrations.integration.deleted", Target: before.GetId(), Before: before})
	})
	if err != nil {
		return nil, err
	}
	// After the commit: an integration without its credential would be broken, a credential without its integration is only dead weight.
	if err := s.cfg.Secrets.Delete(ctx, secret.Path{Tenant: sc.Tenant, Workspace: sc.Workspace, Integration: integration}); err != nil {
		slog.WarnContext(ctx, "the secret of a deleted integration is still there", "integration", integration.String(), "error", err)
	}
	s.dropContents(ctx, contents...)
	return connect.NewResponse(res), nil
}

// TestIntegration has the worker reach the system.
func (s *Server) TestIntegration(ctx context.Context, req *connect.Request[integrationsv1.TestIntegrationRequest]) (*connect.Response[integrationsv1.TestIntegrationResponse], error) {
	row, err := s.get(ctx, req.Msg.GetIntegrationId())
	if err != nil {
		return nil, err
	}
	src, err := s.source(ctx, row)
	if err != nil {
		return nil, err
	}
	// The credential is used: that is on the record before it happens.
	err = s.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return record.Append(ctx, tx, record.Event{Action: "integrations.integration.tested", Target: row.ID.String()})
	})
	if err != nil {
		return nil, err
	}
	res, err := s.cfg.Tester.TestSource(ctx, connect.NewRequest(&discoveryv1.TestSourceRequest{Source: src}))
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return connect.NewResponse(&integrationsv1.TestIntegrationResponse{Ok: res.Msg.GetOk(), Message: res.Msg.GetMessage(), Missing: res.Msg.GetMissing()}), nil
}
