package plan

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform"
)

// listed is a registry that lists tenants.
type listed struct {
	registryv1.TenantServiceClient
	tenants []*registryv1.TenantStatus
}

func (l listed) ListTenants(context.Context, *registryv1.ListTenantsRequest, ...grpc.CallOption) (*registryv1.ListTenantsResponse, error) {
	return &registryv1.ListTenantsResponse{Tenants: l.tenants}, nil
}

type here struct{}

func (here) Name() string { return "local" }

func (here) Where(context.Context) (platform.Where, error) {
	return platform.Where{Account: "box-1", Region: "local"}, nil
}

// A tenant without the label is of the ring general, by whichever name the ring is chosen; a ring or a label of nobody is refused beside one that has
// somebody, and one whose tenants are left out is not of nobody.
func TestRingChoosesTenantsWithoutTheLabel(t *testing.T) {
	tenant := func(slug string, state registryv1.TenantState, labels ...string) *registryv1.TenantStatus {
		of := map[string]string{}
		for _, l := range labels {
			name, value, _ := strings.Cut(l, "=")
			of[name] = value
		}
		return &registryv1.TenantStatus{Tenant: &registryv1.Tenant{Id: "tnt_" + slug, Slug: slug, State: state, Labels: of}}
	}
	p := &Planner{Plane: "dev", Platform: here{}, Blueprint: &blueprint.Blueprint{}, Steps: func(registryv1.OperationKind) []string { return nil },
		Tenants: listed{tenants: []*registryv1.TenantStatus{
			tenant("acme", active, "ring=canary"), tenant("globex", active), tenant("initech", active, "ring=general"), tenant("umbrella", active, "beta=yes"),
			tenant("hooli", suspended, "ring=early"),
		}}}
	for name, c := range map[string]struct {
		s       Selection
		chooses string
		leaves  string
		refused string
	}{
		"the last ring, as a label":       {Selection{Labels: []string{"ring=general"}}, "globex initech umbrella", "", ""},
		"the last ring":                   {Selection{Waves: []string{"general"}}, "globex initech umbrella", "", ""},
		"another":                         {Selection{Waves: []string{"canary"}}, "acme", "", ""},
		"a label beside a ring":           {Selection{Labels: []string{"beta=yes"}, Waves: []string{"canary"}}, "acme umbrella", "", ""},
		"a ring of whom is left out":      {Selection{Waves: []string{"canary", "early"}}, "acme", "hooli is suspended", ""},
		"a ring of nobody":                {Selection{Waves: []string{"canary", "late"}}, "", "", `"ring=late" chooses no tenant`},
		"a label of nobody":               {Selection{Labels: []string{"beta=no"}, Waves: []string{"canary"}}, "", "", `"beta=no" chooses no tenant`},
		"a ring of nobody, and none else": {Selection{Waves: []string{"late"}}, "", "", "--wave late chooses no tenant"},
	} {
		made, err := p.Make(t.Context(), Request{Kind: registryv1.OperationKind_OPERATION_KIND_SUSPEND, Selection: c.s})
		if c.refused != "" {
			if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var slugs []string
		for _, x := range made.Plan.GetTenants() {
			slugs = append(slugs, x.GetSlug())
		}
		if got := strings.Join(slugs, " "); got != c.chooses || strings.Join(made.LeftOut, " ") != c.leaves {
			t.Errorf("%s chooses %q and leaves out %q", name, got, made.LeftOut)
		}
	}
	// A part of a plan that is done is not looked for again.
	if _, err := p.Make(t.Context(), Request{Kind: registryv1.OperationKind_OPERATION_KIND_SUSPEND, Selection: Selection{Waves: []string{"canary", "late"}}, again: true}); err != nil {
		t.Errorf("made once more: %v", err)
	}
}

// Keys of tenants that leave are kept for as long as is asked for, and where nobody asks for as long as the plane is for.
func TestKeysAreKeptAfterTheExportAsLongAsThePlaneIsFor(t *testing.T) {
	asked := func(d time.Duration) *time.Duration { return &d }
	for _, c := range []struct {
		plane string
		kind  registryv1.OperationKind
		asked *time.Duration
		want  time.Duration
	}{
		{"prod", offboard, nil, 720 * time.Hour},
		{"prod", offboard, asked(0), 0},
		{"prod", offboard, asked(time.Hour), time.Hour},
		{"prod", upgrade, nil, 0},
		{"dev", offboard, nil, 0},
		{"dev", offboard, asked(time.Hour), time.Hour},
	} {
		got := (&Planner{Plane: c.plane}).wait(Request{Kind: c.kind, Wait: c.asked})
		if got.AsDuration() != c.want || (got == nil) != (c.want == 0) {
			t.Errorf("%s of plane %s, asked for %v: waits %v, want %s", c.kind, c.plane, c.asked, got, c.want)
		}
	}
}
