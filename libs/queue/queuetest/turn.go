package queuetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Turn is one turn of a benchmark: so many messages, enqueued while they are worked on, until the last is done.
type Turn struct {
	left atomic.Int64
	over chan struct{}
}

// Done notes that a message is done.
func (t *Turn) Done() {
	if t.left.Add(-1) == 0 {
		close(t.over)
	}
}

// Take enqueues a turn's messages by so many producers at once, and answers how long it was until the last was done.
func (t *Turn) Take(b *testing.B, messages int64, producers int, enqueue func() error) time.Duration {
	b.Helper()
	const most = 5 * time.Minute
	t.over = make(chan struct{})
	t.left.Store(messages)
	var next atomic.Int64
	began := time.Now()
	var all sync.WaitGroup
	for range producers {
		all.Go(func() {
			for next.Add(1) <= messages {
				if err := enqueue(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	select {
	case <-t.over:
	case <-time.After(most):
		b.Fatalf("%d messages were not done", t.left.Load())
	}
	return time.Since(began)
}
