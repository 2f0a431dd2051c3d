// Package denial counts what was refused to callers who could not be verified, and puts one event per action, source and minute on the
// record, however many came: a caller can't fill the log. A crash loses the counts of the last minute.
package denial

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/pg"
	"a3os.app/libs/record"
)

const mostSources = 1024

// Counter counts denials. It is safe for concurrent use.
type Counter struct {
	db     *pg.DB
	source func(ctx context.Context) string

	mu     sync.Mutex
	counts map[what]int
}

type what struct{ action, source string }

// NewCounter makes a counter that writes through db, whose role may insert into the audit inbox. source is the address a call came from.
func NewCounter(db *pg.DB, source func(ctx context.Context) string) *Counter {
	return &Counter{db: db, source: source, counts: map[what]int{}}
}

// Count counts one denial.
func (c *Counter) Count(ctx context.Context, action string) {
	w := what{action, c.source(ctx)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.counts[w]; !ok && len(c.counts) >= mostSources {
		w.source = "others"
	}
	c.counts[w]++
}

// Run writes what was counted each minute, until ctx ends, and then what is left.
func (c *Counter) Run(ctx context.Context) error {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-minute.C:
			c.report(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			c.report(last)
			return ctx.Err()
		}
	}
}

func (c *Counter) report(ctx context.Context) {
	if err := c.Flush(ctx); err != nil {
		slog.WarnContext(ctx, "denials can't be put on the record now, they are counted on", "error", err)
	}
}

// Flush writes what was counted. What can't be written is counted on.
func (c *Counter) Flush(ctx context.Context) error {
	c.mu.Lock()
	counts := c.counts
	c.counts = map[what]int{}
	c.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	events := make([]*auditv1.Event, 0, len(counts))
	for w, n := range counts {
		events = append(events, record.Count(w.action, w.source, n))
	}
	err := c.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error { return record.Insert(ctx, tx, events...) })
	if err != nil {
		c.mu.Lock()
		for w, n := range counts {
			c.counts[w] += n
		}
		c.mu.Unlock()
	}
	return err
}
