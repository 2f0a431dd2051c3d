package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/services/integrations/internal/store"
)

// CountUsage counts the tenant's integrations.
func (s *Server) CountUsage(ctx context.Context, _ *connect.Request[integrationsv1.CountUsageRequest]) (*connect.Response[integrationsv1.CountUsageResponse], error) {
	var n int64
	err := s.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		if n, err = store.New(tx).CountIntegrations(ctx); err != nil {
			return fmt.Errorf("count the integrations: %w", err)
		}
		return nil
	})
	return answer(&integrationsv1.CountUsageResponse{Counts: map[string]int64{"integrations": n}}, err)
}

// licensed refuses a kind of system that the tenant's licence doesn't have.
func (s *Server) licensed(ctx context.Context, connector string) error {
	w, err := s.cfg.Licence.Worth(ctx)
	if err != nil {
		return err
	}
	return w.AllowsConnector(connector)
}
