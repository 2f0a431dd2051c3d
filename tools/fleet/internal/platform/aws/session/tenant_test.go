package session_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Whoever works on one tenant reaches nothing of another's: each deed of fleet's on the other's stack, template, secrets, bucket, queue, logs,
// services, roles and key is refused, and works on its own, and, so that it is the session that refuses, without the session's policy on both.
func TestSessionOfOneTenantReachesNothingOfAnother(t *testing.T) {
	server, d := awstest.Account(t)
	roles := iam.NewFromConfig(server.Root())
	name := sdk.String("a3-dev-provisioner")
	rendered, err := roles.GetRole(t.Context(), &iam.GetRoleInput{RoleName: name})
	if err != nil {
		t.Fatal(err)
	}
	own, other := id.NewTenant(), id.NewTenant()
	for _, tenant := range []id.Tenant{own, other} {
		awstest.Change(t, d, awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false), awstest.Parameters)
	}
	provisioner := awstest.Provisioner(t, server)
	// Its trust as the template has it, which lets the provisioner itself take the role.
	trust, err := url.QueryUnescape(sdk.ToString(rendered.Role.AssumeRolePolicyDocument))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := roles.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: &trust}); err != nil {
		t.Fatal(err)
	}
	cfg, err := session.ForTenant(t.Context(), provisioner, awstest.Place, own.String())
	if err != nil {
		t.Fatal(err)
	}
	lastsAnHour(t, cfg)
	held := 0
	for what, err := range deeds(t, server, cfg, own) {
		if err != nil {
			t.Errorf("its session can't %s of its own tenant: %v", what, err)
		}
	}
	for what, err := range deeds(t, server, cfg, other) {
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("its session can %s of another tenant: %v", what, err)
		}
		held++
	}
	for what, err := range deeds(t, server, provisioner, other) {
		if err != nil {
			t.Errorf("the provisioner can't %s: %v, so that it isn't the session which refuses", what, err)
		}
	}
	if held < 15 {
		t.Errorf("only %d deeds were tried", held)
	}

	// A service is made with the stack, in a session that is lent to nobody.
	for name, works := range map[string]bool{"session": false, "making": true} {
		in := cfg
		if works {
			if in, err = session.MakingTenant(t.Context(), provisioner, awstest.Place, own.String()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := ecs.NewFromConfig(in).CreateService(t.Context(), &ecs.CreateServiceInput{Cluster: sdk.String(awstest.Place.Cluster()), ServiceName: sdk.String(own.String() + "-" + name),
			TaskDefinition: sdk.String(own.String() + "-iam"), DesiredCount: sdk.Int32(0)})
		if (err == nil) != works || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("in a %s one makes a service: %v", name, err)
		}
	}

	for what, err := range missing(t, cfg, own) {
		if err != nil && strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("its session can't %s of its own tenant, so that nobody sees that nothing is left: %v", what, err)
		}
	}
	// What is another's is not made this tenant's by a tag.
	for of, works := range map[id.Tenant]bool{own: true, other: false} {
		_, err := kms.NewFromConfig(cfg).TagResource(t.Context(), &kms.TagResourceInput{KeyId: keyOf(t, server, of), Tags: []kmstypes.Tag{{TagKey: sdk.String("tenant"), TagValue: sdk.String(own.String())}}})
		if (err == nil) != works || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("a key of %s is tagged as %s's: %v", of, own, err)
		}
	}
	if _, err := session.ForTenant(t.Context(), cfg, awstest.Place, other.String()); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("a session of one tenant becomes one of another: %v", err)
	}
	everything := ministacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}
	if _, err := session.ForTenant(t.Context(), server.Role(t, "stranger", everything), awstest.Place, own.String()); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("another role of the account becomes the provisioner: %v", err)
	}
}

// lastsAnHour says that a session is as long as a step of a tenant's may take, but for the while before its end in which it is taken anew.
func lastsAnHour(t *testing.T, cfg sdk.Config) {
	t.Helper()
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if left := time.Until(keys.Expires); err != nil || !keys.CanExpire || left < 50*time.Minute || left > time.Hour {
		t.Errorf("the session is used for %s: %v", left, err)
	}
}

// deeds are what fleet does with a tenant's stack and what it holds, each the way that it changes nothing where it works.
func deeds(t *testing.T, server *ministacktest.Server, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	ctx, tenant := t.Context(), of.String()
	out := map[string]error{}
	name := sdk.String(awstest.Place.StackOf(tenant))
	stacks := cloudformation.NewFromConfig(cfg)
	_, out["look at the stack"] = stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: name})
	_, out["protect the stack"] = stacks.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: name, EnableTerminationProtection: sdk.Bool(true)})
	_, out["read the stack's policy"] = stacks.GetStackPolicy(ctx, &cloudformation.GetStackPolicyInput{StackName: name})
	_, out["read the stack's template"] = stacks.GetTemplate(ctx, &cloudformation.GetTemplateInput{StackName: name})
	d, err := changeset.Open(ctx, cfg, awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	// The same template: there is nothing to change, and to say so takes the right to plan, and to keep a template.
	_, out["plan a change"] = d.Make(ctx, *name, awstest.Tenant(t, of, false), awstest.Parameters)

	secrets := secretsmanager.NewFromConfig(cfg)
	secret := sdk.String(awstest.Place.ComponentSecret(tenant, "iam"))
	_, out["write a secret"] = secrets.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: secret, SecretString: sdk.String("x")})
	_, out["read a secret"] = secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: secret})
	buckets := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := sdk.String(awstest.Place.Bucket(tenant, "objects"))
	_, out["list objects"] = buckets.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	_, out["delete an object"] = buckets.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: sdk.String("x")})
	queues := sqs.NewFromConfig(cfg)
	queue := awstest.Place.Queues(tenant)[0]
	_, out["look for a queue"] = queues.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &queue})
	_, out["tag a queue"] = queues.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: sdk.String(server.URL + "/" + ministacktest.Account + "/" + queue), Tags: map[string]string{"a3": "x"}})
	_, out["read logs"] = cloudwatchlogs.NewFromConfig(cfg).DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: sdk.String(awstest.Place.LogGroup(tenant, "iam"))})
	services := ecs.NewFromConfig(cfg)
	service := awstest.Place.Service(tenant, "iam")
	_, out["look at a service"] = services.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: sdk.String(awstest.Place.Cluster()), Services: []string{service}})
	_, out["change a service"] = services.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: sdk.String(awstest.Place.Cluster()), Service: &service, DesiredCount: sdk.Int32(0)})
	roles := iam.NewFromConfig(cfg)
	role := sdk.String(tenant + "-iam-task")
	_, out["look at a role"] = roles.GetRole(ctx, &iam.GetRoleInput{RoleName: role})
	_, out["give a role power"] = roles.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: role, PolicyName: sdk.String("AWSRevokeOlderSessions"),
		PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2020-01-01T00:00:00Z"}}}]}`)})
	_, out["look at the key"] = kms.NewFromConfig(cfg).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: keyOf(t, server, of)})
	return out
}

// missing looks for what isn't there, as fleet does once a tenant has left.
func missing(t *testing.T, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	ctx, tenant := t.Context(), of.String()
	out := map[string]error{}
	_, out["look for a stack"] = cloudformation.NewFromConfig(cfg).DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: sdk.String(awstest.Place.StackOf(tenant))})
	_, out["look for a role"] = iam.NewFromConfig(cfg).GetRole(ctx, &iam.GetRoleInput{RoleName: sdk.String(tenant + "-gone-task")})
	_, out["look for a bucket"] = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: sdk.String(awstest.Place.Bucket(tenant, "gone"))})
	_, out["look for a queue"] = sqs.NewFromConfig(cfg).GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: sdk.String(tenant + "-gone")})
	_, out["look for logs"] = cloudwatchlogs.NewFromConfig(cfg).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: sdk.String("/a3/tenant/" + tenant + "/gone")})
	_, out["look for a secret"] = secretsmanager.NewFromConfig(cfg).DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: sdk.String(awstest.Place.SecretPath(tenant) + "component/gone")})
	_, out["look for secrets"] = secretsmanager.NewFromConfig(cfg).ListSecrets(ctx, &secretsmanager.ListSecretsInput{})
	_, out["look for tasks"] = ecs.NewFromConfig(cfg).ListTasks(ctx, &ecs.ListTasksInput{Cluster: sdk.String(awstest.Place.Cluster()), Family: sdk.String(tenant + "-gone")})
	return out
}

func keyOf(t *testing.T, server *ministacktest.Server, of id.Tenant) *string {
	t.Helper()
	told, err := cloudformation.NewFromConfig(server.Root()).DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{StackName: sdk.String(awstest.Place.StackOf(of.String()))})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range told.Stacks[0].Outputs {
		if sdk.ToString(o.OutputKey) == stack.KeyOutput {
			return o.OutputValue
		}
	}
	t.Fatalf("the stack of %s tells no key", of)
	return nil
}
