package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

func TestTenantsComeAreServedAndLeave(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w, r := registryv1.NewTenantWriteServiceClient(operator), registryv1.NewTenantServiceClient(operator)
	gateway := h.watch(h.as(addr, "gateway"))
	gateway.until()

	acme := h.create(operator, "acme")
	s := gateway.until("acme")
	if got := s.GetRoutes()[0]; got.GetTenantId() != acme.id.String() || !proto.Equal(got.GetComponents()[0], acme.set.GetComponents()[0]) || got.GetCaCertificatesPem() != acme.set.GetCaCertificatesPem() {
		t.Errorf("the route is %v", got)
	}
	globex := h.create(operator, "globex")
	gateway.until("acme", "globex")

	h.setState(w, globex, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	gateway.until("acme")
	h.setState(w, globex, registryv1.TenantState_TENANT_STATE_ACTIVE)
	gateway.until("acme", "globex")

	_, err := w.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: globex.id.String(), State: registryv1.TenantState_TENANT_STATE_OFFBOARDED})
	wantKind(t, err, fault.FailedPrecondition, "offboarding a tenant that is served")
	h.setState(w, globex, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	h.setState(w, globex, registryv1.TenantState_TENANT_STATE_OFFBOARDED)
	gateway.until("acme")
	for _, state := range []registryv1.TenantState{registryv1.TenantState_TENANT_STATE_ACTIVE, registryv1.TenantState_TENANT_STATE_PROVISIONING} {
		_, err = w.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: globex.id.String(), State: state})
		wantKind(t, err, fault.FailedPrecondition, "a departed tenant coming back")
	}
	_, err = w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: globex.id.String(), ServiceSet: globex.set})
	wantKind(t, err, fault.FailedPrecondition, "a set for a departed tenant")

	// Its addresses are free for others, its slug is in quarantine.
	acme.set.Components = append(acme.set.Components, &registryv1.Component{Name: "discovery", Address: globex.set.GetComponents()[0].GetAddress()})
	h.put(w, acme)
	_, err = w.CreateTenant(t.Context(), createRequest("globex"))
	wantKind(t, err, fault.AlreadyExists, "a slug that was freed just now")
	h.db.Exec(t, "UPDATE registry.slugs SET freed_at = now() - interval '31 days' WHERE slug = 'globex'")
	again, err := w.CreateTenant(t.Context(), createRequest("globex"))
	if err != nil || again.GetTenant().GetId() == globex.id.String() {
		t.Errorf("a slug after its quarantine: %v, %v", again, err)
	}
	bySlug, err := r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "globex"})
	if err != nil || bySlug.GetStatus().GetTenant().GetId() != again.GetTenant().GetId() {
		t.Errorf("the slug leads to %v, %v", bySlug, err)
	}
	byID, err := r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: globex.id.String()})
	if err != nil || byID.GetStatus().GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_OFFBOARDED || byID.GetStatus().GetServiceSet() != nil {
		t.Errorf("the departed tenant is %v, %v", byID, err)
	}
}

func TestUnknownTenantIsOneAnswer(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	r := registryv1.NewTenantServiceClient(h.as(addr, "operator"))
	seen := map[string]bool{}
	for _, name := range []string{"nobody", id.NewTenant().String(), "tnt_", "%", "a'; --"} {
		_, err := r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: name})
		wantKind(t, err, fault.NotFound, name)
		seen[err.Error()] = true
	}
	if len(seen) != 1 {
		t.Errorf("unknown tenants are answered in %d ways: %v", len(seen), seen)
	}
}

func TestSlugIsTakenOnce(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	w := registryv1.NewTenantWriteServiceClient(h.as(addr, "operator"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 16 {
		wg.Go(func() {
			_, err := w.CreateTenant(t.Context(), createRequest("acme"))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if k := fault.KindOf(fault.FromRPC(err)); k != fault.AlreadyExists && k != fault.Aborted && k != fault.ResourceExhausted {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("the slug was taken %d times", made)
	}
	for _, slug := range []string{"www", "admin", "localhost", "xn--e1afmkfd", "Acme", "a.b", "-a", ""} {
		_, err := w.CreateTenant(t.Context(), createRequest(slug))
		wantKind(t, err, fault.InvalidArgument, slug)
	}
}

func TestSameKeyCreatesOneTenant(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	w := registryv1.NewTenantWriteServiceClient(h.as(addr, "operator"))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "one")
	first, err := w.CreateTenant(ctx, createRequest("acme"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.CreateTenant(ctx, createRequest("acme"))
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("the second answer is %v, %v; want the first", again, err)
	}
	_, err = w.CreateTenant(ctx, createRequest("other"))
	wantKind(t, err, fault.InvalidArgument, "the key for another request")
	_, err = w.CreateTenant(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", strings.Repeat("k", 129)), createRequest("other"))
	wantKind(t, err, fault.InvalidArgument, "a key that is too long")
}

// Attack row H21.
func TestRouteToWhatIsAnotherSetsOrNoServiceIsNotPublished(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w := registryv1.NewTenantWriteServiceClient(operator)
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	victim := acme.set.GetComponents()[0].GetAddress()
	_, port, _ := strings.Cut(victim, ":")
	addresses := []string{victim, "[::ffff:127.0.0.1]:" + port, "169.254.169.254:80", "198.51.100.7:443", "localhost:" + port, addr}
	for _, address := range addresses {
		bad := proto.CloneOf(globex.set)
		bad.Components[0].Address = address
		_, err := w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: globex.id.String(), ServiceSet: bad})
		if k := fault.KindOf(fault.FromRPC(err)); err == nil || (k != fault.InvalidArgument && k != fault.FailedPrecondition) {
			t.Errorf("%s was published: %v", address, err)
		}
	}
	foreign := proto.CloneOf(globex.set)
	foreign.CaCertificatesPem = acme.set.GetCaCertificatesPem()
	_, err := w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: globex.id.String(), ServiceSet: foreign})
	wantKind(t, err, fault.InvalidArgument, "another tenant's authority")

	got, err := registryv1.NewTenantServiceClient(operator).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "globex"})
	if err != nil || !proto.Equal(got.GetStatus().GetServiceSet(), globex.set) {
		t.Errorf("after the refusals the set is %v, %v; want it unchanged", got, err)
	}
	t.Attr("row", fmt.Sprintf("H21 %d", len(addresses)+1))
}

func TestChangeThatChangesNothingPublishesNothing(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w := registryv1.NewTenantWriteServiceClient(operator)
	acme := h.create(operator, "acme")
	before := h.version()
	h.put(w, acme)
	h.setState(w, acme, registryv1.TenantState_TENANT_STATE_ACTIVE)
	if after := h.version(); after != before {
		t.Errorf("the version went from %d to %d", before, after)
	}
}

func (h *harness) version() (v int64) {
	h.t.Helper()
	if err := h.db.Pool(h.t).QueryRow(h.t.Context(), "SELECT version FROM registry.snapshots").Scan(&v); err != nil {
		h.t.Fatal(err)
	}
	return v
}

func TestListPagesThroughEveryTenantOnce(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w, r := registryv1.NewTenantWriteServiceClient(operator), registryv1.NewTenantServiceClient(operator)
	want := map[string]bool{}
	for _, slug := range []string{"t1", "t2", "t3", "t4", "t5"} {
		res, err := w.CreateTenant(t.Context(), createRequest(slug))
		if err != nil {
			t.Fatal(err)
		}
		want[res.GetTenant().GetId()] = true
	}
	req := &registryv1.ListTenantsRequest{PageSize: 2}
	for pages := 1; ; pages++ {
		res, err := r.ListTenants(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range res.GetTenants() {
			if !want[s.GetTenant().GetId()] {
				t.Errorf("%s came twice, or is nobody", s.GetTenant().GetId())
			}
			delete(want, s.GetTenant().GetId())
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
	}
	if len(want) != 0 {
		t.Errorf("never listed: %v", want)
	}
	_, err := r.ListTenants(t.Context(), &registryv1.ListTenantsRequest{PageToken: "nonsense"})
	wantKind(t, err, fault.InvalidArgument, "a token that isn't one")
}

// Attack row C45.
func TestOnlyTheWorkloadsOfARuleGetIn(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	member := func(service string) *workload.Source {
		s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: service})
		return s
	}
	for name, conn := range map[string]registryv1.TenantServiceClient{
		"gateway":         registryv1.NewTenantServiceClient(h.as(addr, "gateway")),
		"a set's audit":   registryv1.NewTenantServiceClient(h.dial(addr, member("audit"))),
		"a set's iam":     registryv1.NewTenantServiceClient(h.dial(addr, member("iam"))),
		"a set's gateway": registryv1.NewTenantServiceClient(h.dial(addr, member("gateway"))),
		"set operator":    registryv1.NewTenantServiceClient(h.dial(addr, member("operator"))),
	} {
		_, err := conn.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"})
		wantKind(t, err, fault.PermissionDenied, name)
	}
	for name, conn := range map[string]registryv1.ReportServiceClient{
		"operator":    registryv1.NewReportServiceClient(operator),
		"a set's iam": registryv1.NewReportServiceClient(h.dial(addr, member("iam"))),
	} {
		_, err := conn.Report(t.Context(), &registryv1.ReportRequest{})
		wantKind(t, err, fault.PermissionDenied, name)
	}
	unknown := id.NewTenant()
	_, stranger := authority(t, workload.TrustDomain{Plane: "dev", Tenant: unknown})
	s, _ := source(t, stranger, workload.Identity{Plane: "dev", Tenant: unknown, Service: "audit"})
	refusedAtTheDoor(t, h.dial(addr, s), "a tenant that nobody knows")
	_, forged := authority(t, workload.TrustDomain{Plane: "dev", Tenant: acme.id})
	s, _ = source(t, forged, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	refusedAtTheDoor(t, h.dial(addr, s), "a certificate of acme from an authority that isn't acme's")
	_, prod := authority(t, workload.TrustDomain{Plane: "prod"})
	s, _ = source(t, prod, workload.Identity{Plane: "prod", Service: "operator"})
	refusedAtTheDoor(t, h.dial(addr, s), "an operator of another plane")
	t.Attr("row", "C45 10")
}

func TestOperationsLogHoldsEveryChangeAndCanOnlyGrow(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	rows, err := h.db.Pool(t).Query(t.Context(), "SELECT actor, action, target FROM registry.operations_log ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for rows.Next() {
		var actor, action, target string
		if err := rows.Scan(&actor, &action, &target); err != nil {
			t.Fatal(err)
		}
		if actor != "spiffe://plane.dev.a3os/operator" || target != acme.id.String() {
			t.Errorf("%s by %s on %s", action, actor, target)
		}
		actions = append(actions, action)
	}
	if got := strings.Join(actions, " "); got != "registry.tenant.created registry.service_set.put registry.tenant.state_changed" {
		t.Errorf("the log holds %s", got)
	}
	role := h.db.PoolAs(t, h.role)
	for _, sql := range []string{
		"DELETE FROM registry.operations_log", "UPDATE registry.operations_log SET actor = 'x'", "TRUNCATE registry.operations_log",
		"INSERT INTO registry.operations_log (at, actor, action, target) VALUES ('2000-01-01', 'x', 'x', 'x')",
		"DELETE FROM registry.tenants", "UPDATE registry.tenants SET id = gen_random_uuid()", "DROP TABLE registry.tenants", "CREATE TABLE registry.x ()",
		"UPDATE registry.witnessed_logs SET verifier_key = 'x'", "UPDATE registry.checkpoints SET size = 1",
	} {
		if _, err := role.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "denied") && !strings.Contains(err.Error(), "must be owner") {
			t.Errorf("%s: %v, want it denied", sql, err)
		}
	}
}
