package plane

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// A mistyped A3_HOME is no plane, and a key of one that isn't there is made for the plane that is named alone.
func TestKeyForReleasesIsOfAPlaneThatIsThereOrNamed(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "release.key")
	p, err := New(settings.Settings{Home: filepath.Join(home, "mistyped")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.NewReleaseKey(file); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without a plane it says %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a key was made")
	}
	p.Settings.Plane = prod
	if public, err := p.NewReleaseKey(file); err != nil || !strings.HasPrefix(public, "a3os.app/prod/release+") {
		t.Errorf("for a plane that is named it is %q (%v)", public, err)
	}
}

// What the settings name and nobody made has no address, nor has a tenant that rests.
func TestAddressesAreOfTenantsThatServe(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{Settings: settings.Settings{Tenants: []string{"acme", "globex"}}, state: st, resting: []string{"initech"}}
	if got := p.Serving(); len(got) != 0 {
		t.Errorf("a plane without tenants serves %q", got)
	}
	for _, slug := range []string{"hooli", "initech"} {
		if _, err := st.Remember(slug, id.NewTenant(), func(*state.Tenant) {}); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Serving(); !slices.Equal(got, []string{"hooli"}) {
		t.Errorf("%q serve", got)
	}
}
