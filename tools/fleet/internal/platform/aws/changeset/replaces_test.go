package changeset_test

import (
	"slices"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// What CloudFormation calls a replacement that depends on another change is one where that change is one: a server of which the key's policy is changed
// alone stays, and one whose key is another doesn't. What nobody knows before isn't called denied: the stack's policy decides it.
func TestWhatFollowsFromAnotherChangeIsReplacedWhereThatIs(t *testing.T) {
	server := ministacktest.Start(t)
	awstest.Change(t, opened(t, server), "small", small("a", ""), nil)
	direct := awstest.PlannedChange{ID: "Database", Type: "AWS::RDS::DBInstance", Replacement: "Conditional", Property: "MultiAZ", Recreation: "Conditionally", Evaluation: "Static", From: "DirectModification"}
	own := awstest.KeyAndServer(false)[0]
	with := func(of awstest.PlannedChange, change func(*awstest.PlannedChange)) awstest.PlannedChange {
		change(&of)
		return of
	}
	role := awstest.PlannedChange{ID: "Role", Type: "AWS::IAM::Role", Replacement: "False", Property: "Tags", Recreation: "Never", Evaluation: "Static", From: "DirectModification"}
	queue := awstest.PlannedChange{ID: "Database", Type: "AWS::SQS::Queue", Replacement: "Conditional", Property: "QueueName", Recreation: "Conditionally", Evaluation: "Static", From: "DirectModification"}
	for name, c := range map[string]struct {
		changes       []awstest.PlannedChange
		says          string
		denied, loses bool
	}{
		"the key's policy is another":      {awstest.KeyAndServer(false), "modify Database (AWS::RDS::DBInstance)", false, false},
		"the key is another":               {awstest.KeyAndServer(true), "REPLACES modify Database (AWS::RDS::DBInstance)", true, true},
		"by a direct change that may":      {[]awstest.PlannedChange{direct}, "may replace modify Database (AWS::RDS::DBInstance)", false, false},
		"by a direct change that does":     {[]awstest.PlannedChange{with(direct, func(c *awstest.PlannedChange) { c.Replacement, c.Recreation = "True", "Always" })}, "REPLACES modify Database (AWS::RDS::DBInstance)", true, true},
		"its cause may be another":         {[]awstest.PlannedChange{own, with(direct, func(c *awstest.PlannedChange) { c.ID = "Key" })}, "may replace modify Database (AWS::RDS::DBInstance)", false, false},
		"its cause isn't there":            {[]awstest.PlannedChange{own}, "may replace modify Database (AWS::RDS::DBInstance)", false, false},
		"by what changes of what stays":    {[]awstest.PlannedChange{with(own, func(c *awstest.PlannedChange) { c.Cause = "Role.Description" }), role}, "may replace modify Database (AWS::RDS::DBInstance)", false, false},
		"by a reference to what stays":     {[]awstest.PlannedChange{with(own, func(c *awstest.PlannedChange) { c.From, c.Cause = "ResourceReference", "Role" }), role}, "modify Database (AWS::RDS::DBInstance)", false, false},
		"they cause each other":            {[]awstest.PlannedChange{own, with(own, func(c *awstest.PlannedChange) { c.ID, c.Cause = "Key", "Database.Arn" })}, "may replace modify Database (AWS::RDS::DBInstance)", false, false},
		"a queue, for which is no policy,": {[]awstest.PlannedChange{queue}, "may replace modify Database (AWS::SQS::Queue)", false, true},
	} {
		for _, pages := range []bool{false, true} {
			behind := server.Behind(t, (&awstest.Planned{Stack: "small", Changes: c.changes, Pages: pages}).Answers)
			p, err := opened(t, behind).Make(t.Context(), "small", small("a", topic), nil)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(p.Changes, func(c changeset.Change) bool { return c.ID == "Database" })
			if at < 0 || len(p.Changes) != len(c.changes) {
				t.Fatalf("%s: %v", name, p.Changes)
			}
			if got := p.Changes[at]; got.String() != c.says || got.Denied() != c.denied || got.Loses() != c.loses {
				t.Errorf("%s: it says %q, denied %t, loses %t", name, got, got.Denied(), got.Loses())
			}
		}
	}
}

// A change that may replace what is nowhere else is carried out under the stack's policy, which somebody had lifted for another.
func TestChangeThatMayReplaceIsCarriedOutUnderThePolicy(t *testing.T) {
	server := ministacktest.Start(t)
	d := opened(t, server)
	awstest.Change(t, d, "small", small("a", ""), nil)
	client := cloudformation.NewFromConfig(server.Root())
	if _, err := client.SetStackPolicy(t.Context(), &cloudformation.SetStackPolicyInput{StackName: sdk.String("small"),
		StackPolicyBody: sdk.String(`{"Statement":[{"Effect":"Allow","Action":"Update:*","Principal":"*","Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	p := waiting(t, d, small("a", topic))
	if err := d.Discard(t.Context(), &changeset.Plan{ID: p.ID, Stack: p.Stack}); err != nil { // so that it isn't carried out, after which the policy is put back anyway
		t.Fatal(err)
	}
	p.Changes = []changeset.Change{{Action: "Modify", ID: "Database", Type: "AWS::RDS::DBInstance", MayReplace: true}}
	if err := d.Execute(t.Context(), p); err == nil {
		t.Fatal("it is carried out")
	}
	if lifted, err := d.Lifted(t.Context(), "small"); err != nil || lifted {
		t.Errorf("its policy is lifted %t: %v", lifted, err)
	}
}
