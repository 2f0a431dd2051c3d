package registry_test

import (
	"errors"
	"fmt"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
)

// Tokens of each list that are of another, of no list, or of a time that the database can't hold are refused by the caller's fault, and in
// one way; a token in its list's form is taken, whether or not there is such a row.
func TestEachListRefusesWhatIsNoTokenOfIt(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	conn := h.as(addr, "operator")
	h.create(conn, "acme")
	serial, place, plan := "7", "1790000000123456.7", "1790000000123456.sha256:0123"
	forms := map[string]string{"tenants": id.NewTenant().String(), "operations": id.NewOperation().String(), "rollouts": id.NewRollout().String(),
		"releases": serial, "licences": serial, "operators": serial, "backups": place, "plans": plan}
	for name, list := range map[string]func(token string) error{
		"tenants": func(token string) error {
			_, err := registryv1.NewTenantServiceClient(conn).ListTenants(t.Context(), &registryv1.ListTenantsRequest{PageToken: token})
			return err
		},
		"operations": func(token string) error {
			_, err := registryv1.NewOperationServiceClient(conn).ListOperations(t.Context(), &registryv1.ListOperationsRequest{PageToken: token})
			return err
		},
		"rollouts": func(token string) error {
			_, err := registryv1.NewRolloutServiceClient(conn).ListRollouts(t.Context(), &registryv1.ListRolloutsRequest{PageToken: token})
			return err
		},
		"releases": func(token string) error {
			_, err := registryv1.NewReleaseServiceClient(conn).ListReleases(t.Context(), &registryv1.ListReleasesRequest{PageToken: token})
			return err
		},
		"operators": func(token string) error {
			_, err := registryv1.NewOperatorServiceClient(conn).ListOperators(t.Context(), &registryv1.ListOperatorsRequest{PageToken: token})
			return err
		},
		"licences": func(token string) error {
			_, err := registryv1.NewLicenceServiceClient(conn).ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: "acme", PageToken: token})
			return err
		},
		"backups": func(token string) error {
			_, err := registryv1.NewBackupServiceClient(conn).ListBackups(t.Context(), &registryv1.ListBackupsRequest{PageToken: token})
			return err
		},
		"plans": func(token string) error {
			_, err := registryv1.NewPlanServiceClient(conn).ListPlans(t.Context(), &registryv1.ListPlansRequest{PageToken: token})
			return err
		},
	} {
		bad := []string{"nonsense", "7.", " 7", "9223372036854775808", "-9223372036854775808.7", "9223372036854775807.7", "\x00.7", "1790000000123456.\x00"}
		for _, other := range forms {
			if other != forms[name] && (name != "plans" || other != place) {
				bad = append(bad, other)
			}
		}
		for _, token := range bad {
			if err := fault.FromRPC(list(token)); !errors.Is(err, page.ErrToken) {
				t.Errorf("%s after %q: %v, want %v", name, token, err, page.ErrToken)
			}
		}
		if err := list(forms[name]); err != nil {
			t.Errorf("%s after %q: %v", name, forms[name], err)
		}
	}
}

// A plan's place is its time and its hash: where many were made at one moment none is left out and none comes twice, and the last page says
// that it is the last also where it is full.
func TestPlansAreListedOnceEach(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	ann.registerNewer()
	left := map[string]bool{}
	for i := range 6 {
		plan := h.planned(upgradeKind, ann.change("acme", activeState, newer, "fetch", "start"))
		plan.Reason = fmt.Sprintf("the customer asked for it %d times", i)
		left[ann.put(plan).GetHash()] = true
	}
	h.db.Exec(t, "UPDATE registry.plans SET created_at = now()")
	req := &registryv1.ListPlansRequest{PageSize: 2}
	for pages := 1; ; pages++ {
		res, err := registryv1.NewPlanServiceClient(ann.conn).ListPlans(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.GetPlans() {
			if !left[p.GetHash()] {
				t.Errorf("%s came twice, or is none", p.GetHash())
			}
			delete(left, p.GetHash())
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			if pages != 3 || len(left) != 0 {
				t.Errorf("after %d pages %d plans are left, want 3 and none", pages, len(left))
			}
			return
		}
	}
}
