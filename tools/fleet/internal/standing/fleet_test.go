package standing_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/standing"
)

// elsewhere is a registry whose clock is not this machine's, which no real one here can have. It knows one tenant.
type elsewhere struct {
	registryv1.UnimplementedTenantServiceServer
	ahead time.Duration
}

func (e elsewhere) ListTenants(context.Context, *registryv1.ListTenantsRequest) (*registryv1.ListTenantsResponse, error) {
	there := time.Now().Add(e.ahead)
	return &registryv1.ListTenantsResponse{Tenants: []*registryv1.TenantStatus{{
		Tenant:     &registryv1.Tenant{Id: "tnt_x", Slug: "acme", State: registryv1.TenantState_TENANT_STATE_ACTIVE},
		ReportedAt: timestamppb.New(there.Add(-5 * time.Second)), AsOf: timestamppb.New(there),
	}}}, nil
}

type nowhere struct{}

func (nowhere) Name() string { return "local" }

func (nowhere) Where(context.Context) (platform.Where, error) { return platform.Where{}, nil }

func TestAgesAreByTheRegistrysClockAndOneThatDiffersIsTold(t *testing.T) {
	for ahead, told := range map[time.Duration]string{0: "", time.Hour: "behind", -time.Hour: "ahead of"} {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer()
		registryv1.RegisterTenantServiceServer(srv, elsewhere{ahead: ahead})
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(srv.Stop)
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: conn, Platform: nowhere{}})
		if err != nil || len(f.Tenants) != 1 {
			t.Fatalf("%v, %v", f, err)
		}
		if age := f.Tenants[0].ReportAge; age < 4 || age > 30 {
			t.Errorf("with a clock %s ahead, a report of 5 s ago is %g s old", ahead, age)
		}
		said := ""
		for _, x := range f.Findings {
			if x.Kind == "clocks_apart" {
				said = x.Reason
			}
		}
		if (said != "") != (told != "") || !strings.Contains(said, told) {
			t.Errorf("with a clock %s ahead, the page says %q", ahead, said)
		}
	}
}
