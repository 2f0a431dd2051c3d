package local

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// A token for work on a tenant says every unit of its release with all that bounds it, who reads the machine to the last word, and no unit at all
// where nothing is to be started.
func TestTokenSaysTheUnitsOfTheRelease(t *testing.T) {
	const file = "../../../../../deploy/blueprint/accessos.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blueprint.Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	st, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := settings.Load([]string{"A3_HOME=" + home}, "/")
	if err != nil {
		t.Fatal(err)
	}
	p := &Platform{Settings: chosen, State: st, Now: time.Now, delegated: true, separated: true, readsMachine: true}
	s := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	r, err := platform.ParseRelease("1.0.0@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	if none, err := p.allowance(t.Context(), s, r, false); err != nil || len(none.Units)+len(none.Programs)+len(none.Users) > 0 {
		t.Errorf("where nothing is to be started %+v may be: %v", none, err)
	}
	programs := p.releaseDir("sha256:" + strings.Repeat("a", 64))
	if err := errors.Join(os.MkdirAll(programs, 0o700), os.WriteFile(filepath.Join(programs, "accessos"), nil, 0o700), p.choose(t.Context(), s)); err != nil {
		t.Fatal(err)
	}
	server, err := p.account(t.Context(), unitName(s, PostgresUnit))
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.allowance(t.Context(), s, r, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Units) != len(b.Components)+1 {
		t.Errorf("%d units may be started, of %d components and who reads the machine", len(a.Units), len(b.Components))
	}
	for _, u := range a.Units {
		if u.Resources.Memory <= 0 || u.Resources.CPU <= 0 || u.Resources.PIDs <= 0 || u.Expendable != expendable || u.StopWithin != stopWithin || u.Ready == "" {
			t.Errorf("%s is not bounded: %+v", u.Name, u)
		}
		if u.ReadsAll != (u.Name == unitName(s, machineReader)) || u.ReadsAll != (u.Path != "") {
			t.Errorf("%s reads every file: %v; all of it is said: %v", u.Name, u.ReadsAll, u.Path != "")
		}
	}
	reader := a.Units[slices.IndexFunc(a.Units, func(u supervise.Unit) bool { return u.ReadsAll })]
	for who, uid := range map[string]uint32{"its database server": server, "who reads the machine": reader.User.UID} {
		if slices.Contains(a.Users, uid) {
			t.Errorf("any unit may run as %s", who)
		}
	}
}
