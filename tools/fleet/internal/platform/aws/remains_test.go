package aws_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// What a stack left behind whose deletion failed, and which somebody had go all the same, is named, whatever of the set it is: what migrates its database
// included, the zone of its names, its places in the network and its alarms. What another tenant has of that isn't.
func TestWhatAStackLeftBehindIsNamed(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	p = anew(p)
	ctx, stacks, own, other := t.Context(), cloudformation.NewFromConfig(server.Root()), s.Tenant.String(), id.NewTenant().String()
	name := sdk.String(awstest.Place.StackOf(own))
	if _, err := stacks.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: name, EnableTerminationProtection: sdk.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := stacks.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: name}); err != nil {
		t.Fatal(err)
	}
	before := p.Left(t, s)
	if slices.ContainsFunc(before, func(l string) bool {
		return !strings.HasPrefix(l, "key ") && !strings.HasPrefix(l, "bucket ") && !strings.HasPrefix(l, "template ") && !strings.HasPrefix(l, "task definition ")
	}) {
		t.Errorf("of a stack that was deleted is left %q", before)
	}
	for _, tenant := range []string{own, other} {
		if _, err := iam.NewFromConfig(server.Root()).CreateRole(ctx, &iam.CreateRoleInput{RoleName: sdk.String(tenant + "-migrate-start"), Path: sdk.String("/tenant/" + tenant + "/"),
			AssumeRolePolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[]}`)}); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"component/migrate", "component/of-before"} {
			if _, err := secretsmanager.NewFromConfig(server.Root()).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: sdk.String("tenant/" + tenant + "/" + secret), SecretString: sdk.String("x")}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := servicediscovery.NewFromConfig(server.Root()).CreatePrivateDnsNamespace(ctx, &servicediscovery.CreatePrivateDnsNamespaceInput{
			Name: sdk.String(strings.ReplaceAll(tenant, "_", "-") + ".a3-dev.internal"), Vpc: sdk.String("vpc-1")}); err != nil {
			t.Fatal(err)
		}
	}
	beside := map[string]any{}
	for name, tenant := range map[string]string{"Own": own, "Other": other} {
		beside[name+"Group"] = map[string]any{"Type": "AWS::EC2::SecurityGroup", "Properties": map[string]any{"GroupDescription": "x", "VpcId": "vpc-1", "GroupName": tenant + "-peers", "Tags": []map[string]string{{"Key": "tenant", "Value": tenant}}}}
		beside[name+"Alarm"] = map[string]any{"Type": "AWS::CloudWatch::Alarm", "Properties": map[string]any{"AlarmName": tenant + "-DeadLettersWait", "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1,
			"MetricName": "x", "Namespace": "AWS/SQS", "Period": 300, "Statistic": "Maximum", "Threshold": 0}}
	}
	text, err := json.Marshal(map[string]any{"Resources": beside})
	if err != nil {
		t.Fatal(err)
	}
	d, err := changeset.Open(ctx, server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, "a3-dev-beside", text, nil)
	left := p.Left(t, s)
	for _, want := range []string{"role " + own + "-migrate-start", "secret tenant/" + own + "/component/migrate", "secret tenant/" + own + "/component/of-before",
		"namespace " + strings.ReplaceAll(own, "_", "-") + ".a3-dev.internal", "security group sg-", "alarm " + own + "-DeadLettersWait"} {
		if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("%s is not among what is left: %q", want, left)
		}
	}
	if len(left) != len(before)+6 {
		t.Errorf("there is left %q, and before there was %q", left, before)
	}
}
