package prove_test

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/prove"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// deployed is a tenant's stack, with a session of each of its roles.
func deployed(t *testing.T, server *ministacktest.Server, slug string, tenant id.Tenant) prove.Stack {
	t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	s := prove.Stack{Tenant: tenant.String(), Slug: slug, Sessions: map[string]prove.Session{}, Provisioner: prove.Here{Config: awstest.Provisioner(t, server)},
		Holdings: stack.HoldingsOf(awstest.Place, platform.Set{Blueprint: b, Tenant: tenant, Slug: slug, Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE})}
	out, err := cloudformation.NewFromConfig(server.Root()).DescribeStackResources(t.Context(), &cloudformation.DescribeStackResourcesInput{StackName: sdk.String(awstest.Place.StackOf(s.Tenant))})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.StackResources {
		if sdk.ToString(r.LogicalResourceId) == "Key" {
			s.Key = "arn:aws:kms:" + ministacktest.Region + ":" + ministacktest.Account + ":key/" + *r.PhysicalResourceId
		}
	}
	s.QueueURL = server.URL + "/" + ministacktest.Account + "/" + s.Queue
	for _, r := range s.Roles {
		s.Sessions[r.ARN] = prove.Here{Config: awstest.As(t, server, r.ARN[strings.LastIndex(r.ARN, "/")+1:])}
	}
	// As had the account's root take each role; the trust of the stack is back before anything is tried.
	for _, r := range s.Roles {
		trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":%q}}}]}`, ministacktest.Account)
		if _, err := iam.NewFromConfig(server.Root()).UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: sdk.String(r.ARN[strings.LastIndex(r.ARN, "/")+1:]), PolicyDocument: &trust}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func verified(t *testing.T, stacks []prove.Stack) *isolation.Report {
	t.Helper()
	w := &isolation.World{Plane: "dev", Release: "1.2.3@" + awstest.Digest}
	for _, s := range stacks {
		tenant, err := id.ParseTenant(s.Tenant)
		if err != nil {
			t.Fatal(err)
		}
		w.Sets = append(w.Sets, &isolation.Set{Tenant: tenant, Slug: s.Slug, Cloud: s.Cloud()})
	}
	r, err := isolation.Verify(t.Context(), w, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// With each component's own role, from the stacks that were deployed, everything of its own set that it needs works, and everything of the other
// set, and what of its own it doesn't need, is denied: a row for each in the signed report. A wall that is taken down is a hole in it.
func TestRolesOfTwoStacksReachNothingOfEachOther(t *testing.T) {
	server, d := awstest.Account(t)
	var stacks []prove.Stack
	for _, slug := range []string{"acme", "globex"} {
		tenant := id.NewTenant()
		awstest.Change(t, d, awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false), awstest.Parameters)
		stacks = append(stacks, deployed(t, server, slug, tenant))
	}
	r := verified(t, stacks)
	for i, x := range r.Failures() {
		if i < 12 {
			t.Errorf("%s: %s at %s: %s: %s (control %s: %s)", x.Outcome, x.From, x.At, x.Attempt, x.Answer, x.Control, x.ControlAnswer)
		}
	}
	t.Logf("%s: %+v", r.Verdict(), r.Walls)
	if len(r.Walls) != 6 || len(r.Results) < 400 {
		t.Errorf("it tried %d at the walls %+v", len(r.Results), r.Walls)
	}
	private, public, err := isolation.NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := r.Sign(t.Context(), private)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := isolation.Open(t.Context(), signed, public); err != nil || len(read.Results) != len(r.Results) {
		t.Errorf("the signed report doesn't say the same: %v", err)
	}

	// The walls of one bucket and one role come down.
	audit := sdk.String(stacks[0].Tenant + "-audit-task")
	if _, err := iam.NewFromConfig(server.Root()).PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: audit, PolicyName: sdk.String("more"),
		PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sqs:*","s3:*","kms:*"],"Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	buckets := s3.NewFromConfig(stacks[1].Provisioner.(prove.Here).Config, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := buckets.DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: &stacks[1].Buckets[0].Name}); err != nil {
		t.Fatal(err)
	}
	r = verified(t, stacks)
	holes := 0
	for _, x := range r.Results {
		if x.Outcome == isolation.Hole {
			holes++
			if x.From != "acme/audit (task)" || x.At != "bucket "+stacks[1].Buckets[0].Name+" of globex" {
				t.Errorf("a hole that nobody made: %s at %s: %s", x.From, x.At, x.Attempt)
			}
		}
	}
	if holes != 3 {
		t.Errorf("%d holes are found where a role and a bucket were opened, want list, read and write", holes)
	}
}
