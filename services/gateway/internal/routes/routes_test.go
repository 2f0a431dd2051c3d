package routes

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
)

func domain(t testing.TB, name, apex string) Domain {
	t.Helper()
	d, err := NewDomain(name, apex)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestHostLeadsToExactlyItsSlug(t *testing.T) {
	d := domain(t, "A3os.app.", "")
	for host, want := range map[string]string{
		"acme.a3os.app": "acme", "acme.a3os.app:7443": "acme", "acme.a3os.app:": "acme", "ACME.A3OS.App": "acme", "acme.a3os.app.": "acme",
		"acme.a3os.app.:443": "acme", "a-1.a3os.app": "a-1",
	} {
		if got, ok := d.Slug(host); !ok || got != want {
			t.Errorf("%q leads to %q, %v; want %q", host, got, ok, want)
		}
	}
	for _, host := range []string{
		"", ".", ":", "a3os.app", ".a3os.app", "acme", "acmea3os.app", "acme.a3os.app.evil.example", "evil.acme.a3os.app", "acme.a3os.app..",
		"acme..a3os.app", "acme.a3os.app:x", "acme.a3os.app:123456", "acme.a3os.app:80:80", "acme.a3os.app@evil", "evil@acme.a3os.app", "acme .a3os.app",
		" acme.a3os.app", "acme.a3os.app ", "acme.a3os.app\x00", "*.a3os.app", "[::1]", "127.0.0.1", "-acme.a3os.app", "acme-.a3os.app", "1acme.a3os.app",
		"acme.a3os.aPp/", "acme_.a3os.app", "ac\u212ame.a3os.app", strings.Repeat("a", 41) + ".a3os.app", "acme.xa3os.app", "acme.a3os.appx", "acme.b3os.app", "acme.a3os.apq", "acme.A3OS\u2024app",
	} {
		if got, ok := d.Slug(host); ok {
			t.Errorf("%q leads to %q, want nowhere", host, got)
		}
	}
}

func TestBareDomainLeadsToTheOneCompany(t *testing.T) {
	d := domain(t, "access.example.com", "acme")
	for _, host := range []string{"access.example.com", "ACCESS.example.com:443", "access.example.com.", "acme.access.example.com"} {
		if got, ok := d.Slug(host); !ok || got != "acme" {
			t.Errorf("%q leads to %q, %v; want acme", host, got, ok)
		}
	}
	if got, ok := d.Slug("example.com"); ok {
		t.Errorf("the domain above leads to %q", got)
	}
}

func TestDomainThatIsNoneIsRefused(t *testing.T) {
	for _, name := range []string{"", ".", "a..b", "-a", "a_b", "a b", "a:443", strings.Repeat("a", 64), strings.Repeat("a.", 101) + "a"} {
		if _, err := NewDomain(name, ""); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if _, err := NewDomain("a3os.app", "Not A Slug"); err == nil {
		t.Error("an apex that is no slug was accepted")
	}
}

// FuzzSlug looks for a panic, and for a host that leads to a slug it doesn't spell.
func FuzzSlug(f *testing.F) {
	for _, h := range []string{"acme.a3os.app", "ACME.a3os.app:443", "a3os.app", "acme.a3os.app.evil", "x.acme.a3os.app", ":", "acme.a3os.app."} {
		f.Add(h)
	}
	d := domain(f, "a3os.app", "")
	f.Fuzz(func(t *testing.T, host string) {
		slug, ok := d.Slug(host)
		if !ok {
			return
		}
		rest, found := strings.CutPrefix(strings.ToLower(host), slug+".a3os.app")
		rest = strings.TrimPrefix(rest, ".")
		if !found || !snapshot.IsLabel(slug) || strings.Trim(rest, ":0123456789") != "" {
			t.Errorf("%q leads to %q", host, slug)
		}
	})
}

func twoTenants() *registryv1.Snapshot {
	route := func(slug, address string) *registryv1.Route {
		return &registryv1.Route{Slug: slug, TenantId: id.NewTenant().String(), CaCertificatesPem: "pem", Components: []*registryv1.Component{
			{Name: "iam", Address: address, PathPrefixes: []string{"/a3os.iam.v1.", "/oauth2/", "/"}},
			{Name: "audit", Address: "127.0.0.1:2", PathPrefixes: []string{"/a3os.iam.v1.AuditService/", "/oauth2/audit"}},
		}}
	}
	return &registryv1.Snapshot{Plane: "dev", Version: 1, Routes: []*registryv1.Route{route("acme", "127.0.0.1:1"), route("globex", "127.0.0.1:3")}}
}

func table(t *testing.T, s *registryv1.Snapshot, before *Table) *Table {
	t.Helper()
	made, err := New(s, before)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestPathLeadsToTheLongestPrefix(t *testing.T) {
	r, ok := table(t, twoTenants(), nil).Route("acme")
	if !ok {
		t.Fatal("no route")
	}
	for path, want := range map[string]string{
		"/": "iam", "/a3os.iam.v1.UserService/GetUser": "iam", "/a3os.iam.v1.AuditService/List": "audit", "/oauth2/token": "iam", "/oauth2/audit/x": "audit",
	} {
		if up, ok := r.Upstream(path); !ok || up.Identity.Service != want {
			t.Errorf("%s leads to %v, want %s", path, up, want)
		}
	}
	if up, ok := r.Upstream("*"); ok {
		t.Errorf("* leads to %v", up)
	}
}

func TestWhatDidNotChangeIsTheSameAndWhatDidIsNot(t *testing.T) {
	first := twoTenants()
	before := table(t, first, nil)
	second := proto.CloneOf(first)
	second.Version = 2
	second.Routes[1].Components[0].Address = "127.0.0.1:4"
	after := table(t, second, before)
	old, _ := before.Route("acme")
	if now, _ := after.Route("acme"); now != old {
		t.Error("acme's route was made anew")
	}
	old, _ = before.Route("globex")
	now, _ := after.Route("globex")
	if now == old || now.Load != old.Load {
		t.Error("globex's route must be a new one with the old load")
	}
	who := workload.Identity{Plane: "dev", Tenant: now.Tenant, Service: "iam"}
	if addr, err := after.Resolve(t.Context(), who); err != nil || addr != "127.0.0.1:4" {
		t.Errorf("globex's iam is at %s, %v", addr, err)
	}
	if addr, err := before.Resolve(t.Context(), who); err != nil || addr != "127.0.0.1:3" {
		t.Errorf("the old table says %s, %v", addr, err)
	}
	third := proto.CloneOf(second)
	third.Routes = third.GetRoutes()[:1]
	gone := table(t, third, after)
	if _, err := gone.Resolve(t.Context(), who); err == nil {
		t.Error("a tenant that left still has an address")
	}
	if _, err := gone.Roots(who.TrustDomain()); err == nil {
		t.Error("a tenant that left is still trusted")
	}
	if _, err := after.Resolve(t.Context(), workload.Identity{Plane: "prod", Tenant: now.Tenant, Service: "iam"}); err == nil {
		t.Error("another plane's workload has an address")
	}
}

func TestChangeTouchesWhatItNamesAndNothingElse(t *testing.T) {
	route := func(slug string, tenant id.Tenant) *registryv1.Route {
		return &registryv1.Route{Slug: slug, TenantId: tenant.String(), CaCertificatesPem: "x", Components: []*registryv1.Component{{Name: "iam", Address: "127.0.0.1:1", PathPrefixes: []string{"/"}}}}
	}
	acme, globex, initech := id.NewTenant(), id.NewTenant(), id.NewTenant()
	before, err := New(&registryv1.Snapshot{Plane: "dev", Version: 1, Routes: []*registryv1.Route{route("acme", acme), route("globex", globex)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The slug that one gives up, another takes, in one change.
	after, err := Apply(&registryv1.SnapshotChange{Plane: "dev", FromVersion: 1, Version: 2, Routes: []*registryv1.Route{route("globex", initech)}, RemovedTenantIds: []string{globex.String()}}, before)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := before.Route("acme")
	if b, _ := after.Route("acme"); a != b {
		t.Error("a route that did not change is another one: its connections and counters are lost")
	}
	if g, ok := after.Route("globex"); !ok || g.Tenant != initech || after.Len() != 2 || after.Version != 2 {
		t.Errorf("globex leads to %v of %d routes at version %d", g, after.Len(), after.Version)
	}
	if _, err := after.Roots(workload.TrustDomain{Plane: "dev", Tenant: globex}); err == nil {
		t.Error("who was removed is believed still")
	}
	if g, ok := before.Route("globex"); !ok || g.Tenant != globex || before.Len() != 2 {
		t.Error("the table before was changed")
	}
	if _, err := Apply(&registryv1.SnapshotChange{Plane: "dev", FromVersion: 2, Version: 3, Routes: []*registryv1.Route{route("acme", globex)}}, after); err == nil {
		t.Error("one slug leads to two tenants")
	}
}
