package issuer

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/record"
)

const (
	// noteAgainAfter is how often the same sign-in or exchange goes on the record: tokens live for minutes, and their clients come back.
	noteAgainAfter = time.Hour
	mostNoted      = 4096
)

// seen is which sign-ins and exchanges are on the record already, by what they are. Forgetting one records it again.
type seen struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[string]time.Time
}

func newSeen(now func() time.Time) *seen { return &seen{now: now, at: map[string]time.Time{}} }

// noted is what a transaction put on the record, to be remembered once it has committed.
type noted struct{ key string }

func (s *seen) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[key]
	return ok && s.now().Sub(at) < noteAgainAfter
}

func (s *seen) add(n *noted) {
	if n.key == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) >= mostNoted {
		clear(s.at)
	}
	s.at[n.key] = s.now()
}

// note records an event of a principal, once an hour for the same key.
func (i *Issuer) note(ctx context.Context, tx pgx.Tx, n *noted, principal, key string, e record.Event) error {
	n.key = ""
	if i.seen.has(key) {
		return nil
	}
	n.key = key
	return record.AppendUnknown(ctx, tx, principal, e)
}
