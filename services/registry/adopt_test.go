package registry_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/binding"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// stray is a tenant that this registry was never told of, and what says of it.
func (h *harness) stray(slug string) *registryv1.AdoptTenantRequest {
	h.t.Helper()
	tenant := id.NewTenant()
	root, _ := authority(h.t, workload.TrustDomain{Plane: h.plane, Tenant: tenant})
	return &registryv1.AdoptTenantRequest{
		TenantId: tenant.String(), Slug: slug, DisplayName: slug, Region: "local", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE,
		ServiceSet: &registryv1.ServiceSet{
			CaCertificatesPem: string(root.CertificatePEM()), Release: older, Reporter: "audit",
			Components: []*registryv1.Component{{Name: "iam", Address: h.address(), PathPrefixes: []string{"/oauth2/"}}, {Name: "audit", Address: h.address()}},
			Database:   &registryv1.DatabasePlace{Server: "127.0.0.1:5432", Name: tenant.String()},
		},
		Mark:   h.marked(h.marks, tenant, binding.Database, tenant.String()),
		Reason: "the registry was restored from last night",
	}
}

func (h *harness) marked(by *binding.Signer, tenant id.Tenant, kind binding.Kind, name string) string {
	h.t.Helper()
	text, err := by.Sign(binding.Mark{Tenant: tenant, Kind: kind, Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}

// A tenant whose set is there, and which the registry doesn't know, is known again under its own id, suspended, on record; and served once
// it is resumed.
func TestTenantThatTheRegistryDoesNotKnowIsAdopted(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w, r := registryv1.NewTenantWriteServiceClient(operator), registryv1.NewTenantServiceClient(operator)
	gateway := h.watch(h.as(addr, "gateway"))
	h.create(operator, "acme")
	gateway.until("acme")
	req := h.stray("globex")
	res, err := w.AdoptTenant(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.GetTenant(); got.GetId() != req.GetTenantId() || got.GetSlug() != "globex" || got.GetState() != registryv1.TenantState_TENANT_STATE_SUSPENDED {
		t.Errorf("adopted is %v", got)
	}
	known, err := r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "globex"})
	if err != nil || !proto.Equal(known.GetStatus().GetServiceSet(), req.GetServiceSet()) {
		t.Errorf("its set is %v, %v", known, err)
	}
	var said string
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT actor || ': ' || detail FROM registry.operations_log WHERE action = 'registry.tenant.adopted' AND target = $1", req.GetTenantId()).Scan(&said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"operator: slug globex", req.GetReason()} {
		if !strings.Contains(said, want) {
			t.Errorf("on record is %q, which does not say %q", said, want)
		}
	}
	h.setState(w, tenant{id: parse(t, req.GetTenantId())}, registryv1.TenantState_TENANT_STATE_ACTIVE)
	gateway.until("acme", "globex")
	_, err = w.AdoptTenant(t.Context(), req)
	wantKind(t, err, fault.AlreadyExists, "adopting who is known")
}

// What doesn't vouch for the tenant makes nobody known: above all not who left, and no id that this plane never marked.
func TestTenantThatNothingVouchesForIsNotAdopted(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	w := registryv1.NewTenantWriteServiceClient(operator)
	acme := h.create(operator, "acme")
	left := h.create(operator, "initech")
	h.setState(w, left, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	h.setState(w, left, registryv1.TenantState_TENANT_STATE_OFFBOARDED)
	private, _, err := binding.NewKey(h.plane)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := binding.NewSigner(h.plane, private)
	if err != nil {
		t.Fatal(err)
	}
	// as makes the request one of another tenant, whole: its database, its authority and its mark.
	as := func(x tenant) func(*registryv1.AdoptTenantRequest) {
		return func(r *registryv1.AdoptTenantRequest) {
			r.TenantId, r.ServiceSet.CaCertificatesPem, r.ServiceSet.Database.Name = x.id.String(), string(x.root.CertificatePEM()), x.id.String()
			r.Mark = h.marked(h.marks, x.id, binding.Database, x.id.String())
		}
	}
	for what, tc := range map[string]struct {
		change func(*registryv1.AdoptTenantRequest)
		want   fault.Kind
	}{
		"who left":                    {as(left), fault.FailedPrecondition},
		"who is known":                {as(acme), fault.AlreadyExists},
		"another's slug":              {func(r *registryv1.AdoptTenantRequest) { r.Slug = "acme" }, fault.AlreadyExists},
		"the slug of who left":        {func(r *registryv1.AdoptTenantRequest) { r.Slug = "initech" }, fault.AlreadyExists},
		"a slug that nobody may have": {func(r *registryv1.AdoptTenantRequest) { r.Slug = "admin" }, fault.InvalidArgument},
		"an id that was never marked": {func(r *registryv1.AdoptTenantRequest) { r.TenantId = id.NewTenant().String() }, fault.InvalidArgument},
		"no mark of this plane": {func(r *registryv1.AdoptTenantRequest) {
			r.Mark = h.marked(stranger, parse(t, r.GetTenantId()), binding.Database, r.GetTenantId())
		}, fault.PermissionDenied},
		"the mark of another tenant": {func(r *registryv1.AdoptTenantRequest) {
			r.Mark = h.marked(h.marks, acme.id, binding.Database, r.GetTenantId())
		}, fault.PermissionDenied},
		"the mark of another database": {func(r *registryv1.AdoptTenantRequest) {
			r.Mark = h.marked(h.marks, parse(t, r.GetTenantId()), binding.Database, "other")
		}, fault.PermissionDenied},
		"the mark of its queue": {func(r *registryv1.AdoptTenantRequest) {
			r.Mark = h.marked(h.marks, parse(t, r.GetTenantId()), binding.Queue, r.GetTenantId())
		}, fault.PermissionDenied},
		"a mark that was changed": {func(r *registryv1.AdoptTenantRequest) { r.Mark = "x" + r.GetMark() }, fault.PermissionDenied},
		"no database":             {func(r *registryv1.AdoptTenantRequest) { r.ServiceSet.Database = nil }, fault.InvalidArgument},
		"another tenant's authority": {func(r *registryv1.AdoptTenantRequest) {
			r.ServiceSet.CaCertificatesPem = string(acme.root.CertificatePEM())
		}, fault.InvalidArgument},
		"an address where another is": {func(r *registryv1.AdoptTenantRequest) {
			r.ServiceSet.Components[0].Address = acme.set.GetComponents()[0].GetAddress()
		}, fault.FailedPrecondition},
		"no reason that says something": {func(r *registryv1.AdoptTenantRequest) { r.Reason = "because" }, fault.InvalidArgument},
	} {
		req := h.stray("globex")
		tc.change(req)
		_, err := w.AdoptTenant(t.Context(), req)
		wantKind(t, err, tc.want, what)
	}
	for _, service := range []string{"gateway", "provisioner"} {
		_, err := registryv1.NewTenantWriteServiceClient(h.as(addr, service)).AdoptTenant(t.Context(), h.stray("globex"))
		wantKind(t, err, fault.PermissionDenied, service)
	}
	var n int
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM registry.tenants").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d tenants are known (%v)", n, err)
	}
}
