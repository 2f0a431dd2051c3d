package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// lockSpace keeps our advisory locks apart from others' (hashtextextended's seed).
const lockSpace = 0x6133_6c69_7665 // "a3live"

// presence is the advisory lock by which a worker is known to live: PostgreSQL lets it go when the worker's connection ends, as it
// does the moment the worker's process is killed. On the same connection it looks for jobs of workers whose lock is free.
type presence struct {
	pool   *pgxpool.Pool
	schema string
	name   string
	log    *slog.Logger
	conn   *pgxpool.Conn
}

// enter takes the lock and sweeps once, so that a worker that was restarted goes on at once with what it had begun.
func (p *presence) enter(ctx context.Context) error {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect worker %s to its queue: %w", p.name, err)
	}
	if _, err := conn.Exec(ctx, "select pg_advisory_lock(hashtextextended($1, $2))", p.name, int64(lockSpace)); err != nil {
		p.drop(ctx, conn)
		return fmt.Errorf("make worker %s known to live: %w", p.name, err)
	}
	if err := p.sweep(ctx, conn); err != nil {
		p.drop(ctx, conn)
		return err
	}
	p.conn = conn
	return nil
}

// keep sweeps until ctx ends, and takes the lock again where the connection was lost.
func (p *presence) keep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	defer func() {
		if p.conn != nil {
			p.drop(ctx, p.conn)
		}
	}()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		turn, cancel := context.WithTimeout(ctx, 2*sweepEvery)
		err := p.turn(turn)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !lost:
			p.log.WarnContext(ctx, "a worker lost its hold on the queue and will take it again", "worker", p.name, "error", err)
		case err == nil && lost:
			p.log.InfoContext(ctx, "a worker has its hold on the queue again", "worker", p.name)
		}
		lost = err != nil
	}
}

func (p *presence) turn(ctx context.Context) error {
	if p.conn == nil {
		return p.enter(ctx)
	}
	if err := p.sweep(ctx, p.conn); err != nil {
		p.drop(ctx, p.conn)
		p.conn = nil
		return err
	}
	return nil
}

// drop closes the connection, and with it lets the lock go: given back to the pool it would hold it for ever.
func (p *presence) drop(ctx context.Context, conn *pgxpool.Conn) {
	// The lock is let go when ctx has ended too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Hijack().Close(ctx)
}

// sweep makes the running jobs of dead workers available, and ends the leadership of a dead one, without which River would promote
// no waiting job until it expired. The lock of each worker is tried once, before any row is touched, and let go with the statement's
// transaction; a job whose attempt is over meanwhile is left alone.
//
// It also brings back what River discarded: a job ends as completed, or as cancelled once its dead letter is kept. One that reached a
// bound of River's own, which whoever planted it chose, has no letter yet and would be deleted without one.
func (p *presence) sweep(ctx context.Context, conn *pgxpool.Conn) error {
	tag, err := conn.Exec(ctx, fmt.Sprintf(`
		with holders as materialized (
			select attempted_by[array_upper(attempted_by, 1)] as worker from %[1]s where state = 'running' and queue = $2
			union
			select leader_id from %[2]s
		), dead as materialized (
			select worker from holders where worker <> $1 and pg_try_advisory_xact_lock(hashtextextended(worker, $3))
		), deposed as (
			delete from %[2]s leader using dead where leader.leader_id = dead.worker
		), lost as (
			update %[1]s set state = 'retryable', finalized_at = null, max_attempts = $4, scheduled_at = now() + interval '1 second'
			where state = 'discarded' and queue = $2
		)
		update %[1]s job
		set state = 'available', scheduled_at = now(),
			errors = array_append(errors, jsonb_build_object('at', now(), 'attempt', attempt, 'error', 'the worker died', 'trace', ''))
		from dead
		where job.state = 'running' and job.queue = $2 and job.attempted_by[array_upper(job.attempted_by, 1)] = dead.worker`,
		table(p.schema, "river_job"), table(p.schema, "river_leader")), p.name, queueName, int64(lockSpace), riverTries)
	if err != nil {
		return fmt.Errorf("look for jobs of dead workers: %w", err)
	}
	if n := tag.RowsAffected(); n > 0 {
		p.log.WarnContext(ctx, "jobs of dead workers are available again", "worker", p.name, "jobs", n)
	}
	return nil
}
