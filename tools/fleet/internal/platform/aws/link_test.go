package aws_test

import (
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// The account that a tenant has to itself, and what leads to it from the plane's, are deployed with what each side tells the other; the tenant's
// stack finds there what its tasks register with.
func TestTenantsOwnAccountAndWhatLeadsThereAreDeployed(t *testing.T) {
	server := ministacktest.Start(t)
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	own := awstest.Place
	own.Account, own.Hub = ownAccount, awstest.Place.Account
	in := stack.Input{Place: own, Release: awstest.Release(t), Image: awstest.Digest, Set: platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED}}
	root := server.Root()
	root.Credentials = credentials.NewStaticCredentialsProvider(ownAccount, "root", "")
	deploy := func(cfg sdk.Config, account, name string, render func(stack.Input) (*stack.Template, error), in stack.Input, parameters map[string]string) {
		t.Helper()
		d, err := changeset.Open(t.Context(), cfg, platform.Where{Account: account, Region: ministacktest.Region}, stack.Place{Account: account, Plane: "dev"}.Templates())
		if err != nil {
			t.Fatal(err)
		}
		made, err := render(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"Database", "DatabaseFull"} {
			delete(made.Resources, id) // the emulator has no RDS
		}
		delete(made.Outputs, "DatabaseHost")
		delete(made.Outputs, "DatabaseUser")
		awstest.Change(t, d, name, awstest.Emulated(t, made, false), parameters)
	}
	parameters := map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator", "S3PrefixList": "pl-1"}
	control, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	plane := stack.Input{Place: awstest.Place, Release: in.Release, Image: in.Image, Set: platform.Set{Blueprint: control}, First: true}
	first := map[string]string{"AdministratorRole": parameters["AdministratorRole"]}
	deploy(server.Root(), ministacktest.Account, awstest.Place.PlaneStack(), stack.Plane, plane, first)
	plane.First, plane.Accounts, plane.Joined = false, []string{ownAccount}, true
	first["S3PrefixList"] = "pl-1"
	deploy(server.Root(), ministacktest.Account, awstest.Place.PlaneStack(), stack.Plane, plane, first)
	deploy(server.Root(), ministacktest.Account, awstest.Place.ControlStack(), stack.Control, plane, map[string]string{"MarkKeys": "m", "LicenceKeys": "l", "ReleaseKeys": "r", "PublicKeySnapshot": "s"})

	parameters["RegistryService"], parameters["ZoneA"], parameters["ZoneB"] = "com.amazonaws.vpce."+ministacktest.Region+".vpce-svc-1", "euc1-az1", "euc1-az2"
	deploy(root, ownAccount, own.PlaneStack(), stack.Account, in, parameters)
	deploy(root, ownAccount, own.StackOf(in.Set.Tenant.String()), stack.Tenant, in, awstest.Parameters)
	link := own.LinkStack(in.Set.Tenant.String())
	deploy(server.Root(), ministacktest.Account, link, stack.Link, in, map[string]string{"SetService": "com.amazonaws.vpce." + ministacktest.Region + ".vpce-svc-2"})
	told, err := cloudformation.NewFromConfig(server.Root()).DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{StackName: &link})
	if err != nil || len(told.Stacks[0].Outputs) != 1 || sdk.ToString(told.Stacks[0].Outputs[0].OutputKey) != stack.LinkOutput {
		t.Errorf("the link tells %v: %v", told, err)
	}
}
