package drift

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A service that is found by a name, or is behind a load balancer, that its template doesn't have is named; one of which the template's isn't known isn't, and is
// left as it is. The emulator takes no names for a service that is there.
func TestWhatLeadsToAServiceIsTheTemplates(t *testing.T) {
	d := &deployed{account: "123456789012", physical: map[string]string{"AuditName": "srv-1"}, known: map[string]string{}}
	d.cfg.Region = "eu-central-1"
	d.template.Resources = map[string]resource{"AuditName": {Type: "AWS::ServiceDiscovery::Service"}}
	l := &services{deployed: d}
	function := func(name string, argument any) map[string]any { return map[string]any{name: argument} }
	r := resource{Properties: map[string]any{"ServiceRegistries": []any{map[string]any{"RegistryArn": function("Fn::GetAtt", []any{"AuditName", "Arn"})}}}}
	own, plane, group := "arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-1", "arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-plane", "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/a3-dev-gateway/1"
	found := func(names ...string) types.Service {
		var out types.Service
		for _, n := range names {
			out.ServiceRegistries = append(out.ServiceRegistries, types.ServiceRegistry{RegistryArn: aws.String(n)})
		}
		return out
	}
	behind := l.behind(r)
	for what, c := range map[string]struct {
		have types.Service
		want string
	}{
		"its own name":        {found(own), ""},
		"none":                {found(), ""},
		"the plane's as well": {found(own, plane), plane},
		"a load balancer":     {types.Service{LoadBalancers: []types.LoadBalancer{{TargetGroupArn: aws.String(group)}}}, group},
	} {
		got := behind.differs(c.have)
		if (len(got) > 0) != (c.want != "") || !strings.Contains(strings.Join(got, ""), c.want) {
			t.Errorf("%s: %q", what, got)
		}
	}
	if behind.targets == nil || len(behind.names) != 1 || aws.ToString(behind.names[0].RegistryArn) != own {
		t.Errorf("it is put right to %+v", behind)
	}
	r.Properties["LoadBalancers"] = []any{map[string]any{"TargetGroupArn": function("Fn::ImportValue", "a3-dev-Targets")}}
	d.physical = map[string]string{}
	if behind := l.behind(r); behind.targets != nil || behind.names != nil {
		t.Errorf("of what isn't known it is put right to %+v", behind)
	}
}
