package rollout_test

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/latency"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/rollout"
)

// bake is how long the tenant of these tests is watched, of which an hour passes in a moment.
const bake = 10 * time.Minute

// changed is how long before its bake its change began.
const changed = 10 * time.Second

// baked is a registry that remembers one rollout, of one tenant that is watched, and tells of it what a test says.
type baked struct {
	*remembered
	registryv1.UnimplementedTenantServiceServer
	registryv1.UnimplementedFigureServiceServer
	began time.Time
	// says is what is known of the tenant some time after its bake began; an error where nothing answers.
	says func(s *registryv1.TenantStatus, after time.Duration) error
	// was is what its set did in a window that ended some time after its bake began.
	was func(f *registryv1.TenantFigures, ended time.Duration)
	// is what its set did since.
	is func(f *registryv1.TenantFigures)
	// notes are what whoever carries the rollout out was told.
	notes []string
	// restarted is how long after its bake began the registry saw iam start anew.
	restarted []time.Duration
	// operator brings the tenant, where it is not there yet; recorded is what was said of it.
	operator rollout.Operator
	recorded []registryv1.RolloutTenantState
	// away is when nothing is answered that comes in, for as long as anybody waits.
	away func(after time.Duration) bool
}

// answers returns when a call is answered, or nobody waits any longer.
func (b *baked) answers(ctx context.Context) error {
	if b.away != nil && b.away(time.Since(b.began)) {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (b *baked) GetRollout(ctx context.Context, req *registryv1.GetRolloutRequest) (*registryv1.GetRolloutResponse, error) {
	if err := b.answers(ctx); err != nil {
		return nil, err
	}
	return b.remembered.GetRollout(ctx, req)
}

// restarts are those that the registry saw in a window.
func (b *baked) restarts(from, until time.Time) (n int32) {
	for _, at := range b.restarted {
		if at := b.began.Add(at); at.After(from) && !at.After(until) {
			n++
		}
	}
	return n
}

func (b *baked) GetTenant(ctx context.Context, _ *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	if err := b.answers(ctx); err != nil {
		return nil, err
	}
	s := &registryv1.TenantStatus{
		Tenant: &registryv1.Tenant{State: registryv1.TenantState_TENANT_STATE_ACTIVE}, ServiceSet: &registryv1.ServiceSet{Release: "2.0.0"},
		Reports: []*registryv1.ComponentReport{{Name: "iam", Health: registryv1.Health_HEALTH_SERVING, Release: "2.0.0", ReportedAt: timestamppb.Now(),
			StartedAt: timestamppb.New(b.began), Restarts: b.restarts(time.Time{}, time.Now()), Figures: &setv1.Figures{}}},
	}
	err := b.says(s, time.Since(b.began))
	return &registryv1.GetTenantResponse{Status: s}, err
}

func (b *baked) BatchGetFigures(_ context.Context, req *registryv1.BatchGetFiguresRequest) (*registryv1.BatchGetFiguresResponse, error) {
	f := &registryv1.TenantFigures{}
	if !req.GetUntil().IsValid() {
		from := req.GetFrom().AsTime().Truncate(time.Minute) // of each minute the first report is kept, and the last one before the window is told of
		f.From, f.Components = timestamppb.New(from), []*registryv1.ComponentFigures{{Name: "iam", Restarts: b.restarts(from, time.Now())}}
	}
	if b.is != nil && !req.GetUntil().IsValid() {
		b.is(f)
	}
	if b.was != nil && req.GetUntil().IsValid() {
		b.was(f, req.GetUntil().AsTime().Sub(b.began))
	}
	return &registryv1.BatchGetFiguresResponse{Figures: []*registryv1.TenantFigures{f}}, nil
}

// RecordRolloutTenant believes what it is told, and ends the rollout of one tenant with it.
func (b *baked) RecordRolloutTenant(ctx context.Context, req *registryv1.RecordRolloutTenantRequest) (*registryv1.RecordRolloutTenantResponse, error) {
	if err := b.answers(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.rollout.GetTenants()[0]
	if t.GetState() != req.GetState() {
		b.recorded, t.Since = append(b.recorded, req.GetState()), timestamppb.Now()
	}
	t.OperationId = cmp.Or(req.GetOperationId(), t.GetOperationId())
	t.State, t.Detail, t.Samples, t.Probes = req.GetState(), req.GetDetail(), req.GetSamples(), req.GetProbes()
	switch req.GetState() {
	case passed:
		b.rollout.State, b.rollout.EndedAt = registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED, timestamppb.Now()
	case failed:
		b.rollout.State = registryv1.RolloutState_ROLLOUT_STATE_HALTED
	default:
	}
	return &registryv1.RecordRolloutTenantResponse{}, nil
}

// noting keeps what is told of a rollout of one tenant.
type noting struct{ notes *[]string }

func (noting) Done(string, time.Duration) {}
func (n noting) Note(text string)         { *n.notes = append(*n.notes, text) }

// watched is the tenant when its bake is over, and how long that was.
func (b *baked) watched(t *testing.T, change func(*registryv1.Rollout), probe func(context.Context, string) error) (*registryv1.RolloutTenant, time.Duration) {
	t.Helper()
	b.began = time.Now()
	r := halted(1)
	r.State, r.Policy.Bake, r.Policy.Rollback = registryv1.RolloutState_ROLLOUT_STATE_RUNNING, durationpb.New(bake), registryv1.RollbackScope_ROLLBACK_SCOPE_NONE
	r.Policy.Gates = &registryv1.Gates{ErrorRatioGrowth: 0.01}
	x := r.GetTenants()[0]
	x.State, x.Attempts, x.Since = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING, 1, timestamppb.New(b.began)
	x.ChangedAt = timestamppb.New(b.began.Add(-changed))
	x.FirstChangedAt = x.GetChangedAt()
	if change != nil {
		change(r)
	}
	b.remembered = &remembered{rollout: r}
	conn := asked(t, func(server *grpc.Server) {
		registryv1.RegisterRolloutServiceServer(server, b)
		registryv1.RegisterRolloutWriteServiceServer(server, b)
		registryv1.RegisterTenantServiceServer(server, b)
		registryv1.RegisterFigureServiceServer(server, b)
	})
	if b.operator == nil {
		b.operator = &slow{}
	}
	e := &rollout.Engine{Conn: conn, Operator: b.operator, Report: noting{&b.notes}, Memory: holder.Memory(t.TempDir()), Probe: probe,
		Here: func(context.Context, string) error { return nil }}
	if _, err := e.Carry(t.Context(), r.GetId()); err != nil {
		t.Fatal(err)
	}
	return b.now().GetTenants()[0], time.Since(b.began)
}

// A set that falls silent while it is watched fails, however well it was when it was heard last. Where nobody could be heard, nobody is silent.
func TestSetThatFallsSilentDoesNotPass(t *testing.T) {
	for name, c := range map[string]struct {
		heard func(after time.Duration) (last time.Duration, err error)
		state registryv1.RolloutTenantState
		after time.Duration
	}{
		"one that reports":         {func(after time.Duration) (time.Duration, error) { return after, nil }, passed, bake},
		"one report, then nothing": {func(after time.Duration) (time.Duration, error) { return min(after, 5*time.Second), nil }, failed, 95 * time.Second},
		"silent near the end":      {func(after time.Duration) (time.Duration, error) { return min(after, 8*time.Minute), nil }, failed, 8*time.Minute + 90*time.Second},
		"the registry was away": {func(after time.Duration) (time.Duration, error) {
			switch {
			case after > time.Minute && after < 5*time.Minute:
				return 0, status.Error(codes.Unavailable, "it restarts")
			case after > time.Minute && after < 5*time.Minute+20*time.Second:
				return time.Minute, nil
			}
			return after, nil
		}, passed, bake},
		"silent since the registry was away": {func(after time.Duration) (time.Duration, error) {
			if after > time.Minute && after < 5*time.Minute {
				return 0, status.Error(codes.Unavailable, "it restarts")
			}
			return min(after, time.Minute), nil
		}, failed, 5*time.Minute + 90*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{}
				b.says = func(s *registryv1.TenantStatus, after time.Duration) error {
					last, err := c.heard(after)
					s.Reports[0].ReportedAt = timestamppb.New(b.began.Add(last))
					return err
				}
				x, took := b.watched(t, nil, nil)
				if x.GetState() != c.state || took < c.after || took > c.after+5*time.Second {
					t.Errorf("after %s it is %s: %s", took, x.GetState(), x.GetDetail())
				}
				if c.state == failed && !strings.Contains(x.GetDetail(), "iam has said nothing for") {
					t.Errorf("it failed because %s", x.GetDetail())
				}
			})
		})
	}
}

// In each attempt a tenant is held against what it did before the first: that the first was as bad excuses nothing.
func TestSecondAttemptIsHeldAgainstWhatWasBeforeTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		first time.Duration
		state registryv1.RolloutTenantState
	}{
		"a quarter of an hour ago":         {15 * time.Minute, failed},
		"longer ago than anything is kept": {48 * time.Hour, passed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{restarted: []time.Duration{-5 * time.Second}}
				b.says = func(s *registryv1.TenantStatus, _ time.Duration) error {
					s.Reports[0].Figures = &setv1.Figures{Requests: 1000, Errors: 300}
					return nil
				}
				b.was = func(f *registryv1.TenantFigures, ended time.Duration) {
					if f.Requests = 1000; ended > -c.first {
						f.Errors = 300 // the first attempt was as bad
					}
				}
				x, _ := b.watched(t, func(r *registryv1.Rollout) {
					r.Tenants[0].Attempts, r.Tenants[0].FirstChangedAt = 2, timestamppb.New(b.began.Add(-c.first))
				}, nil)
				if x.GetState() != c.state {
					t.Errorf("it is %s: %s", x.GetState(), x.GetDetail())
				}
				if c.state == failed && !strings.Contains(x.GetDetail(), "30.00 % of requests fail, 0.00 % did before") {
					t.Errorf("it failed because %s", x.GetDetail())
				}
			})
		})
	}
}

// A set that ran the release already goes on counting when it is begun again: what it had counted by then neither fails it nor is a sample.
func TestWhatWasCountedBeforeTheChangeIsNotOfIt(t *testing.T) {
	const long = -time.Hour
	figures := func(requests, errors, jobs int64) *setv1.Figures {
		return &setv1.Figures{Requests: requests, Errors: errors, FailedJobs: jobs}
	}
	for name, c := range map[string]struct {
		started time.Duration
		counts  func(after time.Duration) *setv1.Figures
		state   registryv1.RolloutTenantState
		says    string
		samples int64
	}{
		"as it was": {long, func(time.Duration) *setv1.Figures { return figures(10_000, 5_000, 3) }, passed, "", 100},
		"and fails since": {long, func(after time.Duration) *setv1.Figures {
			if after < time.Minute {
				return figures(10_000, 0, 3)
			}
			return figures(10_200, 100, 3)
		}, failed, "50.00 % of requests fail", 200},
		"and gives a job up": {long, func(after time.Duration) *setv1.Figures {
			if after < time.Minute {
				return figures(10_000, 0, 3)
			}
			return figures(10_000, 0, 4)
		}, failed, "1 jobs failed for good", 100},
		"and could not be asked at first": {long, func(after time.Duration) *setv1.Figures {
			if after < time.Minute {
				return nil
			}
			return figures(10_000, 5_000, 3)
		}, passed, "", 100},
		"and starts anew, well": {long, func(after time.Duration) *setv1.Figures {
			if after < time.Minute {
				return figures(10_000, 5_000, 3)
			}
			return figures(150, 0, 0)
		}, passed, "", 150},
		"started with the change":     {-time.Second, func(time.Duration) *setv1.Figures { return figures(500, 0, 1) }, failed, "1 jobs failed for good", 500},
		"started with it, asked much": {-time.Second, func(time.Duration) *setv1.Figures { return figures(500, 0, 0) }, passed, "", 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{}
				if c.started > -changed {
					b.restarted = []time.Duration{c.started}
				}
				b.says = func(s *registryv1.TenantStatus, after time.Duration) error {
					s.Reports[0].StartedAt, s.Reports[0].Figures = timestamppb.New(b.began.Add(c.started)), c.counts(after)
					return nil
				}
				x, _ := b.watched(t, func(r *registryv1.Rollout) { r.Policy.Samples = 100 }, func(context.Context, string) error { return nil })
				if x.GetState() != c.state || !strings.Contains(x.GetDetail(), c.says) || x.GetSamples() != c.samples {
					t.Errorf("it is %s with %d samples: %s", x.GetState(), x.GetSamples(), x.GetDetail())
				}
			})
		})
	}
}

// When a component started is by its set's clock, which may be another than the registry's: restarts are those that the registry saw.
func TestClockOfASetIsHeldAgainstNoOther(t *testing.T) {
	const ahead = 10 * time.Minute
	for name, c := range map[string]struct {
		clock time.Duration
		// restarted is when the registry saw it start anew; the bake began before for so long already, and somebody else watched.
		restarted []time.Duration
		before    time.Duration
		state     registryv1.RolloutTenantState
		says      string
	}{
		"as the registry's":       {0, []time.Duration{-5 * time.Second}, 0, passed, ""},
		"ahead":                   {ahead, []time.Duration{-5 * time.Second}, 0, passed, ""},
		"behind":                  {-ahead, []time.Duration{-5 * time.Second}, 0, passed, ""},
		"ahead, and it restarted": {ahead, []time.Duration{-5 * time.Second, time.Minute}, 0, failed, "1 restarts since the change"},
		"ahead, and taken up":     {ahead, []time.Duration{-5 * time.Minute}, 5*time.Minute - time.Second, passed, ""},
		"behind, and it restarted before it was taken up": {-ahead, []time.Duration{-5 * time.Minute, -2 * time.Minute}, 5*time.Minute - time.Second, failed, "1 restarts since the change"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{restarted: c.restarted}
				b.says = func(s *registryv1.TenantStatus, _ time.Duration) error {
					started := c.restarted[s.GetReports()[0].GetRestarts()-1]
					s.Reports[0].StartedAt = timestamppb.New(b.began.Add(started + c.clock))
					return nil
				}
				x, _ := b.watched(t, func(r *registryv1.Rollout) {
					x := r.Tenants[0]
					x.Since, x.ChangedAt = timestamppb.New(b.began.Add(-c.before)), timestamppb.New(b.began.Add(-c.before-changed))
				}, nil)
				if x.GetState() != c.state || !strings.Contains(x.GetDetail(), c.says) {
					t.Errorf("it is %s: %s", x.GetState(), x.GetDetail())
				}
			})
		})
	}
}

// What a process had counted before its tenant is begun again is not of that attempt, also where it started after by its own clock.
func TestWhatWasCountedBeforeIsNotOfTheChangeByAnyClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &baked{}
		b.says = func(s *registryv1.TenantStatus, _ time.Duration) error {
			s.Reports[0].StartedAt, s.Reports[0].Figures = timestamppb.New(b.began.Add(time.Minute)), &setv1.Figures{Requests: 1000, Errors: 500}
			return nil
		}
		if x, _ := b.watched(t, nil, nil); x.GetState() != passed {
			t.Errorf("it is %s: %s", x.GetState(), x.GetDetail())
		}
	})
}

// Whom somebody else changes while it is watched is neither failed nor passed by that: it is waited for.
func TestWhomSomebodyElseSuspendsIsNeitherFailedNorPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, told := &baked{}, ""
		b.says = func(s *registryv1.TenantStatus, after time.Duration) error {
			if after > time.Minute && after < time.Hour {
				s.Tenant.State, s.Reports[0].ReportedAt = registryv1.TenantState_TENANT_STATE_SUSPENDED, timestamppb.New(b.began.Add(time.Minute))
			}
			if after > 30*time.Minute && after < 31*time.Minute {
				told = b.now().GetTenants()[0].GetDetail()
			}
			return nil
		}
		x, took := b.watched(t, nil, func(context.Context, string) error { return errors.New("nobody is to ask it") })
		if x.GetState() != passed || took < time.Hour {
			t.Errorf("after %s it is %s: %s", took, x.GetState(), x.GetDetail())
		}
		if !strings.Contains(told, "tenant t0 is suspended") || !strings.Contains(told, "fleet rollout skip rol_1 t0") {
			t.Errorf("meanwhile it is said %q", told)
		}
	})
}

// One request that fails among the first few, as while a gateway starts anew, is one in a hundred by the time that a hundred were asked for.
func TestShareOfFailuresIsOfTheSamplesThatWereAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		misses, errors int64
		state          registryv1.RolloutTenantState
		says           string
	}{
		"one probe":                {1, 0, passed, ""},
		"two probes":               {2, 0, failed, "2 of 5 probes failed"},
		"one request of three":     {0, 1, passed, ""},
		"two requests of three":    {0, 2, failed, "66.67 % of requests fail"},
		"one probe and a request ": {1, 1, passed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, probes := &baked{restarted: []time.Duration{-time.Second}}, int64(0)
				b.says = func(s *registryv1.TenantStatus, _ time.Duration) error {
					s.Reports[0].StartedAt, s.Reports[0].Figures = timestamppb.New(b.began.Add(-time.Second)), &setv1.Figures{Requests: 3, Errors: c.errors}
					return nil
				}
				x, _ := b.watched(t, func(r *registryv1.Rollout) { r.Policy.Samples = 100 }, func(context.Context, string) error {
					if probes++; probes <= c.misses {
						return errors.New("not now")
					}
					return nil
				})
				if x.GetState() != c.state || !strings.Contains(x.GetDetail(), c.says) {
					t.Errorf("it is %s: %s", x.GetState(), x.GetDetail())
				}
			})
		})
	}
}

// Of less than a hundred requests the p99 is the slowest one, and one that fails is more than a hundredth: neither says anything, however few samples were
// asked for.
func TestFewRequestsFailNobody(t *testing.T) {
	const fast, slow = 5 * time.Millisecond, 101 * time.Millisecond
	for name, c := range map[string]struct {
		requests, slow, errors, samples int64
		state                           registryv1.RolloutTenantState
		says, note                      string
	}{
		"three, the first slow":               {3, 1, 0, 100, passed, "", "answered 3 requests while it was watched"},
		"twenty":                              {20, 1, 0, 100, passed, "", "answered 20 requests while it was watched"},
		"ninety":                              {90, 1, 0, 100, passed, "", "answered 90 requests while it was watched"},
		"fewer than the samples":              {400, 40, 0, 500, passed, "", "answered 400 requests while it was watched"},
		"enough, and the first slow":          {101, 1, 0, 100, passed, "", ""},
		"enough, and slow":                    {101, 10, 0, 100, failed, "p99 is", ""},
		"no samples, and one fails":           {20, 0, 1, 0, passed, "", "answered 20 requests while it was watched"},
		"no samples, and two fail":            {20, 0, 2, 0, failed, "10.00 % of requests fail", ""},
		"no samples, and one slow":            {20, 1, 0, 0, passed, "", "answered 20 requests while it was watched"},
		"no samples, and many slow":           {200, 40, 0, 0, failed, "p99 is", ""},
		"no samples, and a hundredth fail":    {300, 0, 3, 0, passed, "", ""},
		"no samples, and more than that fail": {300, 0, 4, 0, failed, "1.33 % of requests fail", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{restarted: []time.Duration{-time.Second}}
				b.says = func(s *registryv1.TenantStatus, _ time.Duration) error {
					s.Reports[0].StartedAt = timestamppb.New(b.began.Add(-time.Second))
					s.Reports[0].Figures = &setv1.Figures{Requests: c.requests, Errors: c.errors}
					return nil
				}
				b.was = func(f *registryv1.TenantFigures, _ time.Duration) { f.Requests, f.P99Seconds = 1000, fast.Seconds() }
				b.is = func(f *registryv1.TenantFigures) {
					var all latency.Counter
					for i := range c.requests {
						took := fast
						if i < c.slow {
							took = slow
						}
						all.Add(took)
					}
					f.Requests, f.P99Seconds = c.requests, latency.Quantile(all.Counts(), 0.99)
				}
				x, _ := b.watched(t, func(r *registryv1.Rollout) { r.Policy.Samples, r.Policy.Gates.P99Factor = c.samples, 3 },
					func(context.Context, string) error { return nil })
				if x.GetState() != c.state || !strings.Contains(x.GetDetail(), c.says) {
					t.Errorf("it is %s: %s", x.GetState(), x.GetDetail())
				}
				if told := strings.Join(b.notes, "; "); c.note == "" && strings.Contains(told, "while it was watched") || !strings.Contains(told, c.note) {
					t.Errorf("it was told %q", told)
				}
			})
		})
	}
}

// One report in which a component did not answer in time, or its database was started anew, says nothing of a release. Whoever does not serve for good
// halts the rollout within seconds, and nobody passes by a newest report that says that it does not serve.
func TestOneReportOfAMomentHaltsNothing(t *testing.T) {
	const (
		serving, not, unreachable = registryv1.Health_HEALTH_SERVING, registryv1.Health_HEALTH_NOT_SERVING, registryv1.Health_HEALTH_UNREACHABLE
		every                     = 5 * time.Second
	)
	// amiss says that a component is so from the nth report on, for as many.
	amiss := func(health registryv1.Health, from, count int) func(int) registryv1.Health {
		return func(n int) registryv1.Health {
			if n >= from && n < from+count {
				return health
			}
			return serving
		}
	}
	ever := int(bake) // more reports than there are
	last := int(bake / every)
	for name, c := range map[string]struct {
		health func(report int) registryv1.Health
		// every is how often the set reports, if not as sets do; release what it says while it doesn't serve, if not what it runs.
		every   time.Duration
		release string
		away    func(after time.Duration) bool
		state   registryv1.RolloutTenantState
		says    string
		after   time.Duration
	}{
		"one that does not serve":        {health: amiss(not, 12, 1), state: passed, after: bake},
		"one that did not answer":        {health: amiss(unreachable, 12, 1), state: passed, after: bake},
		"two in a row":                   {health: amiss(not, 12, 2), state: passed, after: bake},
		"one, and later two":             {health: func(n int) registryv1.Health { return max(amiss(not, 12, 1)(n), amiss(not, 14, 2)(n)) }, state: passed, after: bake},
		"three in a row":                 {health: amiss(not, 12, 3), state: failed, says: "iam does not serve: 3 reports in a row say so, the first of 10s ago", after: 70 * time.Second},
		"three in a row, by turns":       {health: func(n int) registryv1.Health { return max(amiss(unreachable, 12, 1)(n), amiss(not, 13, 2)(n)) }, state: failed, says: "iam does not serve: 3 reports", after: 70 * time.Second},
		"from the first on":              {health: amiss(unreachable, 0, ever), state: failed, says: "iam does not serve: 3 reports", after: 10 * time.Second},
		"from the last on":               {health: amiss(not, last, ever), state: failed, says: "iam does not serve: 3 reports", after: bake + 10*time.Second},
		"the last one alone":             {health: amiss(not, last, 1), state: passed, after: bake + every},
		"one, and no other for long":     {health: amiss(not, 1, 1), every: time.Minute, state: failed, says: "iam does not serve: 1 reports in a row say so, the first of 15s ago", after: 75 * time.Second},
		"one while another release runs": {health: amiss(not, 12, 1), release: "1.0.0", state: failed, says: "iam says that it runs 1.0.0", after: 60 * time.Second},
		"one, and the registry was away": {health: amiss(not, 12, 1), away: func(after time.Duration) bool { return after > 61*time.Second && after < 2*time.Minute }, state: passed, after: bake},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{}
				b.says = func(s *registryv1.TenantStatus, after time.Duration) error {
					if c.away != nil && c.away(after) {
						return status.Error(codes.Unavailable, "it restarts")
					}
					pace := cmp.Or(c.every, every)
					r, n := s.GetReports()[0], int(after/pace)
					if c.away != nil && after >= 2*time.Minute && after < 2*time.Minute+every {
						n = 12 // what is known is of before
					}
					r.ReportedAt, r.Health = timestamppb.New(b.began.Add(time.Duration(n)*pace)), c.health(n)
					switch r.GetHealth() {
					case not:
						r.Release = cmp.Or(c.release, r.GetRelease())
					case unreachable:
						r.Release, r.StartedAt, r.Figures = "", nil, nil
					default:
					}
					return nil
				}
				x, took := b.watched(t, nil, nil)
				if x.GetState() != c.state || !strings.Contains(x.GetDetail(), c.says) || took < c.after || took > c.after+2*time.Second {
					t.Errorf("after %s it is %s: %s", took, x.GetState(), x.GetDetail())
				}
			})
		})
	}
}
