// Package server answers the registry's API. It promises that a tenant's data comes from whom its certificate names and never from
// a message, that each change commits together with its line in the operations log and with the version that gateways follow, and
// that what may not be published is refused before anything is written. It relies on the chain of libs/rpc for who calls and
// whether they may, and on the database for order.
package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/pg"
	"a3os.app/libs/release"
	"a3os.app/libs/rpc"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/changes"
	"a3os.app/services/registry/internal/intake"
	"a3os.app/services/registry/internal/placement"
	"a3os.app/services/registry/internal/publish"
	"a3os.app/services/registry/internal/store"
)

// Config is what the handlers need.
type Config struct {
	// DB is the registry's own database.
	DB *pg.DB
	// Publisher keeps the present snapshot.
	Publisher *publish.Publisher
	// Changes wakes those who watch an operation.
	Changes *changes.Hub
	// Plane is "dev" or "prod".
	Plane string
	// MarkKeys verify the marks on tenants' databases.
	MarkKeys string
	// Lease is how long a lease lasts that nobody renews.
	Lease time.Duration
	// PlanLasts is how long a plan can be carried out.
	PlanLasts time.Duration
	// Placement says where sets may be.
	Placement placement.Policy
	// Licences verifies licences.
	Licences *licence.Verifier
	// SlugQuarantine is how long a slug that was freed stays unused.
	SlugQuarantine time.Duration
	// ReportEvery is how often sets are asked to report.
	ReportEvery time.Duration
	// Releases opens releases that keys which the plane trusts have signed.
	Releases *release.Verifier
	// Intake keeps what sets report.
	Intake *intake.Intake
	// Metrics answers what the process tells at /metrics.
	Metrics http.Handler
	// Stopping is closed when the process is asked to end: open streams end then.
	Stopping <-chan struct{}
}

// Register registers the registry's services.
func Register(cfg Config) func(grpc.ServiceRegistrar) {
	return func(r grpc.ServiceRegistrar) {
		heard := &heardLicences{said: map[id.Tenant]heardLicence{}}
		registryv1.RegisterTenantServiceServer(r, &tenants{Config: cfg})
		registryv1.RegisterTenantWriteServiceServer(r, &tenantWrites{Config: cfg})
		registryv1.RegisterPlanServiceServer(r, &plans{Config: cfg})
		registryv1.RegisterPlanWriteServiceServer(r, &planWrites{Config: cfg})
		registryv1.RegisterOperationServiceServer(r, &operations{Config: cfg})
		registryv1.RegisterOperationWriteServiceServer(r, &operationWrites{Config: cfg})
		registryv1.RegisterLicenceServiceServer(r, &licences{Config: cfg, heard: heard})
		registryv1.RegisterLicenceWriteServiceServer(r, &licences{Config: cfg, heard: heard})
		registryv1.RegisterReportServiceServer(r, &reports{Config: cfg, heard: heard})
		registryv1.RegisterFigureServiceServer(r, &figureReads{Config: cfg})
		registryv1.RegisterSnapshotServiceServer(r, &snapshots{Config: cfg})
		registryv1.RegisterBackupServiceServer(r, &backups{Config: cfg})
		registryv1.RegisterBackupWriteServiceServer(r, &backups{Config: cfg})
		registryv1.RegisterReleaseServiceServer(r, &releases{Config: cfg})
		registryv1.RegisterReleaseWriteServiceServer(r, &releases{Config: cfg})
		registryv1.RegisterOperatorServiceServer(r, &operators{Config: cfg})
		registryv1.RegisterOperatorWriteServiceServer(r, &operators{Config: cfg})
		registryv1.RegisterRolloutServiceServer(r, &rollouts{Config: cfg})
		registryv1.RegisterRolloutWriteServiceServer(r, &rolloutWrites{Config: cfg})
	}
}

// change is one change of the control plane, in one transaction with its line in the operations log.
type change struct {
	q     *store.Queries
	actor string
	// tenant is the caller's own where it is a tenant's provisioner: no other tenant is there for it. Zero for the plane's own.
	tenant id.Tenant
}

// change runs fn in a transaction for the caller.
func (c Config) change(ctx context.Context, fn func(ctx context.Context, ch change) error) error {
	who, err := rpc.PeerFrom(ctx)
	if err != nil {
		return err
	}
	return c.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return fn(ctx, change{q: store.New(tx), actor: who.String(), tenant: who.Tenant})
	})
}

// log writes the change's line. When it fails, the change fails.
func (ch change) log(ctx context.Context, action, target, detail string) error {
	if err := ch.q.AppendOperation(ctx, store.AppendOperationParams{Actor: ch.actor, Action: action, Target: target, Detail: detail}); err != nil {
		return fmt.Errorf("write the operations log: %w", err)
	}
	return nil
}

// publish makes the change one that gateways and registries follow. It comes last in its transaction, because it holds the lock
// that puts all changes into one order.
func (ch change) publish(ctx context.Context, tenant id.Tenant) error {
	version, err := ch.q.BumpSnapshot(ctx)
	if err != nil {
		return fmt.Errorf("raise the snapshot's version: %w", err)
	}
	if err := ch.q.MarkRoutesChanged(ctx, store.MarkRoutesChangedParams{ID: tenant, Version: version}); err != nil {
		return fmt.Errorf("say whose routes changed: %w", err)
	}
	if err := ch.q.NotifySnapshot(ctx, strconv.FormatInt(version, 10)); err != nil {
		return fmt.Errorf("notify of the change: %w", err)
	}
	return nil
}

// caller is the workload that calls; the tenant in it is proven.
func caller(ctx context.Context) (workload.Identity, error) { return rpc.PeerFrom(ctx) }
