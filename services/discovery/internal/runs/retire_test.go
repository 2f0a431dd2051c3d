package runs_test

import (
	"errors"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/runs"
)

func TestScopeThatNoLongerExistsIsClosedByACompleteRunAlone(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	e.Run(t, w, i, discoverytest.Slice{Records: append(people("database/a", "ann"), people("database/b", "bob")...), Completed: []string{"database/a", "database/b"}})
	// Database b was dropped. A run that could not read everything doesn't know that.
	e.Run(t, w, i, discoverytest.Slice{Records: people("database/a", "ann"), Completed: []string{"database/a"},
		Gaps: []*discoveryv1.Gap{{Scope: "roles", Reason: "not readable"}}})
	wantPublished(t, e, w, "ann", "bob")
	// One that says nothing at all doesn't either.
	e.Run(t, w, i, discoverytest.Slice{})
	wantPublished(t, e, w, "ann", "bob")
	e.Run(t, w, i, discoverytest.Slice{Records: people("database/a", "ann"), Completed: []string{"database/a"}})
	wantPublished(t, e, w, "ann")
}

func TestRemovedIntegrationIsNoLongerCurrentAndStaysInTheHistory(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i, other := id.NewWorkspace(), id.NewIntegration(), id.NewIntegration()
	e.Run(t, w, i, discoverytest.Slice{Records: people("a", "ann", "bob"), Completed: []string{"a"}})
	e.Run(t, w, other, discoverytest.Slice{Records: people("a", "cy"), Completed: []string{"a"}})
	under := e.Start(t, w, i)
	closed, err := e.Runs.Retire(e.In(t.Context(), w), i.String())
	check(t, err)
	if closed != 2 {
		t.Errorf("%d grants were closed, want 2", closed)
	}
	wantPublished(t, e, w, "cy")
	if n := e.Count(t, "SELECT count(*) FROM discovery.grants WHERE workspace_id = $1 AND until IS NOT NULL", w); n != 2 {
		t.Errorf("%d grants stand in the history, want 2", n)
	}
	if got := e.Get(t, w, under.GetId()); got.GetState() != integrationsv1.RunState_RUN_STATE_CANCELLED {
		t.Errorf("the run that was under way is %v", got.GetState())
	}
	if again, err := e.Runs.Retire(e.In(t.Context(), w), i.String()); err != nil || again != 0 {
		t.Errorf("told twice: closed %d, %v", again, err)
	}
	if _, err := e.Runs.Start(e.In(t.Context(), w), &discoveryv1.StartRunRequest{IntegrationId: i.String()}); !errors.Is(err, runs.ErrRetired) {
		t.Errorf("a run of a removed integration: %v", err)
	}
	// In another workspace the same id names nothing.
	if n, err := e.Runs.Retire(e.In(t.Context(), id.NewWorkspace()), other.String()); err != nil || n != 0 {
		t.Errorf("from another workspace: closed %d, %v", n, err)
	}
	wantPublished(t, e, w, "cy")
}
