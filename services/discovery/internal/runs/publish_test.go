package runs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/runs"
)

// history is every published row of a workspace, without what differs from run to run.
func history(t *testing.T, e *discoverytest.Env, w id.Workspace) []string {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), `
		SELECT 'resource ' || id || type || external_id || display_name || attributes || account || scope || coalesce(parent_id::text, '') || (until IS NULL) FROM discovery.resources WHERE workspace_id = $1
		UNION ALL SELECT 'entitlement ' || id || resource_id || name || purpose || description || scope || (until IS NULL) FROM discovery.entitlements WHERE workspace_id = $1
		UNION ALL SELECT 'grant ' || id || principal_id || entitlement_id || reason || grantable || not_inherited || scope || (until IS NULL) FROM discovery.grants WHERE workspace_id = $1
		UNION ALL SELECT 'expansion ' || from_id || to_id || assumption || reason || scope || (until IS NULL) FROM discovery.expansions WHERE workspace_id = $1
		ORDER BY 1`, w)
	check(t, err)
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		check(t, rows.Scan(&s))
		out = append(out, s)
	}
	check(t, rows.Err())
	return out
}

// everything is records of every kind, with some told twice.
func everything() []*discoveryv1.Record {
	records := people("a", "ann", "bob", "cy")
	group := Ref("group", "staff")
	more := []*discoveryv1.Record{
		Resource(group, false), Entitlement(On(group, "member"), Membership), Grant(Ref("user", "ann"), On(group, "member"), true),
		Expansion(On(group, "member"), On(table, "SELECT"), true, "because"), Expansion(On(group, "member"), On(table, "SELECT"), false, "because"),
		Grant(Ref("user", "ann"), On(group, "member"), false), Resource(group, false),
	}
	for _, r := range more {
		r.Scope = "a"
	}
	return append(records, more...)
}

func TestSecondIdenticalRunChangesNothing(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	e.Run(t, w, i, discoverytest.Slice{Records: everything(), Completed: []string{"a"}})
	before := history(t, e, w)
	touched := e.Count(t, "SELECT count(DISTINCT xmin::text) FROM discovery.grants")
	shuffled := everything()
	slices.Reverse(shuffled)
	second := e.Run(t, w, i, discoverytest.Slice{Records: shuffled, Completed: []string{"a"}})
	if second.GetGrantsAdded() != 0 || second.GetGrantsRemoved() != 0 {
		t.Errorf("the second run added %d and removed %d", second.GetGrantsAdded(), second.GetGrantsRemoved())
	}
	if after := history(t, e, w); !slices.Equal(before, after) {
		t.Errorf("history before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if n := e.Count(t, "SELECT count(DISTINCT xmin::text) FROM discovery.grants"); n != touched {
		t.Error("the second run wrote to grants that it found unchanged")
	}
}

func TestOnlyCompletedScopesCloseWhatIsGone(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	both := append(people("a", "ann", "bob"), people("b", "cy", "dan")...)
	e.Run(t, w, i, discoverytest.Slice{Records: both, Completed: []string{"a", "b"}})
	// Bob and Dan are gone; the reading of b broke off after Cy.
	partial := e.Run(t, w, i, discoverytest.Slice{Records: append(people("a", "ann"), people("b", "cy")...), Completed: []string{"a"},
		Gaps: []*discoveryv1.Gap{{Scope: "b", Reason: "the system went away"}}})
	wantPublished(t, e, w, "ann", "cy", "dan")
	if partial.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || partial.GetGrantsRemoved() != 1 {
		t.Errorf("the run is %v and removed %d", partial.GetState(), partial.GetGrantsRemoved())
	}
	// Nothing was completed, nothing was seen: nothing is gone.
	e.Run(t, w, i, discoverytest.Slice{Gaps: []*discoveryv1.Gap{{Scope: "a", Reason: "can't log in"}}})
	wantPublished(t, e, w, "ann", "cy", "dan")
	// Another integration that completes a scope of the same name speaks of its own rows.
	e.Run(t, w, id.NewIntegration(), discoverytest.Slice{Completed: []string{"a", "b"}})
	wantPublished(t, e, w, "ann", "cy", "dan")
	e.Run(t, w, i, discoverytest.Slice{Completed: []string{"a", "b"}})
	wantPublished(t, e, w)
	// And back again, as rows of their own.
	e.Run(t, w, i, discoverytest.Slice{Records: both, Completed: []string{"a", "b"}})
	wantPublished(t, e, w, "ann", "bob", "cy", "dan")
	if n := e.Count(t, "SELECT count(*) FROM discovery.grants WHERE workspace_id = $1", w); n != 8 {
		t.Errorf("%d rows of history, want 4 that ended and 4 that stand", n)
	}
}

func TestChangedMeaningIsANewRowAndChangedWordsAreNot(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	run := func(change func(records []*discoveryv1.Record)) {
		records := everything()
		change(records)
		e.Run(t, w, i, discoverytest.Slice{Records: records, Completed: []string{"a"}})
	}
	count := func(table string) int {
		return e.Count(t, fmt.Sprintf("SELECT count(*) FROM discovery.%s WHERE workspace_id = $1", table), w)
	}
	run(func([]*discoveryv1.Record) {})
	words := len(history(t, e, w))
	run(func(records []*discoveryv1.Record) {
		records[1].GetEntitlement().Description = "reads"
		records[2].GetResource().DisplayName = "Ann"
		records[3].GetGrant().Reason = "another"
	})
	if n := len(history(t, e, w)); n != words {
		t.Errorf("changed words made %d rows of %d", n, words)
	}
	if n := e.Count(t, `SELECT (SELECT count(*) FROM discovery.entitlements WHERE description = 'reads') + (SELECT count(*) FROM discovery.resources
		WHERE display_name = 'Ann') + (SELECT count(*) FROM discovery.grants WHERE reason = 'another')`); n != 3 {
		t.Errorf("%d of 3 changed words were published", n)
	}
	grants, entitlements, expansions := count("grants"), count("entitlements"), count("expansions")
	run(func(records []*discoveryv1.Record) {
		records[1].GetEntitlement().Purpose = Assumption
		records[3].GetGrant().Grantable = true
		records[11].GetExpansion().Assumption = true
		records[12].GetExpansion().Assumption = true
	})
	if count("grants") != grants+1 || count("entitlements") != entitlements+1 || count("expansions") != expansions+1 {
		t.Errorf("changed meaning: %d grants of %d, %d entitlements of %d, %d expansions of %d; want one more of each",
			count("grants"), grants, count("entitlements"), entitlements, count("expansions"), expansions)
	}
}

func TestLostStagingBeginsTheRunAnew(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	for name, lose := range map[string]string{
		"all of it":      "TRUNCATE discovery.staged_resources, discovery.staged_entitlements, discovery.staged_grants, discovery.staged_expansions",
		"one table":      "TRUNCATE discovery.staged_grants",
		"one row":        "DELETE FROM discovery.staged_grants WHERE ctid = (SELECT min(ctid) FROM discovery.staged_grants)",
		"a row too many": "INSERT INTO discovery.staged_grants SELECT * FROM discovery.staged_grants LIMIT 1",
	} {
		w, i := id.NewWorkspace(), id.NewIntegration()
		slices := []discoverytest.Slice{{Records: people("a", "ann", "bob"), Completed: []string{"a"}}, {Records: people("b", "cy"), Completed: []string{"b"}}}
		run := e.Start(t, w, i)
		e.Read(t, run.GetId(), slices...)
		e.Exec(t, lose)
		e.Publish(t, w, run.GetId())
		wantPublished(t, e, w)
		if got := e.Get(t, w, run.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_QUEUED || got.GetSlices() != 0 || got.GetCounts().GetGrants() != 0 {
			t.Errorf("%s was lost: the run is %v, want it queued from the start", name, got)
		}
		e.Read(t, run.GetId(), slices...)
		e.Publish(t, w, run.GetId())
		wantPublished(t, e, w, "ann", "bob", "cy")
		if got := e.Get(t, w, run.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE || got.GetCounts().GetGrants() != 3 {
			t.Errorf("%s was lost: in the end the run is %v", name, got)
		}
	}
	run := e.Start(t, w, id.NewIntegration())
	for range 4 {
		e.Read(t, run.GetId(), discoverytest.Slice{Records: people("a", "ann"), Completed: []string{"a"}})
		e.Exec(t, "TRUNCATE discovery.staged_grants")
		e.Publish(t, w, run.GetId())
	}
	if got := e.Get(t, w, run.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_FAILED || got.GetError() == "" || staged(t, e) != 0 {
		t.Errorf("lost four times: the run is %v with %d rows staged, want it failed, with a reason", got, staged(t, e))
	}
	wantPublished(t, e, w)
}

// fuse is a context that is cancelled when it was asked for its end so many times: somewhere between two statements, or in one.
type fuse struct {
	context.Context
	mu    sync.Mutex
	left  int
	blown chan struct{}
}

func newFuse(ctx context.Context, n int) *fuse {
	return &fuse{Context: ctx, left: n, blown: make(chan struct{})}
}

func (f *fuse) Done() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == 0 {
		close(f.blown)
	}
	return f.blown
}

func (f *fuse) Err() error {
	select {
	case <-f.blown:
		return context.Canceled
	default:
		return nil
	}
}

func TestPublishingIsAllOrNothingWhereverItIsCutOff(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	i := id.NewIntegration()
	first := discoverytest.Slice{Records: people("a", "ann", "gone"), Completed: []string{"a"}}
	second := discoverytest.Slice{Records: everything(), Completed: []string{"a"}}
	whole := id.NewWorkspace()
	e.Run(t, whole, i, first)
	e.Run(t, whole, i, second)
	want := history(t, e, whole)

	w := id.NewWorkspace()
	e.Run(t, w, i, first)
	before := history(t, e, w)
	run := e.Start(t, w, i)
	e.Read(t, run.GetId(), second)
	runID, err := id.ParseRun(run.GetId())
	check(t, err)
	inTheMiddle := 0
	for cut := 1; ; cut++ {
		err := e.Runs.PublishRun(newFuse(e.In(t.Context(), w), cut), runID)
		// What is seen before the state: a commit that was cut off may still be on its way.
		after := history(t, e, w)
		state := e.Get(t, w, run.GetId()).GetState()
		if state == integrationsv1.RunState_RUN_STATE_COMPLETE {
			break
		}
		if err == nil {
			t.Fatalf("cut %d: no error, and the run is %v", cut, state)
		}
		if !slices.Equal(before, after) {
			t.Fatalf("cut %d left a part:\n%s\nwant\n%s", cut, strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		inTheMiddle++
	}
	if after := history(t, e, w); !slices.Equal(want, after) {
		t.Errorf("published in the end:\n%s\nwant\n%s", strings.Join(after, "\n"), strings.Join(want, "\n"))
	}
	const statements = 20
	if inTheMiddle < statements {
		t.Errorf("publishing was cut off in %d places, want %d or more", inTheMiddle, statements)
	}
}

func TestBackendKilledWhilePublishingPublishesNothing(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	run := e.Start(t, w, i)
	e.Read(t, run.GetId(), discoverytest.Slice{Records: everything(), Completed: []string{"a"}})
	runID, err := id.ParseRun(run.GetId())
	check(t, err)
	blocker, err := e.Super.Begin(t.Context())
	check(t, err)
	_, err = blocker.Exec(t.Context(), "LOCK TABLE discovery.expansions")
	check(t, err)
	ended := make(chan error, 1)
	go func() { ended <- e.Runs.PublishRun(e.In(t.Context(), w), runID) }()
	waiting := "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
	discoverytest.Eventually(t, "publishing waits for a lock", func() bool { return e.Count(t, "SELECT count(*) "+waiting) == 1 })
	e.Count(t, "SELECT count(pg_terminate_backend(pid)) "+waiting)
	if err := <-ended; err == nil {
		t.Error("publishing on a killed backend: no error")
	}
	check(t, blocker.Rollback(t.Context()))
	wantPublished(t, e, w)
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w, "ann", "ann", "bob", "cy")
}

func TestPublicationsOfAWorkspaceDoNotWaitForEachOtherInVain(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	const at = 4
	ended := make(chan error, at)
	var ids []id.Run
	for range at {
		run := e.Start(t, w, id.NewIntegration())
		records := everything()
		for _, r := range records {
			if x := r.GetResource(); x.GetAccount() {
				x.Attributes = map[string]string{"email": x.GetExternalId() + "@acme.test"}
			}
		}
		e.Read(t, run.GetId(), discoverytest.Slice{Records: records, Completed: []string{"a"}})
		runID, err := id.ParseRun(run.GetId())
		check(t, err)
		ids = append(ids, runID)
	}
	for _, r := range ids {
		go func() { ended <- e.Runs.PublishRun(e.In(t.Context(), w), r) }()
	}
	for range at {
		check(t, <-ended)
	}
	if n := e.Count(t, "SELECT count(*) FROM discovery.persons"); n != 3 {
		t.Errorf("%d persons, want 3", n)
	}
	if n := e.Count(t, "SELECT count(*) FROM discovery.person_accounts"); n != 3*at {
		t.Errorf("%d accounts are joined, want %d", n, 3*at)
	}
}

func TestRunThatNoWorkerTakesIsGivenUp(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	stale, fresh := e.Start(t, w, id.NewIntegration()), e.Start(t, w, id.NewIntegration())
	staleID, err := id.ParseRun(stale.GetId())
	check(t, err)
	e.Exec(t, "UPDATE discovery.runs SET updated_at = now() - interval '26 hours' WHERE id = $1", staleID)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- e.Runs.Publish(ctx) }()
	discoverytest.Eventually(t, "integrations is told", func() bool { return len(e.Sources.Told()) == 1 })
	stop()
	check(t, <-ended)
	if got := e.Get(t, w, stale.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_FAILED || got.GetError() == "" {
		t.Errorf("a run that waited for a day is %v", got)
	}
	if got := e.Get(t, w, fresh.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_QUEUED {
		t.Errorf("a new run is %v", got)
	}
}

func TestScheduledTimeStartsOneRun(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	due := &integrationsv1.Due{WorkspaceId: w.String(), IntegrationId: i.String(), DueAt: timestamppb.Now()}
	check(t, runs.StartDue(t.Context(), e.Runs, due))
	check(t, runs.StartDue(t.Context(), e.Runs, due))
	views, err := e.Runs.List(e.In(t.Context(), w), i, id.Run{}, 10)
	check(t, err)
	if len(views) != 1 || views[0].GetStartedBy() != "schedule" {
		t.Fatalf("runs: %v, want one that the schedule started", views)
	}
	e.Read(t, views[0].GetId(), discoverytest.Slice{Records: people("a", "ann"), Completed: []string{"a"}})
	e.Publish(t, w, views[0].GetId())
	check(t, runs.StartDue(t.Context(), e.Runs, due))
	if jobs(t, e) != 1 {
		t.Errorf("%d jobs, want one: the time was claimed again after its run ended", jobs(t, e))
	}
}

// TestLaterRunIsPublishedInTimeThatGrowsWithItsRows compares it with the first, which compares with nothing: were every staged row compared
// with every published one, it would take hundreds of times as long.
func TestLaterRunIsPublishedInTimeThatGrowsWithItsRows(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	const grants, times = 15_000, 40
	publish := func(records []*discoveryv1.Record) time.Duration {
		run := e.Start(t, w, i)
		e.Read(t, run.GetId(), discoverytest.Slice{Records: records, Completed: []string{"test"}})
		began := time.Now()
		e.Publish(t, w, run.GetId())
		return time.Since(began)
	}
	first := publish(manyGrants(grants))
	for _, n := range []int{grants, grants / 2} {
		if took := publish(manyGrants(n)); took > times*first {
			t.Errorf("publishing %d grants over %d took %s, the first run %s", n, grants, took, first)
		}
	}
}
