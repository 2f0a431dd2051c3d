// Package report tells the control plane how the set is, and hands over the log's newest checkpoint when it grew, so that the
// registry is a witness of the log without seeing any event. It is never on the way of a deed: a registry that is away, slow or
// wrong delays the next report and nothing else.
package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/ledger"
	"a3os.app/services/audit/internal/licensing"
)

const (
	// every is how often the set reports unless the registry asks for another pace, within shortest and longest.
	every    = 5 * time.Second
	shortest = time.Second
	longest  = 5 * time.Minute
	// afterStart is when the first one is made.
	afterStart = 500 * time.Millisecond
	// within bounds one report, and probe the question to one component.
	within = 5 * time.Second
	probe  = 2 * time.Second
)

// State is how a component is.
type State struct {
	// Health of it.
	Health registryv1.Health
	// Release it says it runs.
	Release string
	// StartedAt is when it started; zero where it doesn't say.
	StartedAt time.Time
	// Figures are what it counted since; nil where it doesn't say.
	Figures *setv1.Figures
}

// Component is a part of the set that can be asked.
type Component struct {
	// Name in the blueprint.
	Name string
	// Ask asks it. It must return when ctx ends.
	Ask func(ctx context.Context) State
}

// Reporter reports.
type Reporter struct {
	// Components are asked each time, all at once.
	Components []Component
	// Log is read without a caller's scope.
	Log ledger.Ledger
	// Verifier is that of the log's key.
	Verifier *tlog.Verifier
	// Registry is where reports go.
	Registry registryv1.ReportServiceClient
	// Link makes the connections there; it is told how often to report.
	Link *Link
	// Licence is what keeps the set's licence, and Usage what counts its use; nil where neither is spoken of.
	Licence *licensing.Keeper
	Usage   *licensing.Usage

	// witnessed is what the registry said it holds; -1 until it did.
	witnessed int64
	failing   string
	// reported is what the registry took last of the components, changed when that was not what it took before.
	reported []*registryv1.ComponentReport
	changed  time.Time
}

// New makes a reporter.
func New(registry registryv1.ReportServiceClient, link *Link, log ledger.Ledger, verifier *tlog.Verifier, components []Component) *Reporter {
	return &Reporter{Components: components, Log: log, Verifier: verifier, Registry: registry, Link: link, witnessed: -1}
}

// Run reports until ctx ends: at the registry's pace, and as soon as all components serve where they were not what they are now in the
// report before. Who waits for a set that was changed hears of it when it is so.
func (r *Reporter) Run(ctx context.Context) error {
	// To be asked who it is has a component read its whole program. This process has just started, and the set with it most likely: that
	// can wait until people are answered.
	r.sleep(ctx, afterStart)
	for ctx.Err() == nil {
		next, err := r.Once(ctx)
		r.tell(ctx, err)
		// Between 80 and 120 %: sets that start together don't report together for ever.
		jittered := time.Duration(float64(next) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter needs no secrecy
		f, refused := errors.AsType[*fault.Error](err)
		switch {
		case refused && f.RetryAfter > 0:
			r.sleep(ctx, next) // an appointment is kept as it is
		case err != nil:
			r.sleep(ctx, jittered) // who doesn't take reports is not asked more often for it
		default:
			r.until(ctx, jittered)
		}
	}
	return nil
}

func (*Reporter) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// until waits, at most that long, for something to report. It looks as long as the set is young or was not whole, and less and less often,
// so that a set which is left alone costs nothing.
func (r *Reporter) until(ctx context.Context, most time.Duration) {
	const young, soon, later = 30 * time.Second, 150 * time.Millisecond, 2 * time.Second
	end, wait := time.Now().Add(most), soon
	for ctx.Err() == nil && (time.Since(r.changed) < young || !serves(r.reported)) {
		left := time.Until(end)
		if left <= wait {
			break
		}
		r.sleep(ctx, wait)
		now := r.ask(ctx)
		if serves(now) && !same(now, r.reported) {
			return
		}
		wait = min(wait+wait/8, later)
	}
	r.sleep(ctx, time.Until(end))
}

// serves says whether every component does.
func serves(all []*registryv1.ComponentReport) bool {
	return !slices.ContainsFunc(all, func(c *registryv1.ComponentReport) bool { return c.GetHealth() != registryv1.Health_HEALTH_SERVING })
}

// same says whether components are what they were: their processes, their releases and their health.
func same(a, b []*registryv1.ComponentReport) bool {
	return slices.EqualFunc(a, b, func(x, y *registryv1.ComponentReport) bool {
		return x.GetName() == y.GetName() && x.GetHealth() == y.GetHealth() && x.GetRelease() == y.GetRelease() && proto.Equal(x.GetStartedAt(), y.GetStartedAt())
	})
}

// tell logs failures when they begin, change and end.
func (r *Reporter) tell(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text != "" && text != r.failing:
		slog.WarnContext(ctx, "the control plane did not take the report; the set works on", "error", err)
	case text == "" && r.failing != "":
		slog.InfoContext(ctx, "the control plane takes reports again")
	}
	r.failing = text
}

// Once makes one report and says when to make the next.
func (r *Reporter) Once(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req := &registryv1.ReportRequest{Components: r.ask(ctx)}
	var damage error
	if r.witnessed >= 0 {
		damage = r.grown(ctx, req)
	}
	if l, err := r.Log.Load(ctx); err == nil {
		req.AuditBacklog, req.AuditBacklogAgeSeconds = l.Backlog, int64(l.Oldest/time.Second)
		req.DatabaseBytes, req.DatabaseConnections = l.DatabaseBytes, l.Connections
	}
	r.licence(ctx, req)
	res, err := r.Registry.Report(ctx, req)
	if err != nil {
		// What the registry holds may have changed with it: ask before the next checkpoint.
		r.witnessed = -1
		answered := fault.FromRPC(err)
		next := every
		if f, ok := errors.AsType[*fault.Error](answered); ok && f.RetryAfter > 0 {
			// It has more to do than it can, and says when it is this set's turn.
			next = min(max(f.RetryAfter, shortest), longest)
		}
		return next, errors.Join(damage, fmt.Errorf("report: %w", answered))
	}
	r.witnessed = res.GetWitnessedSize()
	if !same(req.GetComponents(), r.reported) {
		r.changed = time.Now()
	}
	r.reported = req.GetComponents()
	r.answered(ctx, res)
	next := time.Duration(res.GetNextReportSeconds()) * time.Second
	if next == 0 {
		next = every
	}
	r.Link.Paced(next)
	return min(max(next, shortest), longest), damage
}

// LatestFor is the newest checkpoint and the proof that it grew from the size that a witness holds; an empty note where there is
// nothing newer. A witness that holds more than the log has is handed the checkpoint without a proof, and an error says so: it has
// to see that the log was cut short.
func (r *Reporter) LatestFor(ctx context.Context, size int64) (note string, proof [][]byte, err error) {
	head, err := r.Log.Newest(ctx)
	switch {
	case errors.Is(err, tlog.ErrEmpty):
		head = ledger.Head{}
	case err != nil:
		return "", nil, err
	}
	if head.Size == size {
		return "", nil, nil
	}
	if head.Size < size {
		return head.Note, nil, fmt.Errorf("the audit log has %d entries and its witness saw %d: it was cut short, or its database restored from an older backup", head.Size, size)
	}
	if head, proof, err = r.Log.Growth(ctx, size); err != nil {
		return "", nil, err
	}
	return head.Note, proof, nil
}

func (r *Reporter) grown(ctx context.Context, req *registryv1.ReportRequest) error {
	note, proof, err := r.LatestFor(ctx, r.witnessed)
	if note != "" {
		req.Checkpoint, req.CheckpointVerifierKey, req.ConsistencyProof = note, r.Verifier.String(), proof
	}
	return err
}

// ask asks all components at once.
func (r *Reporter) ask(ctx context.Context) []*registryv1.ComponentReport {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	out := make([]*registryv1.ComponentReport, len(r.Components))
	var asked sync.WaitGroup
	for i, c := range r.Components {
		asked.Go(func() {
			s := c.Ask(ctx)
			out[i] = &registryv1.ComponentReport{Name: c.Name, Health: s.Health, Release: s.Release, Figures: s.Figures}
			if !s.StartedAt.IsZero() {
				out[i].StartedAt = timestamppb.New(s.StartedAt)
			}
		})
	}
	asked.Wait()
	return out
}
