package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"a3os.app/deploy/blueprint"
)

// mostGuard is how long a policy of an organization's may be, in characters, of those that every organization takes.
// https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html
const mostGuard = 5120

// Guard is a policy of the organization's (SCP) for an account that stacks are in: whoever else is in the account, whatever their own policies allow, changes
// no role of a tenant's or of the plane's and no boundary, runs nothing as one of them, and touches no server, group, route, load balancer, alarm or stack of the plane's. What keeps
// data denies such principals itself; a role, a server and a task have no policy that could. Roles that services have of their own it
// doesn't bind, nor, as any such policy, the organization's management account.
// https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps.html
func Guard(p Place, administrators []string) ([]byte, error) {
	if p.Account == "" || p.Region == "" || len(administrators) == 0 {
		return nil, errors.New("a guard leaves out the account's provisioner and administrators: name --account, --region and --administrator, the ARN of the role that AdministratorRole of the stack names")
	}
	for _, arn := range administrators {
		if !strings.HasPrefix(arn, "arn:aws:iam::") || !strings.Contains(arn, ":role/") || strings.ContainsAny(arn, "*?") {
			return nil, fmt.Errorf("--administrator is %q: it is the ARN of one role, arn:aws:iam::…:role/…", arn)
		}
	}
	theirs := when{"aws:PrincipalArn": append([]string{p.Provisioner(), p.BreakGlass()}, administrators...)}
	// One statement for all that a name says the plane has: an action is only ever about resources of its own service, and each statement takes the length of
	// all administrators' names.
	var actions, resources []string
	deny := func(does, on []string) { actions, resources = append(actions, does...), append(resources, on...) }
	deny([]string{"iam:Add*", "iam:Attach*", "iam:Create*", "iam:Delete*", "iam:Detach*", "iam:PassRole", "iam:Put*", "iam:Remove*", "iam:Set*", "iam:Tag*", "iam:Untag*", "iam:Update*"},
		[]string{p.iam("role/" + string(blueprint.ScopeTenant) + "/*"), p.iam("role/" + string(blueprint.ScopePlane) + "/" + p.Plane + "/*"), p.iam("role/a3/" + p.cluster() + "-*"), p.iam("policy/a3/" + p.cluster() + "-*")})
	deny([]string{"rds:Add*", "rds:Copy*", "rds:Create*", "rds:Delete*", "rds:Modify*", "rds:Promote*", "rds:Reboot*", "rds:Remove*", "rds:Restore*", "rds:Start*", "rds:Stop*"},
		[]string{p.arn("rds", "db:"+p.cluster()+"-*"), p.arn("rds", "snapshot:*"+p.cluster()+"-*"), p.arn("rds", "pg:"+p.cluster()+"-*")})
	deny([]string{"ecs:Create*", "ecs:Delete*", "ecs:ExecuteCommand", "ecs:Put*", "ecs:RunTask", "ecs:StartTask", "ecs:Stop*", "ecs:TagResource", "ecs:Update*"},
		[]string{p.arn("ecs", "cluster/"+p.cluster()), p.arn("ecs", "*/"+p.cluster()+"/*"), p.arn("ecs", "task-definition/tnt_*"), p.arn("ecs", "task-definition/plane-"+p.Plane+"-*")})
	deny([]string{"cloudformation:Continue*", "cloudformation:Create*", "cloudformation:Delete*", "cloudformation:Execute*", "cloudformation:Rollback*", "cloudformation:Set*", "cloudformation:Update*"},
		[]string{p.arn("cloudformation", "stack/"+p.cluster()+"-*")})
	// All tenants' requests are in the clear behind the load balancer. ECS makes tasks known to it by a role of its own.
	deny([]string{"elasticloadbalancing:Add*", "elasticloadbalancing:Create*", "elasticloadbalancing:Delete*", "elasticloadbalancing:Deregister*", "elasticloadbalancing:Modify*", "elasticloadbalancing:Register*",
		"elasticloadbalancing:Remove*", "elasticloadbalancing:Set*"},
		[]string{p.arn("elasticloadbalancing", "*/net/"+p.cluster()+"/*"), p.arn("elasticloadbalancing", "*/net/"+p.cluster()+"-*"), p.arn("elasticloadbalancing", "targetgroup/"+p.cluster()+"-*")})
	deny([]string{"cloudwatch:DeleteAlarms", "cloudwatch:DisableAlarmActions", "cloudwatch:Put*Alarm", "cloudwatch:SetAlarmState", "sns:Add*", "sns:Delete*", "sns:Remove*", "sns:Set*"},
		[]string{p.arn("cloudwatch", "alarm:tnt_*"), p.arn("cloudwatch", "alarm:plane-"+p.Plane+"-*"), p.arn("sns", p.cluster()+"-*")})
	// The ways to AWS's services have no tag, and nobody else in the account is to have any.
	deny([]string{"ec2:DeleteVpcEndpoints", "ec2:ModifyVpcEndpoint"}, []string{p.arn("ec2", "vpc-endpoint/*")})
	besides := func(st statement) statement { return st.under("ArnNotEquals", theirs) }
	text, err := json.Marshal(document(
		besides(statement{Sid: "ByName", Effect: "Deny", Action: actions, Resource: resources}),
		// A tag of a tenant's lets in who works on that tenant, and the tag of the plane is what keeps its own from that.
		besides(statement{Sid: "ByTag", Effect: "Deny", Action: []string{"ec2:Associate*", "ec2:Attach*", "ec2:Authorize*", "ec2:CreateRoute", "ec2:CreateTags", "ec2:Delete*", "ec2:Detach*", "ec2:Disassociate*", "ec2:Modify*",
			"ec2:Release*", "ec2:Replace*", "ec2:Revoke*", "ec2:UpdateSecurityGroup*", "servicediscovery:*Instance", "servicediscovery:CreateService", "servicediscovery:Delete*", "servicediscovery:Update*"},
			Resource: []string{"*"}}).under("StringEquals", when{"aws:ResourceTag/plane": p.Plane}),
	))
	if err != nil {
		return nil, fmt.Errorf("write the guard: %w", err)
	}
	if len(text) > mostGuard {
		return nil, fmt.Errorf("the guard has %d characters, and an organization takes %d: name fewer administrators", len(text), mostGuard)
	}
	return text, nil
}
