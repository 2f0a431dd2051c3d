package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
	acme := id.NewTenant()
	if _, err := s.Remember("acme", acme, func(t *state.Tenant) { t.ID = acme }); err != nil {
		t.Fatal(err)
	}
	again := open(t, home)
	if got, err := again.Port("plane/postgres"); err != nil || got != port || again.ID != s.ID {
		t.Errorf("later the port is %d and the plane %s (%v)", got, again.ID, err)
	}
	tenant, ok := again.Tenant(acme.String())
	if !ok || tenant.Slug != "acme" {
		t.Errorf("the tenant is %+v", tenant)
	}
	if info, err := os.Stat(filepath.Join(home, "plane.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v)", info.Mode(), err)
	}
}

// A process that is killed while it writes leaves a part of the state, in which tenants are found that are gone.
func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	left, fresh := filepath.Join(home, ".plane.json980412236735400249"), filepath.Join(home, ".plane.json123")
	for _, name := range []string{left, fresh} {
		if err := os.WriteFile(name, []byte(`{"tenants":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ago := time.Now().Add(-time.Minute)
	if err := os.Chtimes(left, ago, ago); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is still there (%v)", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("what somebody writes now was taken away: %v", err)
	}
}

func TestTenantWithoutAnIDIsNotFoundByNone(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	if _, err := s.Remember("acme", id.Tenant{}, func(*state.Tenant) {}); err != nil {
		t.Fatal(err)
	}
	if _, ok := open(t, home).Tenant("acme"); !ok {
		t.Error("a tenant that was remembered as it came is not on disk")
	}
	if tenant, ok := s.Tenant(""); ok {
		t.Errorf("found %+v", tenant)
	}
}

// Several tenants are worked on at once, and none of what is remembered of one is lost by another. The race detector looks on in CI.
func TestWorkOnManyAtOnceLosesNothing(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	const tenants = 16
	ids := make([]id.Tenant, tenants)
	pool := netip.MustParsePrefix("10.0.0.0/16")
	nobodys := func() ([]netip.Prefix, error) { return nil, nil }
	pick := func(near, _ uint32, n int) (ids []uint32, err error) {
		for i := range n {
			ids = append(ids, max(near, 1000)+uint32(i))
		}
		return ids, nil
	}
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = id.NewTenant()
		wg.Go(func() {
			slug, set := fmt.Sprintf("t%d", i), ids[i].String()
			_, remembered := s.Remember(slug, ids[i], func(t *state.Tenant) { t.ID = ids[i] })
			_, port := s.Port(set + "/iam")
			_, account := s.Account(set, pick)
			_, subnet := s.Subnet(set, pool, nobodys)
			_, host := s.Host(set, "iam")
			_, served := s.Change(slug, func(t *state.Tenant) { t.Served = true })
			if err := errors.Join(remembered, port, account, subnet, host, served, s.SetMigrated(set, "r"), s.SetRuns(set, "r", "b"), s.SetImage(set, "i")); err != nil {
				t.Error(err)
			}
			for _, other := range s.Tenants() {
				_ = s.Runs()[other.ID.String()]
			}
			if _, err := json.Marshal(s.Part(set)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range []*state.State{s, open(t, home)} {
		ports, accounts, subnets := map[int]bool{}, map[uint32]bool{}, map[netip.Prefix]bool{}
		for i, tenant := range ids {
			is, ok := s.Tenant(tenant.String())
			if !ok || is.Slug != fmt.Sprintf("t%d", i) || !is.Served || s.Runs()[tenant.String()] != "r" || s.Migrated()[tenant.String()] != "r" {
				t.Errorf("of %s is left %+v", tenant, is)
			}
			ports[s.Ports()[tenant.String()+"/iam"]] = true
			accounts[s.Accounts()[tenant.String()]] = true
			subnets[s.Subnets()[tenant.String()]] = true
		}
		if n := len(s.Tenants()); n != tenants || len(ports) != n || len(accounts) != n || len(subnets) != n {
			t.Errorf("%d tenants have %d ports, %d accounts and %d networks, want %d", n, len(ports), len(accounts), len(subnets), tenants)
		}
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
