// Package publish keeps the present snapshot of routes, signed, and the authorities of all tenants, in memory. It promises that
// every registry process shows a change as soon as its transaction has committed, that versions only grow, and that all processes
// sign one version to the same bytes. It relies on the transactions that change routes to bump the version and notify.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/snapshot"
	"a3os.app/services/registry/internal/store"
)

// Channel is the channel that a change of routes notifies, with the new version.
const Channel = "registry_snapshot"

// Active is the state of tenants that are served.
const Active = "active"

const (
	// lookEvery bounds how long a lost notification can go unnoticed.
	lookEvery    = 15 * time.Second
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = 5 * time.Second
	jitter       = 0.2
)

// Publisher keeps what is published.
type Publisher struct {
	db     *pg.DB
	plane  string
	signer *snapshot.Signer

	mu      sync.Mutex // one refresh at a time
	present atomic.Pointer[Published]
	// lastVersion is the database's version as of the last refresh; what is published is of a lower one where it could not be signed.
	lastVersion int64
}

// New makes a publisher, which listens with a connection of its own.
func New(db *pg.DB, plane string, signer *snapshot.Signer) *Publisher {
	p := &Publisher{db: db, plane: plane, signer: signer}
	p.present.Store(&Published{replaced: make(chan struct{})})
	return p
}

// Present is what is published now.
func (p *Publisher) Present() *Published { return p.present.Load() }

// Sets is how many tenants have a set.
func (p *Publisher) Sets() int { return len(p.present.Load().authorities) }

// Ready says why there is nothing to publish yet, or nil.
func (p *Publisher) Ready() error {
	if p.present.Load().version == 0 {
		return fmt.Errorf("no snapshot was made yet: the database was not reached since the start")
	}
	return nil
}

// Run follows the database until ctx ends, whose error it returns.
func (p *Publisher) Run(ctx context.Context) error {
	policy := retrypolicy.NewBuilder[any]().WithMaxRetries(-1).WithBackoff(firstBackoff, mostBackoff).WithJitterFactor(jitter).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[any]) {
			slog.WarnContext(ctx, "not following changes of routes, the last snapshot stays", "next_try_in", e.Delay, "error", e.LastError())
		}).Build()
	return failsafe.With(policy).WithContext(ctx).Run(func() error { return p.follow(ctx) })
}

func (p *Publisher) follow(ctx context.Context) error {
	conn, err := p.db.Detached(ctx)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(cctx)
	}()
	// Listening comes before the first read, so that no change falls between them.
	if _, err := conn.Exec(ctx, "LISTEN "+Channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		if err := p.Refresh(ctx); err != nil {
			return err
		}
		if err := p.wait(ctx, conn); err != nil {
			return err
		}
	}
}

// wait returns when there may be something new. Notifications of versions that were read already are passed over, so that a burst
// of changes costs one refresh.
func (p *Publisher) wait(ctx context.Context, conn *pgx.Conn) error {
	for {
		wctx, cancel := context.WithTimeout(ctx, lookEvery)
		n, err := conn.WaitForNotification(wctx)
		cancel()
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !conn.IsClosed() {
				return nil // nothing was heard for so long: a reason to look, and no failure
			}
			return fmt.Errorf("wait for a change: %w", err)
		}
		if isNewer(n.Payload, p.version()) {
			return nil
		}
	}
}

// isNewer takes what it can't read for new: a look too many costs little.
func isNewer(payload string, than int64) bool {
	version, err := strconv.ParseInt(payload, 10, 64)
	return err != nil || version > than
}

func (p *Publisher) version() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastVersion
}

// Refresh reads what changed in the database, and publishes it.
func (p *Publisher) Refresh(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.present.Load()
	// What could not be signed the last time is read again: it may be right by now.
	since := before.version
	if since == 0 {
		since = -1
	}
	var read changed
	if err := p.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		read, err = p.read(ctx, tx, since)
		return err
	}); err != nil {
		return fmt.Errorf("read the routes: %w", err)
	}
	if read.version == p.lastVersion {
		return nil
	}
	known := before.authorities
	if read.anew {
		before, known = &Published{replaced: before.replaced}, nil
	}
	next, err := before.with(read, p.plane, p.signer)
	if err != nil {
		// What gateways hold stays good; what is in the database must be put right by hand. Sets are believed by their new roots all the same.
		slog.ErrorContext(ctx, "the routes could not be signed, the last snapshot stays", "alarm", "snapshot_not_signed", "version", read.version, "error", err)
		next = before.again()
	}
	next.authorities = p.authorities(known, read.sets)
	p.lastVersion = read.version
	p.present.Store(next)
	close(before.replaced)
	return nil
}

// changed is what the database holds at one version that is other than it was at an earlier one.
type changed struct {
	version   int64
	changedAt time.Time
	// anew says that it is all there is: the database went back, as one from a backup does.
	anew       bool
	sets       []store.ChangedSetsRow
	components map[id.Tenant][]*registryv1.Component
}

func (p *Publisher) read(ctx context.Context, tx pgx.Tx, since int64) (changed, error) {
	// One snapshot for all three queries: the version must be that of what is read.
	if _, err := tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return changed{}, err
	}
	q := store.New(tx)
	v, err := q.SnapshotVersion(ctx)
	if err != nil {
		return changed{}, err
	}
	c := changed{version: v.Version, changedAt: v.ChangedAt, components: map[id.Tenant][]*registryv1.Component{}}
	if c.version == p.lastVersion {
		return c, nil
	}
	if c.version < since {
		since, c.anew = -1, true
	}
	if c.sets, err = q.ChangedSets(ctx, since); err != nil {
		return changed{}, err
	}
	var active []id.Tenant
	for _, s := range c.sets {
		if s.State == Active {
			active = append(active, s.ID)
		}
	}
	rows, err := q.ComponentsOf(ctx, active)
	if err != nil {
		return changed{}, err
	}
	for _, row := range rows {
		c.components[row.TenantID] = append(c.components[row.TenantID], &registryv1.Component{Name: row.Name, Address: row.Address, PathPrefixes: row.PathPrefixes})
	}
	return c, nil
}
