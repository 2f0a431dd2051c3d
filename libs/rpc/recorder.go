package rpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
)

const (
	// flushEvery and flushAt bound what a crash loses: the denials and reads of the last half second, 200 at most.
	flushEvery = 500 * time.Millisecond
	flushAt    = 200
	// waiting bounds what is held while the database is away; past it, events are counted and not kept.
	waiting = 4096
)

// Recorder puts denials and reads on the record, in batches beside the calls: a denial stands even where its event can't be
// written. A crash loses at most the last 0.5 s or 200 events of them; deeds are recorded by their own transactions and lose none.
// A nil Recorder records nothing.
type Recorder struct {
	db      *pg.DB
	events  chan *auditv1.Event
	mu      sync.Mutex
	lost    int
	unknown map[string]int
	missed  map[miss]*missing
}

// miss is who asked for something that isn't there, and by what. Row-level security can't tell what never was from what is somebody
// else's; a person who tries ids shows in how often.
type miss struct {
	caller, behalf scope.Principal
	workspace      id.Workspace
	procedure      string
}

// missing is the first of a minute's misses, as an event, and how many there were.
type missing struct {
	event *auditv1.Event
	count int
}

// NewRecorder makes a recorder that writes through db, whose role may insert into the audit inbox.
func NewRecorder(db *pg.DB) *Recorder {
	return &Recorder{db: db, events: make(chan *auditv1.Event, waiting), unknown: map[string]int{}, missed: map[miss]*missing{}}
}

// Run writes what is recorded until ctx ends, and then what is left.
func (r *Recorder) Run(ctx context.Context) {
	flush, minute := time.NewTicker(flushEvery), time.NewTicker(time.Minute)
	defer flush.Stop()
	defer minute.Stop()
	batch := make([]*auditv1.Event, 0, flushAt)
	write := func(ctx context.Context) {
		if len(batch) > 0 && r.write(ctx, batch) {
			batch = batch[:0]
		}
	}
	for {
		in := r.events
		if len(batch) >= flushAt {
			// What can't be written waits in the channel, which is bounded.
			in = nil
		}
		select {
		case e := <-in:
			if batch = append(batch, e); len(batch) == flushAt {
				write(ctx)
			}
		case <-flush.C:
			write(ctx)
		case <-minute.C:
			r.count(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			r.count(last)
			for len(r.events) > 0 {
				batch = append(batch, <-r.events)
			}
			write(last)
			return
		}
	}
}

func (r *Recorder) write(ctx context.Context, batch []*auditv1.Event) bool {
	err := r.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error { return record.Insert(ctx, tx, batch...) })
	if err != nil {
		slog.WarnContext(ctx, "denials and reads can't be put on the record now, they wait", "events", len(batch), "error", err)
	}
	return err == nil
}

func (r *Recorder) put(ctx context.Context, e *auditv1.Event) {
	select {
	case r.events <- e:
	default:
		r.mu.Lock()
		r.lost++
		lost := r.lost
		r.mu.Unlock()
		slog.WarnContext(ctx, "an event of a denial or read was lost: the record is too far behind", "action", e.GetAction(), "lost", lost)
	}
}

// unverified counts a caller that could not be verified: one event per source and minute says how many.
func (r *Recorder) unverified(ctx context.Context, _ string, _ error) {
	if r == nil {
		return
	}
	const mostSources = 1024
	source := callctx.From(ctx).SourceAddress
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.unknown[source]; !ok && len(r.unknown) >= mostSources {
		source = "others"
	}
	r.unknown[source]++
}

// notFound counts an authenticated caller's request for what isn't there: one event per caller, method and minute says how many.
func (r *Recorder) notFound(ctx context.Context, sc scope.Scope, procedure string) {
	const mostMissed = 4096
	key := miss{sc.Principal, sc.OnBehalfOf, sc.Workspace, procedure}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.missed[key]
	if m == nil {
		if len(r.missed) >= mostMissed {
			r.lost++
			return
		}
		m = &missing{event: record.Build(ctx, sc, record.Event{Action: "rpc.call.not_found", Target: procedure, Outcome: auditv1.Outcome_OUTCOME_DENIED})}
		r.missed[key] = m
	}
	m.count++
}

// count puts what was counted in the last minute on the record.
func (r *Recorder) count(ctx context.Context) {
	r.mu.Lock()
	unknown, missed := r.unknown, r.missed
	r.unknown, r.missed = map[string]int{}, map[miss]*missing{}
	r.mu.Unlock()
	for source, n := range unknown {
		r.put(ctx, record.Count("rpc.caller.unverified", source, n))
	}
	for _, m := range missed {
		r.put(ctx, record.Counted(m.event, m.count))
	}
}

// recordDenial records an authenticated caller's denial, and counts an unknown one's, and what was asked for and not found.
func (s *Server) recordDenial(ctx context.Context, c *call, err error) error {
	r := s.cfg.Recorder
	if err == nil || r == nil {
		return err
	}
	kind := fault.KindOf(err)
	switch kind {
	case fault.PermissionDenied, fault.Unauthenticated, fault.NotFound:
	default:
		return err
	}
	if c.caller.claims == nil && c.caller.peer.Service == "" {
		r.unverified(ctx, c.rule.Procedure, err)
		return err
	}
	sc, serr := scope.From(ctx)
	if serr != nil {
		// The scope itself was refused: what is recorded is who asked, and nothing of where.
		sc = scope.Scope{Principal: c.caller.principal()}
	}
	if kind == fault.NotFound {
		r.notFound(ctx, sc, c.rule.Procedure)
		return err
	}
	r.put(ctx, record.Build(ctx, sc, record.Event{Action: "rpc.call.denied", Target: c.rule.Procedure,
		Outcome: auditv1.Outcome_OUTCOME_DENIED}))
	return err
}

func keepRequest(_ context.Context, c *call, m proto.Message) error {
	if c.request == nil && c.rule.GetAccessData() {
		c.request = m
	}
	return nil
}

// recordRead records that access data, or the record of it, was read, and what was asked. The action is the permission to.
func (s *Server) recordRead(ctx context.Context, c *call, err error) error {
	if err != nil || s.cfg.Recorder == nil || !c.rule.GetAccessData() {
		return err
	}
	sc, serr := scope.From(ctx)
	if serr != nil {
		return err
	}
	s.cfg.Recorder.put(ctx, record.Build(ctx, sc, record.Event{Action: c.rule.GetPermission(), Target: c.rule.Procedure, After: c.request}))
	return err
}

// principal is who called, for the record of a refused scope.
func (c *caller) principal() scope.Principal {
	if c.claims != nil {
		return c.claims.Principal
	}
	return scope.Workload(c.peer.Service)
}
