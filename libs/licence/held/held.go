// Package held is the licence that a set holds, for the services that enforce it. It promises that what it answers was verified by this
// process against the keys that it was configured with, whatever stands in the database; that a licence which doesn't verify leaves the
// one before; and that time doesn't go back: a clock that is behind what the set has seen is not believed. It needs neither the control
// plane nor a sibling. It relies on `audit` to take licences and to keep the newest time.
package held

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/pg"
)

// Licence is the licence of a set.
type Licence struct {
	db       *pg.DB
	verifier *licence.Verifier
	tenant   id.Tenant
	now      func() time.Time

	mu sync.Mutex
	// verified are files with what they said: verifying them again would say the same.
	verified map[string]*registryv1.Licence
}

// New makes the licence of a tenant's set, read from its database. A nil clock is the real one.
func New(db *pg.DB, verifier *licence.Verifier, tenant id.Tenant, now func() time.Time) *Licence {
	if now == nil {
		now = time.Now
	}
	return &Licence{db: db, verifier: verifier, tenant: tenant, now: now}
}

// Allows is nil where a feature may be used for writing: the chain asks it for methods that are licensed.
func (h *Licence) Allows(ctx context.Context, feature string) error {
	w, err := h.Worth(ctx)
	if err != nil {
		return err
	}
	return w.Allows(feature)
}

// Worth is what the licence is worth now.
func (h *Licence) Worth(ctx context.Context) (licence.Worth, error) {
	var w licence.Worth
	// The service's own read: that a licence holds is asked for no caller.
	err := h.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		w, err = h.WorthIn(ctx, tx)
		return err
	})
	return w, err
}

// WorthIn is what the licence is worth now, read in a transaction that is open: who holds a connection and waits for a second one keeps
// others waiting for theirs.
func (h *Licence) WorthIn(ctx context.Context, tx pgx.Tx) (licence.Worth, error) {
	held, seen, err := h.Read(ctx, tx)
	if err != nil {
		return licence.Worth{}, fmt.Errorf("read the tenant's licence: %w", err)
	}
	return licence.Among(held, later(h.now(), seen)), nil
}

// mostLicences bounds how far back a damaged licence is passed over.
const mostLicences = 8

// Read reads, in a transaction, the licences that the set has, the newest first, and the newest time that the set has seen. Those that don't
// verify are passed over; one is verified when it is asked for, by ctx.
func (h *Licence) Read(ctx context.Context, tx pgx.Tx) (iter.Seq[*registryv1.Licence], time.Time, error) {
	var seen time.Time
	if err := tx.QueryRow(ctx, "SELECT seen_at FROM audit.licence_watch").Scan(&seen); err != nil {
		return nil, seen, err
	}
	rows, err := tx.Query(ctx, "SELECT file FROM audit.licences ORDER BY serial DESC, id DESC LIMIT $1", mostLicences)
	if err != nil {
		return nil, seen, err
	}
	files, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, seen, err
	}
	return func(yield func(*registryv1.Licence) bool) {
		for _, file := range files {
			if l := h.believed(ctx, file); l != nil && !yield(l) {
				return
			}
		}
	}, seen, nil
}

// believed is what a file says; nil where it doesn't verify.
func (h *Licence) believed(ctx context.Context, file []byte) *registryv1.Licence {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.verified[string(file)]; l != nil {
		return l
	}
	l, err := h.verifier.OpenFor(ctx, h.tenant, 0, file)
	if err != nil {
		slog.ErrorContext(ctx, "a licence in the database is not believed, the one before it is used", "alarm", "licence_refused", "error", err)
		return nil
	}
	if h.verified == nil || len(h.verified) >= mostLicences {
		h.verified = map[string]*registryv1.Licence{}
	}
	h.verified[string(file)] = l
	return l
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
