// Package gauges tells figures of the fleet to whoever scrapes the registry. It promises a number of series that is bounded by the number
// of tenants and components, that no label holds what a tenant's users wrote, and that however often it is scraped the database is asked
// at most every few seconds. What sets themselves count is told as they count it, by component, so that a restart looks like one.
package gauges

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/pg"
	"a3os.app/libs/release"
	"a3os.app/services/registry/internal/figures"
	"a3os.app/services/registry/internal/store"
)

const (
	// fresh is how long what was read stands for the present.
	fresh = 5 * time.Second
	// within bounds a read: a scrape has no caller to give up.
	within = 5 * time.Second
)

// Fleet is a Prometheus collector.
type Fleet struct {
	db *pg.DB

	mu   sync.Mutex
	read time.Time
	last contents
}

type contents struct {
	at         time.Time
	tenants    []tenant
	operations []store.UnfinishedOperationsRow
	backups    store.OwnBackupsNowRow
	routes     int64
}

// tenant is one tenant with what its set said last.
type tenant struct {
	store.FleetNowRow
	report *registryv1.ReportRequest
}

// New makes a collector over the registry's database.
func New(db *pg.DB) *Fleet { return &Fleet{db: db} }

var (
	byTenant = []string{"tenant"}
	// bySet is a tenant's id, or `plane` for the registry itself.
	bySet       = []string{"set"}
	byComponent = []string{"tenant", "component"}

	up           = desc("a3_fleet_up", "1 where the figures of the fleet could be read", nil)
	tenants      = desc("a3_tenants", "tenants by state", []string{"state"})
	operations   = desc("a3_operations_unfinished", "operations that are not finished; abandoned ones have no lease that lasts, and wait for nothing", []string{"kind", "abandoned"})
	info         = desc("a3_tenant_info", "1, with what there is to know of a tenant", []string{"tenant", "slug", "state", "tier", "ring", "release"})
	active       = desc("a3_tenant_active", "1 where the tenant is served, 0 where it isn't", byTenant)
	reportAge    = desc("a3_tenant_report_age_seconds", "time since the set reported last, or since the tenant was made where it never did", byTenant)
	components   = desc("a3_tenant_components", "components that the registry says the set has", byTenant)
	serving      = desc("a3_tenant_components_serving", "components that said in the last report that they serve", byTenant)
	wrongRelease = desc("a3_tenant_components_wrong_release", "components that said they are another program than the registry says", byTenant)
	backlog      = desc("a3_tenant_audit_backlog", "events that wait to be sealed", byTenant)
	backlogAge   = desc("a3_tenant_audit_backlog_age_seconds", "how long the oldest of them waits", byTenant)
	queueDepth   = desc("a3_tenant_queue_depth", "jobs that wait, as their worker tells it", byTenant)
	queueAge     = desc("a3_tenant_queue_age_seconds", "how long the oldest of them could have been begun", byTenant)
	dbBytes      = desc("a3_tenant_database_bytes", "size of the tenant's database", byTenant)
	dbConns      = desc("a3_tenant_database_connections", "open connections to it", byTenant)
	requests     = desc("a3_tenant_requests_total", "calls that a component answered since it started", byComponent)
	failures     = desc("a3_tenant_errors_total", "those of them that failed through no fault of the caller", byComponent)
	restarts     = desc("a3_tenant_restarts_total", "starts of a component that the registry saw and that no operation, restore or change of its release was", byComponent)
	failedJobs   = desc("a3_tenant_failed_jobs_total", "jobs that became dead letters", byComponent)
	resident     = desc("a3_tenant_resident_bytes", "memory that a component has resident", byComponent)
	certificate  = desc("a3_tenant_certificate_expires_timestamp_seconds", "when the certificate ends that a component shows its siblings, in seconds since 1970", byComponent)
	authority    = desc("a3_tenant_authority_expires_timestamp_seconds", "when the authority ends that a component issues certificates by, in seconds since 1970", byComponent)
	licensed     = desc("a3_tenant_licence", "1, with the state that the set's licence is in", []string{"tenant", "state"})
	refused      = desc("a3_tenant_licence_refused", "1 where the set refused the last licence that it was handed", byTenant)
	clockBehind  = desc("a3_tenant_clock_behind", "1 where the set's clock is behind a time that it has seen", byTenant)
	routes       = desc("a3_routes_version", "version of the routes as the registry's database has them; a gateway routes by one that was signed", nil)
	backupAge    = desc("a3_backup_age_seconds", "how old the newest backup is that could be restored, or the set where there is none", bySet)
	backupFailed = desc("a3_backup_failed", "1 where the newest attempt at a backup came to nothing", bySet)
	all          = []*prometheus.Desc{up, tenants, operations, info, active, reportAge, components, serving, wrongRelease, backlog, backlogAge,
		queueDepth, queueAge, dbBytes, dbConns, requests, failures, restarts, failedJobs, resident, certificate, authority, licensed, refused, clockBehind, routes, backupAge, backupFailed}
)

func desc(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (f *Fleet) Describe(to chan<- *prometheus.Desc) {
	for _, d := range all {
		to <- d
	}
}

// Collect implements prometheus.Collector. Where the database can't be read nothing is told but that: old figures would look like new ones.
func (f *Fleet) Collect(to chan<- prometheus.Metric) {
	c, err := f.now()
	if err != nil {
		slog.Warn("the figures of the fleet could not be read", "error", err)
		gauge(to, up, 0)
		return
	}
	gauge(to, up, 1)
	states := map[string]int{"provisioning": 0, "active": 0, "suspended": 0}
	for _, t := range c.tenants {
		states[t.State]++
		t.tell(to, c.at)
	}
	gauge(to, routes, float64(c.routes))
	saved(to, "plane", c.at, c.backups.BackedUpAt, c.backups.BackupFailed)
	for state, n := range states {
		gauge(to, tenants, float64(n), state)
	}
	for _, o := range c.operations {
		gauge(to, operations, float64(o.Operations), o.Kind, fmt.Sprint(o.Abandoned))
	}
}

func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func saved(to chan<- prometheus.Metric, set string, now, at time.Time, failed bool) {
	gauge(to, backupAge, max(now.Sub(at).Seconds(), 0), set)
	gauge(to, backupFailed, one(failed), set)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (t tenant) tell(to chan<- prometheus.Metric, now time.Time) {
	id := t.ID.String()
	gauge(to, info, 1, id, t.Slug, t.State, t.IsolationTier, t.Ring, t.Release)
	gauge(to, active, one(t.State == "active"), id)
	heard := t.CreatedAt
	if t.ReportedAt != nil {
		heard = *t.ReportedAt
	}
	gauge(to, reportAge, max(now.Sub(heard).Seconds(), 0), id)
	gauge(to, components, float64(len(t.Components)), id)
	if t.Licence != "" { // a set of a product, or a release, that knows none says nothing
		gauge(to, licensed, 1, id, t.Licence)
		gauge(to, refused, one(t.LicenceRefused), id)
		gauge(to, clockBehind, one(t.ClockBehind), id)
	}
	saved(to, id, now, t.BackedUpAt, t.BackupFailed)
	if t.report == nil {
		return
	}
	var up, wrong, depth, age float64
	queued := false
	for _, c := range t.report.GetComponents() {
		// A set names its components itself: each name more would be series more.
		if !slices.Contains(t.Components, c.GetName()) {
			continue
		}
		if c.GetHealth() == registryv1.Health_HEALTH_SERVING {
			up++
		}
		if c.GetRelease() != "" && !release.Same(c.GetRelease(), t.Release) {
			wrong++
		}
		count := func(d *prometheus.Desc, n int64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), id, c.GetName())
		}
		count(restarts, int64(c.GetUnmeantRestarts()))
		f := c.GetFigures()
		if f == nil {
			continue
		}
		count(requests, f.GetRequests())
		count(failures, f.GetErrors())
		count(failedJobs, f.GetFailedJobs())
		gauge(to, resident, float64(f.GetResidentBytes()), id, c.GetName())
		for d, at := range map[*prometheus.Desc]*timestamppb.Timestamp{certificate: f.GetCertificateExpiresAt(), authority: f.GetAuthorityExpiresAt()} {
			if at != nil { // a release from before it was told
				gauge(to, d, float64(at.GetSeconds()), id, c.GetName())
			}
		}
		queued = queued || f.QueueDepth != nil
		depth += float64(f.GetQueueDepth())
		age = max(age, float64(f.GetQueueAgeSeconds()))
	}
	gauge(to, serving, up, id)
	gauge(to, wrongRelease, wrong, id)
	// What nobody could ask is not told: none that wait would look like all done.
	if queued {
		gauge(to, queueDepth, depth, id)
		gauge(to, queueAge, age, id)
	}
	if !figures.Measured(t.report) {
		return
	}
	gauge(to, backlog, float64(t.report.GetAuditBacklog()), id)
	gauge(to, backlogAge, float64(t.report.GetAuditBacklogAgeSeconds()), id)
	gauge(to, dbBytes, float64(t.report.GetDatabaseBytes()), id)
	gauge(to, dbConns, float64(t.report.GetDatabaseConnections()), id)
}

// now is what the database says, or said a moment ago.
func (f *Fleet) now() (contents, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.read) < fresh {
		return f.last, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var c contents
	err := f.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		c = contents{at: time.Now()}
		rows, err := q.FleetNow(ctx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			t := tenant{FleetNowRow: row}
			if len(row.Body) > 0 {
				t.report = &registryv1.ReportRequest{}
				if err := proto.Unmarshal(row.Body, t.report); err != nil {
					return fmt.Errorf("read the last report of %s: %w", row.ID, err)
				}
				t.Body = nil
			}
			c.tenants = append(c.tenants, t)
		}
		if c.operations, err = q.UnfinishedOperations(ctx); err != nil {
			return err
		}
		published, err := q.SnapshotVersion(ctx)
		if err != nil {
			return err
		}
		c.routes = published.Version
		c.backups, err = q.OwnBackupsNow(ctx)
		return err
	})
	if err != nil {
		return contents{}, err
	}
	f.last, f.read = c, time.Now()
	return c, nil
}
