package aws_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// A tenant goes to a release whose blueprint has a component, a store and a key more, cut off on the way before and after each change of its stack: what runs is
// touched by no change but the last, and the new component finds its secret filled and the store marked before it starts. It goes back over the component, up to
// it again, back from halfway there, and not back over the store.
func TestReleaseWithAComponentAndAStoreMoreIsGoneToAndBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.fetch(ctx, w.set); err != nil {
		t.Fatal(err)
	}
	if err := w.start(ctx, w.set); err != nil {
		t.Fatal(err)
	}
	before := w.services(all...)
	if len(before) != 5 {
		t.Fatalf("there run %v", before)
	}

	store := []string{"stores:\n", "stores:\n  clips: {kind: blob, named: SELECT ''}\n", "stores: [secrets, objects]\n    ports", "stores: [secrets, objects, clips]\n    ports"}
	clock := []string{"keys:\n  kek:", "keys:\n  hands: {kind: random}\n  kek:", "  roles:\n    iam:", "  roles:\n    clock: {connections: 2, schemas: [audit]}\n    iam:",
		"components:\n", "components:\n  - name: clock\n    command: [audit]\n    needs: {database: [clock], keys: [hands], reads_stores: [clips]}\n    ports: [api, ops]\n    health: {port: ops, path: /readyz, check: [ready]}\n"}
	whole, fewer := w.blueprint(append(clock, store...)...), w.blueprint(store...)
	later := w.planned(whole)
	c := later.Planned
	for _, line := range []string{"add Clock (AWS::ECS::Service)", "add StoreClips (AWS::S3::Bucket)"} {
		if !slices.Contains(c.GetChanges(), line) {
			t.Errorf("the plan doesn't say %q: %q", line, c.GetChanges())
		}
	}
	if len(c.GetThenTemplate()) != 64 || c.GetChangeSet() == "" {
		t.Fatalf("the plan is %v", c)
	}

	for _, cut := range [][]string{{"ExecuteChangeSet", ""}, {"SetStackPolicy", ""}, {"AssumeRole", "custodian"}} {
		w.cutOff(cut[0], cut[1], func(ctx context.Context) error { return w.fetch(ctx, later) })
		if w.marked("clips") || !maps.Equal(w.services(all...), before) {
			t.Errorf("cut off at %s the store is marked %t, and there run %v", cut[0], w.marked("clips"), w.services(all...))
		}
	}
	if err := w.fetch(ctx, later); err != nil {
		t.Fatal(err)
	}
	if is := w.services("clock")["clock"]; !strings.HasPrefix(is, "idles ") || !w.marked("clips") || !maps.Equal(w.services(all...), before) {
		t.Errorf("ahead of its change the clock %q, the store is marked %t, and there run %v", is, w.marked("clips"), w.services(all...))
	}

	// A plan that says less, or of another template, is not carried out.
	for why, other := range map[string]func(c *registryv1.StackChange){
		"the plan doesn't say that this does: ": func(c *registryv1.StackChange) { c.Changes = c.GetChanges()[:1] },
		"the plan is of the template ":          func(c *registryv1.StackChange) { c.ThenTemplate = strings.Repeat("0", 64) },
	} {
		wrong := later
		wrong.Planned = proto.CloneOf(c)
		other(wrong.Planned)
		if err := w.start(ctx, wrong); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("another plan is carried out: %v", err)
		}
	}
	for _, action := range []string{"ExecuteChangeSet", "SetStackPolicy"} {
		w.cutOff(action, "", func(ctx context.Context) error { return w.start(ctx, later) })
	}
	if keys := w.keys("clock"); !slices.Contains(keys, "key-hands") {
		t.Errorf("before it starts the clock is given %q", keys)
	}
	if err := w.start(ctx, later); err != nil {
		t.Fatal(err)
	}
	now := w.services(append([]string{"clock"}, all...)...)
	for component, is := range now {
		if len(now) != 6 || !strings.HasPrefix(is, "runs ") || is == before[component] {
			t.Errorf("%s %s, before that %q", component, is, before[component])
		}
	}

	back := w.planned(fewer)
	if back.Planned.GetThenTemplate() != "" || !slices.Contains(back.Planned.GetChanges(), "REMOVES remove Clock (AWS::ECS::Service)") {
		t.Errorf("back it is planned as %v", back.Planned)
	}
	if err := errors.Join(w.fetch(ctx, back), w.start(ctx, back)); err != nil {
		t.Fatal(err)
	}
	if is := w.services(append([]string{"clock"}, all...)...); len(is) != 5 || w.keys("clock") != nil {
		t.Errorf("gone back there run %v, and the clock is given %q", is, w.keys("clock"))
	}
	// Nobody planned it, as where a plane is brought up; and it goes back once from where it didn't come to its end.
	again := w.set
	again.Blueprint = whole
	if err := w.fetch(ctx, again); err != nil {
		t.Fatal(err)
	}
	back = w.planned(fewer)
	if is := w.services("clock")["clock"]; !strings.HasPrefix(is, "idles ") {
		t.Errorf("ahead of its change the clock %q", is)
	}
	if err := errors.Join(w.fetch(ctx, back), w.start(ctx, back)); err != nil || len(w.services("clock")) > 0 {
		t.Fatal(err, w.services("clock"))
	}
	if err := errors.Join(w.fetch(ctx, again), w.start(ctx, again)); err != nil {
		t.Fatal(err)
	}
	if is := w.services("clock")["clock"]; !strings.HasPrefix(is, "runs ") {
		t.Errorf("gone up again the clock %q", is)
	}
	if _, err := w.Foresee(ctx, w.set, awstest.Release(t), true); err == nil || !strings.Contains(err.Error(), "has no store that stack "+awstest.Place.StackOf(w.set.Tenant.String())+" has (StoreClips)") {
		t.Errorf("it goes back over the store: %v", err)
	}
	left, err := cloudformation.NewFromConfig(w.server.Root()).ListChangeSets(ctx, &cloudformation.ListChangeSetsInput{StackName: sdk.String(awstest.Place.StackOf(w.set.Tenant.String()))})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range left.Summaries {
		if s.ExecutionStatus == "AVAILABLE" {
			t.Errorf("a change set that nobody carries out is left: %s", sdk.ToString(s.ChangeSetId))
		}
	}
}
