package registry_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

func TestBakeIsATimeAndANumberOfRequests(t *testing.T) {
	w := newWaved(t, "acme")
	plan := w.planned(newer, "acme")
	plan.Rollout.Bake, plan.Rollout.Samples = durationpb.New(time.Hour), 10
	w.begun(plan)
	w.changed("acme", newer)
	w.notNow("acme", toPassed, "watched for another")
}

func TestWhoIsWatchedSaysSoAgain(t *testing.T) {
	w := newWaved(t, "acme")
	plan := w.planned(newer, "acme")
	plan.Rollout.Bake = durationpb.New(time.Millisecond)
	w.begun(plan)
	w.moved("acme", toChanging, "")
	w.runs("acme", newer)
	w.moved("acme", toBaking, "")
	within(t, func() bool {
		_, err := w.move("acme", toPassed, "")
		return err != nil && strings.Contains(err.Error(), "has not reported since")
	})
	w.runs("acme", newer)
	w.moved("acme", toPassed, "")
}

// within waits for what is true soon.
func within(t *testing.T, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
	}
	t.Fatal("it never was")
}

// Who is watched says so at the end of it too: one word at the beginning speaks for no bake, however long ago that was.
func TestOneWordAtItsBeginningIsNoBake(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme")
	plan := w.planned(newer, "acme")
	plan.Rollout.Bake = durationpb.New(10 * time.Minute)
	w.begun(plan)
	w.changed("acme", newer)
	ago := func(table, column, by string) {
		t.Helper()
		w.h.db.Exec(t, "UPDATE registry."+table+" SET "+column+" = "+column+" - interval '"+by+"'")
	}
	ago("rollout_tenants", "since", "11 minutes")
	ago("set_reports", "reported_at", "10 minutes")
	w.notNow("acme", toPassed, "has not reported since")
	w.runs("acme", newer)
	w.moved("acme", toPassed, "")
}

// What a tenant did before it was begun for the first time is what each attempt is held against, so when that was stays.
func TestWhenATenantWasFirstBegunStays(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme")
	plan := w.planned(newer, "acme")
	plan.Rollout.Rollback = registryv1.RollbackScope_ROLLBACK_SCOPE_NONE
	w.begun(plan)
	first := w.moved("acme", toChanging, "").GetTenants()[0]
	w.moved("acme", toFailed, "iam answers 503")
	if before := w.resume().GetTenants()[0]; !before.GetFirstChangedAt().AsTime().Equal(first.GetFirstChangedAt().AsTime()) {
		t.Errorf("resumed, it was first begun at %s", before.GetFirstChangedAt().AsTime())
	}
	second := w.moved("acme", toChanging, "").GetTenants()[0]
	if !first.GetFirstChangedAt().IsValid() || !second.GetFirstChangedAt().AsTime().Equal(first.GetFirstChangedAt().AsTime()) {
		t.Errorf("it was first begun at %s, and then at %s", first.GetFirstChangedAt().AsTime(), second.GetFirstChangedAt().AsTime())
	}
	if !second.GetChangedAt().AsTime().After(first.GetChangedAt().AsTime()) || second.GetAttempts() != 2 {
		t.Errorf("its attempts began at %s and at %s", first.GetChangedAt().AsTime(), second.GetChangedAt().AsTime())
	}
}
