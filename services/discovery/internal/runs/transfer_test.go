package runs_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
	"a3os.app/services/discovery/internal/discoverytest"
)

// What comes of a run that a new owner started rests on the transfer that made them the owner, also where a workload does it.
func TestRunOfANewOwnerNamesTheTransferToItsEnd(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i, transfer := id.NewWorkspace(), id.NewIntegration(), id.NewTransfer()
	owner := scope.Scope{Plane: "dev", Tenant: e.ID, Workspace: w, Principal: scope.Principal(id.NewUser().String()), Transfer: transfer}
	run, err := e.Runs.Start(scopetest.With(t.Context(), owner), &discoveryv1.StartRunRequest{IntegrationId: i.String()})
	if err != nil {
		t.Fatal(err)
	}
	e.Read(t, run.GetId(), discoverytest.Slice{Records: people("a", "ann"), Completed: []string{"a"}})
	e.Publish(t, w, run.GetId())
	rows, err := e.Super.Query(t.Context(), "SELECT body FROM audit.inbox ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	bodies, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, b := range bodies {
		var event auditv1.Event
		if err := proto.Unmarshal(b, &event); err != nil {
			t.Fatal(err)
		}
		seen[event.GetAction()] = event.GetTransferId()
	}
	for _, action := range []string{"discovery.run.started", "discovery.run.published"} {
		if seen[action] != transfer.String() {
			t.Errorf("%s rests on transfer %q, want %s (%v)", action, seen[action], transfer, seen)
		}
	}
}
