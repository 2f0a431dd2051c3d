package aws_test

import (
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/ministacktest"
)

// planned plans a change of one tenant, and answers the plan's hash and the change set that it names.
func (p *plane) planned(kind, slug string) (hash, changeSet string, changes []string) {
	p.t.Helper()
	var made registryv1.GetPlanResponse
	p.ask(&made, "plan", kind, "--tenant", slug, "--reason", "the story goes on")
	if len(made.GetRead().GetTenants()) != 1 {
		p.t.Fatalf("plan %s: %v", kind, &made)
	}
	c := made.GetRead().GetTenants()[0].GetStackChange()
	return made.GetPlan().GetHash(), c.GetChangeSet(), c.GetChanges()
}

// refused has a plan's application fail, for a reason, with other settings.
func (p *plane) refused(hash, why string, environ ...string) {
	p.t.Helper()
	cmd := p.command("apply", hash)
	cmd.Env = append(slices.Clone(cmd.Env), environ...)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		p.t.Errorf("apply with %q: %v: %s; want %q", environ, err, out, why)
	}
}

// elsewhereOrGone sees that a plan is carried out in its own account and Region alone, by the change set that it names alone, and that nothing
// is changed where it isn't.
func (p *plane) elsewhereOrGone(server *ministacktest.Server, slug, tenant string) {
	p.t.Helper()
	before := p.tasks(server, tenant)
	hash, changeSet, changes := p.planned("suspend", slug)
	if !strings.Contains(changeSet, ":changeSet/") || !slices.Contains(changes, "modify Iam (AWS::ECS::Service)") {
		p.t.Errorf("the plan names the change set %q, which does %q", changeSet, changes)
	}
	if page := p.fleet("plan", "show", hash); !strings.Contains(page, changeSet) || !strings.Contains(page, "modify Iam (AWS::ECS::Service)") {
		p.t.Errorf("the plan's page does not say what the change set does: %s", page)
	}
	p.refused(hash, "the plan is for region "+ministacktest.Region, "A3_AWS_REGION=us-east-1", "AWS_REGION=us-east-1")
	// A role of another account, which the emulator makes for whoever calls with the account's number.
	root := server.Root()
	root.Credentials = credentials.NewStaticCredentialsProvider("210987654321", "root", "")
	keys, err := server.RoleAs(p.t, root, "210987654321", "stranger", ministacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}).Credentials.Retrieve(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	p.refused(hash, "the plan is for account "+ministacktest.Account, "AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_SESSION_TOKEN="+keys.SessionToken)

	stacks := cloudformation.NewFromConfig(server.Root())
	if _, err := stacks.DeleteChangeSet(p.t.Context(), &cloudformation.DeleteChangeSetInput{ChangeSetName: sdk.String(changeSet)}); err != nil {
		p.t.Fatal(err)
	}
	p.refused(hash, "change set "+changeSet)
	slices.Sort(before)
	now := p.tasks(server, tenant)
	slices.Sort(now)
	if !slices.Equal(before, now) {
		p.t.Errorf("a plan was refused, and the tasks were %v and are %v", before, now)
	}
}
