package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/registry/internal/store"
)

// errNoTenant is one sentence for an id that never was, a slug that nobody has, and text that is neither.
var errNoTenant = fault.Declare(fault.NotFound, "NO_TENANT", "no such tenant")

type tenants struct {
	registryv1.UnimplementedTenantServiceServer
	Config
}

// GetTenant answers one tenant, by id or slug.
func (s *tenants) GetTenant(ctx context.Context, req *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	var status *registryv1.TenantStatus
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		t, err := find(ctx, q, req.GetTenant())
		if err != nil {
			return err
		}
		all, err := statuses(ctx, q, []store.Tenant{t})
		if err != nil {
			return err
		}
		status = all[0]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.GetTenantResponse{Status: status}, nil
}

// find looks a tenant up by id, or by slug: no slug holds an underscore, so the two can't meet.
func find(ctx context.Context, q *store.Queries, name string) (store.Tenant, error) {
	var t store.Tenant
	var err error
	if tenant, perr := id.ParseTenant(name); perr == nil {
		t, err = q.TenantByID(ctx, tenant)
	} else {
		t, err = q.TenantBySlug(ctx, name)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Tenant{}, errNoTenant
	}
	return t, err
}

// ListTenants pages through the tenants by id.
func (s *tenants) ListTenants(ctx context.Context, req *registryv1.ListTenantsRequest) (*registryv1.ListTenantsResponse, error) {
	var after id.Tenant
	if err := readPageToken(req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	res := &registryv1.ListTenantsResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		rows, err := q.ListTenants(ctx, store.ListTenantsParams{After: after, Size: size + 1})
		if err != nil {
			return err
		}
		rows, res.NextPageToken = onePage(rows, size, func(t store.Tenant) string { return pageToken(t.ID) })
		res.Tenants, err = statuses(ctx, q, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// tenantNow is a tenant as its readers see it.
func tenantNow(ctx context.Context, q *store.Queries, t store.Tenant) (*registryv1.Tenant, error) {
	all, err := statuses(ctx, q, []store.Tenant{t})
	if err != nil {
		return nil, err
	}
	return all[0].GetTenant(), nil
}

// statusOf is one tenant with its set, report and checkpoint.
func statusOf(ctx context.Context, q *store.Queries, tenant id.Tenant) (*registryv1.TenantStatus, error) {
	t, err := q.TenantByID(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("read the tenant: %w", err)
	}
	all, err := statuses(ctx, q, []store.Tenant{t})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// statuses are tenants with their sets, reports and checkpoints, in the order given.
func statuses(ctx context.Context, q *store.Queries, rows []store.Tenant) ([]*registryv1.TenantStatus, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]id.Tenant, len(rows))
	all := make([]*registryv1.TenantStatus, len(rows))
	by := make(map[id.Tenant]*registryv1.TenantStatus, len(rows))
	now := timestamppb.Now()
	for i, t := range rows {
		ids[i], all[i] = t.ID, &registryv1.TenantStatus{Tenant: tenantOf(t), AsOf: now}
		by[t.ID] = all[i]
	}
	last, err := q.LastOperations(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, o := range last {
		by[o.TenantID].Tenant.LastOperation = o.OperationID.String()
	}
	sets, err := q.SetsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		by[s.TenantID].ServiceSet = &registryv1.ServiceSet{CaCertificatesPem: s.CaCertificatesPem, Release: s.Release, Reporter: s.Reporter, Database: databaseOf(s)}
	}
	components, err := q.ComponentsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, c := range components {
		set := by[c.TenantID].GetServiceSet()
		set.Components = append(set.Components, componentOf(c))
	}
	said, err := q.ReportsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, r := range said {
		if err := tell(by[r.TenantID], r); err != nil {
			return nil, err
		}
	}
	checkpoints, err := q.CheckpointsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, c := range checkpoints {
		by[c.TenantID].Checkpoint, by[c.TenantID].CheckpointAt = c.Note, timeOf(c.WitnessedAt)
	}
	licences, err := licenceReports(ctx, q, ids)
	if err != nil {
		return nil, err
	}
	for tenant, l := range licences {
		by[tenant].Licence = l
	}
	return all, nil
}

// tell adds what the set said last.
func tell(status *registryv1.TenantStatus, row store.ReportsOfRow) error {
	report := &registryv1.ReportRequest{}
	if err := proto.Unmarshal(row.Body, report); err != nil {
		return fmt.Errorf("read the last report of %s: %w", row.TenantID, err)
	}
	status.Reports, status.ReportedAt = report.GetComponents(), timeOf(row.ReportedAt)
	for _, c := range status.GetReports() {
		c.ReportedAt = status.GetReportedAt()
	}
	slices.SortFunc(status.GetReports(), func(a, b *registryv1.ComponentReport) int { return strings.Compare(a.GetName(), b.GetName()) })
	status.AuditBacklog, status.AuditBacklogAgeSeconds = report.GetAuditBacklog(), report.GetAuditBacklogAgeSeconds()
	status.DatabaseBytes, status.DatabaseConnections = report.GetDatabaseBytes(), report.GetDatabaseConnections()
	return nil
}
