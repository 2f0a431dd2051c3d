package aws

import (
	"context"
	"fmt"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/query"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Remains implements platform.Platform: it asks AWS for all that a set has by name, and looks where local looks.
func (p *Platform) Remains(ctx context.Context, s platform.Set) ([]string, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := p.useServer(ctx, p.inShared(s)); err != nil {
		return nil, err
	}
	out, err := t.left(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := p.Machine.Kept(ctx, p.inShared(s))
	return append(out, kept...), err
}

// left is what AWS still has of the set. What lasts of a stack whose deletion failed, and was ended with leaving that behind, is looked for by the names
// that the stack gave it.
func (t *tenant) left(ctx context.Context) (out []string, err error) {
	for _, look := range []func(context.Context) ([]string, error){t.leftStack, t.leftKeys, t.leftTemplates, t.leftServer, t.leftServices, t.leftDefinitions, t.leftRoles, t.leftBuckets, t.leftQueues, t.leftLogs,
		t.leftSecrets, t.leftNames, t.leftGroups, t.leftAlarms} {
		left, err := look(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, left...)
	}
	return out, nil
}

func (t *tenant) leftStack(ctx context.Context) ([]string, error) {
	there, err := t.outputs(ctx, t.stackName())
	if err != nil || there == nil {
		return nil, err
	}
	return []string{"stack " + t.stackName()}, nil
}

func (t *tenant) leftServices(ctx context.Context) (out []string, err error) {
	services, err := t.services(ctx)
	for name := range services {
		out = append(out, "service "+t.place.Service(t.id, name))
	}
	if err != nil {
		return nil, err
	}
	// What runs is the set's, whoever started it.
	for _, family := range t.families() {
		got, err := ecs.NewFromConfig(t.cfg).ListTasks(ctx, &ecs.ListTasksInput{Cluster: sdk.String(t.place.Cluster()), Family: &family})
		if err != nil && !gone(err) {
			return nil, fmt.Errorf("look for tasks of %s: %w", t.id, err)
		}
		if err == nil {
			for _, task := range got.TaskArns {
				out = append(out, "task "+task)
			}
		}
	}
	return out, nil
}

func (t *tenant) leftRoles(ctx context.Context) (out []string, err error) {
	client := iam.NewFromConfig(t.cfg)
	var names []string
	for keeper := range stack.Keepers {
		names = append(names, t.place.KeeperName(keeper, t.id))
	}
	for _, role := range stack.HoldingsOf(t.place, t.set).Roles {
		names = append(names, role.Name())
	}
	for _, name := range names {
		_, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		switch {
		case err == nil:
			out = append(out, "role "+name)
		case !gone(err):
			return nil, fmt.Errorf("look for role %s: %w", name, err)
		}
	}
	return out, nil
}

func (t *tenant) leftBuckets(ctx context.Context) (out []string, err error) {
	buckets, err := t.buckets(ctx)
	if err != nil {
		return nil, err
	}
	for _, bucket := range buckets {
		_, err := t.s3().ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: sdk.Int32(1)})
		switch {
		case err == nil:
			out = append(out, "bucket "+bucket)
		case !gone(err):
			return nil, fmt.Errorf("look for bucket %s: %w", bucket, err)
		}
	}
	return out, nil
}

func (t *tenant) leftQueues(ctx context.Context) (out []string, err error) {
	client := sqs.NewFromConfig(t.cfg)
	for _, queue := range t.place.Queues(t.id) {
		_, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &queue})
		switch {
		case err == nil:
			out = append(out, "queue "+queue)
		case !gone(err):
			return nil, fmt.Errorf("look for queue %s: %w", queue, err)
		}
	}
	return out, nil
}

func (t *tenant) leftLogs(ctx context.Context) (out []string, err error) {
	prefix := strings.TrimSuffix(t.place.LogGroup(t.id, ""), "/") + "/"
	got, err := cloudwatchlogs.NewFromConfig(t.cfg).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &prefix})
	if err != nil {
		return nil, fmt.Errorf("look for logs of %s: %w", t.id, err)
	}
	for _, g := range got.LogGroups {
		out = append(out, "log group "+sdk.ToString(g.LogGroupName))
	}
	return out, nil
}

func (t *tenant) leftSecrets(ctx context.Context) (out []string, err error) {
	names := []string{t.place.SecretPath(t.id) + "custody"}
	for _, name := range stack.HoldingsOf(t.place, t.set).Secrets {
		names = append(names, name)
	}
	slices.Sort(names)
	// A list of Secrets Manager's is minutes behind, and has those that no blueprint names.
	listed, err := t.secretsBelow(ctx, t.place.SecretPath(t.id))
	if err != nil {
		return nil, err
	}
	for _, name := range listed {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		there, err := t.hasSecret(ctx, name)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, "secret "+name)
		}
	}
	return out, nil
}

// leftNames is the zone of the set's names, which costs money, and of which an account has few.
func (t *tenant) leftNames(ctx context.Context) (out []string, err error) {
	zone := t.place.Namespace(t.id)
	pages := servicediscovery.NewListNamespacesPaginator(servicediscovery.NewFromConfig(t.cfg), &servicediscovery.ListNamespacesInput{
		Filters: []sdtypes.NamespaceFilter{{Name: sdtypes.NamespaceFilterNameName, Values: []string{zone}, Condition: sdtypes.FilterConditionEq}}})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for the names of %s: %w", t.id, err)
		}
		for _, n := range page.Namespaces {
			if sdk.ToString(n.Name) == zone {
				out = append(out, "namespace "+zone+" ("+sdk.ToString(n.Id)+")")
			}
		}
	}
	return out, nil
}

// leftGroups are security groups with the set's tag. One that something still stands in is what a stack's deletion fails by.
func (t *tenant) leftGroups(ctx context.Context) (out []string, err error) {
	groups, err := query.Groups(ctx, t.cfg, ownersTag, t.id)
	if err != nil {
		return nil, fmt.Errorf("look for security groups of %s: %w", t.id, err)
	}
	for _, g := range groups {
		out = append(out, "security group "+g.ID+" ("+g.Name+")")
	}
	return out, nil
}

func (t *tenant) leftAlarms(ctx context.Context) (out []string, err error) {
	names, err := query.Alarms(ctx, t.cfg, t.place.Alarm(t.id, ""))
	if err != nil {
		return nil, fmt.Errorf("look for alarms of %s: %w", t.id, err)
	}
	for _, name := range names {
		out = append(out, "alarm "+name)
	}
	return out, nil
}
