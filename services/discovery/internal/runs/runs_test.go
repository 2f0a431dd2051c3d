package runs_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/runs"
)

var table = Ref("table", "payments")

// people are n accounts that may read the table, all in one scope.
func people(scope string, names ...string) []*discoveryv1.Record {
	out := []*discoveryv1.Record{Resource(table, false), Entitlement(On(table, "SELECT"), Permission)}
	for _, n := range names {
		user := Ref("user", n)
		out = append(out, Resource(user, true), Grant(user, On(table, "SELECT"), false))
	}
	for _, r := range out {
		r.Scope = scope
	}
	return out
}

// published are the accounts whose grants stand in a workspace, in order.
func published(t *testing.T, e *discoverytest.Env, w id.Workspace) []string {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), `SELECT r.external_id FROM discovery.grants g
		JOIN discovery.resources r ON r.workspace_id = g.workspace_id AND r.id = g.principal_id AND r.until IS NULL
		WHERE g.workspace_id = $1 AND g.until IS NULL ORDER BY 1`, w)
	check(t, err)
	defer rows.Close()
	out := []string{}
	for rows.Next() {
		var s string
		check(t, rows.Scan(&s))
		out = append(out, s)
	}
	check(t, rows.Err())
	return out
}

func staged(t *testing.T, e *discoverytest.Env) int {
	t.Helper()
	return e.Count(t, `SELECT (SELECT count(*) FROM discovery.staged_resources) + (SELECT count(*) FROM discovery.staged_entitlements)
		+ (SELECT count(*) FROM discovery.staged_grants) + (SELECT count(*) FROM discovery.staged_expansions)`)
}

func jobs(t *testing.T, e *discoverytest.Env) int {
	t.Helper()
	return e.Count(t, "SELECT count(*) FROM queue.river_job")
}

func seal(records int, last bool, scopes ...string) *discoveryv1.SealSliceRequest {
	return &discoveryv1.SealSliceRequest{Attempt: 1, Records: int64(records), Last: last, CompletedScopes: scopes, Checkpoint: []byte("here")}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantPublished(t *testing.T, e *discoverytest.Env, w id.Workspace, want ...string) {
	t.Helper()
	if got := published(t, e, w); !slices.Equal(got, want) {
		t.Errorf("published: %q, want %q", got, want)
	}
}

func TestRunGoesFromAskedForToPublishedAndReported(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	run := e.Start(t, w, i)
	if run.GetState() != integrationsv1.RunState_RUN_STATE_QUEUED || run.GetConnector() != "csv" || !strings.HasPrefix(run.GetStartedBy(), "usr_") {
		t.Errorf("a new run: %v", run)
	}
	first := e.Job(t, run.GetId())
	begun, err := e.Runs.BeginSlice(first, 1, job)
	check(t, err)
	if begun.GetDone() || begun.GetSource().GetIntegrationId() != i.String() || len(begun.GetCheckpoint()) != 0 || begun.GetDeadline() == nil {
		t.Errorf("the first slice: %v", begun)
	}
	records := people("a", "ann", "bob")
	check(t, e.Put(first, 1, records...))
	state, err := e.Runs.Seal(first, seal(len(records), false, "a"))
	check(t, err)
	if state != integrationsv1.RunState_RUN_STATE_QUEUED || jobs(t, e) != 2 {
		t.Errorf("after the first slice: %v and %d jobs, want the second one queued", state, jobs(t, e))
	}
	second := e.Job(t, run.GetId())
	begun, err = e.Runs.BeginSlice(second, 1, job)
	if err != nil || string(begun.GetCheckpoint()) != "here" {
		t.Errorf("the second slice: %v, %v; want the checkpoint of the first", begun, err)
	}
	if done, err := e.Runs.BeginSlice(first, 2, job); err != nil || !done.GetDone() {
		t.Errorf("the first slice, delivered again: %v, %v; want done", done, err)
	}
	more := people("b", "cy")
	check(t, e.Put(second, 1, more...))
	wantPublished(t, e, w)
	_, err = e.Runs.Seal(second, seal(len(more), true, "b"))
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- e.Runs.Publish(ctx) }()
	discoverytest.Eventually(t, "integrations is told", func() bool { return len(e.Sources.Told()) == 1 })
	stop()
	check(t, <-ended)
	wantPublished(t, e, w, "ann", "bob", "cy")
	got := e.Get(t, w, run.GetId())
	want := &discoveryv1.Counts{Accounts: 3, Resources: 5, Entitlements: 2, Grants: 3}
	if got.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE || got.GetGrantsAdded() != 3 || got.GetGrantsRemoved() != 0 || !proto.Equal(got.GetCounts(), want) || got.GetSlices() != 2 {
		t.Errorf("the run: %v, want complete with counts %v", got, want)
	}
	if told := e.Sources.Told()[0]; told.GetIntegrationId() != i.String() || told.GetLastRun().GetRunId() != run.GetId() || told.GetLastRun().GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
		t.Errorf("integrations was told %v", told)
	}
	if n := staged(t, e); n != 0 {
		t.Errorf("%d rows are still staged", n)
	}
	if n := e.Count(t, "SELECT count(*) FROM audit.inbox"); n != 2 {
		t.Errorf("%d events, want that it started and that it was published", n)
	}
}

func TestOneRunOfAnIntegrationIsUnderWay(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	answers := make(chan string, 4)
	for range cap(answers) {
		go func() {
			run, err := e.Runs.Start(e.In(t.Context(), w), &discoveryv1.StartRunRequest{IntegrationId: i.String()})
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- run.GetId()
		}()
	}
	first := <-answers
	for range cap(answers) - 1 {
		if other := <-answers; other != first {
			t.Errorf("asked at once, another run: %s and %s", first, other)
		}
	}
	if jobs(t, e) != 1 {
		t.Errorf("%d jobs, want one", jobs(t, e))
	}
	if other := e.Start(t, id.NewWorkspace(), i); other.GetId() == first {
		t.Error("another workspace was answered the first one's run")
	}
}

func TestLateAttemptIsFenced(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 1, job)
	check(t, err)
	late := people("a", "late", "later")
	check(t, e.Put(ctx, 1, late...))
	_, err = e.Runs.BeginSlice(ctx, 2, job)
	check(t, err)
	for what, err := range map[string]error{
		"puts":   e.Put(ctx, 1, late...),
		"fails":  e.Runs.Fail(ctx, 1, "late"),
		"begins": second(e.Runs.BeginSlice(ctx, 1, job)),
		"seals":  second(e.Runs.Seal(ctx, seal(len(late), true, "a"))),
	} {
		if !errors.Is(err, runs.ErrFenced) {
			t.Errorf("the late attempt %s: %v, want %v", what, err, runs.ErrFenced)
		}
	}
	if stop, err := e.Runs.Progress(ctx, 1, "late"); err != nil || !stop {
		t.Errorf("the late attempt reports progress: stop %t, %v; want that it stops", stop, err)
	}
	own := people("a", "own")
	check(t, e.Put(ctx, 2, own...))
	req := seal(len(own), true, "a")
	req.Attempt = 2
	_, err = e.Runs.Seal(ctx, req)
	check(t, err)
	if n := staged(t, e); n != len(own) {
		t.Errorf("%d rows are staged, want the %d of the attempt that sealed", n, len(own))
	}
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w, "own")
}

func second[A any](_ A, err error) error { return err }

func TestWhatWasNotSealedIsNotPublished(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 1, job)
	check(t, err)
	records := people("a", "ann")
	check(t, e.Put(ctx, 1, records...))
	if _, err := e.Runs.Seal(ctx, seal(len(records)+1, true, "a")); !errors.Is(err, runs.ErrStagedCount) {
		t.Errorf("a seal over more than arrived: %v, want %v", err, runs.ErrStagedCount)
	}
	if _, err := e.Runs.Seal(ctx, seal(len(records)-1, true, "a")); !errors.Is(err, runs.ErrStagedCount) {
		t.Errorf("a seal over less than arrived: %v, want %v", err, runs.ErrStagedCount)
	}
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w)
	_, err = e.Runs.Seal(ctx, seal(len(records), true, "a"))
	check(t, err)
	// Rows of an attempt that came after the seal, as a worker's that was cut off, and of a slice that never was.
	e.Exec(t, "INSERT INTO discovery.staged_grants SELECT run_id, slice, 7, gen_random_uuid(), principal_id, entitlement_id, '', false, false, 'a' FROM discovery.staged_grants")
	e.Exec(t, "INSERT INTO discovery.staged_grants SELECT run_id, 9, 1, gen_random_uuid(), principal_id, entitlement_id, '', false, false, 'a' FROM discovery.staged_grants")
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w, "ann")
	if n := staged(t, e); n != 0 {
		t.Errorf("%d rows are still staged", n)
	}
}

func TestSealingTwiceIsOneEffect(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 1, job)
	check(t, err)
	records := people("a", "ann")
	check(t, e.Put(ctx, 1, records...))
	for range 3 {
		state, err := e.Runs.Seal(ctx, seal(len(records), false, "a"))
		if err != nil || state != integrationsv1.RunState_RUN_STATE_QUEUED {
			t.Errorf("sealed: %v, %v; want the next slice queued", state, err)
		}
	}
	got := e.Get(t, w, run.GetId())
	if jobs(t, e) != 2 || got.GetSlices() != 1 || got.GetCounts().GetGrants() != 1 {
		t.Errorf("%d jobs, %d slices, %d grants; want 2, 1 and 1", jobs(t, e), got.GetSlices(), got.GetCounts().GetGrants())
	}
	next := e.Job(t, run.GetId())
	_, err = e.Runs.BeginSlice(next, 1, job)
	check(t, err)
	for range 2 {
		_, err = e.Runs.Seal(next, seal(0, true))
		check(t, err)
	}
	e.Publish(t, w, run.GetId())
	e.Publish(t, w, run.GetId())
	if _, err = e.Runs.Seal(next, seal(0, true)); err != nil {
		t.Errorf("sealed again after the end: %v, want the first answer", err)
	}
	wantPublished(t, e, w, "ann")
	if n := e.Count(t, "SELECT count(*) FROM audit.inbox"); n != 2 {
		t.Errorf("%d events, want that it started and that it was published, once", n)
	}
}

func TestCancelledRunPublishesNothingAndKeepsNothing(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 1, job)
	check(t, err)
	records := people("a", "ann")
	check(t, e.Put(ctx, 1, records...))
	for range 2 {
		got, err := e.Runs.Cancel(e.In(t.Context(), w), &discoveryv1.CancelRunRequest{RunId: run.GetId()})
		if err != nil || got.GetState() != integrationsv1.RunState_RUN_STATE_CANCELLED {
			t.Errorf("cancelled: %v, %v", got.GetState(), err)
		}
	}
	if stop, err := e.Runs.Progress(ctx, 1, "reading"); err != nil || !stop {
		t.Errorf("the worker is told stop %t, %v; want that it stops", stop, err)
	}
	if err := e.Put(ctx, 1, records...); !errors.Is(err, runs.ErrFenced) {
		t.Errorf("the worker puts: %v, want %v", err, runs.ErrFenced)
	}
	if _, err := e.Runs.Seal(ctx, seal(len(records), true, "a")); !errors.Is(err, runs.ErrFenced) {
		t.Errorf("the worker seals: %v, want %v", err, runs.ErrFenced)
	}
	if begun, err := e.Runs.BeginSlice(ctx, 2, job); err != nil || !begun.GetDone() {
		t.Errorf("delivered again: %v, %v; want done", begun, err)
	}
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w)
	if n := staged(t, e); n != 0 {
		t.Errorf("%d rows are still staged", n)
	}
	if next := e.Start(t, w, mustIntegration(t, run)); next.GetId() == run.GetId() {
		t.Error("after the cancelled run no other starts")
	}
	if n := e.Count(t, "SELECT count(*) FROM audit.inbox"); n != 3 {
		t.Errorf("%d events, want two starts and one cancellation", n)
	}
}

func mustIntegration(t *testing.T, run *discoveryv1.Run) id.Integration {
	t.Helper()
	i, err := id.ParseIntegration(run.GetIntegrationId())
	check(t, err)
	return i
}

func TestFailedRunPublishesNothingAndSaysWhy(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	_, err := e.Runs.BeginSlice(ctx, 2, job)
	check(t, err)
	check(t, e.Put(ctx, 2, people("a", "ann")...))
	check(t, e.Runs.Fail(ctx, 3, "the password was refused"))
	got := e.Get(t, w, run.GetId())
	if got.GetState() != integrationsv1.RunState_RUN_STATE_FAILED || got.GetError() != "the password was refused" || got.GetFinishedAt() == nil || staged(t, e) != 0 {
		t.Errorf("the run: %v with %d rows staged", got, staged(t, e))
	}
	wantPublished(t, e, w)
}
