package stack_test

import (
	"encoding/json"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// Who may everything in the account, and is neither its provisioner nor its administrator, does nothing to the roles, boundary, servers, tasks, stacks and groups
// of the plane and its tenants where the organization has the guard, and all that to what isn't theirs. A task that ECS starts for the set is what it was.
func TestGuardKeepsStrangersOfTheAccountFromRolesServersAndTasks(t *testing.T) {
	administrator := "arn:aws:iam::" + place.Account + ":role/aws-reserved/sso.amazonaws.com/eu-central-1/AWSReservedSSO_Admin_0123"
	text, err := stack.Guard(place, []string{administrator})
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	guard, err := stacktest.Policy(document)
	if err != nil {
		t.Fatal(err)
	}
	everything := stacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}
	tenant := id.NewTenant().String()
	arn := func(service, resource string) string {
		return "arn:aws:" + service + ":" + place.Region + ":" + place.Account + ":" + resource
	}
	role, dashed := "arn:aws:iam::"+place.Account+":role/tenant/"+tenant+"/"+tenant+"-iam-task", strings.ReplaceAll(tenant, "_", "-")
	for what, c := range map[string]struct {
		action, resource string
		tags             map[string]string
		theirs           bool
	}{
		"tag a role":                      {"iam:TagRole", role, nil, true},
		"untag a role":                    {"iam:UntagRole", role, nil, true},
		"say who takes a role":            {"iam:UpdateAssumeRolePolicy", role, nil, true},
		"give a role a policy":            {"iam:PutRolePolicy", role, nil, true},
		"attach a policy to a role":       {"iam:AttachRolePolicy", role, nil, true},
		"take a role's boundary away":     {"iam:DeleteRolePermissionsBoundary", role, nil, true},
		"run something as a role":         {"iam:PassRole", role, nil, true},
		"change the boundary":             {"iam:CreatePolicyVersion", place.Boundary(), nil, true},
		"set another boundary":            {"iam:SetDefaultPolicyVersion", place.Boundary(), nil, true},
		"change what bounds sessions":     {"iam:CreatePolicyVersion", place.MakingPolicy(), nil, true},
		"say who is the provisioner":      {"iam:UpdateAssumeRolePolicy", place.Provisioner(), nil, true},
		"pass the registry's role":        {"iam:PassRole", "arn:aws:iam::" + place.Account + ":role/plane/dev/plane-dev-registry-task", nil, true},
		"give a server another password":  {"rds:ModifyDBInstance", arn("rds", "db:a3-dev-"+dashed), nil, true},
		"make a server of a snapshot":     {"rds:RestoreDBInstanceFromDBSnapshot", arn("rds", "snapshot:rds:a3-dev-"+dashed+"-2026-01-01"), nil, true},
		"delete the shared server":        {"rds:DeleteDBInstance", arn("rds", "db:a3-dev-plane"), nil, true},
		"run a tenant's task":             {"ecs:RunTask", arn("ecs", "task-definition/"+tenant+"-iam:1"), nil, true},
		"type in a tenant's task":         {"ecs:ExecuteCommand", arn("ecs", "task/a3-dev/0123"), nil, true},
		"stop a service":                  {"ecs:UpdateService", arn("ecs", "service/a3-dev/"+tenant+"-iam"), nil, true},
		"change a stack":                  {"cloudformation:UpdateStack", arn("cloudformation", "stack/a3-dev-"+dashed+"/1"), nil, true},
		"let in by the plane's group":     {"ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-1"), map[string]string{"plane": "dev"}, true},
		"give a group a tenant's tag":     {"ec2:CreateTags", arn("ec2", "security-group/sg-1"), map[string]string{"plane": "dev"}, true},
		"be a tenant's component by name": {"servicediscovery:RegisterInstance", arn("servicediscovery", "service/srv-1"), map[string]string{"plane": "dev", "tenant": tenant}, true},
		"send the front door elsewhere":   {"elasticloadbalancing:ModifyListener", arn("elasticloadbalancing", "listener/net/a3-dev/1/2"), nil, true},
		"open another front door":         {"elasticloadbalancing:CreateListener", arn("elasticloadbalancing", "loadbalancer/net/a3-dev/1"), nil, true},
		"take the front door away":        {"elasticloadbalancing:DeleteLoadBalancer", arn("elasticloadbalancing", "loadbalancer/net/a3-dev/1"), nil, true},
		"be the gateway":                  {"elasticloadbalancing:RegisterTargets", arn("elasticloadbalancing", "targetgroup/a3-dev-gateway/1"), nil, true},
		"shut the gateway out":            {"elasticloadbalancing:DeregisterTargets", arn("elasticloadbalancing", "targetgroup/a3-dev-gateway/1"), nil, true},
		"hide clients from the gateway":   {"elasticloadbalancing:ModifyTargetGroupAttributes", arn("elasticloadbalancing", "targetgroup/a3-dev-gateway/1"), nil, true},
		"be the registry to accounts":     {"elasticloadbalancing:RegisterTargets", arn("elasticloadbalancing", "targetgroup/a3-dev-Regis-ABC/1"), nil, true},
		"send packets elsewhere":          {"ec2:ReplaceRoute", arn("ec2", "route-table/rtb-1"), map[string]string{"plane": "dev"}, true},
		"send some packets elsewhere":     {"ec2:CreateRoute", arn("ec2", "route-table/rtb-1"), map[string]string{"plane": "dev"}, true},
		"take a route away":               {"ec2:DeleteRoute", arn("ec2", "route-table/rtb-1"), map[string]string{"plane": "dev"}, true},
		"take a subnet's routes away":     {"ec2:DisassociateRouteTable", arn("ec2", "route-table/rtb-1"), map[string]string{"plane": "dev"}, true},
		"take an endpoint away":           {"ec2:DeleteVpcEndpoints", arn("ec2", "vpc-endpoint/vpce-1"), nil, true},
		"open an endpoint to others":      {"ec2:ModifyVpcEndpoint", arn("ec2", "vpc-endpoint/vpce-1"), nil, true},
		"take an alarm away":              {"cloudwatch:DeleteAlarms", arn("cloudwatch", "alarm:plane-dev-GatewayDown"), nil, true},
		"silence a tenant's alarm":        {"cloudwatch:DisableAlarmActions", arn("cloudwatch", "alarm:"+tenant+"-DeadLettersWait"), nil, true},
		"take the alarms' topic away":     {"sns:DeleteTopic", arn("sns", "a3-dev-alarms"), nil, true},
		"look at the front door":          {"elasticloadbalancing:DescribeTargetHealth", "*", nil, false},
		"look at alarms":                  {"cloudwatch:DescribeAlarms", arn("cloudwatch", "alarm:"+tenant+"-DeadLettersWait"), nil, false},
		"be behind a balancer of its own": {"elasticloadbalancing:RegisterTargets", arn("elasticloadbalancing", "targetgroup/other/1"), nil, false},
		"change a route of its own":       {"ec2:ReplaceRoute", arn("ec2", "route-table/rtb-2"), nil, false},
		"look at a role":                  {"iam:GetRole", role, nil, false},
		"tag a role of its own":           {"iam:TagRole", "arn:aws:iam::" + place.Account + ":role/other", nil, false},
		"change a server of its own":      {"rds:ModifyDBInstance", arn("rds", "db:other"), nil, false},
		"run a task of its own":           {"ecs:RunTask", arn("ecs", "task-definition/other:1"), nil, false},
		"let in by a group of its own":    {"ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-2"), nil, false},
	} {
		for who, may := range map[string]bool{"arn:aws:iam::" + place.Account + ":role/stranger": !c.theirs, "arn:aws:iam::" + place.Account + ":user/stranger": !c.theirs,
			role: !c.theirs, administrator: true, place.Provisioner(): true, place.BreakGlass(): true} {
			is, err := stacktest.Allows(append(guard, everything), stacktest.Request{Principal: stacktest.Principal{ARN: who, Account: place.Account}, Action: c.action, Resource: c.resource, ResourceTags: c.tags})
			if err != nil || is != may {
				t.Errorf("%s can %s: %t, want %t; %v", who, what, is, may, err)
			}
		}
	}
	// Who deploys, who looks after it and who is woken up may each have a role.
	several := []string{administrator + "1", administrator + "2", administrator + "3"}
	if _, err := stack.Guard(stack.Place{Account: place.Account, Region: "ap-southeast-1", Plane: "prod"}, several); err != nil {
		t.Errorf("with three administrators: %v", err)
	}
	for _, administrators := range [][]string{nil, {"arn:aws:iam::123456789012:role/*"}, {"admin"}} {
		if text, err := stack.Guard(place, administrators); err == nil {
			t.Errorf("with %v it is %s", administrators, text)
		}
	}
}
