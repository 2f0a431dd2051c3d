package drift

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"

	"a3os.app/libs/clip"
	"a3os.app/tools/fleet/internal/platform"
)

// Led is a service of ECS's and what leads to it. ECS itself registers the addresses of the service's tasks there; who registers another is sent what is meant for
// the service, though the service is as it was.
type Led struct {
	Cluster, Service string
	// Names are the ARNs of what it is found by in Cloud Map, Targets those of the target groups that it stands behind.
	Names, Targets []string
}

// settles is how long a task's address may stand where the task is not: ECS registers and deregisters it a moment before or after.
const settles = 5 * time.Second

// older is what is said where fleet may not look.
const older = "where fleet may not, the plane's stack is of an earlier release: have administrators deploy this one's first"

// Astray names what is led to as the service and is no task of it, by name and address. What is seen is looked at once more some seconds later, as tasks come and go.
func (l Led) Astray(ctx context.Context, cfg aws.Config) ([]platform.Difference, error) {
	found, err := l.astray(ctx, cfg)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(settles):
	}
	still, err := l.astray(ctx, cfg)
	return slices.DeleteFunc(still, func(d platform.Difference) bool { return !slices.Contains(found, d) }), err
}

// registered is an address that something leads to.
type registered struct{ at, reason, next string }

func (l Led) astray(ctx context.Context, cfg aws.Config) ([]platform.Difference, error) {
	// Before the tasks: what was registered since then is a task's that is seen.
	var led []registered
	for _, look := range []func(context.Context, aws.Config) ([]registered, error){l.named, l.targeted} {
		some, err := look(ctx, cfg)
		if err != nil {
			return nil, err
		}
		led = append(led, some...)
	}
	if len(led) == 0 {
		return nil, nil
	}
	own, err := l.addresses(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var out []platform.Difference
	for _, r := range led {
		if !own[r.at] {
			out = append(out, platform.Difference{Resource: l.Service, Reason: r.reason, Next: "find out who did it (CloudTrail), then, as an administrator, " + r.next})
		}
	}
	return out, nil
}

// instanceAddresses are the attributes by which Cloud Map answers where an instance is.
// https://docs.aws.amazon.com/cloud-map/latest/api/API_RegisterInstance.html
var instanceAddresses = []string{"AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6", "AWS_INSTANCE_CNAME", "AWS_ALIAS_DNS_NAME", "AWS_EC2_INSTANCE_ID"}

// named is what the service's names lead to.
func (l Led) named(ctx context.Context, cfg aws.Config) (out []registered, err error) {
	client := servicediscovery.NewFromConfig(cfg)
	for _, name := range l.Names {
		service := name[strings.LastIndex(name, "/")+1:]
		pages := servicediscovery.NewListInstancesPaginator(client, &servicediscovery.ListInstancesInput{ServiceId: &service})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if gone(err) {
				break // CloudFormation finds that
			}
			if err != nil {
				return nil, fmt.Errorf("look what the name %s leads to (%s): %w", name, older, err)
			}
			for _, i := range page.Instances {
				for _, attribute := range instanceAddresses {
					at := i.Attributes[attribute]
					if at == "" {
						continue
					}
					out = append(out, registered{at: at,
						reason: fmt.Sprintf("the name %s of service %s leads to %q, which is no address of a task of it: who asks for the service is led there", name, l.Service, clip.Text(at, mostTold)),
						next:   fmt.Sprintf("aws servicediscovery deregister-instance --service-id %s --instance-id %q", service, clip.Text(aws.ToString(i.Id), mostTold))})
				}
			}
		}
	}
	return out, nil
}

// targeted is what load balancers send to as the service.
func (l Led) targeted(ctx context.Context, cfg aws.Config) (out []registered, err error) {
	client := elb.NewFromConfig(cfg)
	for _, group := range l.Targets {
		got, err := client.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &group})
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look what the target group %s sends to (%s): %w", group, older, err)
		}
		for _, t := range got.TargetHealthDescriptions {
			if t.Target == nil || t.TargetHealth != nil && t.TargetHealth.State == elbtypes.TargetHealthStateEnumDraining {
				continue // it is sent nothing new
			}
			at := aws.ToString(t.Target.Id)
			out = append(out, registered{at: at,
				reason: fmt.Sprintf("the target group %s of service %s sends to %q, which is no address of a task of it", group, l.Service, clip.Text(at, mostTold)),
				next:   fmt.Sprintf("aws elbv2 deregister-targets --target-group-arn %s --targets Id=%q,Port=%d", group, clip.Text(at, mostTold), aws.ToInt32(t.Target.Port))})
		}
	}
	return out, nil
}

// addresses are those of the service's tasks, also of those that are about to run or to end.
func (l Led) addresses(ctx context.Context, cfg aws.Config) (map[string]bool, error) {
	client, out := ecs.NewFromConfig(cfg), map[string]bool{}
	for _, status := range []ecstypes.DesiredStatus{ecstypes.DesiredStatusRunning, ecstypes.DesiredStatusStopped} {
		pages := ecs.NewListTasksPaginator(client, &ecs.ListTasksInput{Cluster: &l.Cluster, ServiceName: &l.Service, DesiredStatus: status})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if gone(err) {
				break // nothing of it runs
			}
			if err != nil {
				return nil, fmt.Errorf("list the tasks of service %s: %w", l.Service, err)
			}
			if len(page.TaskArns) == 0 {
				continue
			}
			got, err := client.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &l.Cluster, Tasks: page.TaskArns}) // a page is as many as are described at once
			if err != nil {
				return nil, fmt.Errorf("look at the tasks of service %s: %w", l.Service, err)
			}
			for _, t := range got.Tasks {
				if aws.ToString(t.LastStatus) == string(ecstypes.DesiredStatusStopped) {
					continue // its address may be another's by now
				}
				for _, a := range t.Attachments {
					for _, d := range a.Details {
						if name := aws.ToString(d.Name); name == "privateIPv4Address" || name == "ipv6Address" {
							out[aws.ToString(d.Value)] = true
						}
					}
				}
			}
		}
	}
	return out, nil
}

// Elsewhere names the listeners of a load balancer, by its name, that do anything but forward to one of these target groups. One that isn't there has none.
func Elsewhere(ctx context.Context, cfg aws.Config, balancer string, targets []string) ([]platform.Difference, error) {
	client := elb.NewFromConfig(cfg)
	found, err := client.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{balancer}})
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the load balancer %s (%s): %w", balancer, older, err)
	}
	var out []platform.Difference
	for _, b := range found.LoadBalancers {
		pages := elb.NewDescribeListenersPaginator(client, &elb.DescribeListenersInput{LoadBalancerArn: b.LoadBalancerArn})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("look at the listeners of the load balancer %s (%s): %w", balancer, older, err)
			}
			for _, l := range page.Listeners {
				for _, what := range elsewhere(l, targets) {
					out = append(out, platform.Difference{Resource: balancer,
						Reason: fmt.Sprintf("the load balancer %s %s what comes to its port %d, and is to send it to the plane's own tasks alone", balancer, what, aws.ToInt32(l.Port)),
						Next:   "find out who did it (CloudTrail), then, as an administrator, aws elbv2 modify-listener --listener-arn " + aws.ToString(l.ListenerArn) + " --default-actions Type=forward,TargetGroupArn=" + first(targets)})
				}
			}
		}
	}
	return out, nil
}

// elsewhere is what a listener does besides.
func elsewhere(l elbtypes.Listener, targets []string) []string {
	out := map[string]bool{}
	for _, a := range l.DefaultActions {
		if a.Type != elbtypes.ActionTypeEnumForward {
			out["answers by itself ("+string(a.Type)+")"] = true
			continue
		}
		to := []string{aws.ToString(a.TargetGroupArn)}
		if a.ForwardConfig != nil {
			for _, t := range a.ForwardConfig.TargetGroups {
				to = append(to, aws.ToString(t.TargetGroupArn))
			}
		}
		for _, group := range to {
			if group != "" && !slices.Contains(targets, group) {
				out["sends to the target group "+group] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// first of several names; what stands for one where there is none.
func first(of []string) string {
	return cmp.Or(append(slices.Clone(of), "TARGET_GROUP")...)
}
