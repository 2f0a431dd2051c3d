package standing_test

import (
	"context"
	"errors"
	"maps"
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
	"a3os.app/tools/fleet/internal/asked"
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
		f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: dial(t, elsewhere{ahead: ahead}), Platform: nowhere{}})
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

// What this platform can never tell stands apart from what could not be asked this time: the registry here answers for tenants alone.
func TestWhatAPlatformCanNotTellIsNotCountedAsUnseen(t *testing.T) {
	f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: dial(t, elsewhere{}), Platform: nowhere{}, Inspect: true})
	if err != nil || len(f.Beyond) != 2 || !strings.Contains(f.Beyond[0], "what runs") || !strings.Contains(f.Beyond[1], "changed by hand") {
		t.Errorf("beyond it are %q, %v", f.Beyond, err)
	}
	for i, want := range []string{"the figures", "the operations", "the backups"} {
		if len(f.Blind) != 3 || !strings.HasPrefix(f.Blind[i], want) {
			t.Errorf("could not be asked: %q, want %s", f.Blind, want)
		}
	}
}

// beside is a platform with something beside its sets.
type beside struct{ nowhere }

func (beside) Inspect(context.Context, platform.Set, platform.Release) ([]platform.Difference, error) {
	return nil, nil
}

func (beside) Mend(context.Context, platform.Set, platform.Release) (bool, error) { return false, nil }

func (beside) InspectPlane(context.Context, []platform.Set) ([]platform.Difference, error) {
	return []platform.Difference{{Resource: "x", Reason: "x stands before the gateway", Next: "find out who"}}, nil
}

// What stands beside the sets, and is none of them, is told on the page where it is to be looked that far.
func TestWhatStandsBesideTheSetsIsTold(t *testing.T) {
	for _, inspect := range []bool{true, false} {
		f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: dial(t, elsewhere{}), Platform: beside{}, Inspect: inspect})
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, x := range f.Findings {
			told = told || x.Kind == "changed_by_hand" && x.Severity == standing.Critical && x.Reason == "x stands before the gateway" && x.Next == "find out who"
		}
		if told != inspect {
			t.Errorf("looked at %t, it is told %t: %v", inspect, told, f.Findings)
		}
	}
}

// two is a registry with two tenants, one of which runs a release that nobody can read the blueprint of.
type two struct {
	registryv1.UnimplementedTenantServiceServer
}

var oneOfTwo, otherOfTwo = id.NewTenant(), id.NewTenant()

func (two) ListTenants(context.Context, *registryv1.ListTenantsRequest) (*registryv1.ListTenantsResponse, error) {
	of := func(tenant id.Tenant, slug, version string) *registryv1.TenantStatus {
		return &registryv1.TenantStatus{Tenant: &registryv1.Tenant{Id: tenant.String(), Slug: slug, State: registryv1.TenantState_TENANT_STATE_ACTIVE}, AsOf: timestamppb.Now(),
			ServiceSet: &registryv1.ServiceSet{Release: version + "@sha256:" + strings.Repeat("1", 64)}}
	}
	return &registryv1.ListTenantsResponse{Tenants: []*registryv1.TenantStatus{of(oneOfTwo, "acme", "1.0.0"), of(otherOfTwo, "globex", "2.0.0")}}, nil
}

// looks notes what is looked at.
type looks struct {
	beside
	sets map[string]*blueprint.Blueprint
}

func (l looks) InspectPlane(_ context.Context, sets []platform.Set) ([]platform.Difference, error) {
	for _, s := range sets {
		l.sets[s.Slug] = s.Blueprint
	}
	return nil, nil
}

// One set whose blueprint can't be had keeps nobody from looking at what stands beside the others.
func TestSetWithoutItsBlueprintHidesNoOther(t *testing.T) {
	made := &blueprint.Blueprint{Name: "notes"}
	l := looks{sets: map[string]*blueprint.Blueprint{}}
	f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: dial(t, two{}), Platform: l, Inspect: true, MadeBy: func(_ context.Context, release string) (*blueprint.Blueprint, error) {
		if strings.HasPrefix(release, "1.0.0@") {
			return nil, errors.New("it is of a later fleet")
		}
		return made, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]*blueprint.Blueprint{"acme": nil, "globex": made}; !maps.Equal(l.sets, want) {
		t.Errorf("looked at %v", l.sets)
	}
	if !slices.ContainsFunc(f.Blind, func(s string) bool { return strings.Contains(s, "the set of acme: it is of a later fleet") }) {
		t.Errorf("could not be seen: %q", f.Blind)
	}
}

// A component that is called as something of the platform's is told, of the tenant and of the component.
func TestNameThatThePlatformKeepsIsTold(t *testing.T) {
	here := func(set string) (h standing.Here) {
		if set == otherOfTwo.String() {
			h.NamesTaken = map[string]string{"migrate": "whoever migrates"}
		}
		return h
	}
	f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: dial(t, two{}), Platform: nowhere{}, Here: here})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range f.Tenants {
		told := slices.ContainsFunc(x.Findings, func(f standing.Finding) bool {
			return f.Kind == "name_taken" && f.Severity == standing.Warning && f.Component == "migrate" && strings.Contains(f.Reason, "whoever migrates")
		})
		if told != (x.Slug == "globex") {
			t.Errorf("of %s: %+v", x.Slug, x.Findings)
		}
	}
}

// counting is a platform that says what runs: of acme one component, which keeps ending, and of a set that only the registry could say is nobody's.
type counting struct{ nowhere }

func (counting) Census(context.Context) (map[string][]platform.ComponentStatus, error) {
	return map[string][]platform.ComponentStatus{
		"tnt_a": {{Name: "iam", State: platform.Serving, Release: wants}, {Name: "audit", State: platform.Failing, Release: wants, Detail: "exit code 3"}},
		"tnt_b": {{Name: "iam", State: platform.Serving, Release: wants}},
		"tnt_c": {{Name: "iam", State: platform.Serving}},
	}, nil
}

// Without the registry the page has what this machine and its platform know, and what they don't isn't made up.
func TestPageWithoutTheRegistryHasWhatIsKnownHere(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:1", asked.Named(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	gone := func(set string) (h standing.Here) {
		if set == "tnt_b" {
			h.KeysGone = []string{"kek.secret"}
		}
		return h
	}
	f, err := standing.Ask(t.Context(), standing.Source{Plane: "dev", Registry: conn, Platform: counting{}, Here: gone, Known: []standing.Known{{ID: "tnt_a", Slug: "acme"}, {ID: "tnt_b", Slug: "globex"}}})
	if _, away := errors.AsType[standing.Away](err); !away || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("it fails with %v", err)
	}
	if len(f.Blind) != 1 || len(f.Strays) != 0 || len(f.Findings) != 1 || f.Findings[0].Kind != "registry_away" || !strings.Contains(f.Findings[0].Reason, "127.0.0.1:1") {
		t.Errorf("of the plane: %q, %+v, %+v", f.Blind, f.Findings, f.Strays)
	}
	found := map[string]string{}
	for _, x := range f.Tenants {
		if len(x.Findings) == 1 {
			found[x.Slug] = x.Findings[0].Kind
		}
		if x.State != standing.Unknown || x.Serving != 1 || x.ReportAge != -1 {
			t.Errorf("of %s: %+v", x.Slug, x)
		}
	}
	if want := map[string]string{"acme": "failing", "globex": "key_gone"}; !maps.Equal(found, want) {
		t.Errorf("of tenants: %v, want %v", found, want)
	}
}

func dial(t *testing.T, tenants registryv1.TenantServiceServer) *grpc.ClientConn {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	registryv1.RegisterTenantServiceServer(srv, tenants)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
