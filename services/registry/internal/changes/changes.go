// Package changes wakes those who watch a thing of the registry (an operation, a rollout) when it changes. It promises that whoever
// subscribed before reading misses no change, with one connection for all watchers of a process and no polling. It relies on the
// transactions that change a thing to notify its channel with the thing's id.
package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"a3os.app/libs/pg"
)

// channel carries the ids of what changed.
const channel = "registry_changes"

const (
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = 5 * time.Second
	jitter       = 0.2
	// pingEvery finds a connection that died without a word.
	pingEvery = 15 * time.Second
)

// Hub hands notifications on to watchers.
type Hub struct {
	db *pg.DB

	mu       sync.Mutex
	watchers map[string]map[chan struct{}]struct{}
}

// New makes a hub, which listens with a connection of its own.
func New(db *pg.DB) *Hub {
	return &Hub{db: db, watchers: map[string]map[chan struct{}]struct{}{}}
}

// Subscribe answers a channel that holds a value when what has this id may have changed since it was last received from. cancel ends
// the subscription.
func (h *Hub) Subscribe(id string) (changed <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[id] == nil {
		h.watchers[id] = map[chan struct{}]struct{}{}
	}
	h.watchers[id][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.watchers[id], c); len(h.watchers[id]) == 0 {
			delete(h.watchers, id)
		}
	}
}

// wake wakes the watchers of an id.
func (h *Hub) wake(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.watchers[id] {
		select {
		case c <- struct{}{}:
		default: // it is awake already
		}
	}
}

func (h *Hub) wakeAll() {
	h.mu.Lock()
	ids := slices.Collect(maps.Keys(h.watchers))
	h.mu.Unlock()
	for _, id := range ids {
		h.wake(id)
	}
}

// Run listens until ctx ends, whose error it returns.
func (h *Hub) Run(ctx context.Context) error {
	policy := retrypolicy.NewBuilder[any]().WithMaxRetries(-1).WithBackoff(firstBackoff, mostBackoff).WithJitterFactor(jitter).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[any]) {
			slog.WarnContext(ctx, "not hearing of changes, watchers wait", "next_try_in", e.Delay, "error", e.LastError())
		}).Build()
	return failsafe.With(policy).WithContext(ctx).Run(func() error { return h.listen(ctx) })
}

func (h *Hub) listen(ctx context.Context) error {
	conn, err := h.db.Detached(ctx)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(cctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// What was notified while nobody listened is not heard any more: everybody looks once.
	h.wakeAll()
	for {
		wctx, cancel := context.WithTimeout(ctx, pingEvery)
		n, err := conn.WaitForNotification(wctx)
		cancel()
		switch {
		case err == nil:
			h.wake(n.Payload)
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !conn.IsClosed():
			if err := conn.Ping(ctx); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
		default:
			return fmt.Errorf("wait for a change: %w", err)
		}
	}
}
