package stack

import (
	"encoding/json"
	"fmt"
	"strings"

	"a3os.app/deploy/blueprint"
)

// mostSession is how long the policy of a session may be, in characters, with the names of the policies that it is given besides.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const mostSession = 2048

// Session is the policy of a session of the provisioner's that works on one tenant: what is left of what the role may is what carries the
// tenant's id in its name, or its tag. The role's own policy says which actions; this says on what, and so names none of them one
// by one. The session has SessionPolicy besides, or MakingPolicy where it makes the tenant's stack
// or a service of it.
func Session(p Place, tenant string) (string, error) {
	s := p.of(tenant)
	ours, all := p.StackOf(tenant), []string{"*"}
	// The role's policy says which account and Region.
	arn := func(service, resource string) string { return "arn:aws:" + service + ":*:*:" + resource }
	named := []string{
		arn("cloudformation", "stack/"+ours+"/*"),
		bucketARN(ours + "-*"), bucketARN(p.Templates()) + "/" + ours + "/*",
		arn("secretsmanager", "secret:"+s.path()+"*"),
		arn("sqs", tenant+"-*"),
		arn("logs", "log-group:/a3/"+s.path()+"*"),
		arn("ecs", "*/"+tenant+"-*"), // services, and definitions of tasks
		arn("rds", "db:"+ours), arn("rds", "snapshot:"+ours+"-*"),
		arn("cloudwatch", "alarm:"+tenant+"-*"),
	}
	return short(tenant, []string{p.SessionPolicy()}, document(
		allow("", all, named),
		// A role of this tenant's is given no other's tags, by which its boundary says what is its own. Asked about a role that isn't there, IAM knows
		// its name and no path.
		allow("", all, []string{"arn:aws:iam::*:role/" + s.path() + "*", "arn:aws:iam::*:role/" + tenant + "-*"}).
			under("StringEqualsIfExists", when{"aws:RequestTag/tenant": tenant, "aws:RequestTag/label": s.label()}),
		allow("", []string{"kms:*", "ec2:*", "rds:*", "servicediscovery:*"}, all).under("StringEquals", when{"aws:ResourceTag/tenant": tenant}),
		// What isn't there yet has no name and no tag but what it is to have. What is there and another's is not to be given this tenant's. Names of
		// actions are cut short where the role has no other that begins so.
		allow("", []string{"kms:CreateKey", "kms:Tag*", "ec2:Create*", "ecs:RegisterT*", "servicediscovery:CreateS*", "servicediscovery:Tag*"}, all).
			under("StringEquals", when{"aws:RequestTag/tenant": tenant}).under("StringEqualsIfExists", when{"aws:ResourceTag/tenant": tenant}),
		allow("", []string{"kms:*"}, all).under("StringLike", when{"kms:EncryptionContext:aws:s3:arn": bucketARN(p.Templates()) + "*"}),
		// RDS gives the first user of a server of the tenant's own a secret that is named by chance, with a tag that nobody else can give.
		allow("", []string{"secretsmanager:*"}, []string{arn("secretsmanager", "secret:rds!db-*")}).
			under("StringLikeIfExists", when{"aws:ResourceTag/aws:rds:primaryDBInstanceArn": "*:db:" + ours})))
}

// PlaneSession is the policy of a session of the provisioner's that works on the plane's own set, and reaches nothing of a tenant.
func PlaneSession(p Place) (string, error) {
	own, all := p.of(string(blueprint.ScopePlane)), []string{"*"}
	arn := func(service, resource string) string { return "arn:aws:" + service + ":*:*:" + resource }
	return short(own.name(), nil, document(
		allow("", all, []string{
			arn("cloudformation", "stack/"+p.ControlStack()+"/*"), arn("cloudformation", "stack/"+p.PlaneStack()+"/*"),
			bucketARN(p.Templates()) + "/" + p.ControlStack() + "/*",
			"arn:aws:iam::*:role/" + own.path() + "*",
			arn("secretsmanager", "secret:"+own.path()+"*"),
			arn("logs", "log-group:/a3/"+own.path()+"*"),
			arn("ecs", "*/"+own.called("*")),
		}),
		allow("", []string{"ecs:RegisterTaskDefinition"}, all).under("StringEquals", when{"aws:RequestTag/plane": p.Plane}).under("Null", when{"aws:RequestTag/tenant": "true"}),
		allow("", []string{"kms:*"}, all).under("StringEquals", when{"aws:ResourceTag/plane": p.Plane}).under("Null", when{"aws:ResourceTag/tenant": "true"}),
		allow("", []string{"ecs:DescribeTask*", "ecs:ListTask*", "ecs:Deregister*", "logs:DescribeLogGroups", "cloudformation:ListExports"}, all)))
}

// short writes a policy in as few characters as it takes, and refuses one that AWS doesn't take.
func short(of string, besides []string, d *policy) (string, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("write the policy of a session: %w", err)
	}
	// A list of one says the same without brackets, in fewer characters.
	out := strings.ReplaceAll(string(text), `["*"]`, `"*"`)
	if n := len(out) + len(strings.Join(besides, "")); n > mostSession {
		return "", fmt.Errorf("the policies of the provisioner's session for %s have %d characters, and AWS takes %d: the plane's name is in them many times; take a shorter one", of, n, mostSession)
	}
	return out, nil
}
