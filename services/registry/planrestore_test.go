package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

const restoreKind = registryv1.OperationKind_OPERATION_KIND_RESTORE

// restoring is a plane prod with two operators, of whom ben has a key of his own, and two tenants.
type restoring struct {
	*harness
	ann, ben operator
	tenants  map[string]string
}

func newRestoring(t *testing.T) *restoring {
	t.Helper()
	h := newPlane(t, "prod")
	addr, _ := h.start()
	r := &restoring{harness: h, ann: h.person(addr, "operator-ann"), tenants: map[string]string{}}
	r.ben, _ = h.ownPerson(addr, "operator-ben")
	h.db.Exec(t, "INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor) VALUES ('"+older+"', '1.0.0', '', '', '{}', 'test')")
	for _, slug := range []string{"acme", "globex"} {
		r.tenants[slug] = r.provisioned(h.provision(slug), slug)
	}
	return r
}

// provisioned is the id of a tenant that a plan made, once it is active.
func (r *restoring) provisioned(plan *registryv1.Plan, slug string) string {
	r.t.Helper()
	lease := r.ann.take(r.ann.begin(r.approved(plan), slug).GetId())
	id := lease.GetOperation().GetTenantId()
	_, err := registryv1.NewTenantWriteServiceClient(r.ann.conn).PutServiceSet(r.t.Context(), &registryv1.PutServiceSetRequest{TenantId: id, ServiceSet: r.place(id), Lease: proof(lease)})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range lease.GetOperation().GetSteps() {
		r.ann.step(lease, s.GetName())
	}
	if _, err := r.ann.finish(lease); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// approved is the hash of a plan that ann made and ben approved.
func (r *restoring) approved(plan *registryv1.Plan) string {
	r.t.Helper()
	stored := r.ann.put(plan)
	if _, err := r.ben.approve(stored.GetHash()); err != nil {
		r.t.Fatal(err)
	}
	return stored.GetHash()
}

// of is the plan that restores a tenant to a backup, which is as of an hour ago.
func (r *restoring) of(slug, backup string, more func(*registryv1.RestoreChange)) *registryv1.Plan {
	r.t.Helper()
	s := r.ann.status(slug)
	change := r.ann.change(slug, s.GetTenant().GetState(), s.GetServiceSet().GetRelease(), "rehearse", "stop", "restore", "start")
	change.Restore = &registryv1.RestoreChange{Backup: backup, TakenAt: timestamppb.New(time.Now().Add(-time.Hour).Truncate(time.Second)), ManifestDigest: "sha256:" + strings.Repeat("a", 64), Release: older, Replace: true}
	if more != nil {
		more(change.GetRestore())
	}
	return r.planned(restoreKind, change)
}

// request is the restore that a plan is of.
func request(plan *registryv1.Plan, hash string) *registryv1.RecordRestoreRequest {
	change := plan.GetTenants()[0]
	of := change.GetRestore()
	return &registryv1.RecordRestoreRequest{TenantId: change.GetTenantId(), Backup: of.GetBackup(), TakenAt: of.GetTakenAt(), Reason: plan.GetReason(),
		CopiedFrom: of.GetCopiedFrom(), PlanHash: hash, PlannedBackup: of.GetBackup(), ManifestDigest: of.GetManifestDigest()}
}

// record asks whether a restore would be recorded, or has it recorded.
func (o operator) restored(req *registryv1.RecordRestoreRequest, ask bool) error {
	req = proto.CloneOf(req)
	req.ValidateOnly = ask
	_, err := registryv1.NewBackupWriteServiceClient(o.conn).RecordRestore(o.h.t.Context(), req)
	return err
}

const firstBackup, secondBackup = "20260901T030000Z-aaaaaa", "20260902T030000Z-bbbbbb"

// Row F52 of restores, and of two people: in prod a tenant is put back by an approved plan of that very tenant and backup, once, whether it is only asked
// about or recorded; and the record names the plan, who made it and who approved it.
func TestRestoreOfProdTakesAnApprovedPlanOfThatVeryBackup(t *testing.T) {
	r := newRestoring(t)
	acme := r.of("acme", firstBackup, nil)
	stored := r.ann.put(acme)
	good := request(acme, stored.GetHash())
	held := 0
	refused := func(what string, kind fault.Kind, says string, req *registryv1.RecordRestoreRequest) {
		t.Helper()
		for _, ask := range []bool{true, false} {
			err := r.ann.restored(req, ask)
			wantKind(t, err, kind, what)
			if !strings.Contains(fmt.Sprint(err), says) {
				t.Errorf("%s: %v does not say %q", what, err, says)
			}
		}
		held++
	}
	refused("a plan that nobody approved", fault.FailedPrecondition, "fleet approve "+stored.GetHash(), good)
	_, err := r.ann.approve(stored.GetHash())
	wantKind(t, err, fault.PermissionDenied, "approving one's own plan")
	r.db.Exec(t, "INSERT INTO registry.plan_approvals (plan_hash, actor, reason) SELECT hash, actor, 'it looks right to me' FROM registry.plans WHERE hash = '"+stored.GetHash()+"'")
	refused("a plan that its maker approved", fault.FailedPrecondition, "does not count: it is of who made the plan", good)
	if _, err := r.ben.approve(stored.GetHash()); err != nil {
		t.Fatal(err)
	}

	without := proto.CloneOf(good)
	without.PlanHash, without.PlannedBackup, without.ManifestDigest = "", "", ""
	refused("no plan", fault.FailedPrecondition, "fleet plan restore --from "+firstBackup, without)
	unknown := proto.CloneOf(good)
	unknown.PlanHash = "sha256:" + strings.Repeat("0", 64)
	refused("a plan that nobody made", fault.NotFound, "no such plan", unknown)
	suspends := r.planned(suspendKind, r.ann.change("acme", suspendState, r.ann.status("acme").GetServiceSet().GetRelease(), "stop"))
	other := proto.CloneOf(good)
	other.PlanHash = r.approved(suspends)
	refused("an approved plan to suspend the tenant", fault.InvalidArgument, "is to suspend", other)
	for what, c := range map[string]struct {
		change func(*registryv1.RecordRestoreRequest)
		says   string
	}{
		"another tenant":                    {func(q *registryv1.RecordRestoreRequest) { q.TenantId = r.tenants["globex"] }, "another tenant"},
		"another backup":                    {func(q *registryv1.RecordRestoreRequest) { q.Backup, q.PlannedBackup = secondBackup, secondBackup }, "another backup"},
		"another backup as the planned one": {func(q *registryv1.RecordRestoreRequest) { q.Backup = secondBackup }, "another backup"},
		"another content under its name":    {func(q *registryv1.RecordRestoreRequest) { q.ManifestDigest = "sha256:" + strings.Repeat("b", 64) }, "another manifest"},
		"another moment":                    {func(q *registryv1.RecordRestoreRequest) { q.TakenAt = timestamppb.Now() }, "another moment"},
		"a copy":                            {func(q *registryv1.RecordRestoreRequest) { q.CopiedFrom = r.tenants["globex"] }, "another tenant that is copied"},
		"another reason":                    {func(q *registryv1.RecordRestoreRequest) { q.Reason = "because I say so" }, "another reason"},
	} {
		q := proto.CloneOf(good)
		c.change(q)
		refused(what, fault.FailedPrecondition, c.says, q)
	}
	own := proto.CloneOf(good)
	own.TenantId = ""
	refused("the plane's own registry", fault.InvalidArgument, "by no plan", own)
	_, err = r.ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stored.GetHash(), Tenant: r.tenants["acme"]})
	wantKind(t, err, fault.FailedPrecondition, "a restore as an operation")
	if n := column(t, r.harness, "SELECT plan_hash FROM registry.planned_restores"); len(n) != 0 {
		t.Errorf("begun are %v", n)
	}

	// It is asked about, which begins it; asked again, as by who was interrupted; and recorded.
	for _, ask := range []bool{true, true, false} {
		if err := r.ann.restored(good, ask); err != nil {
			t.Fatal(err)
		}
	}
	refused("a plan that was carried out", fault.FailedPrecondition, "restores nothing a second time", good)
	wantReason(t, r.ann.restored(good, false), "PLAN_USED", "a plan that was carried out")
	listed, err := registryv1.NewPlanServiceClient(r.ben.conn).ListPlans(t.Context(), &registryv1.ListPlansRequest{})
	if err != nil || slices.ContainsFunc(listed.GetPlans(), func(p *registryv1.StoredPlan) bool { return p.GetHash() == stored.GetHash() }) {
		t.Errorf("a restore that was carried out is listed (%v)", err)
	}
	read, err := registryv1.NewPlanServiceClient(r.ben.conn).GetPlan(t.Context(), &registryv1.GetPlanRequest{Hash: stored.GetHash()})
	if u := read.GetPlan().GetRestore(); err != nil || !strings.HasSuffix(u.GetActor(), "/operator-ann") || u.GetBegunAt() == nil || u.GetRecordedAt() == nil {
		t.Errorf("the plan says of its restore %v (%v)", u, err)
	}
	record := column(t, r.harness, "SELECT plan_hash || ' ' || planned_by || ' ' || approved_by FROM registry.restores")
	if len(record) != 1 || record[0] != stored.GetHash()+" "+stored.GetActor()+" spiffe://plane.prod.a3os/operator-ben" {
		t.Errorf("the record is %q", record)
	}
	lines := column(t, r.harness, "SELECT detail FROM registry.operations_log WHERE action = 'registry.tenant.restored'")
	if len(lines) != 1 || !strings.Contains(lines[0], "by plan "+record[0][:71]+" of "+stored.GetActor()+", approved by spiffe://plane.prod.a3os/operator-ben") {
		t.Errorf("the operations log says %q", lines)
	}

	// Made once more, word for word, it is another plan, which nobody approved.
	if again := r.ann.put(acme); again.GetHash() != stored.GetHash() || again.GetRestore() != nil {
		t.Errorf("made again it is %v", again)
	}
	refused("the word for the restore before", fault.FailedPrecondition, "fleet approve", good)
	t.Attr("row", fmt.Sprint("F52 ", held))
}

// A restore that was begun is gone on with whoever was removed since, and also after its plan expired, for its set is stopped; and not once the
// tenant was changed, restored by another plan, or has written what nobody agreed to give up.
func TestBegunRestoreIsGoneOnWithInItsOwnWorldAlone(t *testing.T) {
	r := newRestoring(t)
	expire := func() {
		r.db.Exec(t, "UPDATE registry.plans SET created_at = created_at - interval '2 days', expires_at = now() - interval '1 minute'; "+
			"UPDATE registry.plan_approvals SET approved_at = approved_at - interval '1 day'; UPDATE registry.planned_restores SET begun_at = begun_at - interval '1 day'")
	}
	planned := func(slug, backup string) *registryv1.RecordRestoreRequest {
		plan := r.of(slug, backup, nil)
		return request(plan, r.approved(plan))
	}
	begin := func(req *registryv1.RecordRestoreRequest) *registryv1.RecordRestoreRequest {
		t.Helper()
		if err := r.ann.restored(req, true); err != nil {
			t.Fatal(err)
		}
		return req
	}
	unbegun := planned("acme", firstBackup)
	expire()
	wantReason(t, r.ann.restored(unbegun, true), "PLAN_STALE", "an expired plan that was not begun")
	wantReason(t, r.ann.restored(unbegun, false), "PLAN_STALE", "an expired plan that was not begun, recorded at once")

	first, second := begin(planned("acme", firstBackup)), begin(planned("acme", secondBackup))
	expire()
	for _, ask := range []bool{true, false} {
		if err := r.ann.restored(first, ask); err != nil {
			t.Errorf("a begun restore whose plan expired: %v", err)
		}
	}
	err := r.ann.restored(second, false)
	wantReason(t, err, "PLAN_STALE", "a begun restore of a tenant that was restored meanwhile")
	if !strings.Contains(fmt.Sprint(err), firstBackup) {
		t.Errorf("it is not said by what: %v", err)
	}

	served := begin(planned("globex", firstBackup))
	expire()
	r.db.Exec(t, "INSERT INTO registry.witnessed_logs (tenant_id, verifier_key) SELECT id, 'nobodys' FROM registry.tenants WHERE slug = 'globex'; "+
		"INSERT INTO registry.checkpoints (tenant_id, size, root_hash, note, witnessed_at) SELECT id, 7, sha256(''), '', now() FROM registry.tenants WHERE slug = 'globex'")
	err = r.ann.restored(served, true)
	wantReason(t, err, "PLAN_STALE", "a begun restore of a set that served after its plan had expired")
	if !strings.Contains(fmt.Sprint(err), "has served since") {
		t.Errorf("it is not said why: %v", err)
	}
	r.db.Exec(t, "DELETE FROM registry.checkpoints; DELETE FROM registry.witnessed_logs")

	changed := begin(planned("globex", secondBackup))
	stop := r.ann.change("globex", suspendState, r.ann.status("globex").GetServiceSet().GetRelease(), "stop")
	lease := r.ann.take(r.ann.begin(r.approved(r.planned(suspendKind, stop)), stop.GetTenantId()).GetId())
	wantReason(t, r.ann.restored(changed, false), "OPERATION_UNFINISHED", "a tenant that something is done to")
	r.ann.step(lease, "stop")
	if _, err := r.ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	wantReason(t, r.ann.restored(changed, false), "PLAN_STALE", "a tenant that was suspended meanwhile")

	// Of who was removed a word counts no more, but for what was begun by it.
	begun, later := begin(planned("globex", firstBackup)), planned("globex", secondBackup)
	if err := r.ann.remove("ben"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, r.ann.restored(later, true), "PLAN_NOT_APPROVED", "the word of who was removed")
	if err := r.ann.restored(begun, false); err != nil {
		t.Errorf("what was begun by the word of who was removed since: %v", err)
	}
}

// A copy's backup is another one's first, and the plan names that one.
func TestRestoreOfACopyIsPlannedByTheBackupThatIsCopied(t *testing.T) {
	r := newRestoring(t)
	make := r.provision("monday")
	make.Tenants[0].CopyOf = r.tenants["acme"]
	r.tenants["monday"] = r.provisioned(make, "monday")
	plan := r.of("monday", firstBackup, func(c *registryv1.RestoreChange) { c.CopiedFrom = r.tenants["acme"] })
	req := request(plan, r.approved(plan))
	req.Backup, req.Reason = secondBackup, "Copy of acme, backup "+firstBackup+": "+plan.GetReason()
	for what, change := range map[string]func(*registryv1.RecordRestoreRequest){
		"another of acme's backups": func(q *registryv1.RecordRestoreRequest) { q.PlannedBackup = secondBackup },
		"a backup of its own":       func(q *registryv1.RecordRestoreRequest) { q.CopiedFrom = "" },
	} {
		q := proto.CloneOf(req)
		change(q)
		wantKind(t, r.ann.restored(q, true), fault.FailedPrecondition, what)
	}
	for _, ask := range []bool{true, false} {
		if err := r.ann.restored(req, ask); err != nil {
			t.Fatal(err)
		}
	}
}

// What a plan of a restore has to be is looked at when it is stored. Planes for development take one too, and restore without.
func TestPlanOfARestoreIsOfOneTenantAsItStands(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	r := &restoring{harness: h, ann: h.person(addr, "operator-ann")}
	acme := h.create(r.ann.conn, "acme")
	h.create(r.ann.conn, "globex")
	for what, change := range map[string]func(*registryv1.Plan){
		"no backup":                      func(p *registryv1.Plan) { p.Tenants[0].Restore = nil },
		"an upgrade that names a backup": func(p *registryv1.Plan) { p.Kind = upgradeKind },
		"two tenants": func(p *registryv1.Plan) {
			p.Tenants = append(p.Tenants, r.of("globex", firstBackup, nil).GetTenants()[0])
			if p.GetTenants()[0].GetTenantId() > p.GetTenants()[1].GetTenantId() {
				p.Tenants[0], p.Tenants[1] = p.GetTenants()[1], p.GetTenants()[0]
			}
		},
		"another release":                    func(p *registryv1.Plan) { p.Tenants[0].ReleaseTo = newer },
		"another state":                      func(p *registryv1.Plan) { p.Tenants[0].StateTo = suspendState },
		"a step of another kind":             func(p *registryv1.Plan) { p.Tenants[0].Steps = []string{"shred"} },
		"a backup of no name":                func(p *registryv1.Plan) { p.Tenants[0].Restore.Backup = "latest" },
		"a manifest that nobody can look at": func(p *registryv1.Plan) { p.Tenants[0].Restore.ManifestDigest = "" },
		"a wave":                             func(p *registryv1.Plan) { p.Rollout = &registryv1.RolloutPolicy{MaxParallel: 1} },
	} {
		plan := r.of("acme", firstBackup, nil)
		change(plan)
		_, err := r.ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan})
		wantKind(t, err, fault.InvalidArgument, what)
	}
	plan := r.of("acme", firstBackup, nil)
	_, err := r.ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan, BeginAt: "host-1", LeaseToken: strings.Repeat("a", 43)})
	wantKind(t, err, fault.FailedPrecondition, "a restore that is begun with its plan")
	req := request(plan, r.ann.put(plan).GetHash())
	if err := r.ann.restored(req, false); err != nil {
		t.Errorf("by a plan, on a plane for development: %v", err)
	}
	wantReason(t, r.ann.restored(req, false), "PLAN_USED", "the same once more")
	if err := r.ann.restored(&registryv1.RecordRestoreRequest{TenantId: acme.id.String(), Backup: secondBackup, TakenAt: timestamppb.Now(), Reason: "the disk was lost"}, false); err != nil {
		t.Errorf("without a plan, on a plane for development: %v", err)
	}
}
