package pg

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	"a3os.app/libs/internal/deedctx"
	"a3os.app/libs/internal/idemctx"
	"a3os.app/libs/redact"
	"a3os.app/libs/scope"
)

// Runner runs a function in a transaction: DB.Workspace or DB.Tenant.
type Runner func(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error

// ErrKeyReused is returned when an idempotency key comes again with another request.
var ErrKeyReused = fault.Declare(fault.InvalidArgument, "IDEMPOTENCY_KEY_REUSED",
	"this idempotency key was used for another request: use a new key for a new deed")

// Deed runs a change in one transaction, once per idempotency key: where the caller gave a key that this principal has used for
// this method before, the first result is answered and nothing is done; concurrent calls with one key wait for each other.
// Secrets of a result are not kept, so the answer to a repeated call lacks them. Keys are kept for 48 hours.
func Deed[R proto.Message](ctx context.Context, run Runner, req proto.Message, fn func(ctx context.Context, tx pgx.Tx) (R, error)) (R, error) {
	var res R
	key, ok := idemctx.From(ctx)
	err := run(ctx, func(ctx context.Context, tx pgx.Tx) error {
		pending := &deedctx.Pending{Tx: tx}
		inner := deedctx.With(ctx, pending)
		if !ok {
			var err error
			if res, err = fn(inner, tx); err != nil {
				return err
			}
			return flush(ctx, pending)
		}
		first, err := claim(ctx, tx, key, req)
		if err != nil {
			return err
		}
		if first != nil {
			m, ok := res.ProtoReflect().New().Interface().(R)
			if !ok {
				return fmt.Errorf("make a %T", res)
			}
			res = m
			return proto.Unmarshal(first, res)
		}
		if res, err = fn(inner, tx); err != nil {
			return err
		}
		if err := keep(ctx, pending, key, redact.Clear(res)); err != nil {
			return err
		}
		return flush(ctx, pending)
	})
	if err != nil {
		var none R
		return none, err
	}
	return res, nil
}

// claim takes the key for this transaction. It answers the first result where there is one.
func claim(ctx context.Context, tx pgx.Tx, key idemctx.Key, req proto.Message) ([]byte, error) {
	s, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	// Without its secrets: a digest of one that is easy to guess would give it away to whoever reads this table. A request that
	// differs from the first in a secret alone is taken for the same.
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(redact.Clear(req))
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	digest := sha256.Sum256(raw)
	tag, err := tx.Exec(ctx, `INSERT INTO a3.idempotency_keys (principal, workspace, method, key, request_digest)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		string(s.Principal), s.Workspace.String(), key.Method, key.Value, digest[:])
	if err != nil {
		return nil, fmt.Errorf("claim the idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return nil, nil
	}
	var seen, response []byte
	err = tx.QueryRow(ctx, `SELECT request_digest, response FROM a3.idempotency_keys
		WHERE principal = $1 AND workspace = $2 AND method = $3 AND key = $4`,
		string(s.Principal), s.Workspace.String(), key.Method, key.Value).Scan(&seen, &response)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.Aborted, "another call with this idempotency key is under way; try again")
	}
	if err != nil {
		return nil, fmt.Errorf("read the first result: %w", err)
	}
	if string(seen) != string(digest[:]) {
		return nil, ErrKeyReused
	}
	if response == nil {
		response = []byte{}
	}
	return response, nil
}

// keep keeps the first result, with what else the deed writes at its end.
func keep(ctx context.Context, pending *deedctx.Pending, key idemctx.Key, res proto.Message) error {
	s, err := scope.From(ctx)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(res)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if raw == nil {
		raw = []byte{}
	}
	pending.Batch.Queue(`UPDATE a3.idempotency_keys SET response = $5
		WHERE principal = $1 AND workspace = $2 AND method = $3 AND key = $4`,
		string(s.Principal), s.Workspace.String(), key.Method, key.Value, raw)
	return nil
}

// flush writes what a deed left for its end, in one round trip: its events are in its own transaction, or there is no deed.
func flush(ctx context.Context, pending *deedctx.Pending) error {
	if pending.Batch.Len() == 0 {
		return nil
	}
	if err := pending.Tx.SendBatch(ctx, &pending.Batch).Close(); err != nil {
		return fmt.Errorf("put the deed on the record and keep its result: %w", err)
	}
	return nil
}

const (
	keysKept   = 48 * time.Hour
	pruneEvery = time.Hour
)

// PruneKeys deletes idempotency keys of this pool's role that are older than 48 hours, every hour until ctx ends.
func (db *DB) PruneKeys(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		err := db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "DELETE FROM a3.idempotency_keys WHERE created_at < now() - $1::interval", keysKept)
			return err
		})
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "old idempotency keys can't be deleted now, trying again in an hour", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
