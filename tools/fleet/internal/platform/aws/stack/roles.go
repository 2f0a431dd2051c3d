package stack

import (
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/iam"
	"github.com/awslabs/goformation/v7/cloudformation/tags"
)

// roleName is the last part of a role's ARN.
func roleName(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }

// role is one below the set's path, bounded like all of tenants'.
func (s *set) role(id, arn, description string, trust statement, statements []statement) string {
	r := &iam.Role{
		RoleName: new(roleName(arn)), Path: new("/" + s.path()), Description: new(description), Tags: s.tags(),
		AssumeRolePolicyDocument: document(trust),
	}
	if s.tenant != "" {
		r.Tags = append(r.Tags, tags.Tag{Key: "label", Value: s.label()})
		r.PermissionsBoundary = new(s.place.Boundary())
	}
	if len(statements) > 0 {
		r.Policies = []iam.Role_Policy{{PolicyName: "own", PolicyDocument: document(statements...)}}
	}
	return s.add(id, r)
}

// trust lets ECS take the role for a task of this account and Region; the cluster can't be said there.
func (s *set) trust() statement {
	return statement{Sid: "TasksOfThisAccount", Effect: "Allow", Principal: map[string]string{"Service": "ecs-tasks.amazonaws.com"}, Action: []string{"sts:AssumeRole"},
		Condition: map[string]any{"StringEquals": when{"aws:SourceAccount": s.place.Account}, "ArnLike": when{"aws:SourceArn": s.place.arn("ecs", "*")}}}
}

// used are the statements of a role for what it uses of the set's.
func (s *set) used(uses []use, role string) []statement {
	var out []statement
	for _, u := range uses {
		if u.role != role {
			continue
		}
		if !u.wraps {
			out = append(out, u.statement())
		}
		if u.ofKey() {
			out = append(out, s.keyUse(u, attribute(keyID, "Arn")))
		}
	}
	return out
}

// starts are the statements of a role that ECS starts a component with: the image, the log, and the component's secret.
func (s *set) starts(component string, uses []use) []statement {
	return append([]statement{
		// It names nobody's resource: it is the permission to ask the repository at all.
		allow("LogInToRepositories", []string{"ecr:GetAuthorizationToken"}, []string{"*"}),
		allow("PullTheImage", []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"}, []string{s.place.home().arn("ecr", "repository/"+s.repository())}),
		allow("WriteItsLog", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, []string{s.place.arn("logs", "log-group:"+s.logGroup(component)+":log-stream:*")}),
	}, s.used(uses, s.startRole(component))...)
}

// repository is where the plane keeps the artefact's images.
func (s *set) repository() string { return s.place.cluster() + "/" + s.blueprint.Artefact }
