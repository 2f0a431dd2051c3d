// Package seal moves events from the inbox into the log: it drains what is visible, appends it to the tree, and signs a
// checkpoint, all in one transaction, so that an event is in exactly one of the two and a checkpoint stands for nothing but what is
// committed. One sealer works at a time: the lock is the transaction's, and each transaction first looks whether the log is still
// where this sealer left it. The order of the log is the order of sealing. It relies on the database for durability and on
// libs/tlog for formats.
package seal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/store"
	"a3os.app/services/audit/internal/tree"
)

const (
	// interval is how often the inbox is looked at, and so the most often a checkpoint is signed.
	interval = time.Second
	// mostRows and mostBytes bound a batch, and with it the sealer's memory.
	mostRows  = 4000
	mostBytes = 16 << 20
)

// Damaged is a log that the sealer refuses to append to, because it isn't what the newest checkpoint stands for.
type Damaged struct{ text string }

// Error says what is wrong and what to do.
func (d *Damaged) Error() string {
	return "the audit log is damaged and nothing is sealed any more: " + d.text +
		"; compare it with `a3 audit verify` and restore the database from a backup"
}

// Sealer seals. One is enough for a log; several don't harm each other.
type Sealer struct {
	db     *pg.DB
	signer *tlog.Signer
	// state is where this sealer left the log; nil when that isn't certain.
	state  *state
	signed time.Time
	err    atomic.Pointer[error]
	// rows bounds a batch.
	rows int32
	// at is called at every Step; tests kill the process there.
	at func(Step)
}

// state is the log as of a committed transaction.
type state struct {
	tree *tree.Builder
	// last is the hash of the last leaf.
	last []byte
	// checkpoint is the size of the newest checkpoint.
	checkpoint uint64
}

// New makes a sealer that uses the plain role of `audit` and signs with the log's key.
func New(db *pg.DB, signer *tlog.Signer) *Sealer {
	s := &Sealer{db: db, signer: signer, rows: mostRows, at: func(Step) {}}
	starting := errors.New("the sealer has not looked at the log yet")
	s.err.Store(&starting)
	return s
}

// Run seals every second until ctx ends. Failures are logged when they begin and when they end, and tried again.
func (s *Sealer) Run(ctx context.Context) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		s.note(ctx, s.Round(ctx))
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Err is why the log isn't sealed at present; nil when it is.
func (s *Sealer) Err() error { return *s.err.Load() }

func (s *Sealer) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	before := s.Err()
	s.err.Store(&err)
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		slog.ErrorContext(ctx, "events are not sealed", "error", err)
	case err == nil && before != nil:
		slog.InfoContext(ctx, "events are sealed")
	}
}

// Round drains the inbox: batch after batch until none is full. The last batch, and in a long round one a second, is signed.
func (s *Sealer) Round(ctx context.Context) error {
	if idle, err := s.idle(ctx); err != nil || idle {
		return err
	}
	for {
		full, err := s.batch(ctx)
		if err != nil || !full {
			return err
		}
	}
}

// idle says, in one statement and without a lock, that there is nothing to do.
func (s *Sealer) idle(ctx context.Context) (bool, error) {
	if s.state == nil || s.state.tree.Size() > s.state.checkpoint {
		return false, nil
	}
	var waiting bool
	err := s.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		waiting, err = store.New(tx).Waiting(ctx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look into the inbox: %w", err)
	}
	return !waiting, nil
}

// batch seals one batch in one transaction and says whether there may be more.
func (s *Sealer) batch(ctx context.Context) (bool, error) {
	// Until the commit is known, nothing is certain: a failed one makes the next batch read the log anew.
	known := s.state
	s.state = nil
	b, err := s.try(ctx, known, false)
	if pg.IsUnique(err, knownEvent) {
		// Something of it is sealed already: deliveries may repeat. That is rare, so it is looked for only now.
		b, err = s.try(ctx, nil, true)
	}
	if err != nil {
		return false, err
	}
	s.at(StepCommitted)
	if b.busy {
		return false, nil
	}
	s.state = b.state
	if b.signed {
		s.signed = time.Now()
	}
	return b.full, s.open(ctx)
}

// knownEvent is the constraint that an event's id is in the log once.
const knownEvent = "entries_event_id_key"

// try is one transaction of a batch. A careful one looks for events that are sealed already.
func (s *Sealer) try(ctx context.Context, known *state, careful bool) (*batch, error) {
	var b *batch
	err := s.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		b = &batch{sealer: s, q: store.New(tx), careful: careful}
		err := b.run(ctx, known)
		known = nil // a second try must not trust what the first one grew
		return err
	})
	return b, err
}

// open tells the inbox how far it may go on from what was committed.
func (s *Sealer) open(ctx context.Context) error {
	err := s.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error { return store.New(tx).Open(ctx) })
	if err != nil {
		return fmt.Errorf("open the inbox further: %w", err)
	}
	return nil
}

// due says whether a full batch should be signed: the first one of this sealer, so that entries without any checkpoint are never
// the doing of a crash, and then one a second.
func (s *Sealer) due() bool { return time.Since(s.signed) >= interval }
