package changeset_test

import (
	"errors"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// small is a stack of a queue and, where asked, a topic beside it.
func small(queue, also string) []byte {
	return []byte(`{"Resources":{"Queue":{"Type":"AWS::SQS::Queue","Properties":{"QueueName":"` + queue + `"}}` + also + `}}`)
}

const topic = `,"Topic":{"Type":"AWS::SNS::Topic"}`

func opened(t *testing.T, server *ministacktest.Server) *changeset.Driver {
	t.Helper()
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func waiting(t *testing.T, d *changeset.Driver, template []byte) *changeset.Plan {
	t.Helper()
	p, err := d.Make(t.Context(), "small", template, nil)
	if err != nil || p.ID == "" {
		t.Fatalf("it plans %+v: %v", p, err)
	}
	return p
}

// A change set that was planned can be carried out as long as nobody deleted it and its stack was not changed since, and once: which one can't
// be, and why, is named.
func TestChangeSetThatTheStackMovedFromIsNamed(t *testing.T) {
	server := ministacktest.Start(t)
	d := opened(t, server)
	awstest.Change(t, d, "small", small("a", ""), nil)
	first, second, third := waiting(t, d, small("a", topic)), waiting(t, d, small("a", topic)), waiting(t, d, small("a", topic))
	for _, p := range []*changeset.Plan{first, second, third} {
		if begun, err := d.Standing(t.Context(), p.Stack, p.ID); err != nil || begun {
			t.Errorf("one that waits is begun %t: %v", begun, err)
		}
	}
	if err := d.Discard(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	if err := d.Execute(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if begun, err := d.Standing(t.Context(), first.Stack, first.ID); err != nil || !begun {
		t.Errorf("one that was carried out is begun %t: %v", begun, err)
	}
	for what, p := range map[string]*changeset.Plan{"of before the stack was changed": second, "that was deleted": third} {
		if _, err := d.Standing(t.Context(), p.Stack, p.ID); !errors.Is(err, changeset.ErrGone) || !strings.Contains(err.Error(), p.ID) || !strings.Contains(err.Error(), "small") {
			t.Errorf("one %s: %v", what, err)
		}
		if err := d.Execute(t.Context(), p); err == nil {
			t.Errorf("one %s is carried out", what)
		}
	}
}

// Each stack has a policy that keeps what is nowhere else, from when it is made, and has it again after a change for which somebody lifted it.
// The emulator keeps policies and doesn't ask them.
func TestStackIsKeptByItsPolicy(t *testing.T) {
	server := ministacktest.Start(t)
	d := opened(t, server)
	client := cloudformation.NewFromConfig(server.Root())
	kept := func(when string) {
		t.Helper()
		got, err := client.GetStackPolicy(t.Context(), &cloudformation.GetStackPolicyInput{StackName: sdk.String("small")})
		if err != nil {
			t.Fatal(err)
		}
		const want = `{"Statement":[{"Effect":"Allow","Principal":"*","Resource":"*","Action":"Update:*"},{"Effect":"Deny","Principal":"*","Resource":"*","Action":["Update:Replace","Update:Delete"],` +
			`"Condition":{"StringEquals":{"ResourceType":["AWS::KMS::Key","AWS::RDS::DBInstance","AWS::S3::Bucket"]}}}]}`
		if sdk.ToString(got.StackPolicyBody) != want {
			t.Errorf("%s its policy is %s", when, sdk.ToString(got.StackPolicyBody))
		}
		if lifted, err := d.Lifted(t.Context(), "small"); err != nil || lifted {
			t.Errorf("%s it is lifted %t: %v", when, lifted, err)
		}
	}
	awstest.Change(t, d, "small", small("a", ""), nil)
	kept("made,")
	const lifted = `{"Statement":[{"Effect":"Allow","Action":"Update:*","Principal":"*","Resource":"*"}]}`
	if _, err := client.SetStackPolicy(t.Context(), &cloudformation.SetStackPolicyInput{StackName: sdk.String("small"), StackPolicyBody: sdk.String(lifted)}); err != nil {
		t.Fatal(err)
	}
	if is, err := d.Lifted(t.Context(), "small"); err != nil || !is {
		t.Errorf("lifted by somebody it is lifted %t: %v", is, err)
	}
	awstest.Change(t, d, "small", small("a", topic), nil)
	kept("changed,")
}

func TestWhatLosesDataIsToldFromWhatDoesNot(t *testing.T) {
	for _, c := range []struct {
		change        changeset.Change
		says          string
		denied, loses bool
	}{
		{changeset.Change{Action: "Modify", ID: "Key", Type: "AWS::KMS::Key"}, "modify Key (AWS::KMS::Key)", false, false},
		{changeset.Change{Action: "Modify", ID: "Key", Type: "AWS::KMS::Key", Replaces: true}, "REPLACES modify Key (AWS::KMS::Key)", true, true},
		{changeset.Change{Action: "Remove", ID: "Objects", Type: "AWS::S3::Bucket"}, "REMOVES remove Objects (AWS::S3::Bucket)", true, true},
		{changeset.Change{Action: "Modify", ID: "Database", Type: "AWS::RDS::DBInstance", Replaces: true}, "REPLACES modify Database (AWS::RDS::DBInstance)", true, true},
		{changeset.Change{Action: "Modify", ID: "Queue", Type: "AWS::SQS::Queue", Replaces: true}, "REPLACES modify Queue (AWS::SQS::Queue)", false, true},
		{changeset.Change{Action: "Remove", ID: "OldSecret", Type: "AWS::SecretsManager::Secret"}, "REMOVES remove OldSecret (AWS::SecretsManager::Secret)", false, false},
		{changeset.Change{Action: "Modify", ID: "IamTask", Type: "AWS::ECS::TaskDefinition", Replaces: true}, "adds a revision of IamTask (AWS::ECS::TaskDefinition)", false, false},
	} {
		if c.change.String() != c.says || c.change.Denied() != c.denied || c.change.Loses() != c.loses {
			t.Errorf("%+v says %q, denied %t, loses %t", c.change, c.change, c.change.Denied(), c.change.Loses())
		}
	}
}
