package stacktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Role is one that a stack makes.
type Role struct {
	Resource
	Statements []Statement
	Trust      []Statement
	Boundary   string
}

// Principal is a session of the role.
func (r Role) Principal(at Place) Principal {
	return Principal{ARN: r.ARN, Account: at.Account, Tags: r.Tags}
}

// Roles are all of the stack's.
func (s *Stack) Roles() ([]Role, error) {
	var out []Role
	for _, r := range s.of("AWS::IAM::Role") {
		role := Role{Resource: r}
		role.Boundary, _ = r.Properties["PermissionsBoundary"].(string)
		for _, p := range list(r.Properties["Policies"]) {
			st, err := Policy(at(p, "PolicyDocument"))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.ID, err)
			}
			role.Statements = append(role.Statements, st...)
		}
		for _, p := range s.apart(r) {
			st, err := Policy(p.Properties["PolicyDocument"])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.ID, err)
			}
			role.Statements = append(role.Statements, st...)
		}
		var err error
		if role.Trust, err = Policy(r.Properties["AssumeRolePolicyDocument"]); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID, err)
		}
		out = append(out, role)
	}
	return out, nil
}

// apart are the policies of the stack's that a role has besides its own.
func (s *Stack) apart(role Resource) (out []Resource) {
	names := list(role.Properties["ManagedPolicyArns"])
	for _, p := range s.of("AWS::IAM::ManagedPolicy") {
		if slices.Contains(names, any(p.ARN)) {
			out = append(out, p)
		}
	}
	return out
}

// Target is a resource that holds something of its owner's, with the policy that it has itself.
type Target struct {
	Resource
	// Names of it that requests are about: a bucket, and an object in it.
	Names  []string
	Policy []Statement
	// Actions that somebody would try on it.
	Actions []string
}

// tries are what somebody would try on what a service keeps, besides what templates mention.
var tries = map[string][]string{
	"AWS::S3::Bucket":             {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucket"},
	"AWS::SQS::Queue":             {"sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:PurgeQueue", "sqs:SetQueueAttributes", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility", "sqs:ListQueueTags", "sqs:TagQueue"},
	"AWS::SecretsManager::Secret": {"secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:DescribeSecret", "secretsmanager:PutResourcePolicy", "secretsmanager:CreateSecret"},
	"AWS::KMS::Key":               {"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:CreateGrant", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DescribeKey"},
	"AWS::Logs::LogGroup":         {"logs:PutLogEvents", "logs:CreateLogStream", "logs:GetLogEvents", "logs:FilterLogEvents", "logs:DeleteLogGroup"},
	"AWS::IAM::Role":              {"sts:AssumeRole", "iam:PassRole", "iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy", "iam:TagRole", "iam:DeleteRole", "iam:GetRole"},
}

// Targets are all that a stack holds of its owner's.
func (s *Stack) Targets() ([]Target, error) {
	var out []Target
	for kind, actions := range tries {
		for _, r := range s.of(kind) {
			t := Target{Resource: r, Names: []string{r.ARN}, Actions: actions}
			var policy any
			switch kind {
			case "AWS::S3::Bucket":
				owner := r.Tags["tenant"]
				t.Names = append(t.Names, r.ARN+"/"+owner+"/exports/x", r.ARN+"/"+owner+"/MARK", r.ARN+"/x")
				policy = s.attached("AWS::S3::BucketPolicy", "Bucket", r.ID, "PolicyDocument")
			case "AWS::SQS::Queue":
				policy = s.attached("AWS::SQS::QueuePolicy", "Queues", r.ID, "PolicyDocument")
			case "AWS::SecretsManager::Secret":
				policy = s.attached("AWS::SecretsManager::ResourcePolicy", "SecretId", r.ARN, "ResourcePolicy")
			case "AWS::KMS::Key":
				policy = r.Properties["KeyPolicy"]
			case "AWS::Logs::LogGroup":
				t.Names = append(t.Names, r.ARN+":log-stream:x")
			case "AWS::IAM::Role":
				policy = r.Properties["AssumeRolePolicyDocument"]
			}
			var err error
			if t.Policy, err = Policy(policy); err != nil {
				return nil, fmt.Errorf("%s: %w", r.ID, err)
			}
			out = append(out, t)
		}
	}
	logins, err := s.logins()
	return append(append(out, s.credentials()...), logins...), err
}

// logins are the roles of databases that the set's components log in as, by tokens.
func (s *Stack) logins() ([]Target, error) {
	roles, err := s.Roles()
	if err != nil {
		return nil, err
	}
	var out []Target
	for _, r := range roles {
		for _, st := range r.Statements {
			for _, name := range st.Resource {
				if before, user, is := strings.Cut(name, "dbuser:*/"); is {
					login := Resource{ID: "login " + user, Type: "AWS::RDS::DBUser", ARN: before + "dbuser:db-ABCDEFGHIJKLMNOPQRSTUVWXYZ/" + user, Tags: r.Tags}
					out = append(out, Target{Resource: login, Names: []string{login.ARN}, Actions: []string{"rds-db:connect"}})
				}
			}
		}
	}
	return out, nil
}

// credentials stand for the secrets that a set's components make as it runs, which no template holds.
func (s *Stack) credentials() []Target {
	var out []Target
	for _, r := range s.of("AWS::SecretsManager::Secret") {
		before, is := strings.CutSuffix(r.ARN, "custody-AbCdEf")
		if !is {
			continue
		}
		for id, name := range map[string]string{"credential of an integration": "wsp_1/int_1", "mark of a store": "MARK"} {
			r.ID, r.ARN = id, before+"store/secrets/"+name+"-AbCdEf"
			out = append(out, Target{Resource: r, Names: []string{r.ARN}, Actions: tries["AWS::SecretsManager::Secret"]})
		}
	}
	return out
}

func (s *Stack) attached(kind, by, to, document string) any {
	for _, r := range s.of(kind) {
		for _, v := range list(r.Properties[by]) {
			if v == to {
				return r.Properties[document]
			}
		}
	}
	return nil
}

// Foreign tries everything that a stack's roles say, and more, on all that another holds, at each wall alone, and names what is not refused
// there. A caller finds every context that suits it, and is asked about once as the role is tagged and once under the tags that the other's roles have,
// which who takes a role may give its session. A wall is what the role's own policy allows; what its boundary does; what the resource's
// policy, where it has one, leaves to a role that everything else lets through.
func Foreign(a, b *Stack, boundary []Statement) ([]string, error) {
	roles, err := a.Roles()
	if err != nil {
		return nil, err
	}
	targets, err := b.Targets()
	if err != nil {
		return nil, err
	}
	theirs, err := b.Roles()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, role := range roles {
		for _, who := range role.sessions(a.Place, theirs) {
			for _, t := range targets {
				for _, name := range t.Names {
					for _, action := range t.tried(roles) {
						r := Request{Principal: who, Action: action, Resource: name, ResourceTags: t.Tags, AnyContext: true}
						reached, err := t.reached(r, role, boundary)
						if err != nil {
							return nil, err
						}
						found = append(found, reached...)
					}
				}
			}
		}
	}
	return found, nil
}

// sessions are those of a role: one that has the role's tags, and ones that were given another's in the place of those.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
func (r Role) sessions(at Place, others []Role) []Principal {
	out := []Principal{r.Principal(at)}
	for _, other := range others {
		who := r.Principal(at)
		who.Tags = maps.Clone(who.Tags)
		maps.Copy(who.Tags, other.Tags)
		if !slices.ContainsFunc(out, func(p Principal) bool { return maps.Equal(p.Tags, who.Tags) }) {
			out = append(out, who)
		}
	}
	return out
}

// reached names the walls that don't refuse a request.
func (t Target) reached(r Request, role Role, boundary []Statement) ([]string, error) {
	var out []string
	say := func(wall, sid string) {
		as := ""
		if !maps.Equal(r.Principal.Tags, role.Tags) {
			as = fmt.Sprintf(" in a session tagged %v", r.Principal.Tags)
		}
		out = append(out, fmt.Sprintf("%s: %s of %s%s may %s %s", wall, sid, r.Principal.ARN, as, r.Action, r.Resource))
	}
	if sid, is, err := allows(role.Statements, r); err != nil {
		return nil, err
	} else if is {
		say("role", sid)
	}
	if sid, is, err := allows(boundary, r); err != nil {
		return nil, err
	} else if is {
		say("boundary", sid)
	}
	if len(t.Policy) == 0 {
		return out, nil
	}
	sid, allowed, err := allows(t.Policy, r)
	if err != nil {
		return nil, err
	}
	if allowed {
		say("resource", sid)
	}
	// Trust is what lets a role be taken; it has nothing to deny.
	if t.Type == "AWS::IAM::Role" {
		return out, nil
	}
	if _, denied, err := denies(t.Policy, r); err != nil {
		return nil, err
	} else if !denied {
		say("resource doesn't deny", "nothing")
	}
	return out, nil
}

// tried are the actions for a target: those of the list, and those that any of the roles mentions for its service.
func (t Target) tried(roles []Role) []string {
	service, _, _ := strings.Cut(t.Actions[0], ":")
	out := slices.Clone(t.Actions)
	for _, role := range roles {
		for _, st := range role.Statements {
			for _, a := range st.Action {
				if strings.HasPrefix(a, service+":") && !strings.ContainsAny(a, "*?") && !slices.Contains(out, a) {
					out = append(out, a)
				}
			}
		}
	}
	return out
}

// LetsIn says whether a resource's own policy leaves a request to the caller's: it doesn't deny it, and, where it is a key's, which leaves nothing
// to others, allows it.
func (t Target) LetsIn(r Request) (bool, error) {
	if t.Type == "AWS::KMS::Key" {
		r.ResourceTags = t.Tags
		return Allows(t.Policy, r)
	}
	is, err := t.ClosedTo(r)
	return !is, err
}

// ClosedTo says whether a resource's own policy denies a request, whatever else allows it: a grant of a key's, say.
func (t Target) ClosedTo(r Request) (bool, error) {
	r.ResourceTags = t.Tags
	_, is, err := denies(t.Policy, r)
	return is, err
}

// May says whether a role of the stack may do something with one of its own: its policy, its boundary and the resource's policy together, in
// exactly the context that is given.
func (s *Stack) May(role Role, boundary []Statement, t Target, r Request) (bool, error) {
	r.Principal, r.ResourceTags = role.Principal(s.Place), t.Tags
	for _, policy := range [][]Statement{role.Statements, boundary, t.Policy} {
		if _, is, err := denies(policy, r); err != nil || is {
			return false, err
		}
	}
	needed := [][]Statement{role.Statements, boundary}
	if t.Type == "AWS::KMS::Key" {
		// A key's policy has to allow it as well: it leaves nothing to others.
		needed = append(needed, t.Policy)
	}
	for _, policy := range needed {
		if _, is, err := allows(policy, r); err != nil || !is {
			return false, err
		}
	}
	return true, nil
}
