package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

const (
	databaseTier = registryv1.IsolationTier_ISOLATION_TIER_DATABASE
	suspendKind  = registryv1.OperationKind_OPERATION_KIND_SUSPEND
	upgradeKind  = registryv1.OperationKind_OPERATION_KIND_UPGRADE
	activeState  = registryv1.TenantState_TENANT_STATE_ACTIVE
	suspendState = registryv1.TenantState_TENANT_STATE_SUSPENDED
)

// Attack rows F50, F51 and F52, at the registry: a release by its tag, selectors that choose everybody, another plane.
func TestPlanThatNamesTooLittleOrAnotherPlaneIsNotStored(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	upgrade := func(change func(*registryv1.Plan)) *registryv1.Plan {
		p := h.planned(upgradeKind, ann.change("acme", activeState, newer, "fetch", "start"))
		change(p)
		return p
	}
	held := map[string]int{}
	for _, c := range []struct {
		row, what string
		kind      fault.Kind
		change    func(*registryv1.Plan)
	}{
		{"F50", "a tag", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants[0].ReleaseTo = "1.1.0" }},
		{"F50", "latest", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants[0].ReleaseTo = "latest" }},
		{"F50", "a short digest", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants[0].ReleaseTo = "1.1.0@sha256:2222" }},
		{"F51", "no selector", fault.InvalidArgument, func(p *registryv1.Plan) { p.Selectors = nil }},
		{"F51", "an empty selector", fault.InvalidArgument, func(p *registryv1.Plan) { p.Selectors = []string{" "} }},
		{"F51", "a wildcard", fault.InvalidArgument, func(p *registryv1.Plan) { p.Selectors = []string{"--tenant *"} }},
		{"F51", "a tenant twice", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants = append(p.Tenants, p.Tenants[0]) }},
		{"F51", "no tenant", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants = nil }},
		{"F52", "another plane", fault.FailedPrecondition, func(p *registryv1.Plan) { p.Plane = "prod" }},
		{"F52", "another state", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants[0].StateFrom = suspendState }},
		{"F52", "another release", fault.FailedPrecondition, func(p *registryv1.Plan) { p.Tenants[0].ReleaseFrom = "0.9.0@" + older[len("1.0.0@"):] }},
		{"F52", "another region", fault.FailedPrecondition, func(p *registryv1.Plan) { p.Region = "mars" }},
		{"F52", "another tier", fault.FailedPrecondition, func(p *registryv1.Plan) {
			p.Tenants[0].IsolationTier = registryv1.IsolationTier_ISOLATION_TIER_DEDICATED
		}},
		{"F52", "another slug", fault.FailedPrecondition, func(p *registryv1.Plan) { p.Tenants[0].Slug = "globex" }},
		{"F52", "a tenant that never was", fault.FailedPrecondition, func(p *registryv1.Plan) {
			p.Tenants[0].TenantId = "tnt_01h455vb4pex5vsknk084sn02q"
		}},
		{"", "no reason", fault.InvalidArgument, func(p *registryv1.Plan) { p.Reason = "" }},
		{"", "an end that the kind doesn't lead to", fault.InvalidArgument, func(p *registryv1.Plan) {
			p.Tenants[0].StateTo = registryv1.TenantState_TENANT_STATE_OFFBOARDED
		}},
		{"", "a step twice", fault.InvalidArgument, func(p *registryv1.Plan) { p.Tenants[0].Steps = []string{"start", "start"} }},
		{"", "words that this registry doesn't know", fault.InvalidArgument, func(p *registryv1.Plan) {
			p.ProtoReflect().SetUnknown([]byte{0xfa, 0x3f, 1, 'x'}) // field 1023
		}},
	} {
		_, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: upgrade(c.change)})
		wantKind(t, err, c.kind, c.what)
		held[c.row]++
	}
	stored, err := registryv1.NewPlanServiceClient(ann.conn).ListPlans(t.Context(), &registryv1.ListPlansRequest{})
	if err != nil || len(stored.GetPlans()) != 0 {
		t.Errorf("stored are %v, %v", stored, err)
	}
	t.Attr("row", fmt.Sprintf("F50 %d", held["F50"]))
	t.Attr("row", fmt.Sprintf("F51 %d", held["F51"]))
	t.Attr("row", fmt.Sprintf("F52 %d", held["F52"]))
}

// Attack row F52: between plan and apply somebody did something else, also where the world looks the same afterwards.
func TestPlanOfAWorldThatChangedIsNotBegunAndSaysWhatDiffers(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	ann.registerNewer()
	change := ann.change("acme", activeState, newer, "fetch", "start")
	stale := ann.put(h.planned(upgradeKind, change))
	refused := func(what string, words ...string) {
		t.Helper()
		_, err := ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stale.GetHash(), Tenant: change.GetTenantId()})
		wantReason(t, err, "PLAN_STALE", what)
		for _, w := range words {
			if !strings.Contains(fmt.Sprint(err), w) {
				t.Errorf("%s: %v doesn't name %q", what, err, w)
			}
		}
	}
	release := ann.status("acme").GetServiceSet().GetRelease()
	stop := ann.change("acme", suspendState, release, "stop")
	ann.carry(h.planned(suspendKind, stop), stop.GetTenantId())
	refused("a tenant that was suspended meanwhile", "state", "suspended", "last operation")
	start := ann.change("acme", activeState, release, "start")
	ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_RESUME, start), start.GetTenantId())
	refused("a tenant that was suspended and resumed meanwhile", "last operation")
	h.db.Exec(t, "UPDATE registry.plans SET expires_at = now() - interval '1 second'")
	refused("a plan of yesterday", "expired")
	_, err := ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stale.GetHash(), Tenant: "acme"})
	wantKind(t, err, fault.InvalidArgument, "a tenant by its slug where the plan has its id")
	_, err = ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: "sha256:" + strings.Repeat("0", 64), Tenant: change.GetTenantId()})
	wantReason(t, err, "NO_PLAN", "a plan that nobody made")
	t.Attr("row", "F52 5")
}

// In plane prod a change takes two people, tenants get servers of their own, and nothing is changed past a plan.
func TestPlaneProdWantsTwoPeopleDedicatedServersAndSignedReleases(t *testing.T) {
	h := newPlane(t, "prod")
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	ben, _ := h.ownPerson(addr, "operator-ben")
	w := registryv1.NewTenantWriteServiceClient(ann.conn)
	_, err := w.CreateTenant(t.Context(), createRequest("acme"))
	wantReason(t, err, "PLAN_NEEDED", "a tenant without a plan")

	plan := h.provision("acme")
	_, err = ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan})
	wantReason(t, err, "PLAN_STALE", "a release that nobody registered")
	h.db.Exec(t, "INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor) VALUES ('"+older+"', '1.0.0', '', '', '{}', 'test')")
	shared := proto.CloneOf(plan)
	shared.Tenants[0].IsolationTier = databaseTier
	_, err = ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: shared})
	wantKind(t, err, fault.FailedPrecondition, "a shared server that nobody accepted")
	shared.AcceptedTiers = []registryv1.IsolationTier{databaseTier}
	ann.put(shared)

	stored := ann.put(plan)
	begin := func() error {
		_, err := ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stored.GetHash(), Tenant: "acme"})
		return err
	}
	wantReason(t, begin(), "PLAN_NOT_APPROVED", "one person's plan")
	approve := func(o operator) error {
		_, err := o.plans.ApprovePlan(t.Context(), &registryv1.ApprovePlanRequest{Hash: stored.GetHash(), Reason: "read it, looks right"})
		return err
	}
	wantKind(t, approve(ann), fault.PermissionDenied, "approving one's own plan")
	if err := approve(ben); err != nil {
		t.Fatal(err)
	}
	// The plan expires and is made again: the word was for the earlier one.
	h.db.Exec(t, "UPDATE registry.plans SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day'; UPDATE registry.plan_approvals SET approved_at = now() - interval '1 day'")
	wantReason(t, approve(ben), "PLAN_STALE", "approving a plan of yesterday")
	ann.put(plan)
	wantReason(t, begin(), "PLAN_NOT_APPROVED", "yesterday's word")
	if err := approve(ben); err != nil {
		t.Fatal(err)
	}
	op := ann.begin(stored.GetHash(), "acme")
	lease := ann.take(op.GetId())
	put := func(set *registryv1.ServiceSet, lease *registryv1.LeaseProof) error {
		_, err := w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: op.GetTenantId(), ServiceSet: set, Lease: lease})
		return err
	}
	set := h.place(op.GetTenantId())
	wantReason(t, put(set, nil), "OPERATION_UNFINISHED", "a set past the lease")
	nowhere := proto.CloneOf(set)
	nowhere.Database = nil
	wantKind(t, put(nowhere, proof(lease)), fault.InvalidArgument, "a set that doesn't say where its database is")
	if err := put(set, proof(lease)); err != nil {
		t.Fatal(err)
	}
	for _, s := range lease.GetOperation().GetSteps() {
		ann.step(lease, s.GetName())
	}
	if _, err := ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	_, err = w.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: op.GetTenantId(), State: suspendState})
	wantReason(t, err, "PLAN_NEEDED", "suspending without a plan")
	wantReason(t, put(h.place(op.GetTenantId()), nil), "PLAN_NEEDED", "a set of another authority without a plan")
	// It was restored on another machine: the same set, elsewhere.
	moved := proto.CloneOf(set)
	moved.Components[0].Address, moved.Database.Server = freeAddress(t), freeAddress(t)
	if err := put(moved, nil); err != nil {
		t.Errorf("the same set at other addresses: %v", err)
	}
	for what, change := range map[string]func(*registryv1.ServiceSet){
		"another release":  func(s *registryv1.ServiceSet) { s.Release = newer },
		"another database": func(s *registryv1.ServiceSet) { s.Database.Name = "another" },
		"another path":     func(s *registryv1.ServiceSet) { s.Components[0].PathPrefixes = []string{"/"} },
		"one component more": func(s *registryv1.ServiceSet) {
			s.Components = append(s.Components, &registryv1.Component{Name: "audit", Address: freeAddress(t)})
		},
	} {
		other := proto.CloneOf(moved)
		other.Components[0].Address = freeAddress(t)
		change(other)
		wantReason(t, put(other, nil), "PLAN_NEEDED", what+" without a plan")
	}
}

// Attack rows C45, C47 and F52: planes are sealed. What is of plane dev opens nothing and means nothing at plane prod.
func TestNothingOfPlaneDevMeansAnythingAtPlaneProd(t *testing.T) {
	dev, prod := newHarness(t), newPlane(t, "prod")
	devAddr, _ := dev.start()
	prodAddr, _ := prod.start()
	ann, there := dev.person(devAddr, "operator-ann"), prod.person(prodAddr, "operator-ann")
	acme := dev.create(ann.conn, "acme")
	ann.registerNewer()

	// A certificate: of an operator, and of a tenant that prod doesn't have.
	who, _ := source(t, dev.issuer, workload.Identity{Plane: "dev", Service: "operator-ann"})
	refusedAtTheDoor(t, prod.dial(prodAddr, who), "an operator of plane dev")
	forged, _ := source(t, dev.issuer, workload.Identity{Plane: "dev", Service: "operator"})
	refusedAtTheDoor(t, prod.dial(prodAddr, forged), "the first operator of plane dev")
	set, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	refusedAtTheDoor(t, prod.dial(prodAddr, set), "a set of plane dev")

	// A plan, by its text and by its hash.
	plan := dev.planned(upgradeKind, ann.change("acme", activeState, newer, "start"))
	stored := ann.put(plan)
	_, err := there.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan})
	wantReason(t, err, "PLAN_STALE", "a plan of plane dev")
	if !strings.Contains(fmt.Sprint(err), "dev") || !strings.Contains(fmt.Sprint(err), "prod") {
		t.Errorf("the refusal doesn't name both planes: %v", err)
	}
	_, err = there.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stored.GetHash(), Tenant: acme.id.String()})
	wantReason(t, err, "NO_PLAN", "a plan of plane dev by its hash")
	// Also where its row came along, with a backup that was restored at the wrong place.
	for _, sql := range []string{"INSERT INTO registry.plans (hash, document, actor, expires_at) VALUES ($1, $2, 'x', now() + interval '1 day')"} {
		if _, err := prod.db.Pool(t).Exec(t.Context(), sql, stored.GetHash(), stored.GetDocument()); err != nil {
			t.Fatal(err)
		}
	}
	_, err = there.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stored.GetHash(), Tenant: acme.id.String()})
	wantReason(t, err, "PLAN_STALE", "a plan of plane dev that lies in prod's database")

	// A lease.
	lease := ann.take(ann.begin(stored.GetHash(), acme.id.String()).GetId())
	wantReason(t, there.record(lease, "start", registryv1.StepState_STEP_STATE_BEGUN), "NO_OPERATION", "a lease of plane dev")

	// A snapshot.
	signed := dev.fetch(devAddr)
	if _, err := prod.verifier.Verify(signed, 0); err == nil {
		t.Error("a gateway of plane prod believed a snapshot of plane dev")
	}
	t.Attr("row", "F52 3")
	t.Attr("row", "C47 1")
	t.Attr("row", "C45 4")
}

func TestSlugThatReadsLikeAnotherIsRefused(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	w := registryv1.NewTenantWriteServiceClient(ann.conn)
	for _, slug := range []string{"acme", "globex", "wonder", "cloud-9", "cloudi"} {
		if _, err := w.CreateTenant(t.Context(), createRequest(slug)); err != nil {
			t.Fatal(err)
		}
	}
	for _, slug := range []string{"acrne", "ac-me", "a-c-m-e", "g1obex", "gl0bex", "giobex", "vvonder", "woncler", "doud9", "c1oud9", "doudl", "doud-1"} {
		_, err := w.CreateTenant(t.Context(), createRequest(slug))
		wantKind(t, err, fault.AlreadyExists, slug)
		_, err = ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: h.provision(slug)})
		wantReason(t, err, "PLAN_STALE", slug)
	}
	for _, slug := range []string{"acne", "acid", "add", "globe", "wander"} {
		if _, err := w.CreateTenant(t.Context(), createRequest(slug)); err != nil {
			t.Errorf("%s: %v", slug, err)
		}
	}
}

func TestLabelsAreSetRemovedAndOnTheRecord(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme := h.create(ann.conn, "acme")
	w := registryv1.NewTenantWriteServiceClient(ann.conn)
	label := func(set map[string]string, remove ...string) (*registryv1.Tenant, error) {
		res, err := w.SetTenantLabels(t.Context(), &registryv1.SetTenantLabelsRequest{TenantId: acme.id.String(), Set: set, Remove: remove})
		return res.GetTenant(), err
	}
	for _, c := range []struct {
		set    map[string]string
		remove []string
		want   int
	}{{map[string]string{"ring": "canary", "eu": "yes"}, nil, 2}, {map[string]string{"ring": "early"}, nil, 2}, {nil, []string{"eu", "never"}, 1}, {nil, nil, 1}} {
		got, err := label(c.set, c.remove...)
		if err != nil || len(got.GetLabels()) != c.want {
			t.Errorf("%v, less %v: %v, %v", c.set, c.remove, got, err)
		}
	}
	if got := ann.status("acme").GetTenant().GetLabels(); got["ring"] != "early" || len(got) != 1 {
		t.Errorf("the labels are %v", got)
	}
	for _, bad := range []map[string]string{{"ring": "first"}, {"Ring": "canary"}, {"x": ""}, {"x": "a b"}} {
		_, err := label(bad)
		wantKind(t, err, fault.InvalidArgument, fmt.Sprint(bad))
	}
	var lines int
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM registry.operations_log WHERE action = 'registry.tenant.labelled' AND actor LIKE '%/operator-ann'").Scan(&lines); err != nil || lines != 3 {
		t.Errorf("%d lines are on the record, want one for each change: %v", lines, err)
	}
}

func TestOneDatabaseForTwoTenantsIsRefusedEverywhere(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	w := registryv1.NewTenantWriteServiceClient(ann.conn)
	made := func(slug string, tier registryv1.IsolationTier) string {
		req := createRequest(slug)
		req.IsolationTier = tier
		res, err := w.CreateTenant(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return res.GetTenant().GetId()
	}
	put := func(id, server, name string) error {
		set := h.place(id)
		set.Database = &registryv1.DatabasePlace{Server: server, Name: name}
		_, err := w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: id, ServiceSet: set})
		return err
	}
	acme, globex := made("acme", databaseTier), made("globex", databaseTier)
	lonely := made("lonely", registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	if err := put(acme, "127.0.0.1:5432", "a"); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"127.0.0.1:5432", "127.0.0.1:05432", "[::ffff:127.0.0.1]:5432", "localhost:5432", "127.1:5432", "0.0.0.0:5432"} {
		if err := put(globex, server, "a"); err == nil {
			t.Errorf("%s: the database of another tenant was taken", server)
		}
	}
	if err := put(globex, "127.0.0.1:5432", "b"); err != nil {
		t.Errorf("another database on a shared server: %v", err)
	}
	wantKind(t, put(lonely, "127.0.0.1:5432", "c"), fault.FailedPrecondition, "a dedicated tenant on a shared server")
	if err := put(lonely, "db.internal:5432", "c"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, put(globex, "db.internal:5432", "b"), fault.FailedPrecondition, "a tenant on another's dedicated server")
}

// A plan is carried out once: what was, or was given up, isn't listed beside those that can be. One that somebody is at is.
func TestPlansThatWereCarriedOutAreNotListed(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	ann.registerNewer()
	change := ann.change("acme", activeState, newer, "fetch", "start")
	stored := ann.put(h.planned(upgradeKind, change))
	listed := func(what string, want int) {
		t.Helper()
		res, err := registryv1.NewPlanServiceClient(ann.conn).ListPlans(t.Context(), &registryv1.ListPlansRequest{})
		if err != nil || len(res.GetPlans()) != want {
			t.Errorf("%s: listed are %d plans (%v), want %d", what, len(res.GetPlans()), err, want)
		}
	}
	listed("before it is carried out", 1)
	op := ann.begin(stored.GetHash(), change.GetTenantId())
	listed("while it is carried out", 1)
	if _, err := ann.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: op.GetId(), Reason: "it is given up, case 4713"}); err != nil {
		t.Fatal(err)
	}
	listed("given up", 0)
}
