// Package intake keeps what sets report: the newest report of each, and points of the day before to compare with. It promises that many
// reports cost one transaction, that one which can't be kept fails alone, and that who reported hears only of what is committed. It
// relies on the chain for whose report it is.
package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/services/registry/internal/store"
)

const (
	// most is how many reports one transaction keeps.
	most = 256
	// writers is how many transactions are under way at once: while one commits, the next is filled.
	writers = 2
)

// Intake takes reports.
type Intake struct {
	db      *pg.DB
	items   chan *item
	door    *door
	metrics metrics
}

type item struct {
	tenant id.Tenant
	report *registryv1.ReportRequest
	size   int64
	done   chan error
}

// New makes an intake that Run works, which admits so many reports a second.
func New(db *pg.DB, perSecond float64) (*Intake, error) {
	m, err := newMetrics()
	if err != nil {
		return nil, err
	}
	return &Intake{db: db, items: make(chan *item), door: newDoor(perSecond), metrics: m}, nil
}

// CheckpointRefused counts one.
func (i *Intake) CheckpointRefused(ctx context.Context) { i.metrics.refused.Add(ctx, 1) }

// Every is how often each of so many sets can report when all of them use half of what is admitted.
func (i *Intake) Every(sets int) time.Duration {
	const half = 2
	return time.Duration(half * float64(sets) / float64(i.door.limit.Limit()) * float64(time.Second))
}

// Keep keeps a tenant's report and answers the size of the newest checkpoint that is held of its log.
func (i *Intake) Keep(ctx context.Context, tenant id.Tenant, report *registryv1.ReportRequest) (size int64, err error) {
	seen := map[string]bool{}
	for _, c := range report.GetComponents() {
		if seen[c.GetName()] {
			return 0, fault.New(fault.InvalidArgument, "component %s is reported twice", c.GetName())
		}
		seen[c.GetName()] = true
	}
	if err := i.door.admit(tenant, time.Now()); err != nil {
		if errors.Is(err, errTooOften) {
			i.metrics.tooOften.Add(ctx, 1)
		} else {
			i.metrics.deferred.Add(ctx, 1)
		}
		return 0, err
	}
	it := &item{tenant: tenant, report: kept(report), done: make(chan error, 1)}
	select {
	case i.items <- it:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case err := <-it.done:
		if err == nil {
			i.metrics.kept.Add(ctx, 1)
		}
		return it.size, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// kept is what is kept of a report: what the registry itself adds is nobody else's to say.
func kept(report *registryv1.ReportRequest) *registryv1.ReportRequest {
	r := proto.CloneOf(report)
	r.Checkpoint, r.CheckpointVerifierKey, r.ConsistencyProof = "", "", nil
	for _, c := range r.GetComponents() {
		c.ReportedAt, c.Restarts, c.UnmeantRestarts = nil, 0, 0
	}
	return r
}

// Run keeps what comes in until ctx ends.
func (i *Intake) Run(ctx context.Context) error {
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() { i.write(ctx) })
	}
	writing.Wait()
	return ctx.Err()
}

func (i *Intake) write(ctx context.Context) {
	var next *item
	for {
		batch := map[id.Tenant]*item{}
		if next == nil {
			select {
			case next = <-i.items:
			case <-ctx.Done():
				return
			}
		}
		batch[next.tenant], next = next, nil
		// What is there already is taken along; a second report of a tenant waits for the next batch.
	fill:
		for len(batch) < most {
			select {
			case it := <-i.items:
				if batch[it.tenant] != nil {
					next = it
					break fill
				}
				batch[it.tenant] = it
			default:
				break fill
			}
		}
		i.flush(ctx, batch)
	}
}

// flush keeps a batch, or, where that fails, each of it by itself.
func (i *Intake) flush(ctx context.Context, batch map[id.Tenant]*item) {
	err := i.keep(ctx, batch)
	if err == nil || len(batch) == 1 || ctx.Err() != nil {
		for _, it := range batch {
			it.done <- err
		}
		return
	}
	for tenant, it := range batch {
		it.done <- i.keep(ctx, map[id.Tenant]*item{tenant: it})
	}
}

func (i *Intake) keep(ctx context.Context, batch map[id.Tenant]*item) error {
	tenants := make([]id.Tenant, 0, len(batch))
	for tenant := range batch {
		tenants = append(tenants, tenant)
	}
	return i.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		before, err := q.LastReports(ctx, tenants)
		if err != nil {
			return fmt.Errorf("read the last reports: %w", err)
		}
		last := map[id.Tenant]*registryv1.ReportRequest{}
		for _, row := range before {
			r := &registryv1.ReportRequest{}
			// What can't be read is as good as nothing said, and is replaced.
			if proto.Unmarshal(row.Body, r) == nil {
				last[row.TenantID] = r
			}
		}
		meant, err := meantStarts(ctx, q, batch, last)
		if err != nil {
			return err
		}
		put, points := store.PutReportsParams{TenantIds: tenants}, store.PutPointsParams{TenantIds: tenants}
		for _, tenant := range tenants {
			r := proto.CloneOf(batch[tenant].report)
			compare(last[tenant], r, meant[tenant])
			body, err := proto.Marshal(r)
			if err != nil {
				return fmt.Errorf("encode a report: %w", err)
			}
			put.AuditBacklogs, put.Bodies = append(put.AuditBacklogs, r.GetAuditBacklog()), append(put.Bodies, body)
			for _, c := range r.GetComponents() {
				c.Release = ""
			}
			point, err := proto.Marshal(r)
			if err != nil {
				return fmt.Errorf("encode a point: %w", err)
			}
			points.Bodies = append(points.Bodies, point)
		}
		if err := q.PutReports(ctx, put); err != nil {
			return fmt.Errorf("write the reports: %w", err)
		}
		if err := q.PutPoints(ctx, points); err != nil {
			return fmt.Errorf("write the points: %w", err)
		}
		sizes, err := q.WitnessedSizes(ctx, tenants)
		if err != nil {
			return fmt.Errorf("read what is witnessed: %w", err)
		}
		for _, s := range sizes {
			batch[s.TenantID].size = s.Size
		}
		return nil
	})
}

// span is from when to when components of a tenant were started anew by who looks after it.
type span struct{ since, until time.Time }

// meantStarts are the spans of those tenants of which a component started anew: hardly ever any.
func meantStarts(ctx context.Context, q *store.Queries, batch map[id.Tenant]*item, last map[id.Tenant]*registryv1.ReportRequest) (map[id.Tenant][]span, error) {
	var anew []id.Tenant
	for tenant, it := range batch {
		before := byName(last[tenant])
		if slices.ContainsFunc(it.report.GetComponents(), func(c *registryv1.ComponentReport) bool { return started(before[c.GetName()], c) }) {
			anew = append(anew, tenant)
		}
	}
	if len(anew) == 0 {
		return nil, nil //nolint:nilnil // no spans
	}
	rows, err := q.MeantStarts(ctx, anew)
	if err != nil {
		return nil, fmt.Errorf("read what was done to tenants whose components started anew: %w", err)
	}
	out := map[id.Tenant][]span{}
	for _, row := range rows {
		out[row.TenantID] = append(out[row.TenantID], span{row.Since, row.Until})
	}
	return out, nil
}

func byName(r *registryv1.ReportRequest) map[string]*registryv1.ComponentReport {
	out := map[string]*registryv1.ComponentReport{}
	for _, c := range r.GetComponents() {
		out[c.GetName()] = c
	}
	return out
}

// started says that a component is another process than the one that was known before.
func started(before, now *registryv1.ComponentReport) bool {
	return before.GetStartedAt() != nil && now.GetStartedAt() != nil && !proto.Equal(before.GetStartedAt(), now.GetStartedAt())
}

// compare counts the restarts that the registry saw, and those that nobody meant. Of a component that can't be asked, what was known of it last
// stands, so that the restart is seen when it is back.
func compare(before, now *registryv1.ReportRequest, meant []span) {
	last := byName(before)
	for _, c := range now.GetComponents() {
		b := last[c.GetName()]
		c.Restarts, c.UnmeantRestarts = b.GetRestarts(), b.GetUnmeantRestarts()
		switch {
		case started(b, c):
			c.Restarts++
			if !isMeant(b, c, meant) {
				c.UnmeantRestarts++
			}
		case c.GetStartedAt() == nil:
			c.StartedAt = b.GetStartedAt()
		}
	}
}

// clocksApart is by how much a set's clock, which a start is told by, may be apart from the registry's.
const clocksApart = 2 * time.Second

// isMeant says that a start was a change of the release, or the first since an operation began that was worked on then, or since a restore: a
// second one in the same span is the component's own.
func isMeant(before, now *registryv1.ComponentReport, meant []span) bool {
	if before.GetRelease() != "" && now.GetRelease() != "" && before.GetRelease() != now.GetRelease() {
		return true
	}
	was, at := before.GetStartedAt().AsTime(), now.GetStartedAt().AsTime()
	return slices.ContainsFunc(meant, func(s span) bool {
		return was.Before(s.since) && !at.Before(s.since.Add(-clocksApart)) && !at.After(s.until.Add(clocksApart))
	})
}
