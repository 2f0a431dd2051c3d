// Package pg is how services reach their database: transactions that carry the caller's workspace, so that row-level security
// holds, deeds that happen once and on the record, and migrations. It promises that a connection never carries a scope out of its
// transaction, that work stops when its caller gives up, and that errors have a kind. It relies on the policies of the schema.
package pg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/binding"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/scope"
)

// Config says how to reach a database.
type Config struct {
	// URL is a PostgreSQL connection string, with the role's password; or one that begins with [TokenScheme].
	URL string
	// MaxConns bounds the pool; 0 means 4.
	MaxConns int32
	// Service is shown as application_name.
	Service string
	// Owner is whose the database has to be: a connection to one without the owner's mark is not used.
	Owner *binding.Owner
	// Setting is the variable that URL came from, for errors.
	Setting string
	// Queue is the schema of the queue that this role works with, which carries a mark of its own; empty where it works with none.
	Queue string
}

// DB is a pool of connections of one login role.
type DB struct {
	pool           *pgxpool.Pool
	owner          *binding.Owner
	setting, queue string
	// loginRole is the role by whose membership the service's logs in; empty for none.
	loginRole string
}

const (
	// acquireWithin is how long a call waits for a connection before it is shed.
	acquireWithin = 2 * time.Second
	// tries bounds how often a transaction that lost a conflict is run.
	tries = 5
)

// Open makes a pool, which its owner holds from then on. It connects on first use; Prove waits for the database.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Setting == "" {
		cfg.Setting = "A3_DATABASE_URL"
	}
	if cfg.Owner == nil {
		return nil, fmt.Errorf("%s: a database is opened as somebody's own: name its owner", cfg.Setting)
	}
	pc, err := parse(ctx, cfg)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = cfg.MaxConns
	if pc.MaxConns == 0 {
		pc.MaxConns = 4
	}
	shrinks(pc)
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	pc.ConnConfig.RuntimeParams["application_name"] = cfg.Service
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pc.ConnConfig.Tracer = otelpgx.NewTracer(otelpgx.WithDisableSQLStatementInAttributes())
	pc.AfterConnect = marked(cfg)
	// No hook for what is released: pgxpool closes by itself what a transaction was left on, and with a hook gives each connection back a moment
	// later, in which whoever asks next has another one made.
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("make the pool: %w", err)
	}
	db := &DB{pool: pool, owner: cfg.Owner, setting: cfg.Setting, queue: cfg.Queue}
	if strings.HasPrefix(cfg.URL, TokenScheme) {
		db.loginRole = tokensRole
	}
	cfg.Owner.Hold(db)
	return db, nil
}

// shrinks has a pool give back what a burst made it open: a server has connections for many sets that are at rest, and not for all that each
// could hold. pgxpool turns the order of idle connections round whenever it looks at them, so that the one that was used least is used next.
// Looked at more often than connections may be idle, two of them are used in turns and neither is ever idle for long enough.
func shrinks(pc *pgxpool.Config) {
	pc.MinConns = 0
	pc.MaxConnIdleTime = 30 * time.Second
	pc.HealthCheckPeriod = 45 * time.Second
}

// Close closes the pool and waits for its connections.
func (db *DB) Close() { db.pool.Close() }

// Pool is the pool itself, for drivers that need one (River). Nothing read or written through it is in anyone's scope.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Detached is a connection of its own, made and looked at as the pool's are, for who waits for notifications. None of the pool's, for where the
// server was started anew those that are there are of the one before. Nothing read or written through it is in anyone's scope; whoever asked closes
// it.
func (db *DB) Detached(ctx context.Context) (*pgx.Conn, error) {
	cfg := db.pool.Config()
	if cfg.BeforeConnect != nil {
		if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if err := cfg.AfterConnect(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// Ping says whether the database answers.
func (db *DB) Ping(ctx context.Context) error { return db.pool.Ping(ctx) }

// startWithin is how long a service waits for its database when it starts: longer than PostgreSQL needs to recover from a crash.
const startWithin = time.Minute

// Await waits until the database answers, for a service that can't start without it. It fails after a minute with the last reason, and
// at once where the database is another's.
func (db *DB) Await(ctx context.Context) error {
	wctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for try := 0; ; try++ {
		err := db.pool.Ping(wctx)
		if err == nil || errors.Is(err, binding.ErrRefused) {
			return err
		}
		if try == 0 {
			slog.InfoContext(ctx, "waiting for the database", "error", err)
		}
		const most = 6 // 2^6 × 5 ms, halved by jitter on the average
		if pause(wctx, min(try+1, most)) != nil {
			return fmt.Errorf("the database did not answer within %s: %w", startWithin, err)
		}
	}
}

// Workspace runs fn in a transaction of the caller's workspace. A transaction that lost a conflict (deadlock, serialization) is
// run again, so fn must have no effect outside of it.
func (db *DB) Workspace(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	return db.run(ctx, pgx.TxOptions{BeginQuery: "begin; " + setWorkspace(s.Workspace)}, fn)
}

// ReadWorkspace is Workspace, in one read-only snapshot.
func (db *DB) ReadWorkspace(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	return db.run(ctx, pgx.TxOptions{BeginQuery: "begin isolation level repeatable read read only; " + setWorkspace(s.Workspace)}, fn)
}

// Tenant runs fn in a transaction of a caller whose scope is the tenant: tables without a workspace, or, through the service's
// second role, work that spans workspaces. There must be a scope; no workspace is set.
func (db *DB) Tenant(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if _, err := scope.From(ctx); err != nil {
		return err
	}
	return db.run(ctx, pgx.TxOptions{}, fn)
}

// Service runs fn in a transaction of the service's own work (sealing, scheduling, issuing), which no caller asked for. No
// workspace is set: policies of workspace tables raise, unless the role is the service's second one.
func (db *DB) Service(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return db.run(ctx, pgx.TxOptions{}, fn)
}

// setWorkspace sets the workspace for the transaction. The id is sixteen bytes that we format ourselves, never text of a caller.
func setWorkspace(w id.Workspace) string {
	b := w.Bytes()
	return fmt.Sprintf("select set_config('a3.workspace_id', '%x-%x-%x-%x-%x', true)", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func (db *DB) run(ctx context.Context, opts pgx.TxOptions, fn func(ctx context.Context, tx pgx.Tx) error) error {
	for try := 1; ; try++ {
		err := db.once(ctx, opts, fn)
		if err == nil {
			return nil
		}
		if !(lostConflict(err) || errors.Is(err, errNotBegun)) || try == tries || ctx.Err() != nil {
			return classify(ctx, err)
		}
		slog.DebugContext(ctx, "transaction lost a conflict or its connection, trying again", "try", try, "error", err)
		if werr := pause(ctx, try); werr != nil {
			return classify(ctx, werr)
		}
	}
}

func (db *DB) once(ctx context.Context, opts pgx.TxOptions, fn func(ctx context.Context, tx pgx.Tx) error) error {
	actx, cancel := context.WithTimeout(ctx, acquireWithin)
	conn, err := db.pool.Acquire(actx)
	cancel()
	if err != nil {
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if db.pool.Stat().ConstructingConns() > 0 {
			// There was room for a connection, and the server did not give one: an attempt goes on for longer than a call waits. That there
			// is room by now says nothing, for others may have given theirs back in this moment.
			return fault.Wrap(fault.Unavailable, err, "the database does not answer; try again shortly")
		}
		return fault.Wrap(fault.ResourceExhausted, err, "the service is busy; try again shortly")
	}
	defer conn.Release()
	// BeginFunc rolls back on error and on panic.
	begun := false
	err = pgx.BeginTxFunc(ctx, conn, opts, func(tx pgx.Tx) error { begun = true; return fn(ctx, tx) })
	if err == nil || !conn.Conn().IsClosed() || gaveUp(ctx, err) {
		return err
	}
	// The driver tells a reset, an end of file and a closed socket by as many errors, none of which says that it was the database's.
	if !begun {
		return errors.Join(errNotBegun, err)
	}
	return errors.Join(errLost, err)
}

var (
	// errNotBegun is a connection that died in the pool: nothing was done on it.
	errNotBegun = errors.New("the connection was dead before the transaction began")
	// errLost is a connection that died under a transaction, perhaps while it committed.
	errLost = errors.New("the connection was lost in the transaction")
)

// gaveUp says that the work was ended from our side, which closes the connection as well.
func gaveUp(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// pause waits with full jitter before try+1.
func pause(ctx context.Context, try int) error {
	most := time.Duration(5<<try) * time.Millisecond
	t := time.NewTimer(rand.N(most)) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SQLSTATE codes (PostgreSQL, appendix A), and one of ours: the record's backlog is past its bound.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	queryCanceled        = "57014"
	tooManyConnections   = "53300"
	diskFull             = "53100"
	adminShutdown        = "57P01"
	crashShutdown        = "57P02"
	cannotConnectNow     = "57P03"
	lockNotAvailable     = "55P03"
	readOnlySQL          = "25006"
	uniqueViolation      = "23505"
	notInRepertoire      = "22021"
	untranslatable       = "22P05"
	RecordClosed         = "A3001"
)

func lostConflict(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pe.Code == serializationFailure || pe.Code == deadlockDetected)
}

// IsUnique says whether err is a clash with the named unique constraint or index; an empty name means any.
func IsUnique(err error, constraint string) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == uniqueViolation && (constraint == "" || pe.ConstraintName == constraint)
}

func unchanged(cause error, message string) error {
	e := fault.ErrUnchanged.With("%s", message)
	e.Cause = cause
	return e
}

// classify gives errors of the database a kind. Errors that have one keep it.
func classify(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pe.Code {
		case serializationFailure, deadlockDetected, lockNotAvailable:
			return fault.Wrap(fault.Aborted, err, "the change met another one; try again")
		case queryCanceled:
			return fault.Wrap(fault.DeadlineExceeded, err, "the database took longer than the request allows")
		case tooManyConnections:
			return fault.Wrap(fault.ResourceExhausted, err, "the service is busy; try again shortly")
		case diskFull, readOnlySQL:
			return unchanged(err, "the database takes no writes now; nothing was changed")
		case adminShutdown, crashShutdown, cannotConnectNow:
			return fault.Wrap(fault.Unavailable, err, "the database restarts; try again shortly")
		case notInRepertoire, untranslatable:
			// What gets here past protobuf, which knows UTF-8, is NUL: PostgreSQL's text can't hold it.
			return fault.Wrap(fault.InvalidArgument, err, "text may not contain the character NUL")
		case RecordClosed:
			return unchanged(err, "the audit log is behind, so nothing may be changed now; nothing was changed")
		}
		return err
	}
	if errors.Is(err, errLost) {
		return fault.Wrap(fault.Unavailable, err, "the database was lost in the middle, so the change may or may not have been made; look, or try again with the same idempotency key")
	}
	if errors.Is(err, errNotBegun) || pgconn.SafeToRetry(err) || isConnectError(err) {
		return fault.Wrap(fault.Unavailable, err, "the database can't be reached; try again shortly")
	}
	return err
}

func isConnectError(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}
