package local

import (
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// A proof of isolation names what the sets that were tried run, and not what others do.
func TestReportNamesTheReleasesOfTheSetsThatWereTried(t *testing.T) {
	acme, globex, initech := platform.Set{Tenant: id.NewTenant(), Slug: "acme"}, platform.Set{Tenant: id.NewTenant(), Slug: "globex"}, platform.Set{Tenant: id.NewTenant(), Slug: "initech"}
	runs := map[string]string{"plane": "0.0.0-dev@sha256:0", acme.Name(): "1.1.0@sha256:1", globex.Name(): "1.0.0@sha256:2", initech.Name(): "1.1.0@sha256:1"}
	for want, sets := range map[string][]platform.Set{
		"1.1.0@sha256:1": {acme, initech},
		"1.0.0@sha256:2 (globex), 1.1.0@sha256:1 (acme, initech)": {acme, globex, initech},
		"not known": {{Tenant: id.NewTenant(), Slug: "late"}},
	} {
		if got := releasesOf(runs, sets); got != want {
			t.Errorf("of %v it names %q, want %q", sets, got, want)
		}
	}
}
