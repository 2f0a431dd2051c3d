package drift_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"

	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/drift"
)

// task answers of every service that a task of it runs at an address, and another has stopped, whose address is somebody else's by now. It stands before the emulator,
// where nothing runs here.
func task(at, stopped string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err != nil {
			return false
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch r.Header.Get("X-Amz-Target") {
		case "AmazonEC2ContainerServiceV20141113.ListTasks":
			name := "runs"
			if strings.Contains(string(body), `"STOPPED"`) {
				name = "stopped"
			}
			fmt.Fprintf(w, `{"taskArns":["arn:aws:ecs:eu-central-1:123456789012:task/a3-dev/%s"]}`, name)
		case "AmazonEC2ContainerServiceV20141113.DescribeTasks":
			status, at := "RUNNING", at
			if strings.Contains(string(body), "/stopped") {
				status, at = "STOPPED", stopped
			}
			fmt.Fprintf(w, `{"tasks":[{"lastStatus":%q,"attachments":[{"type":"ElasticNetworkInterface","details":[{"name":"subnetId","value":"subnet-1"},{"name":"privateIPv4Address","value":%q}]}]}]}`, status, at)
		default:
			w.Header().Del("Content-Type")
			return false
		}
		return true
	}
}

// What a set's name leads to and is no task of the set's is named, with what takes it away, and stays until an administrator does that: a task's own address isn't, one that
// a task had is.
func TestWhatANameLeadsToBesidesTheSetsTasksIsNamed(t *testing.T) {
	s := deployed(t)
	stacks := cloudformation.NewFromConfig(s.server.Root())
	about, err := stacks.DescribeStackResource(t.Context(), &cloudformation.DescribeStackResourceInput{StackName: &s.stack, LogicalResourceId: sdk.String("AuditName")})
	if err != nil {
		t.Fatal(err)
	}
	name, names := about.StackResourceDetail.PhysicalResourceId, servicediscovery.NewFromConfig(s.server.Root())
	register := func(id, at string) {
		t.Helper()
		if _, err := names.RegisterInstance(t.Context(), &servicediscovery.RegisterInstanceInput{ServiceId: name, InstanceId: &id, Attributes: map[string]string{"AWS_INSTANCE_IPV4": at}}); err != nil {
			t.Fatal(err)
		}
	}
	register("own", "10.64.0.7")
	s.provisioner.BaseEndpoint = sdk.String(s.server.Behind(t, task("10.64.0.7", "10.64.0.9")).URL)
	if got := s.find(t); len(got) > 0 {
		t.Fatalf("where a name leads to the set's task there is %v", got)
	}
	register("stranger", "10.64.0.9")
	got := s.find(t)
	if len(got) != 1 || got[0].Resource != "Audit" || !strings.Contains(got[0].Reason, `leads to "10.64.0.9", which is no address of a task of it`) ||
		!strings.Contains(got[0].Next, "aws servicediscovery deregister-instance --service-id "+*name+` --instance-id "stranger"`) {
		t.Errorf("it finds %v", got)
	}
	if changed, err := drift.Mend(t.Context(), s.provisioner, s.stack, s.template); changed || err != nil {
		t.Errorf("the provisioner mended %t, %v", changed, err)
	}
	if _, err := names.DeregisterInstance(t.Context(), &servicediscovery.DeregisterInstanceInput{ServiceId: name, InstanceId: sdk.String("stranger")}); err != nil {
		t.Fatal(err)
	}
	if got := s.find(t); len(got) > 0 {
		t.Errorf("taken away there is still %v", got)
	}
}

// What a load balancer sends to besides a service's tasks is named, and a listener that does anything but forward to the target groups that it is to.
func TestWhatALoadBalancerSendsElsewhereIsNamed(t *testing.T) {
	server, _ := awstest.Account(t)
	ctx, client, cfg := t.Context(), elb.NewFromConfig(server.Root()), awstest.Provisioner(t, server)
	var groups []string
	for _, name := range []string{"a3-dev-gateway", "a3-dev-other"} {
		made, err := client.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: &name, TargetType: elbtypes.TargetTypeEnumIp, Protocol: elbtypes.ProtocolEnumTls, Port: sdk.Int32(7443), VpcId: sdk.String("vpc-1")})
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, *made.TargetGroups[0].TargetGroupArn)
	}
	if _, err := client.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: &groups[0], Targets: []elbtypes.TargetDescription{{Id: sdk.String("10.64.0.7"), Port: sdk.Int32(7443)}, {Id: sdk.String("10.64.0.9"), Port: sdk.Int32(7443)}}}); err != nil {
		t.Fatal(err)
	}
	balancer, err := client.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: sdk.String("a3-dev"), Type: elbtypes.LoadBalancerTypeEnumNetwork, Subnets: []string{"subnet-1"}})
	if err != nil {
		t.Fatal(err)
	}
	listener := func(port int32, action elbtypes.Action) {
		t.Helper()
		if _, err := client.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: balancer.LoadBalancers[0].LoadBalancerArn, Port: &port, Protocol: elbtypes.ProtocolEnumTls, DefaultActions: []elbtypes.Action{action}}); err != nil {
			t.Fatal(err)
		}
	}
	listener(443, elbtypes.Action{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &groups[0]})
	if got, err := drift.Elsewhere(ctx, cfg, "a3-dev", groups[:1]); err != nil || len(got) > 0 {
		t.Errorf("where nobody changed a listener: %v, %v", got, err)
	}
	if got, err := drift.Elsewhere(ctx, cfg, "a3-other", groups[:1]); err != nil || len(got) > 0 {
		t.Errorf("of no load balancer: %v, %v", got, err)
	}
	listener(444, elbtypes.Action{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &groups[1]})
	got, err := drift.Elsewhere(ctx, cfg, "a3-dev", groups[:1])
	if err != nil || len(got) != 1 || !strings.Contains(got[0].Reason, "sends to the target group "+groups[1]+" what comes to its port 444") || !strings.Contains(got[0].Next, "TargetGroupArn="+groups[0]) {
		t.Errorf("it finds %v, %v", got, err)
	}
	cfg.BaseEndpoint = sdk.String(server.Behind(t, task("10.64.0.7", "10.64.0.9")).URL)
	got, err = drift.Led{Cluster: "a3-dev", Service: "plane-dev-gateway", Targets: groups}.Astray(ctx, cfg)
	if err != nil || len(got) != 1 || !strings.Contains(got[0].Reason, `sends to "10.64.0.9"`) || !strings.Contains(got[0].Next, `aws elbv2 deregister-targets --target-group-arn `+groups[0]+` --targets Id="10.64.0.9",Port=7443`) {
		t.Errorf("it finds %v, %v", got, err)
	}
}
