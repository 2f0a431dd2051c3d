package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

func retried(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{})
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Attempt < 4 {
			return errors.New("not yet")
		}
		return nil
	})
	for want := range 4 {
		if job := next(t, b.jobs); job.Attempt != want+1 || job.Message.ID() != m.ID {
			t.Errorf("attempt %d, want %d", job.Attempt, want+1)
		}
	}
	b.flush(t)
	b.noLetters(t)
}

func lastFailure(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 3})
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Message.ID() != m.ID {
			return nil
		}
		if job.LastTry != (job.Attempt == 3) {
			t.Errorf("attempt %d says last: %v", job.Attempt, job.LastTry)
		}
		return fmt.Errorf("failure %d", job.Attempt)
	})
	l := next(t, b.letters)
	if l.Attempt != 3 || l.Reason != "failure 3" || !errors.Is(l.Err, queue.ErrGivenUp) || l.Verified == nil || l.Verified.ID() != m.ID || l.JobID == 0 {
		t.Errorf("dead letter is %+v", l)
	}
	for range 3 {
		next(t, b.jobs)
	}
	b.flush(t)
	b.insert(t, m, queue.InsertOpts{})
	b.flush(t)
	b.noLetters(t)
}

func permanent(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{})
	cause := errors.New("in vain")
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Message.ID() != m.ID {
			return nil
		}
		return fmt.Errorf("the handler: %w", queue.Permanent(cause))
	})
	if l := next(t, b.letters); l.Attempt != 1 || !errors.Is(l.Err, queue.ErrGivenUp) || !errors.Is(l.Err, cause) || l.Reason != "the handler: in vain" {
		t.Errorf("dead letter is %+v", l)
	}
	next(t, b.jobs)
	b.flush(t)
}

func snoozed(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 2})
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Message.ID() != m.ID || job.Attempt == 4 {
			return nil
		}
		if job.LastTry {
			t.Error("a snooze counted as a try")
		}
		return queue.Snooze(time.Millisecond)
	})
	for want := range 4 {
		if job := next(t, b.jobs); job.Attempt != want+1 {
			t.Errorf("attempt %d after %d: it must grow, for it fences", job.Attempt, want)
		}
	}
	b.flush(t)
	b.noLetters(t)
}

func panics(t *testing.T, b *bench) {
	const canary = "c4nary-2b1e"
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 2})
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Message.ID() == m.ID {
			panic(canary)
		}
		return nil
	})
	if l := next(t, b.letters); l.Attempt != 2 || strings.Contains(fmt.Sprintf("%+v", l), canary) {
		t.Errorf("dead letter is %+v", l)
	}
	next(t, b.jobs)
	next(t, b.jobs)
	b.flush(t)
}

func timeout(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 2})
	b.workFor(t, func(ctx context.Context, job queue.Job) error {
		if job.Message.ID() != m.ID {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}, 200*time.Millisecond)
	if l := next(t, b.letters); l.Attempt != 2 || !errors.Is(l.Err, context.DeadlineExceeded) {
		t.Errorf("dead letter is %+v", l)
	}
	next(t, b.jobs)
	next(t, b.jobs)
	b.flush(t)
}

func strangeKind(t *testing.T, b *bench) {
	b.insert(t, b.MessageOf(t, "somebody.elses", time.Hour), queue.InsertOpts{})
	b.work(t, done)
	if l := next(t, b.letters); !errors.Is(l.Err, queue.ErrMalformed) || !strings.Contains(l.Reason, "somebody.elses") || l.Attempt != 1 {
		t.Errorf("dead letter is %+v", l)
	}
	b.flush(t)
}

// Row Q28: the envelope is good, and the body that it vouches for names another workspace or tenant.
func bodyOfElsewhere(t *testing.T, b *bench) {
	workspace := id.NewWorkspace()
	b.work(t, func(_ context.Context, job queue.Job) error { return job.Message.Decode(new(queuev1.SlicePayload)) })
	bodies := []*queuev1.SlicePayload{
		{RunId: id.NewRun().String(), WorkspaceId: id.NewWorkspace().String(), TenantId: b.Tenant.String()},
		{RunId: id.NewRun().String(), WorkspaceId: workspace.String(), TenantId: id.NewTenant().String()},
		{RunId: id.NewRun().String(), WorkspaceId: workspace.String()},
		{RunId: id.NewRun().String(), TenantId: b.Tenant.String()},
	}
	for _, body := range bodies {
		raw, err := proto.Marshal(body)
		must(t, err)
		must(t, b.Plant(t.Context(), SignBlindly(t, b.Parties, workspace, raw), raw))
		if l := next(t, b.letters); !errors.Is(l.Err, queue.ErrForeign) || l.Verified != nil || l.Attempt != 1 {
			t.Errorf("dead letter is %+v", l)
		}
		next(t, b.jobs)
	}
	b.flush(t)
	b.noLetters(t)
	t.Attr("row", fmt.Sprintf("Q28 %d", len(bodies)))
}

func letterKept(t *testing.T, b *bench) {
	must(t, b.Plant(t.Context(), []byte("forged"), nil))
	offers := make(chan int, 10)
	n := 0
	w := b.Work(t, WorkerConfig{
		Verifier: b.Verifier, Handler: done, Timeout: time.Minute, Backoff: queue.Backoff{First: 20 * time.Millisecond, Most: 50 * time.Millisecond},
		DeadLetter: func(context.Context, queue.DeadLetter) error {
			n++
			offers <- n
			if n < 3 {
				return errors.New("there is no room")
			}
			return nil
		},
	})
	t.Cleanup(w.Stop)
	for want := range 3 {
		if got := next(t, offers); got != want+1 {
			t.Errorf("offer %d, want %d", got, want+1)
		}
	}
}

func killed(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	first := b.work(t, func(context.Context, queue.Job) error {
		<-release
		return nil
	})
	if job := next(t, b.jobs); job.Attempt != 1 {
		t.Errorf("attempt %d", job.Attempt)
	}
	first.Kill()
	start := time.Now()
	b.work(t, done)
	if job := next(t, b.jobs); job.Attempt != 2 || job.Message.ID() != m.ID {
		t.Errorf("after the kill attempt %d of %s", job.Attempt, job.Message.ID())
	}
	t.Logf("done by another %s after the kill", time.Since(start).Round(time.Millisecond))
	b.flush(t)
	b.noLetters(t)
}

func stopped(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 1})
	first := b.work(t, func(ctx context.Context, _ queue.Job) error {
		<-ctx.Done()
		return ctx.Err()
	})
	next(t, b.jobs)
	first.Stop()
	b.work(t, done)
	if job := next(t, b.jobs); job.Attempt != 2 || job.Message.ID() != m.ID {
		t.Errorf("after the stop attempt %d of %s", job.Attempt, job.Message.ID())
	}
	b.flush(t)
	b.noLetters(t)
}

func diesOnLastTry(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{MaxTries: 1})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	first := b.work(t, func(context.Context, queue.Job) error {
		<-release
		return nil
	})
	next(t, b.jobs)
	first.Kill()
	b.work(t, done)
	if l := next(t, b.letters); l.Attempt != 2 || !errors.Is(l.Err, queue.ErrGivenUp) || l.Verified == nil || l.Verified.ID() != m.ID {
		t.Errorf("dead letter is %+v", l)
	}
	b.flush(t)
}

func othersUnharmed(t *testing.T, b *bench) {
	bad := b.Message(t)
	b.insert(t, bad, queue.InsertOpts{MaxTries: queue.MostTries})
	b.work(t, func(_ context.Context, job queue.Job) error {
		if job.Message.ID() == bad.ID {
			return errors.New("always")
		}
		return nil
	})
	good := make(map[id.Message]bool)
	for range 20 {
		m := b.Message(t)
		good[m.ID] = true
		b.insert(t, m, queue.InsertOpts{})
	}
	for len(good) > 0 {
		delete(good, next(t, b.jobs).Message.ID())
	}
}
