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
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// A tenant goes to a release whose blueprint has a component, a store and a key more, cut off on the way before and after each change of its stack: what runs is
// touched by no change but the last, and the new component finds its secret filled and the store marked before it starts. It goes back over the component, up to
// it again, back from halfway there, back over the store, which is kept with what is in it, up to that again, and leaves.
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
	w.overTheStore(again, before)
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

// overTheStore has the set, which runs a release with the store clips, go back to the one without, go up again, go back once more and leave. The bucket stays in the
// stack with what is in it until then, as a difference from neither release, and no component of the older one reaches it.
func (w *world) overTheStore(more platform.Set, before map[string]string) {
	w.t.Helper()
	ctx, tenant, r := w.t.Context(), w.set.Tenant.String(), awstest.Release(w.t)
	bucket, objects := sdk.String(awstest.Place.Bucket(tenant, "clips")), s3.NewFromConfig(w.server.Root(), func(o *s3.Options) { o.UsePathStyle = true })
	key := sdk.String(tenant + "/a")
	if _, err := objects.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("a")}); err != nil {
		w.t.Fatal(err)
	}
	lets := func() string {
		w.t.Helper()
		got, err := objects.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: bucket})
		if err != nil {
			w.t.Fatal(err)
		}
		return sdk.ToString(got.Policy)
	}
	sound := func(s platform.Set) {
		w.t.Helper()
		found, err := w.Inspect(ctx, s, r)
		if err != nil {
			w.t.Fatal(err)
		}
		told := map[string][]string{} // what the emulator leaves out is told of every store
		for _, d := range found {
			told[d.Resource] = append(told[d.Resource], strings.NewReplacer("clips", "objects", "Clips", "Objects").Replace(d.Reason))
		}
		if !slices.Equal(told["StoreClips"], told["StoreObjects"]) || !slices.Equal(told["StoreClipsPolicy"], told["StoreObjectsPolicy"]) {
			w.t.Errorf("the store is told as changed by hand: %q", told)
		}
		if _, err := objects.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key}); err != nil || !w.marked("clips") {
			w.t.Errorf("what was in the store: %v, and its mark is there %t", err, w.marked("clips"))
		}
	}
	sound(more)
	if !strings.Contains(lets(), tenant+"-clock-task") {
		w.t.Fatalf("the newer release's component isn't let in: this shows nothing: %s", lets())
	}

	for range 2 { // the second time the stack lacks nothing of the newer release's store
		back := w.planned(w.set.Blueprint)
		if len(back.Planned.GetDenied()) > 0 || !slices.ContainsFunc(back.Planned.GetChanges(), func(line string) bool {
			return strings.HasPrefix(line, "keeps the bucket of store clips, which release 1.2.3 doesn't have")
		}) || w.otherwise(back.Planned) {
			w.t.Errorf("back over the store it is planned as %v", back.Planned)
		}
		if err := errors.Join(w.fetch(ctx, back), w.start(ctx, back)); err != nil {
			w.t.Fatal(err)
		}
		now := w.services(append([]string{"clock"}, all...)...)
		for component, is := range now {
			if len(now) != len(before) || !strings.HasPrefix(is, "runs ") {
				w.t.Errorf("gone back over the store %s %s", component, is)
			}
		}
		sound(w.set)
		if gaps := w.Untried(w.t, w.set); len(gaps) != 1 || !strings.Contains(gaps[0], "store clips") || slices.Contains(w.Proven(w.t, w.set), *bucket) {
			w.t.Errorf("of the store that no role is let in to there is no control, and it is said %q", gaps)
		}
		if policy := lets(); strings.Contains(policy, tenant+"-clock-task") || strings.Contains(policy, tenant+"-integrations-task") || !strings.Contains(policy, "OnlyItsOwn") {
			w.t.Errorf("gone back over the store, these are let in: %s", policy)
		}
		again := w.planned(more.Blueprint)
		if slices.ContainsFunc(again.Planned.GetChanges(), func(line string) bool { return strings.HasPrefix(line, "keeps ") }) || w.otherwise(again.Planned) {
			w.t.Errorf("up to it again it is planned as %v", again.Planned)
		}
		if err := errors.Join(w.fetch(ctx, again), w.start(ctx, again)); err != nil {
			w.t.Fatal(err)
		}
		sound(more)
	}
	back := w.planned(w.set.Blueprint)
	if err := errors.Join(w.fetch(ctx, back), w.start(ctx, back)); err != nil {
		w.t.Fatal(err)
	}
	w.leaves(*bucket)
}

// otherwise says whether a plan does more to the bucket of the store than to change it in its place, which the emulator says of everything.
func (w *world) otherwise(c *registryv1.StackChange) bool {
	return slices.ContainsFunc(c.GetChanges(), func(line string) bool {
		return strings.HasSuffix(line, " StoreClips (AWS::S3::Bucket)") && line != "modify StoreClips (AWS::S3::Bucket)"
	})
}

// leaves has the set leave, but for its database, by a fleet that knows no release with more stores, and sees that a bucket is looked for, and deleted, also once no
// stack tells of it. What another tenant has stays.
func (w *world) leaves(bucket string) {
	w.t.Helper()
	ctx := w.t.Context()
	other := awstest.Place.Bucket(id.NewTenant().String(), "clips")
	objects := s3.NewFromConfig(w.server.Root(), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := objects.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &other, CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(awstest.Where.Region)}}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Shred(ctx, w.set); err != nil {
		w.t.Fatal(err)
	}
	stacks, name := cloudformation.NewFromConfig(w.server.Root()), sdk.String(awstest.Place.StackOf(w.set.Tenant.String()))
	if _, err := stacks.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: name, EnableTerminationProtection: sdk.Bool(false)}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := stacks.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: name}); err != nil {
		w.t.Fatal(err)
	}
	if left := w.Left(w.t, w.set); !slices.Contains(left, "bucket "+bucket) {
		w.t.Errorf("its bucket is not among what is left: %q", left)
	}
	if changed, err := w.DeleteBuckets(w.t, w.set); err != nil || !changed {
		w.t.Fatal(changed, err)
	}
	if left := w.Left(w.t, w.set); slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "bucket ") }) {
		w.t.Errorf("there is still %q", left)
	}
	if _, err := objects.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &other}); err != nil {
		w.t.Errorf("another tenant's bucket: %v", err)
	}
}
