// Package queuetest is what every driver of package queue must pass.
package queuetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

// Kind is the one kind of work that the suite's workers do.
const Kind = "discovery.slice"

// patience bounds every wait of the suite.
const patience = 30 * time.Second

// Parties are the signer and the verifier of one tenant.
type Parties struct {
	Plane    string
	Tenant   id.Tenant
	Key      queue.SigningKey
	Signer   *queue.Signer
	Verifier *queue.Verifier
}

// WorkerConfig is what the suite asks of a worker that a driver starts.
type WorkerConfig struct {
	Verifier   *queue.Verifier
	Handler    queue.Handler
	DeadLetter queue.DeadLetterFunc
	Timeout    time.Duration
	Backoff    queue.Backoff
}

// Worker is a running worker.
type Worker struct {
	// Stop ends it in an orderly manner and waits for it.
	Stop func()
	// Kill makes it vanish as if its process were killed: what it was doing is never acknowledged.
	Kill func()
}

// Queue is an empty queue of a driver.
type Queue struct {
	// Insert enqueues in a transaction of its own.
	Insert func(ctx context.Context, m queue.Message, opts queue.InsertOpts) error
	// InsertAndRollBack enqueues in a transaction that is rolled back.
	InsertAndRollBack func(ctx context.Context, m queue.Message) error
	// Plant puts bytes in that no signer made.
	Plant func(ctx context.Context, envelope, payload []byte) error
	// DeliversAgain says that a message without a job, of which the driver remembers nothing, may come again although it was refused, and
	// may have been delivered before to nobody.
	DeliversAgain bool
	// Work starts a worker.
	Work func(t *testing.T, cfg WorkerConfig) Worker
}

// NewParties makes a signer and a verifier.
func NewParties(t testing.TB, tenant id.Tenant, plane string) Parties {
	t.Helper()
	key, err := queue.NewSigningKey()
	must(t, err)
	p := Parties{Plane: plane, Tenant: tenant, Key: key}
	p.Signer, err = queue.NewSigner(queue.SignerConfig{Key: key, Plane: plane, Tenant: tenant, Issuer: "discovery"})
	must(t, err)
	p.Verifier, err = queue.NewVerifier(queue.VerifierConfig{Keys: key.Public(), Plane: plane, Tenant: tenant, Issuer: "discovery"})
	must(t, err)
	return p
}

// Message makes a good message.
func (p Parties) Message(t testing.TB) queue.Message {
	t.Helper()
	return p.MessageOf(t, Kind, time.Hour)
}

// MessageOf makes a good message of a kind that is valid for ttl.
func (p Parties) MessageOf(t testing.TB, kind string, ttl time.Duration) queue.Message {
	t.Helper()
	workspace := id.NewWorkspace()
	m, err := p.Signer.Sign(&queuev1.SlicePayload{
		RunId: id.NewRun().String(), IntegrationId: id.NewIntegration().String(), Slice: 3, WorkspaceId: workspace.String(), TenantId: p.Tenant.String(),
	}, workspace, kind, queue.BySchedule, ttl)
	must(t, err)
	return m
}

// Run runs the suite; open makes an empty queue.
func Run(t *testing.T, open func(*testing.T) Queue) {
	for name, test := range map[string]func(*testing.T, *bench){
		"MessageArrivesVerified":               arrives,
		"RolledBackMessageNeverArrives":        rolledBack,
		"MessageEnqueuedManyTimesIsOneJob":     once,
		"UniqueKeyHoldsAcrossMessages":         uniqueKey,
		"FailureIsTriedAgainWithBackoff":       retried,
		"LastFailureBecomesADeadLetter":        lastFailure,
		"PermanentFailureIsNotTriedAgain":      permanent,
		"SnoozeDoesNotCountAsATry":             snoozed,
		"PanicIsAFailureAndTellsNothing":       panics,
		"HandlerThatTakesTooLongIsCutOff":      timeout,
		"RefusedMessagesAreDeadLetters":        refused,
		"KindThatNobodyDoesIsADeadLetter":      strangeKind,
		"BodyOfElsewhereIsADeadLetterAtOnce":   bodyOfElsewhere,
		"DeadLetterIsOfferedUntilItIsKept":     letterKept,
		"WorkOfAKilledWorkerIsDoneByAnother":   killed,
		"WorkOfAStoppedWorkerIsNotLost":        stopped,
		"LastTryThatDiesBecomesADeadLetter":    diesOnLastTry,
		"FailingMessageDoesNotHoldUpTheOthers": othersUnharmed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &bench{Queue: open(t), Parties: NewParties(t, id.NewTenant(), "dev"), jobs: make(chan queue.Job, 1000), letters: make(chan queue.DeadLetter, 1000)}
			test(t, b)
		})
	}
}

// bench is one test's queue, parties, and what its workers saw.
type bench struct {
	Queue
	Parties
	jobs    chan queue.Job
	letters chan queue.DeadLetter
}

// work starts a worker whose handler reports each delivery and then does what handler says.
func (b *bench) work(t *testing.T, handler queue.Handler) Worker {
	t.Helper()
	return b.workFor(t, handler, time.Minute)
}

func (b *bench) workFor(t *testing.T, handler queue.Handler, timeout time.Duration) Worker {
	t.Helper()
	w := b.Work(t, WorkerConfig{
		Verifier: b.Verifier,
		Handler: func(ctx context.Context, job queue.Job) error {
			b.jobs <- job
			return handler(ctx, job)
		},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error {
			b.letters <- l
			return nil
		},
		Timeout: timeout,
		Backoff: queue.Backoff{First: 20 * time.Millisecond, Most: 100 * time.Millisecond},
	})
	var once sync.Once
	end := Worker{Stop: func() { once.Do(w.Stop) }, Kill: func() { once.Do(w.Kill) }}
	t.Cleanup(end.Stop)
	return end
}

func (b *bench) insert(t *testing.T, m queue.Message, opts queue.InsertOpts) {
	t.Helper()
	must(t, b.Insert(t.Context(), m, opts))
}

// flush proves that nothing else is waiting in the queue: a message enqueued last arrives, and nothing arrived before it.
func (b *bench) flush(t *testing.T) {
	t.Helper()
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{})
	if job := next(t, b.jobs); job.Message.ID() != m.ID {
		t.Errorf("message %s arrived, attempt %d, and should not have", job.Message.ID(), job.Attempt)
	}
}

func (b *bench) noLetters(t *testing.T) {
	t.Helper()
	select {
	case l := <-b.letters:
		t.Errorf("a dead letter: %s", l.Reason)
	default:
	}
}

func done(context.Context, queue.Job) error { return nil }

func arrives(t *testing.T, b *bench) {
	m := b.Message(t)
	b.insert(t, m, queue.InsertOpts{})
	b.work(t, done)
	job := next(t, b.jobs)
	var payload queuev1.SlicePayload
	must(t, job.Message.Decode(&payload))
	v := job.Message
	if v.ID() != m.ID || v.Tenant() != b.Tenant || v.Workspace().String() != payload.GetWorkspaceId() || v.Kind() != Kind || payload.GetSlice() != 3 ||
		job.Attempt != 1 || job.LastTry || job.ID == 0 || v.Header() != queue.EncodeHeader(m) {
		t.Errorf("arrived as %+v", job)
	}
	b.flush(t)
	b.noLetters(t)
}

func rolledBack(t *testing.T, b *bench) {
	must(t, b.InsertAndRollBack(t.Context(), b.Message(t)))
	b.work(t, done)
	b.flush(t)
}

func once(t *testing.T, b *bench) {
	m := b.Message(t)
	b.work(t, done)
	b.work(t, done)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := b.Insert(t.Context(), m, queue.InsertOpts{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if job := next(t, b.jobs); job.Message.ID() != m.ID {
		t.Errorf("message %s arrived", job.Message.ID())
	}
	// Neither while it is known as done.
	b.insert(t, m, queue.InsertOpts{})
	b.flush(t)
}

func uniqueKey(t *testing.T, b *bench) {
	first, second, third := b.Message(t), b.Message(t), b.Message(t)
	b.insert(t, first, queue.InsertOpts{UniqueKey: "run/1"})
	b.insert(t, second, queue.InsertOpts{UniqueKey: "run/1"})
	b.insert(t, third, queue.InsertOpts{UniqueKey: "run/2"})
	b.work(t, done)
	got := map[id.Message]bool{next(t, b.jobs).Message.ID(): true, next(t, b.jobs).Message.ID(): true}
	if !got[first.ID] || !got[third.ID] {
		t.Errorf("arrived: %v", got)
	}
	b.flush(t)
}

// next waits for what a worker reports.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("nothing arrived in %s", patience)
		panic("unreachable")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
