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
	"google.golang.org/protobuf/types/known/timestamppb"

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
	url    string
	plane  string
	signer *snapshot.Signer

	mu      sync.Mutex // one refresh at a time
	present atomic.Pointer[published]
	// lastVersion is the database's version as of the last refresh; the snapshot's own is lower where it could not be signed.
	lastVersion int64
}

// published is what is known at one version.
type published struct {
	version     int64
	signed      *registryv1.SignedSnapshot
	authorities map[id.Tenant]*authority
	// replaced is closed when there is a newer one.
	replaced chan struct{}
}

// New makes a publisher. url is the connection string that it listens on, with a connection of its own.
func New(db *pg.DB, url, plane string, signer *snapshot.Signer) *Publisher {
	p := &Publisher{db: db, url: url, plane: plane, signer: signer}
	p.present.Store(&published{replaced: make(chan struct{})})
	return p
}

// Present is the present snapshot and its version, and a channel that is closed when there is a newer one. The snapshot is nil, and
// the version 0, until the database was read once.
func (p *Publisher) Present() (signed *registryv1.SignedSnapshot, version int64, replaced <-chan struct{}) {
	now := p.present.Load()
	return now.signed, now.version, now.replaced
}

// Ready says why there is nothing to publish yet, or nil.
func (p *Publisher) Ready() error {
	if p.present.Load().signed == nil {
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
	conn, err := pgx.Connect(ctx, p.url)
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

// Refresh reads the database and publishes what is new in it.
func (p *Publisher) Refresh(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var read contents
	if err := p.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		read, err = p.read(ctx, tx)
		return err
	}); err != nil {
		return fmt.Errorf("read the routes: %w", err)
	}
	if read.version == p.lastVersion {
		return nil
	}
	before := p.present.Load()
	next := &published{
		version: before.version, signed: before.signed,
		authorities: p.authorities(before.authorities, read.sets), replaced: make(chan struct{}),
	}
	signed, err := p.signer.Sign(read.snapshot(p.plane))
	if err != nil {
		// What gateways hold stays good; what is in the database must be put right by hand.
		slog.ErrorContext(ctx, "the routes could not be signed, the last snapshot stays", "alarm", "snapshot_not_signed", "version", read.version, "error", err)
	} else {
		next.signed, next.version = signed, read.version
	}
	p.lastVersion = read.version
	p.present.Store(next)
	close(before.replaced)
	return nil
}

// contents is what the database holds at one version.
type contents struct {
	version    int64
	changedAt  time.Time
	sets       []store.KnownSetsRow
	components []store.Component
}

func (p *Publisher) read(ctx context.Context, tx pgx.Tx) (contents, error) {
	// One snapshot for all three queries: the version must be that of what is read.
	if _, err := tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return contents{}, err
	}
	q := store.New(tx)
	v, err := q.SnapshotVersion(ctx)
	if err != nil {
		return contents{}, err
	}
	c := contents{version: v.Version, changedAt: v.ChangedAt}
	if c.version == p.lastVersion {
		return c, nil
	}
	if c.sets, err = q.KnownSets(ctx); err != nil {
		return contents{}, err
	}
	c.components, err = q.ActiveComponents(ctx)
	return c, err
}

// snapshot is the routes of active tenants. Its time is that of the change, so that all processes sign the same bytes.
func (c contents) snapshot(plane string) *registryv1.Snapshot {
	components := make(map[id.Tenant][]*registryv1.Component)
	for _, row := range c.components {
		components[row.TenantID] = append(components[row.TenantID], &registryv1.Component{
			Name: row.Name, Address: row.Address, PathPrefixes: row.PathPrefixes,
		})
	}
	s := &registryv1.Snapshot{Plane: plane, Version: c.version, SignedAt: timestamppb.New(c.changedAt)}
	for _, set := range c.sets {
		if set.State == Active {
			s.Routes = append(s.Routes, &registryv1.Route{
				Slug: set.Slug, TenantId: set.ID.String(), Components: components[set.ID], CaCertificatesPem: set.CaCertificatesPem,
			})
		}
	}
	return s
}
