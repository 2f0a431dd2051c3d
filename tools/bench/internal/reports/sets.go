package reports

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// set is one simulated set: what its `audit` has of the link to the registry.
type set struct {
	tenant  id.Tenant
	roots   string
	source  *workload.Source
	conn    *grpc.ClientConn
	started time.Time
	calls   int64
}

// newSet makes a tenant's authority and the certificate of the one that reports.
func newSet(dir string) (*set, error) {
	s := &set{tenant: id.NewTenant(), started: time.Now()}
	who := workload.Identity{Plane: devPlane, Tenant: s.tenant, Service: "audit"}
	root, err := workload.NewRoot(who.TrustDomain(), time.Now())
	if err != nil {
		return nil, err
	}
	issuing, err := root.NewIntermediate(time.Now())
	if err != nil {
		return nil, err
	}
	pair, err := issuing.IssueKeypair(who, time.Now())
	if err != nil {
		return nil, err
	}
	s.roots = string(root.CertificatePEM())
	dir = filepath.Join(dir, s.tenant.String())
	if err := pair.Save(dir); err != nil {
		return nil, err
	}
	s.source, err = workload.OpenSource(dir, who)
	return s, err
}

// connecting is how many of the simulated sets make a connection at once: they share the processors of this machine, where each real one has
// its own, and a handshake that waits for its client's processor is no work of the registry's.
const connecting = 256

// turns are the simulated sets' own.
var turns = make(chan struct{}, connecting)

// connect makes the connection, when it is the set's turn.
func (s *set) connect(ctx context.Context) error {
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turns }()
	for {
		state := s.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if state == connectivity.Idle {
			s.conn.Connect()
		}
		if !s.conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("the set of %s could not connect: %w", s.tenant, ctx.Err())
		}
	}
}

// dial is as the set's own: connections come back with a pause that grows and differs.
func (s *set) dial(address string, trust workload.Anchors) error {
	creds, err := workload.GRPCClientCredentials(s.source, trust, workload.Identity{Plane: devPlane, Service: "registry"})
	if err != nil {
		return err
	}
	// Ten thousand sets share this process: their buffers are small.
	const buffer = 1 << 10
	s.conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 15 * time.Second}, MinConnectTimeout: 20 * time.Second}))
	return err
}

var names = []string{"audit", "discovery", "discovery-worker", "iam", "integrations"}

// report is what a set with some traffic says.
func (s *set) report(ctx context.Context) error {
	s.calls += 100
	req := &registryv1.ReportRequest{DatabaseBytes: 20 << 20, DatabaseConnections: 12}
	for _, name := range names {
		req.Components = append(req.Components, &registryv1.ComponentReport{
			Name: name, Health: registryv1.Health_HEALTH_SERVING, Release: release, StartedAt: timestamppb.New(s.started),
			Figures: &setv1.Figures{Requests: s.calls, Errors: s.calls / 1000, ResidentBytes: 40 << 20,
				LatencyCounts: []int64{s.calls / 2, s.calls / 4, s.calls / 8, s.calls / 16, s.calls / 32, s.calls / 64, 3, 2, 1, 0, 0, 0, 0, 0, 0}},
		})
	}
	_, err := registryv1.NewReportServiceClient(s.conn).Report(ctx, req)
	return err
}

// outcome is what came of all sets reporting once.
type outcome struct {
	kept     int64
	took     []time.Duration
	tried    int64
	deferred int64
}

// once has every set report until its report is kept, the first try of each somewhere within a time.
func once(ctx context.Context, sets []*set, within time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	var out outcome
	var tried, deferred atomic.Int64
	took := make([]time.Duration, len(sets))
	errs := make([]error, len(sets))
	var all sync.WaitGroup
	for i, s := range sets {
		all.Go(func() {
			if errs[i] = pause(ctx, time.Duration(rand.Float64()*float64(within))); errs[i] != nil {
				return
			}
			for try := 0; ; try++ {
				if errs[i] = s.connect(ctx); errs[i] != nil {
					return
				}
				began := time.Now()
				err := fault.FromRPC(s.report(ctx))
				took[i] = time.Since(began)
				if err == nil {
					return
				}
				again := time.Second
				if f, ok := errors.AsType[*fault.Error](err); ok && f.RetryAfter > 0 {
					deferred.Add(1)
					again = f.RetryAfter
				} else if try == 0 {
					tried.Add(1)
				}
				if perr := pause(ctx, again); perr != nil {
					errs[i] = fmt.Errorf("the set of %s could not report: %w", s.tenant, errors.Join(perr, err))
					return
				}
			}
		})
	}
	all.Wait()
	out.kept, out.took, out.tried, out.deferred = int64(len(sets)), took, tried.Load(), deferred.Load()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > 0 {
		return out, fmt.Errorf("%d of %d sets could not report, the first of them: %w", len(errs), len(sets), errs[0])
	}
	return out, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
