package operate

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// said is a registry that answers what components said, as long as it answers.
type said struct {
	registryv1.UnimplementedTenantServiceServer
	reports []*registryv1.ComponentReport
	answers int
}

func (s *said) GetTenant(ctx context.Context, _ *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	if s.answers--; s.answers < 0 {
		<-ctx.Done()
	}
	return &registryv1.GetTenantResponse{Status: &registryv1.TenantStatus{Reports: s.reports}}, ctx.Err()
}

// seen is a platform that sees components, or takes until nobody waits any longer.
type seen struct {
	platform.Platform
	components []platform.ComponentStatus
}

func (s seen) Components(ctx context.Context, _ platform.Set) ([]platform.ComponentStatus, error) {
	if s.components == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.components, nil
}

func TestWhatIsMissingIsToldWhenTimeIsUp(t *testing.T) {
	r, err := platform.ParseRelease("1.0.0@sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	of := func(name, release string, health registryv1.Health) *registryv1.ComponentReport {
		return &registryv1.ComponentReport{Name: name, Release: release, Health: health, ReportedAt: timestamppb.New(now)}
	}
	const serving, not = registryv1.Health_HEALTH_SERVING, registryv1.Health_HEALTH_NOT_SERVING
	both := []*registryv1.ComponentReport{of("iam", r.String(), serving), of("audit", r.String(), serving)}
	runs := func(since time.Time) []platform.ComponentStatus {
		return []platform.ComponentStatus{{Name: "iam", Release: r.String(), Since: since}, {Name: "audit", Release: r.String(), Since: since}}
	}
	for name, c := range map[string]struct {
		registry said
		platform seen
		want     []string
	}{
		"both say so":           {said{reports: both, answers: 1}, seen{components: runs(now.Add(-time.Second))}, nil},
		"one says nothing":      {said{reports: both[:1], answers: 1}, seen{}, []string{"audit has not said anything"}},
		"one runs another":      {said{reports: []*registryv1.ComponentReport{both[0], of("audit", "0.9.0", serving)}, answers: 1}, seen{}, []string{"audit says that it runs 0.9.0"}},
		"one does not serve":    {said{reports: []*registryv1.ComponentReport{both[0], of("audit", r.String(), not)}, answers: 1}, seen{}, []string{"audit says that it does not serve"}},
		"said before the start": {said{reports: both, answers: 1}, seen{components: runs(now.Add(time.Second))}, []string{"iam has not said anything since it was started", "audit has not said anything since it was started"}},
		"it is not run":         {said{reports: both, answers: 1}, seen{components: []platform.ComponentStatus{}}, []string{"iam does not run it", "audit does not run it"}},
		"nobody answers":        {said{}, seen{}, []string{"nobody could be asked"}},
		"the platform is late":  {said{reports: both, answers: 1}, seen{}, []string{"all say so, and the platform did not say what runs"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is this machine
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			registryv1.RegisterTenantServiceServer(server, &c.registry)
			go func() { _ = server.Serve(l) }()
			defer server.Stop()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			w := &work{Engine: &Engine{Conn: conn, Platform: c.platform}, release: r, set: platform.Set{Tenant: id.NewTenant(),
				Blueprint: &blueprint.Blueprint{Components: []blueprint.Component{{Name: "iam"}, {Name: "audit"}}}}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			missing, err := w.awaitWord(ctx)
			if !slices.Equal(missing, c.want) || errors.Is(err, context.DeadlineExceeded) != (c.want != nil) {
				t.Errorf("missing are %q (%v), want %q", missing, err, c.want)
			}
		})
	}
}
