package drift_test

import (
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/drift"
)

const open = `{"Version":"2012-10-17","Statement":[{"Sid":"Open","Effect":"Allow","Principal":{"AWS":"*"},"Action":"*","Resource":"*"}]}`

// set is a tenant's that was deployed.
type set struct {
	server *ministacktest.Server
	// provisioner looks, and mends.
	provisioner sdk.Config
	tenant      string
	stack       string
	template    []byte
}

func deployed(t *testing.T) set {
	t.Helper()
	server, d := awstest.Account(t)
	tenant := id.NewTenant()
	s := set{server: server, provisioner: awstest.Provisioner(t, server), tenant: tenant.String(), stack: awstest.Place.StackOf(tenant.String()), template: awstest.Tenant(t, tenant, false)}
	awstest.Change(t, d, s.stack, s.template, awstest.Parameters)
	awstest.Bound(t, server, tenant)
	return s
}

func (s set) find(t *testing.T) []platform.Difference {
	t.Helper()
	got, err := drift.Find(t.Context(), s.provisioner, s.stack, s.template)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// What is changed by hand is named, each alone, with what it was changed to; it stays so until somebody asks for it to be put right, and what
// the provisioner may not put right says what an administrator types.
func TestWhatIsChangedByHandIsNamedAndMendedWhenAsked(t *testing.T) {
	s := deployed(t)
	if got := s.find(t); len(got) > 0 {
		t.Fatalf("a set that nobody touched differs: %v", got)
	}
	if changed, err := drift.Mend(t.Context(), s.provisioner, s.stack, s.template); changed || err != nil {
		t.Fatalf("there was something to mend: %v", err)
	}
	anotherTemplate(t, s)
	cfg := s.server.Root()
	roles, services := iam.NewFromConfig(cfg), ecs.NewFromConfig(cfg)
	buckets := s3.NewFromConfig(s.provisioner, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := sdk.String("a3-dev-" + strings.ReplaceAll(s.tenant, "_", "-") + "-objects-" + ministacktest.Account)
	role, service, cluster := sdk.String(s.tenant+"-audit-task"), sdk.String(s.tenant+"-audit"), sdk.String("a3-dev")
	for _, c := range []struct {
		name, resource string
		change         func() error
		says           []string
		mended         bool
	}{
		{"a role's policy", "IntegrationsTaskRole", func() error {
			_, err := roles.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: sdk.String(s.tenant + "-integrations-task"), PolicyName: sdk.String("own"),
				PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[{"Sid":"Everything","Effect":"Allow","Action":"*","Resource":"*"}]}`)})
			return err
		}, []string{"ObjectsObjects is gone", "Everything was added", `"Action":"*"`}, true},
		{"one policy more", "AuditTaskRole", func() error {
			_, err := roles.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: role, PolicyName: sdk.String("more"),
				PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}}`)})
			return err
		}, []string{"was given the policy more", "s3:GetObject"}, true},
		{"whom a role lets in", "AuditTaskRole", func() error {
			_, err := roles.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: role,
				PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"sts:AssumeRole"}]}`)})
			return err
		}, []string{"whom role " + *role + " lets in", "210987654321", "TasksOfThisAccount is gone"}, true},
		{"the boundary", "AuditTaskRole", func() error {
			_, err := roles.DeleteRolePermissionsBoundary(t.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: role})
			return err
		}, []string{"boundary of role " + *role + " is none", awstest.Place.Boundary()}, false},
		{"a task definition by tag", "Audit", func() error {
			made, err := services.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: sdk.String(s.tenant + "-audit"),
				ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: sdk.String("audit"), Image: sdk.String("elsewhere/accessos:latest"), Memory: sdk.Int32(128)}}})
			if err != nil {
				return err
			}
			_, err = services.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: cluster, Service: service, TaskDefinition: made.TaskDefinition.TaskDefinitionArn})
			return err
		}, []string{"audit from elsewhere/accessos:latest", "by tag and not by digest", awstest.Digest}, true},
		{"where its tasks stand in the network", "Audit", func() error {
			_, err := services.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: cluster, Service: service, NetworkConfiguration: &ecstypes.NetworkConfiguration{
				AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: []string{"subnet-of-everybody"}, SecurityGroups: []string{"sg-of-everybody"}, AssignPublicIp: ecstypes.AssignPublicIpEnabled}}})
			return err
		}, []string{"security groups [sg-of-everybody]", "subnets [subnet-of-everybody]", "addresses of the internet"}, true},
		{"what sends to its tasks", "Audit", func() error {
			_, err := services.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: cluster, Service: service, LoadBalancers: []ecstypes.LoadBalancer{{ContainerName: sdk.String("audit"), ContainerPort: sdk.Int32(7443),
				TargetGroupArn: sdk.String("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/a3-dev-gateway/1")}}})
			return err
		}, []string{"is behind the target group", "targetgroup/a3-dev-gateway/1", "others' clients"}, true},
		{"a bucket's policy", "StoreObjectsPolicy", func() error {
			// S3 itself refuses one that is for everybody.
			policy := strings.NewReplacer(`"AWS":"*"`, `"AWS":"210987654321"`, `"Resource":"*"`, `"Resource":"arn:aws:s3:::`+*bucket+`/*"`).Replace(open)
			_, err := buckets.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: bucket, Policy: &policy})
			return err
		}, []string{"OnlyItsOwn is gone", "Open was added"}, true},
		{"a bucket's policy that is gone", "StoreObjectsPolicy", func() error {
			_, err := buckets.DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: bucket})
			return err
		}, []string{"OnlyItsOwn is gone", "OnlyUnderItsKey is gone"}, true},
		{"a bucket that can be public", "StoreObjects", func() error {
			_, err := buckets.DeletePublicAccessBlock(t.Context(), &s3.DeletePublicAccessBlockInput{Bucket: bucket})
			return err
		}, []string{"can be made public"}, true},
		{"a queue's policy", "QueuePolicy", func() error {
			client := sqs.NewFromConfig(s.provisioner)
			url, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: sdk.String(s.tenant + "-queue")})
			if err != nil {
				return err
			}
			_, err = client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: url.QueueUrl, Attributes: map[string]string{"Policy": open}})
			return err
		}, []string{"policy of queue " + s.tenant + "-queue", "Open was added"}, true},
		{"a key's policy", "Key", func() error {
			client := kms.NewFromConfig(cfg)
			keys, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
			if err != nil {
				return err
			}
			for _, k := range keys.Keys {
				p, err := client.GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: k.KeyId})
				if err == nil && strings.Contains(*p.Policy, s.tenant) {
					_, err = client.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: k.KeyId, Policy: sdk.String(open)})
					return err
				}
			}
			t.Error("the tenant's key was not found")
			return nil
		}, []string{"policy of key", "OnlyItsOwn is gone", "Open was added"}, true},
		{"a queue that CloudFormation looks at itself", "DeadLetters", func() error {
			client := sqs.NewFromConfig(s.provisioner)
			url, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: sdk.String(s.tenant + "-queue-dead")})
			if err != nil {
				return err
			}
			_, err = client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: url.QueueUrl, Attributes: map[string]string{"MessageRetentionPeriod": "60"}})
			return err
		}, []string{"MessageRetentionPeriod is 60", "1209600"}, false},
	} {
		if err := c.change(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := s.find(t)
		var text []string
		for _, d := range got {
			text = append(text, d.Resource+": "+d.Reason)
			if (d.Next == "") != c.mended {
				t.Errorf("%s: next is %q", c.name, d.Next)
			}
		}
		all := strings.Join(text, "\n")
		if len(got) != 1 || got[0].Resource != c.resource || slices.ContainsFunc(c.says, func(part string) bool { return !strings.Contains(all, part) }) {
			t.Errorf("%s: it finds %q, want %s: %q", c.name, all, c.resource, c.says)
		}
		if changed, err := drift.Mend(t.Context(), s.provisioner, s.stack, s.template); changed != c.mended || err != nil {
			t.Errorf("%s: mended %t, %v", c.name, changed, err)
		}
		if left := s.find(t); (len(left) == 0) != c.mended {
			t.Errorf("%s: after it was mended: %v", c.name, left)
		}
		if !c.mended {
			s.undo(t, c.resource)
		}
	}
}

// undo does what an administrator would type.
func (s set) undo(t *testing.T, resource string) {
	t.Helper()
	var err error
	switch resource {
	case "AuditTaskRole":
		_, err = iam.NewFromConfig(s.server.Root()).PutRolePermissionsBoundary(t.Context(), &iam.PutRolePermissionsBoundaryInput{RoleName: sdk.String(s.tenant + "-audit-task"), PermissionsBoundary: sdk.String(awstest.Place.Boundary())})
	default:
		return
	}
	if left := s.find(t); err != nil || len(left) > 0 {
		t.Errorf("%s, undone by hand: %v, %v", resource, left, err)
	}
}

// A stack that was deployed with another template than the release's, or that lacks something of it, is named too, though CloudFormation finds it
// in good order.
func anotherTemplate(t *testing.T, s set) {
	t.Helper()
	other := strings.Replace(string(s.template), awstest.Digest, strings.Replace(awstest.Digest, "1", "2", 1), 1)
	if other == string(s.template) {
		t.Fatal("the template names no digest")
	}
	got, err := drift.Find(t.Context(), s.provisioner, s.stack, []byte(other))
	if err != nil || len(got) == 0 || !strings.Contains(got[0].Reason, "other properties than the release's template has") {
		t.Errorf("%v, %v", got, err)
	}
	less := strings.Replace(string(s.template), `"QueuePolicy":`, `"QueuePolicyOfAnother":`, 1)
	got, err = drift.Find(t.Context(), s.provisioner, s.stack, []byte(less))
	if err != nil || len(got) != 2 || !strings.Contains(got[0].Reason, "is in the stack, and not in") || !strings.Contains(got[1].Reason, "not in the stack") {
		t.Errorf("%v, %v", got, err)
	}
}
