package registry_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/binding"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/gauges"
)

func recorded(tenant, name string, at time.Time, verified bool, failure string) *registryv1.RecordBackupRequest {
	b := &registryv1.Backup{TenantId: tenant, Name: name, TakenAt: timestamppb.New(at), SizeBytes: 7, Release: "1.0.0", Took: durationpb.New(time.Second), Failure: failure}
	if verified {
		b.VerifiedAt, b.RestoreTook = timestamppb.New(at.Add(time.Minute)), durationpb.New(2*time.Second)
	}
	return &registryv1.RecordBackupRequest{Backup: b}
}

// The newest attempt and the newest one that could be restored are both there, however many came to nothing since.
func TestNewestGoodBackupStaysKnown(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	w, r := registryv1.NewBackupWriteServiceClient(operator), registryv1.NewBackupServiceClient(operator)
	at := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	const failures = 120
	requests := []*registryv1.RecordBackupRequest{
		recorded(acme.id.String(), "20260901T030000Z-aaaaaa", at, false, ""),
		recorded(acme.id.String(), "20260901T030000Z-aaaaaa", at, true, ""), // verified later
		recorded("", "20260901T040000Z-bbbbbb", at, true, ""),
	}
	for i := range failures {
		requests = append(requests, recorded(acme.id.String(), "", at.Add(time.Duration(i+1)*time.Minute), false, "the disk is full"))
	}
	for _, req := range requests {
		if _, err := w.RecordBackup(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	res, err := r.ListBackups(t.Context(), &registryv1.ListBackupsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := res.GetBackups()
	if len(got) != 3 || got[0].GetFailure() == "" || got[0].GetTenantId() != acme.id.String() {
		t.Fatalf("the newest are %v, want the failure, acme's good one and the plane's", got)
	}
	good := map[string]bool{}
	for _, b := range got[1:] {
		good[b.GetTenantId()] = b.GetVerifiedAt().AsTime().Equal(at.Add(time.Minute)) && b.GetRestoreTook().AsDuration() == 2*time.Second
	}
	if !good[acme.id.String()] || !good[""] {
		t.Errorf("the newest good ones are %v", got[1:])
	}
	of, err := r.ListBackups(t.Context(), &registryv1.ListBackupsRequest{Set: acme.id.String(), PageSize: 60})
	const kept = 101
	if err != nil {
		t.Fatal(err)
	}
	rest, err := r.ListBackups(t.Context(), &registryv1.ListBackupsRequest{Set: acme.id.String(), PageSize: 60, PageToken: of.GetNextPageToken()})
	if n := len(of.GetBackups()) + len(rest.GetBackups()); err != nil || n != kept || rest.GetNextPageToken() != "" {
		t.Errorf("%d of acme's are kept (%v), want %d on two pages", n, err, kept)
	}
	_, err = r.ListBackups(t.Context(), &registryv1.ListBackupsRequest{PageToken: "x"})
	wantKind(t, err, fault.InvalidArgument, "a token of no page")
	_, err = w.RecordBackup(t.Context(), recorded(acme.id.String(), "", at, false, ""))
	wantKind(t, err, fault.InvalidArgument, "a backup without a name and without a reason")
	_, err = registryv1.NewBackupWriteServiceClient(h.as(addr, "gateway")).RecordBackup(t.Context(), requests[0])
	wantKind(t, err, fault.PermissionDenied, "a gateway that records a backup")
}

// A backup from a time to come, of a clock that once ran ahead, hides neither how old the newest real one is nor that none came to anything since.
func TestBackupFromATimeToComeIsNotTheNewest(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	w, r := registryv1.NewBackupWriteServiceClient(operator), registryv1.NewBackupServiceClient(operator)
	newest := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	for of, tenant := range []string{acme.id.String(), ""} {
		suffix := string(rune('a' + of))
		for _, req := range []*registryv1.RecordBackupRequest{
			recorded(tenant, "20260901T030000Z-aaaaa"+suffix, newest, true, ""),
			recorded(tenant, "20270901T030000Z-aaaaa"+suffix, newest.AddDate(1, 0, 0), true, ""),
			recorded(tenant, "", newest.Add(time.Hour), false, "the disk is full"),
		} {
			if _, err := w.RecordBackup(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
	}
	res, err := r.ListBackups(t.Context(), &registryv1.ListBackupsRequest{})
	const attemptsAndGood = 4
	if err != nil || len(res.GetBackups()) != attemptsAndGood {
		t.Fatalf("the newest are %v (%v)", res.GetBackups(), err)
	}
	for _, b := range res.GetBackups() {
		if b.GetTakenAt().AsTime().After(time.Now()) {
			t.Errorf("the newest of %q is %v", b.GetTenantId(), b)
		}
	}
	age, failed := h.told("a3_backup_age_seconds"), h.told("a3_backup_failed")
	for _, of := range []string{acme.id.String(), "plane"} {
		if age[of] < 47*3600 || failed[of] != 1 {
			t.Errorf("of %s is told that its newest backup is %g s old, and failed %g", of, age[of], failed[of])
		}
	}
}

// A set that was put back shows a log that its witness would refuse, and is believed once the restore is on record, and not before. What
// the witness held is kept; a log that it never saw is not taken for a restored one.
func TestWitnessGoesBackWithARecordedRestore(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	w := registryv1.NewBackupWriteServiceClient(operator)
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set := registryv1.NewReportServiceClient(h.dial(addr, s))
	log := newPairLog(t, acme)
	first := log.request(t, "a")
	for _, req := range []*registryv1.ReportRequest{first, log.request(t, "a", "b")} {
		if _, err := set.Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	other := log.request(t, "a", "c")
	_, err := set.Report(t.Context(), other)
	wantKind(t, err, fault.FailedPrecondition, "the log that goes on from a backup, before anybody said that it was restored")

	restore := &registryv1.RecordRestoreRequest{TenantId: acme.id.String(), Backup: "20260901T030000Z-aaaaaa", TakenAt: timestamppb.Now(), Reason: "the disk was lost"}
	for what, note := range map[string]string{"another history of the same size": log.request(t, "a", "c").GetCheckpoint(), "another key": newPairLog(t, acme).request(t, "a").GetCheckpoint(), "no checkpoint at all": "x"} {
		restore.Checkpoint = note
		if _, err := w.RecordRestore(t.Context(), restore); err == nil {
			t.Errorf("a restore to %s is taken", what)
		}
	}
	// What was witnessed long before a backup is in it: one without is made up, so that the witness forgets.
	aged := func(by string) {
		if _, err := h.db.Pool(t).Exec(t.Context(), "UPDATE registry.checkpoints SET witnessed_at = witnessed_at + $1::interval", by); err != nil {
			t.Fatal(err)
		}
	}
	aged("-1 hour")
	for _, note := range []string{"", first.GetCheckpoint()} {
		restore.Checkpoint = note
		_, err = w.RecordRestore(t.Context(), restore)
		wantKind(t, err, fault.FailedPrecondition, "a backup that lacks what was witnessed an hour before it")
	}
	aged("1 hour")
	restore.Checkpoint, restore.TakenAt = first.GetCheckpoint(), timestamppb.New(time.Now().Add(time.Hour))
	_, err = w.RecordRestore(t.Context(), restore)
	wantKind(t, err, fault.InvalidArgument, "a backup of an hour to come")
	// One that the registry knows is as old as it is, whatever the clock said that it was made by. To be asked changes nothing.
	if _, err := w.RecordBackup(t.Context(), &registryv1.RecordBackupRequest{Backup: &registryv1.Backup{TenantId: acme.id.String(), Name: restore.GetBackup(), TakenAt: restore.GetTakenAt()}}); err != nil {
		t.Fatal(err)
	}
	restore.ValidateOnly = true
	for range 2 {
		if would, err := w.RecordRestore(t.Context(), restore); err != nil || would.GetLostEntries() != 1 {
			t.Fatalf("asked whether it would be recorded: %v, %v", would, err)
		}
	}
	_, err = set.Report(t.Context(), other)
	wantKind(t, err, fault.FailedPrecondition, "the log that goes on from a backup, of which it was only asked")
	restore.ValidateOnly = false
	res, err := w.RecordRestore(t.Context(), restore)
	if err != nil || res.GetLostEntries() != 1 || !res.GetWitnessedAt().IsValid() {
		t.Fatalf("%v, %v: want one entry lost", res, err)
	}
	after, err := set.Report(t.Context(), other)
	if err != nil || after.GetWitnessedSize() != 2 {
		t.Errorf("the log that goes on from the backup: %v, %v", after, err)
	}
	var kept int
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM registry.restores WHERE witnessed_size = 2 AND witnessed_note <> ''").Scan(&kept); err != nil || kept != 1 {
		t.Errorf("%d restores keep what the witness held, %v", kept, err)
	}
}

// A tenant that was made to be another's copy takes that one's backups, from which on its witness begins anew, and nobody else takes them. Whose copy it is
// is said in the plan that makes it, and of nobody who isn't there.
func TestWitnessOfACopyBeginsAnew(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme, globex := h.create(ann.conn, "acme"), h.create(ann.conn, "globex")
	plan := h.provision("monday")
	for _, nobody := range []string{id.NewTenant().String(), "acme"} {
		plan.Tenants[0].CopyOf = nobody
		if _, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan}); err == nil {
			t.Errorf("a copy of %s, who isn't there, is planned", nobody)
		}
	}
	change := ann.change("globex", activeState, newer, "fetch", "start")
	change.CopyOf = acme.id.String()
	_, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: h.planned(upgradeKind, change)})
	wantKind(t, err, fault.InvalidArgument, "a tenant that is there becomes a copy")
	plan.Tenants[0].CopyOf = acme.id.String()
	op := ann.begin(ann.put(plan).GetHash(), "monday")
	status := ann.status("monday")
	if status.GetTenant().GetCopyOf() != acme.id.String() || ann.status("acme").GetTenant().GetCopyOf() != "" {
		t.Errorf("monday is a copy of %q", status.GetTenant().GetCopyOf())
	}
	monday, err := id.ParseTenant(op.GetTenantId())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO registry.witnessed_logs (tenant_id, verifier_key) VALUES ($1, 'x')",
		"INSERT INTO registry.checkpoints (tenant_id, size, root_hash, note, witnessed_at) VALUES ($1, 7, decode(repeat('00', 32), 'hex'), 'x', now() - interval '2 hours')",
	} {
		if _, err := h.db.Pool(t).Exec(t.Context(), sql, monday); err != nil {
			t.Fatal(err)
		}
	}
	w := registryv1.NewBackupWriteServiceClient(ann.conn)
	restore := &registryv1.RecordRestoreRequest{TenantId: monday.String(), Backup: "20260901T030000Z-aaaaaa", TakenAt: timestamppb.Now(), Reason: "what was there on Monday?"}
	_, err = w.RecordRestore(t.Context(), restore)
	wantKind(t, err, fault.FailedPrecondition, "a backup of its own that lacks what was witnessed")
	restore.CopiedFrom = globex.id.String()
	_, err = w.RecordRestore(t.Context(), restore)
	wantKind(t, err, fault.FailedPrecondition, "a backup of a tenant that it is no copy of")
	restore.CopiedFrom = acme.id.String()
	if _, err := w.RecordRestore(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM registry.checkpoints WHERE tenant_id = $1", monday).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d checkpoints of what the copy took the place of are left (%v)", left, err)
	}
	restore.TenantId = acme.id.String()
	_, err = w.RecordRestore(t.Context(), restore)
	wantKind(t, err, fault.FailedPrecondition, "acme as a copy of itself")
}

// told are the figures of one name that the registry tells, by the one label that they have, the set or the tenant, or by both of those of a
// component: `component tenant`.
func (h *harness) told(name string) map[string]float64 {
	h.t.Helper()
	db := h.reader()
	defer db.Close()
	return h.toldOf(db, name)
}

// reader is the registry's database as its figures are read.
func (h *harness) reader() *pg.DB {
	h.t.Helper()
	owner, err := binding.NewOwner(h.markKeys, h.plane, id.Tenant{})
	if err != nil {
		h.t.Fatal(err)
	}
	db, err := pg.Open(h.t.Context(), pg.Config{URL: h.role, Service: "registry", MaxConns: 1, Owner: owner})
	if err != nil {
		h.t.Fatal(err)
	}
	return db
}

func (h *harness) toldOf(db *pg.DB, name string) map[string]float64 {
	h.t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(gauges.New(db)); err != nil {
		h.t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name {
				continue
			}
			var labels []string // in the order of their names
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, " ")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// What alarms are made of: how old the newest backup is that could be restored, and whether the newest attempt came to nothing.
func TestFiguresTellOfBackupsThatFailOrAreOverdue(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	w := registryv1.NewBackupWriteServiceClient(operator)
	const day = 24 * time.Hour
	now := time.Now()
	for _, req := range []*registryv1.RecordBackupRequest{
		recorded(acme.id.String(), "20260901T030000Z-aaaaaa", now.Add(-3*day), true, ""),
		recorded(acme.id.String(), "20260902T030000Z-aaaaaa", now.Add(-2*day), false, "it could not be restored"),
		recorded(acme.id.String(), "", now.Add(-day), false, "the disk is full"),
		recorded("", "20260904T030000Z-bbbbbb", now.Add(-day), false, "it could not be restored"),
		recorded("", "20260905T030000Z-bbbbbb", now.Add(-time.Hour), true, ""),
	} {
		if _, err := w.RecordBackup(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	failed, ages := h.told("a3_backup_failed"), h.told("a3_backup_age_seconds")
	if want := map[string]float64{acme.id.String(): 1, globex.id.String(): 0, "plane": 0}; !maps.Equal(failed, want) {
		t.Errorf("failed are %v, want %v", failed, want)
	}
	for set, want := range map[string]time.Duration{acme.id.String(): 3 * day, globex.id.String(): 0, "plane": time.Hour} {
		if got := time.Duration(ages[set] * float64(time.Second)); len(ages) != 3 || (got-want).Abs() > time.Minute {
			t.Errorf("the newest good backup of %s is %s old, want %s", set, got, want)
		}
	}
}
