package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"
	"a3os.app/libs/workload"
)

// pairLog signs checkpoints of logs of one and two entries, the smallest that can fork.
type pairLog struct{ signer *tlog.Signer }

func newPairLog(t *testing.T, x tenant) pairLog {
	t.Helper()
	secret, _, err := tlog.NewKey(tlog.Origin("dev", x.id))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return pairLog{signer: s}
}

func hash(word string) []byte { return rfc6962.DefaultHasher.HashLeaf([]byte(word)) }

// request is a report with the checkpoint of a log of these entries, and the proof that it grew from the first of them.
func (l pairLog) request(t *testing.T, words ...string) *registryv1.ReportRequest {
	t.Helper()
	root, proof := hash(words[0]), [][]byte(nil)
	if len(words) == 2 {
		proof = [][]byte{hash(words[1])}
		root = rfc6962.DefaultHasher.HashChildren(root, proof[0])
	}
	c, err := l.signer.Sign(uint64(len(words)), root)
	if err != nil {
		t.Fatal(err)
	}
	return &registryv1.ReportRequest{Checkpoint: c.Note, CheckpointVerifierKey: l.signer.Verifier().String(), ConsistencyProof: proof,
		Components: []*registryv1.ComponentReport{{Name: "iam", Health: registryv1.Health_HEALTH_SERVING, Release: "1.0.0"}}}
}

func TestReportIsKeptWithTheRegistrysOwnClock(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set, r := registryv1.NewReportServiceClient(h.dial(addr, s)), registryv1.NewTenantServiceClient(operator)
	started := time.Now().Add(-time.Hour).Truncate(time.Second)
	res, err := set.Report(t.Context(), &registryv1.ReportRequest{AuditBacklog: 3, Components: []*registryv1.ComponentReport{
		{Name: "iam", Health: registryv1.Health_HEALTH_SERVING, Release: "1.0.0", StartedAt: timestamppb.New(started), ReportedAt: timestamppb.New(time.Unix(0, 0))},
		{Name: "audit", Health: registryv1.Health_HEALTH_UNREACHABLE},
	}})
	if err != nil || res.GetNextReportSeconds() < 1 {
		t.Fatalf("%v, %v", res, err)
	}
	got, err := r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	said := got.GetStatus().GetReports()
	if len(said) != 2 || said[0].GetName() != "audit" || said[0].GetHealth() != registryv1.Health_HEALTH_UNREACHABLE || said[0].StartedAt != nil ||
		!said[1].GetStartedAt().AsTime().Equal(started) || time.Since(said[1].GetReportedAt().AsTime()).Abs() > time.Minute {
		t.Errorf("the registry holds %v", said)
	}
	if _, err := set.Report(t.Context(), &registryv1.ReportRequest{Components: []*registryv1.ComponentReport{{Name: "iam"}}}); err != nil {
		t.Fatal(err)
	}
	if got, err = r.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"}); err != nil || len(got.GetStatus().GetReports()) != 1 {
		t.Errorf("a component that is no longer named is still there: %v, %v", got, err)
	}
	_, err = set.Report(t.Context(), &registryv1.ReportRequest{Components: []*registryv1.ComponentReport{{Name: "iam"}, {Name: "iam"}}})
	wantKind(t, err, fault.InvalidArgument, "a component twice")
}

func TestForkedLogIsRefusedAndTheLastGoodCheckpointKept(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set := registryv1.NewReportServiceClient(h.dial(addr, s))
	log := newPairLog(t, acme)
	send := func(want int64, words ...string) *registryv1.ReportRequest {
		t.Helper()
		req := log.request(t, words...)
		res, err := set.Report(t.Context(), req)
		if err != nil || res.GetWitnessedSize() != want {
			t.Fatalf("%v: %v, %v", words, res, err)
		}
		return req
	}
	send(1, "a")
	last := send(2, "a", "b")
	send(2, "a", "b") // delivered twice
	for what, c := range map[string]struct {
		req  *registryv1.ReportRequest
		kind fault.Kind
	}{
		"a log that forked":           {log.request(t, "a", "c"), fault.FailedPrecondition},
		"a log that was cut":          {log.request(t, "a"), fault.FailedPrecondition},
		"a log with another key":      {newPairLog(t, acme).request(t, "a", "b"), fault.FailedPrecondition},
		"the log of another tenant":   {newPairLog(t, globex).request(t, "a", "b"), fault.FailedPrecondition},
		"a checkpoint without a key":  {&registryv1.ReportRequest{Checkpoint: last.GetCheckpoint()}, fault.FailedPrecondition},
		"a checkpoint that is broken": {&registryv1.ReportRequest{Checkpoint: "x", CheckpointVerifierKey: last.GetCheckpointVerifierKey()}, fault.InvalidArgument},
	} {
		before := counter(t, operator, "registry_checkpoints_refused_total")
		_, err := set.Report(t.Context(), c.req)
		wantKind(t, err, c.kind, what)
		// The alarm is made of it.
		if n := counter(t, operator, "registry_checkpoints_refused_total") - before; n != 1 {
			t.Errorf("%s: %v refusals are told", what, n)
		}
	}
	// Who took a set over can show one after the other, and the record is kept for ever.
	var onRecord int
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM registry.operations_log WHERE action = 'registry.checkpoint.refused' AND target = $1", acme.id.String()).Scan(&onRecord); err != nil || onRecord != 1 {
		t.Errorf("of a minute's refusals %d are on record, want 1: %v", onRecord, err)
	}
	res, err := set.Report(t.Context(), &registryv1.ReportRequest{})
	if err != nil || res.GetWitnessedSize() != 2 {
		t.Errorf("after the refusals %v is held, %v; want size 2", res, err)
	}
	got, err := registryv1.NewTenantServiceClient(operator).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"})
	if err != nil || got.GetStatus().GetCheckpoint() != last.GetCheckpoint() || got.GetStatus().GetCheckpointAt() == nil {
		t.Errorf("the last good checkpoint is not held: %v, %v", got, err)
	}
}

// Who is put off is counted: an alarm is made of it.
func TestReportsThatArePutOffAreCounted(t *testing.T) {
	h := newHarness(t)
	h.settings = append(h.settings, "A3_REPORTS_PER_SECOND=1")
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	const sets = 4
	before, putOff := counter(t, operator, "registry_reports_deferred_total"), 0.0
	if before != 0 {
		t.Errorf("before anybody reported %v are told to be put off", before)
	}
	for i := range sets {
		x := h.create(operator, fmt.Sprintf("t%d", i))
		s, _ := source(t, x.issuer, workload.Identity{Plane: "dev", Tenant: x.id, Service: "audit"})
		if _, err := registryv1.NewReportServiceClient(h.dial(addr, s)).Report(t.Context(), newPairLog(t, x).request(t, "a")); err != nil {
			wantKind(t, err, fault.ResourceExhausted, "one report too many")
			putOff++
		}
	}
	if n := counter(t, operator, "registry_reports_deferred_total"); putOff == 0 || n != putOff {
		t.Errorf("of %d reports %v were put off, and %v are told", sets, putOff, n)
	}
}

func TestManySetsReportAtOnce(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	done := make(chan error)
	const sets, each = 4, 25
	for i := range sets {
		x := h.create(operator, fmt.Sprintf("t%d", i))
		s, _ := source(t, x.issuer, workload.Identity{Plane: "dev", Tenant: x.id, Service: "audit"})
		client := registryv1.NewReportServiceClient(h.dial(addr, s))
		req := newPairLog(t, x).request(t, "a")
		go func() {
			for range each {
				if _, err := client.Report(t.Context(), req); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range sets {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
