package plan

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/release"
)

// registered are releases by their names: the digest of each one's blueprint, or why it isn't answered.
type registered map[string]any

func (r registered) GetRelease(_ context.Context, req *registryv1.GetReleaseRequest, _ ...grpc.CallOption) (*registryv1.GetReleaseResponse, error) {
	for name, is := range r {
		if name != req.GetName() {
			continue
		}
		if err, bad := is.(error); bad {
			return nil, err
		}
		n, err := release.ParseName(name)
		return &registryv1.GetReleaseResponse{Release: &registryv1.Release{Name: name, Manifest: &registryv1.ReleaseManifest{Version: n.Version, BlueprintDigest: is.(string)}}}, err
	}
	return nil, fault.New(fault.NotFound, "there is no release %q", req.GetName())
}

func (registered) ListReleases(context.Context, *registryv1.ListReleasesRequest, ...grpc.CallOption) (*registryv1.ListReleasesResponse, error) {
	return nil, errors.New("nobody lists them")
}

// A plan names the components of the release that the set is to run, says where that is made by another blueprint than the present one, and is
// refused where there would be no way back. Who isn't believed, or has no blueprint here, can be left by a downgrade, and be stopped.
func TestPlanGoesByTheBlueprintsOfTheReleases(t *testing.T) {
	name := func(version, digit string) string { return version + "@sha256:" + strings.Repeat(digit, 64) }
	older, newer, lost, forged, earliest := name("1.3.0", "a"), name("1.4.0", "b"), name("1.2.0", "c"), name("1.1.0", "d"), name("1.0.0", "e")
	known := map[string]*blueprint.Blueprint{}
	for digest, component := range map[string]string{"sha256:1": "one", "sha256:2": "two", "sha256:own": "own"} {
		known[digest] = &blueprint.Blueprint{Digest: digest, Components: []blueprint.Component{{Name: component}}}
	}
	p := &Planner{Plane: "dev", Platform: here{}, Blueprint: known["sha256:own"], Steps: func(registryv1.OperationKind) []string { return nil },
		Releases: registered{older: "sha256:1", newer: "sha256:2", lost: "sha256:3", forged: release.ErrUnsigned, earliest: "sha256:1"},
		MadeBy: func(name string, m *registryv1.ReleaseManifest) (*blueprint.Blueprint, error) {
			if b := known[m.GetBlueprintDigest()]; b != nil {
				return b, nil
			}
			return nil, fault.New(fault.FailedPrecondition, "no text of %s", name)
		}}
	for what, c := range map[string]struct {
		kind                    registryv1.OperationKind
		from, to                string
		restarts, says, refused string
	}{
		"an upgrade":                                    {upgrade, older, newer, "two", "made by the blueprint sha256:2, the present one by sha256:1", ""},
		"an upgrade that changes nothing of it":         {upgrade, newer, newer, "two", "", ""},
		"a downgrade":                                   {downgrade, newer, older, "one", "made by the blueprint sha256:1, the present one by sha256:2", ""},
		"to one without a text":                         {downgrade, newer, lost, "", "", "no text of 1.2.0"},
		"an upgrade from one without a text":            {upgrade, lost, newer, "", "", "it could not go back to the release that it runs: no text of 1.2.0"},
		"a downgrade from one without a text":           {downgrade, lost, earliest, "one", "", ""},
		"an upgrade from one that isn't believed":       {upgrade, forged, newer, "two", "is not believed", ""},
		"a suspension":                                  {registryv1.OperationKind_OPERATION_KIND_SUSPEND, older, "", "one", "", ""},
		"a suspension of one without a text":            {registryv1.OperationKind_OPERATION_KIND_SUSPEND, lost, "", "own", "", ""},
		"a resumption":                                  {resume, newer, "", "two", "", ""},
		"a resumption of one without a text":            {resume, lost, "", "", "", "no text of 1.2.0"},
		"a resumption of one that isn't believed (yet)": {resume, forged, "", "own", "", ""},
	} {
		r := Request{Kind: c.kind, Release: c.to}
		to, err := p.target(t.Context(), r)
		var change *registryv1.TenantChange
		if err == nil {
			change, err = p.change(t.Context(), r, &registryv1.TenantStatus{Tenant: &registryv1.Tenant{Id: "tnt_acme", Slug: "acme"}, ServiceSet: &registryv1.ServiceSet{Release: c.from}}, to)
		}
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		notes := strings.Join(change.GetNotes(), " ")
		if err != nil || strings.Join(change.GetRestarts(), " ") != c.restarts || !strings.Contains(notes, c.says) || c.says == "" && strings.Contains(notes, "made by") {
			t.Errorf("%s restarts %v and says %q (%v)", what, change.GetRestarts(), notes, err)
		}
	}
}
