package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
)

const (
	// wholeShare is the part of the time that whole looks for work may take, as its inverse.
	wholeShare = 20
	// putOff is how long a whole look is put off at most, whatever it takes, and then once more where newer jobs never end.
	putOff = 2 * time.Second
	// usualPriority is that of all jobs that are enqueued here.
	usualPriority = 1
)

// driver is River's, but for how it looks for work. River looks from the oldest job on, and as long as a transaction stays open that is older
// than the jobs, PostgreSQL can't forget what became of those that are done: each look passes all of them. Ours goes on where the last one
// found something. What lies before that, as a job does whose transaction took long or that is tried again, is found by the whole look, which
// is made where ours finds too little, as often as a small share of the time allows.
type driver struct {
	*riverpgxv5.Driver
	looks *looks
}

func newDriver(pool *pgxpool.Pool) driver {
	d := riverpgxv5.New(pool)
	return driver{Driver: d, looks: &looks{pool: pool, river: d}}
}

// GetExecutor implements riverdriver.Driver.
func (d driver) GetExecutor() riverdriver.Executor { return executor{d.Driver.GetExecutor(), d.looks} }

type executor struct {
	riverdriver.Executor
	looks *looks
}

// JobGetAvailable implements riverdriver.Executor.
func (e executor) JobGetAvailable(ctx context.Context, of *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	began := time.Now()
	from, due, overdue := e.looks.next(began)
	out := &riverdriver.JobGetAvailableResult{}
	if !overdue && of.Kind == nil && of.Now == nil {
		jobs, err := e.looks.recent(ctx, of, from)
		// Where it failed it took nothing, or all that was lost is the answer, as it may be to River's own look: its rescuer finds what nobody works
		// on. A row that can't be read is River's to deal with.
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the newest jobs could not be looked for, and all are", "error", err)
		}
		if err == nil && (len(jobs) == of.MaxToLock || !due) {
			e.looks.found(jobs)
			out.Jobs = jobs
			return out, nil
		}
		out.Jobs, began = jobs, time.Now()
	}
	rest := *of
	rest.MaxToLock -= len(out.Jobs)
	whole, err := e.Executor.JobGetAvailable(ctx, &rest)
	if err != nil && len(out.Jobs) == 0 {
		return nil, err
	}
	if err == nil { // otherwise there will be another: what was taken is to be worked on
		out.Jobs, out.DecodeErrors = append(out.Jobs, whole.Jobs...), whole.DecodeErrors
		e.looks.tookWhole(began, time.Now())
	}
	e.looks.found(out.Jobs)
	return out, nil
}

// looks is what the looks of one worker have seen.
type looks struct {
	pool  *pgxpool.Pool
	river *riverpgxv5.Driver

	mu sync.Mutex
	// from is when the first job was due that was found last; zero before any was.
	from time.Time
	// whole is when the next whole look is due.
	whole time.Time
}

// next says since when to look first, whether a whole look is due for what that doesn't fill, and whether it is the first thing to do.
func (l *looks) next(now time.Time) (from time.Time, due, overdue bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from, !now.Before(l.whole), l.from.IsZero() || !now.Before(l.whole.Add(putOff))
}

func (l *looks) found(jobs []*rivertype.JobRow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, j := range jobs {
		if i == 0 || j.ScheduledAt.Before(l.from) {
			l.from = j.ScheduledAt
		}
	}
}

func (l *looks) tookWhole(began, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = ended.Add(min(wholeShare*ended.Sub(began), putOff))
}

// recent takes jobs that were due at a time or later, as River's own look does (JobGetAvailable in river_job.sql of its driver).
func (l *looks) recent(ctx context.Context, of *riverdriver.JobGetAvailableParams, from time.Time) (jobs []*rivertype.JobRow, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			with taken as (
				select id from %[1]s
				where state = 'available' and queue = $1 and priority = $2 and scheduled_at >= $3 and scheduled_at <= now()
				order by scheduled_at, id limit $4 for update skip locked
			)
			update %[1]s job set state = 'running', attempt = job.attempt + 1, attempted_at = now(),
				attempted_by = array_append(case when array_length(job.attempted_by, 1) >= $5
					then job.attempted_by[array_length(job.attempted_by, 1) + 2 - $5:] else job.attempted_by end, $6)
			from taken where job.id = taken.id
			returning job.id`, table(of.Schema, "river_job")),
			of.Queue, usualPriority, from, of.MaxToLock, of.MaxAttemptedBy, of.ClientID)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(ids) == 0 {
			return err
		}
		jobs, err = l.river.UnwrapExecutor(tx).JobGetByIDMany(ctx, &riverdriver.JobGetByIDManyParams{ID: ids, Schema: of.Schema})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for jobs since %s: %w", from, err)
	}
	return jobs, nil
}
