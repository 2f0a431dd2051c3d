package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/rollout"
)

const (
	passed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED
	failed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED
	rollingBack = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK
	rolledBack  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
)

// remembered is a registry that remembers one rollout and believes all that it is told of its tenants. It is a fake, for the hours that work
// takes here pass in a moment, which no real one lets them; that a real one sees the same, the system tests say.
type remembered struct {
	registryv1.UnimplementedRolloutServiceServer
	registryv1.UnimplementedRolloutWriteServiceServer
	mu      sync.Mutex
	rollout *registryv1.Rollout
	// waits is what was said to be waited for, whenever the lease was renewed.
	waits []string
}

func (f *remembered) now() *registryv1.Rollout {
	f.mu.Lock()
	defer f.mu.Unlock()
	return proto.CloneOf(f.rollout)
}

func (f *remembered) GetRollout(context.Context, *registryv1.GetRolloutRequest) (*registryv1.GetRolloutResponse, error) {
	return &registryv1.GetRolloutResponse{Rollout: f.now()}, nil
}

func (f *remembered) TakeRolloutLease(_ context.Context, req *registryv1.TakeRolloutLeaseRequest) (*registryv1.TakeRolloutLeaseResponse, error) {
	return &registryv1.TakeRolloutLeaseResponse{Rollout: f.now(), LeaseToken: req.GetLeaseToken()}, nil
}

func (f *remembered) RenewRolloutLease(_ context.Context, req *registryv1.RenewRolloutLeaseRequest) (*registryv1.RenewRolloutLeaseResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits = append(f.waits, req.GetWaitsFor())
	return &registryv1.RenewRolloutLeaseResponse{}, nil
}

func (*remembered) ReleaseRolloutLease(context.Context, *registryv1.ReleaseRolloutLeaseRequest) (*registryv1.ReleaseRolloutLeaseResponse, error) {
	return &registryv1.ReleaseRolloutLeaseResponse{}, nil
}

func (f *remembered) RecordRolloutTenant(_ context.Context, req *registryv1.RecordRolloutTenantRequest) (*registryv1.RecordRolloutTenantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.rollout.GetTenants() {
		if t.GetTenantId() == req.GetTenantId() {
			t.State = req.GetState()
		}
	}
	return &registryv1.RecordRolloutTenantResponse{Rollout: proto.CloneOf(f.rollout)}, nil
}

// slow brings tenants to a release in a time, and is told of who can't be.
type slow struct {
	takes        time.Duration
	unable       []string
	mu           sync.Mutex
	atOnce, most int
	brought      []string
}

func (o *slow) Bring(ctx context.Context, a rollout.Attempt) error {
	slug := a.Tenant.GetSlug()
	o.mu.Lock()
	o.atOnce++
	o.most = max(o.most, o.atOnce)
	o.brought = append(o.brought, slug+" to "+a.Release)
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.atOnce--
	}()
	if err := a.Begun("opr_" + slug); err != nil {
		return err
	}
	select {
	case <-time.After(o.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if slices.Contains(o.unable, slug) {
		return errors.New("it doesn't come up")
	}
	return nil
}

type quiet struct{}

func (quiet) Done(string, time.Duration) {}
func (quiet) Note(string)                {}

// halted is a rollout of one wave whose last tenant has failed, and of which the others stand as states says.
func halted(parallel int32, states ...registryv1.RolloutTenantState) *registryv1.Rollout {
	r := &registryv1.Rollout{
		Id: "rol_1", PlanHash: "sha256:1", Release: "2.0.0", State: registryv1.RolloutState_ROLLOUT_STATE_HALTED,
		Policy: &registryv1.RolloutPolicy{MaxParallel: parallel, Rollback: registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE, Waves: []*registryv1.Wave{{Name: "general"}}},
	}
	for i, state := range append(states, failed) {
		slug := fmt.Sprintf("t%d", i)
		r.Tenants = append(r.Tenants, &registryv1.RolloutTenant{TenantId: "tnt_" + slug, Slug: slug, ReleaseFrom: "1.0.0", State: state, OperationId: "opr_" + slug})
	}
	return r
}

// asked is a connection to services of a registry, until the test's goroutines end.
func asked(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	register(server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///registry", append(operate.Patient(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	})
	return conn
}

// carried is a rollout as it is when it was carried out, in a time of its own.
func carried(t *testing.T, fake *remembered, o rollout.Operator, here func(context.Context, string) error) (*registryv1.Rollout, error) {
	t.Helper()
	conn := asked(t, func(server *grpc.Server) {
		registryv1.RegisterRolloutServiceServer(server, fake)
		registryv1.RegisterRolloutWriteServiceServer(server, fake)
	})
	if here == nil {
		here = func(context.Context, string) error { return nil }
	}
	e := &rollout.Engine{Conn: conn, Operator: o, Report: quiet{}, Memory: holder.Memory(t.TempDir()), Here: here}
	_, err := e.Carry(t.Context(), fake.now().GetId())
	return fake.now(), err
}

func states(r *registryv1.Rollout) (out []registryv1.RolloutTenantState) {
	for _, t := range r.GetTenants() {
		out = append(out, t.GetState())
	}
	return out
}

// As many go back at once as may be changed at once, however many are to, and each has its own time for it: also those that somebody before,
// who was cut off, said were on their way.
func TestNoMoreGoBackAtOnceThanMayBeChangedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		parallel int32
		states   []registryv1.RolloutTenantState
	}{
		"one":              {1, []registryv1.RolloutTenantState{passed, passed, passed, passed, passed}},
		"two":              {2, []registryv1.RolloutTenantState{passed, passed, passed, passed, passed}},
		"more than are":    {9, []registryv1.RolloutTenantState{passed, passed}},
		"said to be under": {1, []registryv1.RolloutTenantState{rollingBack, rollingBack, rollingBack, passed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &slow{takes: 6 * time.Minute}
				r, err := carried(t, &remembered{rollout: halted(c.parallel, c.states...)}, o, nil)
				if err != nil {
					t.Fatal(err)
				}
				if want := min(int(c.parallel), len(c.states)+1); o.most != want {
					t.Errorf("%d went back at once, want %d", o.most, want)
				}
				if slices.ContainsFunc(states(r), func(s registryv1.RolloutTenantState) bool { return s != rolledBack }) {
					t.Errorf("not all are back: %v", states(r))
				}
			})
		})
	}
}

// Who can't go back keeps nobody else from it, and is said at the end.
func TestWhoCannotGoBackKeepsNobodyElseFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &slow{takes: time.Minute, unable: []string{"t0"}}
		r, err := carried(t, &remembered{rollout: halted(1, passed, passed, passed)}, o, nil)
		if err == nil || !strings.Contains(err.Error(), "t0 could not go back to 1.0.0: it doesn't come up") {
			t.Errorf("it ended with %v", err)
		}
		if want := []registryv1.RolloutTenantState{rollingBack, rolledBack, rolledBack, rolledBack}; !slices.Equal(states(r), want) {
			t.Errorf("the tenants are %v, want %v", states(r), want)
		}
		if want := []string{"t0 to 1.0.0", "t1 to 1.0.0", "t2 to 1.0.0", "t3 to 1.0.0"}; !slices.Equal(o.brought, want) {
			t.Errorf("brought were %q, want each once: %q", o.brought, want)
		}
	})
}

// A rollout whose plan is of another place is not touched.
func TestRolloutOfAnotherPlaceIsNotCarriedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, elsewhere := &slow{}, errors.New("the plan is for another blueprint")
		r, err := carried(t, &remembered{rollout: halted(1, passed)}, o, func(_ context.Context, plan string) error {
			if plan != "sha256:1" {
				t.Errorf("asked about plan %s", plan)
			}
			return elsewhere
		})
		if !errors.Is(err, elsewhere) || len(o.brought) > 0 {
			t.Errorf("it ended with %v, and brought %q", err, o.brought)
		}
		if want := []registryv1.RolloutTenantState{passed, failed}; !slices.Equal(states(r), want) {
			t.Errorf("the tenants are %v, want %v", states(r), want)
		}
	})
}
