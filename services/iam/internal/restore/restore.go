// Package restore is what becomes of an issuer's state when its database was put back to an earlier moment. It promises that nothing which
// was given out before that works afterwards, neither what the database still knows nor what it has forgotten, and that the restore is on
// the tenant's record before anybody can sign in. Who was removed, or lost a role, after the backup was taken has it back: the event names
// the moment, and an admin has to look.
package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/store"
)

// Restore is what the operator says of it.
type Restore struct {
	// Backup is its name, TakenAt the moment that the database is as of.
	Backup  string
	TakenAt time.Time
	// Entries is how many the log had at that moment.
	Entries uint64
	// Operator who restores, and why.
	Operator, Reason string
	// Target is the tenant.
	Target string
}

// Finish ends every session, forgets what could open one, drops the signing keys, so that an access token from before is nobody's, and
// puts the restore on the record, in one transaction. The issuer makes new keys when it starts.
func Finish(ctx context.Context, db *pg.DB, r Restore, now time.Time) error {
	return db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return err
		}
		after := map[string]any{"backup": r.Backup, "taken_at": r.TakenAt.UTC().Format(time.RFC3339Nano), "log_entries": float64(r.Entries)}
		for _, end := range []struct {
			what string
			do   func() (int64, error)
		}{
			{"sessions_ended", func() (int64, error) { return q.EndAllSessions(ctx, now) }},
			{"refresh_tokens_dropped", func() (int64, error) { return q.DropRefreshTokens(ctx) }},
			{"setup_codes_dropped", func() (int64, error) { return q.DropSetupCodes(ctx) }},
			{"signing_keys_dropped", func() (int64, error) { return q.DropSigningKeys(ctx) }},
		} {
			n, err := end.do()
			if err != nil {
				return fmt.Errorf("end what was given out before the restore: %w", err)
			}
			after[end.what] = float64(n)
		}
		if _, err := q.JumpRevocations(ctx, now); err != nil {
			return fmt.Errorf("go on with revocations above those that are forgotten: %w", err)
		}
		said, err := structpb.NewStruct(after)
		if err != nil {
			return err
		}
		return record.AppendUnknown(ctx, tx, "workload:"+r.Operator, record.Event{Action: "iam.set.restored", Target: r.Target, Reason: r.Reason, After: said})
	})
}
