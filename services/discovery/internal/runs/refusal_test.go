package runs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/runs"
)

// job is the queue's id of the job that the tests work on.
const job = 1

// TestOnlyASlicesEnvelopeSpeaksOfASlice tries what else a caller could present.
func TestOnlyASlicesEnvelopeSpeaksOfASlice(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	with := func(workspace id.Workspace, kind, run string) context.Context {
		m, err := e.Signer.Sign(&queuev1.SlicePayload{RunId: run, WorkspaceId: workspace.String(), TenantId: e.ID.String(),
			IntegrationId: id.NewIntegration().String()}, workspace, kind, "schedule", time.Minute)
		check(t, err)
		v, err := e.Verifier.Verify(m.Envelope, m.Payload)
		check(t, err)
		ctx, err := queue.InScope(t.Context(), v, "discovery-worker")
		check(t, err)
		return ctx
	}
	for name, tt := range map[string]struct {
		ctx  context.Context
		want fault.Kind
	}{
		"none":                 {e.In(t.Context(), w), fault.PermissionDenied},
		"another kind":         {with(w, "discovery.own", run.GetId()), fault.PermissionDenied},
		"of another workspace": {with(id.NewWorkspace(), runs.KindSlice, run.GetId()), fault.NotFound},
		"of no run":            {with(w, runs.KindSlice, id.NewRun().String()), fault.NotFound},
	} {
		for what, err := range map[string]error{
			"begin": second(e.Runs.BeginSlice(tt.ctx, 1, job)), "put": e.Put(tt.ctx, 1, people("a", "x")...), "fail": e.Runs.Fail(tt.ctx, 1, "x"),
			"seal": second(e.Runs.Seal(tt.ctx, seal(0, true))), "progress": second(e.Runs.Progress(tt.ctx, 1, "x")),
		} {
			if fault.KindOf(err) != tt.want && !(name == "none" && err != nil) {
				t.Errorf("envelope %s: %s: %v, want kind %v", name, what, err, tt.want)
			}
		}
	}
	if got := e.Get(t, w, run.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_QUEUED {
		t.Errorf("the run is %v, want it untouched", got.GetState())
	}
}

func TestRecordsThatTheDatabaseCanNotHoldAreRefusedByName(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	run := e.Start(t, id.NewWorkspace(), id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 1, job)
	check(t, err)
	for n, r := range []*discoveryv1.Record{
		Resource(Ref("user", "a\x00b"), true),
		{Scope: "a", Kind: &discoveryv1.Record_Resource{Resource: &discoveryv1.Resource{Type: "user", ExternalId: "a", Attributes: map[string]string{"x": "\x00"}}}},
		{Scope: "a"},
	} {
		if err := e.Put(ctx, 1, r); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("record %d: %v, want invalid argument", n, err)
		}
	}
}

func TestManyGapsFitOnTheRecord(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	gaps := make([]*discoveryv1.Gap, 1000)
	for n := range gaps {
		gaps[n] = &discoveryv1.Gap{Scope: fmt.Sprint("file/", n), Reason: strings.Repeat("long ", 150)}
	}
	got := e.Run(t, w, id.NewIntegration(), discoverytest.Slice{Records: people("a", "ann"), Completed: []string{"a"}, Gaps: gaps})
	if got.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || len(got.GetGaps()) != len(gaps) {
		t.Errorf("the run is %v with %d gaps, want it partial with all of them", got.GetState(), len(got.GetGaps()))
	}
}
