package state_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/state"
)

func open(t *testing.T, home string) *state.State {
	t.Helper()
	s, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasChosenStays(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	if state.Exists(home) {
		t.Error("a home is said to hold a plane before anything was saved")
	}
	port, err := s.Port("plane/postgres")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Port("plane/other")
	if err != nil || other == port {
		t.Fatalf("two names have ports %d and %d (%v)", port, other, err)
	}
	s.Tenants = append(s.Tenants, state.Tenant{Slug: "acme", ID: id.NewTenant()})
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	again := open(t, home)
	if got, err := again.Port("plane/postgres"); err != nil || got != port || again.ID != s.ID {
		t.Errorf("later the port is %d and the plane %s (%v)", got, again.ID, err)
	}
	tenant, ok := again.Tenant(s.Tenants[0].ID.String())
	if !ok || tenant.Slug != "acme" {
		t.Errorf("the tenant is %+v", tenant)
	}
	if info, err := os.Stat(filepath.Join(home, "plane.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v)", info.Mode(), err)
	}
}

func TestTenantWithoutAnIDIsNotFoundByNone(t *testing.T) {
	s := open(t, t.TempDir())
	s.Tenants = append(s.Tenants, state.Tenant{Slug: "acme"})
	if tenant, ok := s.Tenant(""); ok {
		t.Errorf("found %+v", tenant)
	}
}

func TestPortThatSomebodyElseTookIsGivenUp(t *testing.T) {
	s := open(t, t.TempDir())
	port, err := s.Port("web")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := s.ForgetTaken(); err != nil {
		t.Fatal(err)
	}
	if now, err := s.Port("web"); err != nil || now == port {
		t.Errorf("the port is %d (%v), which somebody else listens on", now, err)
	}
}

func TestStateOfAnotherFormIsLeftAlone(t *testing.T) {
	home := t.TempDir()
	for text, says := range map[string]string{`{"version": 99}`: "form 99", `{"version": `: "can't be read"} {
		if err := os.WriteFile(filepath.Join(home, "plane.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := state.Open(home); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s gives %v", text, err)
		}
	}
}
