package stacktest

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Rules names what in a stack is open to more than it has to be, or less closed than it can be.
func Rules(s *Stack) ([]string, error) {
	var found []string
	for _, rule := range []func(*Stack) ([]string, error){policies, roles, lengths, closing, storage, networks, links, tasks} {
		did, err := rule(s)
		if err != nil {
			return nil, err
		}
		found = append(found, did...)
	}
	return found, nil
}

// unscoped are actions for which AWS knows no resource and that change nothing of anybody's, or that look where nothing narrower says at what, so that `*` is all that can be said.
var unscoped = []string{"ecr:GetAuthorizationToken", "ec2:Describe*", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions", "ecs:ListServices", "ecs:DeregisterTaskDefinition", "ecs:DescribeClusters", "ecs:ListTasks", "route53:CreateHostedZone", "route53:ListHostedZonesByName", "rds:Describe*", "servicediscovery:Get*",
	"servicediscovery:List*", "logs:DescribeLogGroups", "logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies", "cloudwatch:DescribeAlarms", "cloudformation:ListExports", "cloudformation:ValidateTemplate", "cloudformation:DescribeStackDriftDetectionStatus", "servicequotas:Get*", "secretsmanager:ListSecrets", "kms:ListKeys", "s3:ListAllMyBuckets", "elasticloadbalancing:Describe*"}

// tagging are actions that give a tag to what is there, of services that are asked about resources by tags and not by names.
var tagging = []string{"kms:TagResource", "ec2:CreateTags", "servicediscovery:TagResource"}

// documents are the properties that hold a policy, by the type of their resource.
var documents = map[string][]string{
	"AWS::IAM::ManagedPolicy": {"PolicyDocument"}, "AWS::S3::BucketPolicy": {"PolicyDocument"}, "AWS::SQS::QueuePolicy": {"PolicyDocument"},
	"AWS::SecretsManager::ResourcePolicy": {"ResourcePolicy"}, "AWS::ECR::Repository": {"RepositoryPolicyText"}, "AWS::KMS::Key": {"KeyPolicy"}, "AWS::EC2::VPCEndpoint": {"PolicyDocument"},
}

// policies looks at every statement of every policy.
func policies(s *Stack) ([]string, error) {
	var found []string
	look := func(of Resource, statements []Statement) {
		for _, st := range statements {
			for _, fault := range st.faults(of.Type) {
				found = append(found, fmt.Sprintf("statement %s of %s %s", st.Sid, of.ID, fault))
			}
		}
	}
	for kind, properties := range documents {
		for _, r := range s.of(kind) {
			for _, p := range properties {
				statements, err := Policy(r.Properties[p])
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r.ID, err)
				}
				look(r, statements)
			}
		}
	}
	all, err := s.Roles()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		look(r.Resource, r.Statements)
	}
	return found, nil
}

// loose is a wildcard right after a letter or a digit: what it begins, another's name may go on.
var loose = regexp.MustCompile(`[A-Za-z0-9}]\*`)

// faults are what is wrong with a statement that allows; one that denies can be as wide as it likes, and not narrower by what it leaves out.
func (st Statement) faults(of string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(st.NotAction) > 0 || len(st.NotResource) > 0 || len(st.NotPrincipal) > 0 {
		say("says what it is not about: that is everything else, also what isn't there yet")
	}
	if len(st.Principal) == 0 && len(st.NotPrincipal) == 0 && of != "AWS::IAM::Role" && of != "AWS::IAM::ManagedPolicy" {
		say("is about nobody: a policy of a resource names principals")
	}
	if st.Effect != "Allow" {
		return out
	}
	bounded := st.has("aws:PrincipalAccount") && st.has("aws:ResourceAccount")
	for _, a := range st.Action {
		if strings.Contains(a, "*") && !(of == "AWS::EC2::VPCEndpoint" && bounded) {
			say("allows %s, which is more than anybody listed", a)
		}
		if a == "iam:PassRole" && !slices.Equal(st.Condition["StringEquals"]["iam:PassedToService"], []string{"ecs-tasks.amazonaws.com"}) {
			say("passes roles to other services than ECS's tasks")
		}
		if slices.Contains([]string{"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"}, a) && len(st.Condition["ArnEquals"]["iam:PermissionsBoundary"]) == 0 {
			say("gives roles power without the boundary")
		}
	}
	if slices.ContainsFunc(st.Action, func(a string) bool { return slices.Contains(tagging, a) }) && len(st.Principal) == 0 &&
		len(st.Condition["StringEquals"]["aws:ResourceTag/tenant"]) == 0 && len(st.Condition["ForAnyValue:StringEquals"]["aws:CalledVia"]) == 0 {
		say("gives what is nobody's a tag, by which it then is a tenant's")
	}
	out = append(out, st.beside()...)
	everybody := slices.Contains(st.Principal["AWS"], "*")
	ofOrganization := of == "AWS::ECR::Repository" && len(st.Condition["StringEquals"]["aws:PrincipalOrgID"]) == 1 && st.has("aws:PrincipalArn")
	if everybody && !bounded && !ofOrganization && of != "AWS::EC2::VPCEndpoint" {
		say("is for everybody")
	}
	if len(st.Principal) > 0 && of == "AWS::KMS::Key" && len(st.Principal["AWS"]) > 0 && !st.has("aws:PrincipalArn") {
		say("is for every principal of an account")
	}
	// What CloudWatch Logs encrypts it says by the name of the group, which has the account in it, and says no account besides.
	// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
	if len(st.Principal["Service"]) > 0 && !st.has("aws:SourceAccount") && !(of == "AWS::KMS::Key" && len(st.Condition["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]) > 0) {
		say("is for a service of AWS's, whoever has it called: it compares no aws:SourceAccount")
	}
	for _, r := range st.Resource {
		switch {
		case r == "*" && of == "AWS::KMS::Key": // the key itself
		case r == "*" && (bounded || st.has("aws:RequestTag/tenant") || st.has("aws:ResourceTag/tenant")):
		case r == "*" && !st.unscoped():
			say("is about every resource, and its actions know resources")
		case r != "*" && loose.MatchString(r):
			say("is about %s: what begins so may be another's", r)
		}
	}
	return out
}

func (st Statement) unscoped() bool {
	return !slices.ContainsFunc(st.Action, func(a string) bool { return !anyMatches(unscoped, a) })
}

func (st Statement) has(key string) bool {
	for _, keys := range st.Condition {
		if len(keys[key]) > 0 {
			return true
		}
	}
	return false
}

// roles looks at what a role is, whatever it may.
func roles(s *Stack) ([]string, error) {
	all, err := s.Roles()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, r := range all {
		say := func(format string, args ...any) { found = append(found, r.ID+" "+fmt.Sprintf(format, args...)) }
		tenant := r.Tags["tenant"]
		path, _ := r.Properties["Path"].(string)
		switch {
		case tenant != "" && path != "/tenant/"+tenant+"/":
			say("is a tenant's and has the path %q", path)
		case tenant == "" && strings.HasPrefix(path, "/tenant/"):
			say("has the path %q and not the tag of its tenant, without which the boundary leaves it nothing", path)
		}
		if tenant != "" && !strings.HasSuffix(r.Boundary, "-tenant-boundary") {
			say("is a tenant's and has the boundary %q", r.Boundary)
		}
		if len(list(r.Properties["ManagedPolicyArns"])) != len(s.apart(r.Resource)) {
			say("has policies that are kept elsewhere")
		}
		for _, st := range r.Trust {
			switch {
			case st.chained(), st.ofItself(r), st.ofMachine(r):
			case len(st.Principal["AWS"]) > 0 && (tenant != "" || !st.ofAdministrators()):
				say("can be taken by %v, who are not the administrators under a name", st.Principal["AWS"])
			case st.has("aws:MultiFactorAuthPresent"):
				say("can be taken by nobody: it asks for a second factor, of which the session of a role says nothing")
			case len(st.Principal["Service"]) > 0 && (!slices.Equal(st.Principal["Service"], []string{"ecs-tasks.amazonaws.com"}) || !st.has("aws:SourceAccount") || !st.has("aws:SourceArn")):
				say("can be taken by %v for whoever asks it to", st.Principal["Service"])
			case len(st.Principal["AWS"]) == 0 && len(st.Principal["Service"]) == 0:
				say("can be taken by %v", st.Principal)
			}
		}
	}
	return found, nil
}

// How long policies may be, in characters without spaces.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const (
	mostOfARole  = 10240
	mostOfAPart  = 6144
	mostOfATrust = 2048
	mostApart    = 10
)

// lengths looks at how long policies are, which IAM says when a stack is deployed, and nobody before.
func lengths(s *Stack) ([]string, error) {
	var found []string
	say := func(r Resource, what string, length, most int) {
		if length > most {
			found = append(found, fmt.Sprintf("%s: %s has %d characters, and IAM takes %d", r.ID, what, length, most))
		}
	}
	length := func(document any) int {
		text, err := json.Marshal(document)
		if err != nil {
			return math.MaxInt
		}
		return len(text)
	}
	for _, r := range s.of("AWS::IAM::Role") {
		own := 0
		for _, p := range list(r.Properties["Policies"]) {
			own += length(at(p, "PolicyDocument"))
		}
		say(r, "its own policies together", own, mostOfARole)
		say(r, "its trust", length(r.Properties["AssumeRolePolicyDocument"]), mostOfATrust)
		if n := len(list(r.Properties["ManagedPolicyArns"])); n > mostApart {
			found = append(found, fmt.Sprintf("%s has %d policies apart, and IAM takes %d", r.ID, n, mostApart))
		}
	}
	for _, r := range s.of("AWS::IAM::ManagedPolicy") {
		say(r, "it", length(r.Properties["PolicyDocument"]), mostOfAPart)
	}
	return found, nil
}

// planesProvisioner is a role that administrators have taken under a name before they are it.
var planesProvisioner = regexp.MustCompile(`^arn:aws:iam::[0-9]{12}:role/a3/a3-[a-z0-9]+-provisioner$`)

// chained says that a trust is for a plane's provisioner alone, which says whose account it means: one tenant's, by the whole of its id.
func (st Statement) chained() bool {
	ids := st.Condition["StringEquals"]["sts:ExternalId"]
	return len(st.Principal) == 1 && len(st.Principal["AWS"]) == 1 && planesProvisioner.MatchString(st.Principal["AWS"][0]) &&
		len(ids) == 1 && strings.Contains(ids[0], "/tnt_") && st.has("sts:SourceIdentity")
}

// ofAdministrators says that a trust is for the role that a parameter of the template names, each of whose people says a name.
func (st Statement) ofAdministrators() bool {
	return slices.Equal(st.Principal["AWS"], []string{"AdministratorRole"}) && st.has("sts:SourceIdentity")
}

// ofMachine says that a trust of a provisioner is for the role of fleet's machine alone, under the one name.
func (st Statement) ofMachine(r Role) bool {
	return planesProvisioner.MatchString(r.ARN) && slices.Equal(st.Condition["ArnEquals"]["aws:PrincipalArn"], []string{"MachineRole"}) && slices.Equal(st.Condition["StringEquals"]["sts:SourceIdentity"], []string{"machine"})
}

// ofItself says that a trust is for a provisioner's own sessions alone, which are then bounded by a policy.
func (st Statement) ofItself(r Role) bool {
	return planesProvisioner.MatchString(r.ARN) && slices.Equal(st.Condition["ArnEquals"]["aws:PrincipalArn"], []string{r.ARN})
}

// closing holds that what keeps a set's data denies a stranger of its own account who may everything, and its own roles without TLS.
func closing(s *Stack) ([]string, error) {
	targets, err := s.Targets()
	if err != nil {
		return nil, err
	}
	stranger := Principal{ARN: "arn:aws:iam::" + s.Place.Account + ":role/stranger", Account: s.Place.Account}
	var found []string
	for _, t := range targets {
		if !slices.Contains([]string{"AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SecretsManager::Secret", "AWS::KMS::Key"}, t.Type) || strings.Contains(t.ID, " ") {
			continue
		}
		for _, name := range t.Names {
			for _, action := range t.Actions {
				if _, is, err := denies(t.Policy, Request{Principal: stranger, Action: action, Resource: name, AnyContext: true}); err != nil {
					return nil, err
				} else if !is {
					found = append(found, fmt.Sprintf("%s doesn't deny a stranger %s", t.ID, action))
				}
				plain := Request{Principal: stranger, Action: action, Resource: name, Context: map[string]string{"aws:SecureTransport": "false"}}
				plain.Principal.ARN = s.ownerOf(t)
				if t.Type == "AWS::KMS::Key" {
					continue // KMS has no other way than TLS
				}
				if _, is, err := denies(t.Policy, plain); err != nil {
					return nil, err
				} else if !is {
					found = append(found, fmt.Sprintf("%s doesn't deny %s without TLS", t.ID, action))
				}
			}
		}
	}
	return found, nil
}

// ownerOf is a role that a target's policy leaves in: the first that its closing statement excepts.
func (s *Stack) ownerOf(t Target) string {
	for _, st := range t.Policy {
		if roles := st.Condition["ArnNotEquals"]["aws:PrincipalArn"]; st.Effect == "Deny" && len(roles) > 0 {
			return roles[0]
		}
	}
	return ""
}
