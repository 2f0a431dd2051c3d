package stack_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

var at = stacktest.Place{Account: place.Account, Region: place.Region}

func read(t *testing.T, text []byte) *stacktest.Stack {
	t.Helper()
	s, err := stacktest.Read(text, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// named is the text of the stack of a tenant of whatever name.
func named(t *testing.T, name string, tier registryv1.IsolationTier) []byte {
	t.Helper()
	made, err := stack.TenantNamed(input(t, tenantSet(t, id.NewTenant(), tier)), name)
	return text(t, made, err)
}

func planeText(t *testing.T) []byte {
	t.Helper()
	made, err := stack.Plane(input(t, planeSet(t)))
	return text(t, made, err)
}

// boundary is what the plane's stack bounds tenants' roles by.
func boundary(t *testing.T) []stacktest.Statement {
	t.Helper()
	statements, err := stacktest.Policy(read(t, planeText(t)).Resources["TenantBoundary"].Properties["PolicyDocument"])
	if err != nil || len(statements) == 0 {
		t.Fatal("the plane's stack has no boundary", err)
	}
	return statements
}

// At each wall alone, the role's policy, its boundary, and what the resource's own policy denies, nothing of one tenant reaches anything of
// another, also where one's name begins the other's, and where whoever takes a role tags the session as the other's are.
func TestNoStatementReachesAnotherTenant(t *testing.T) {
	one, other := id.NewTenant().String(), id.NewTenant().String()
	bound, tried := boundary(t), 0
	for _, pair := range [][2]string{{one, other}, {other, one}, {"tnt_a", "tnt_ab"}, {"tnt_ab", "tnt_a"}} {
		for _, tier := range []registryv1.IsolationTier{database, dedicated} {
			a, b := read(t, named(t, pair[0], tier)), read(t, named(t, pair[1], tier))
			found, err := stacktest.Foreign(a, b, bound)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				t.Errorf("%s → %s: %s", pair[0], pair[1], f)
			}
			targets, err := b.Targets()
			if err != nil {
				t.Fatal(err)
			}
			roles, err := a.Roles()
			if err != nil {
				t.Fatal(err)
			}
			tried += len(targets) * len(roles)
		}
	}
	if tried < 1000 {
		t.Errorf("only %d pairs of a role and a resource were tried", tried)
	}
}

// A session of a tenant's role that was given another's tags, both or one of them, has less than the role and nothing besides: with the other's label alone it
// may look in the other's bucket for what would begin with its own id there, which nothing does.
func TestTagsOfASessionOpenNothing(t *testing.T) {
	one, other := id.NewTenant().String(), id.NewTenant().String()
	a, b, bound := read(t, named(t, one, dedicated)), read(t, named(t, other, dedicated)), boundary(t)
	targets, err := b.Targets()
	if err != nil {
		t.Fatal(err)
	}
	own, err := a.Targets()
	if err != nil {
		t.Fatal(err)
	}
	role := roleOf(t, a, "iam-task")
	may := func(tags map[string]string, target stacktest.Target, prefix string) (opened []string) {
		for _, name := range target.Names {
			for _, action := range append(target.Actions, "sqs:PurgeQueue", "logs:PutLogEvents") {
				who := role.Principal(at)
				who.Tags = maps.Clone(role.Tags)
				maps.Copy(who.Tags, tags)
				is, err := stacktest.Allows(bound, stacktest.Request{Principal: who, Action: action, Resource: name, ResourceTags: target.Tags, Context: map[string]string{"s3:prefix": prefix}})
				if err != nil {
					t.Fatal(err)
				}
				if is {
					opened = append(opened, action+" "+name)
				}
			}
		}
		return opened
	}
	before, tried := 0, 0
	for _, target := range own {
		before += len(may(nil, target, one+"/x"))
	}
	if before < 20 {
		t.Fatalf("with its own tags it may %d things of its own", before)
	}
	dashed := strings.ReplaceAll(other, "_", "-")
	for what, tags := range map[string]map[string]string{"both": {"tenant": other, "label": dashed}, "the tenant": {"tenant": other}, "the label": {"label": dashed}, "none": {"tenant": ""}, "a path": {"tenant": one + "/" + one}} {
		for _, target := range targets {
			for _, prefix := range []string{"", other, other + "/", other + "/x"} {
				tried++
				for _, opened := range may(tags, target, prefix) {
					t.Errorf("tagged as another's by %s: %s", what, opened)
				}
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d were tried", tried)
	}
}

func TestStacksKeepTheRules(t *testing.T) {
	for name, text := range rendered(t, id.NewTenant()) {
		in := at
		if strings.HasSuffix(name, "account") {
			in.Account = ownAccount
		}
		s, err := stacktest.Read(text, in)
		if err != nil {
			t.Fatal(err)
		}
		found, err := stacktest.Rules(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			t.Errorf("%s: %s", name, f)
		}
	}
}

// What a tenant's own account lets in is the plane's provisioner, which says the whole of the tenant's id; a trust that is wider is named.
func TestOwnAccountLetsInThePlanesProvisionerForItsTenantAlone(t *testing.T) {
	tenant := id.NewTenant()
	account := rendered(t, tenant)["account"]
	role := func(text []byte) stacktest.Role {
		s, err := stacktest.Read(text, stacktest.Place{Account: ownAccount, Region: place.Region})
		if err != nil {
			t.Fatal(err)
		}
		return roleOf(t, s, "provisioner")
	}
	trust := role(account).Trust
	if len(trust) != 2 || trust[0].Principal["AWS"][0] != place.Provisioner() || trust[0].Condition["StringEquals"]["sts:ExternalId"][0] != "dev/"+tenant.String() {
		t.Fatalf("it lets in %+v", trust)
	}
	for name, change := range map[string]func(map[string]any){
		"everybody of the plane's account": ofStatement("ThePlanesProvisioner", "Principal", map[string]any{"AWS": place.Account}),
		"whoever says nothing":             ofStatement("ThePlanesProvisioner", "Condition", map[string]any{"StringLike": map[string]any{"sts:SourceIdentity": "?*"}}),
		"for any tenant":                   ofStatement("ThePlanesProvisioner", "Condition", map[string]any{"StringLike": map[string]any{"sts:ExternalId": "dev/*", "sts:SourceIdentity": "?*"}}),
		"under no name":                    ofStatement("ThePlanesProvisioner", "Condition", map[string]any{"StringEquals": map[string]any{"sts:ExternalId": "dev/" + tenant.String()}}),
	} {
		s, err := stacktest.Read(brokenAt(t, account, "Provisioner", change), stacktest.Place{Account: ownAccount, Region: place.Region})
		if err != nil {
			t.Fatal(err)
		}
		if found, err := stacktest.Rules(s); err != nil || !strings.Contains(strings.Join(found, "\n"), "Provisioner can be taken by") {
			t.Errorf("%s isn't named: %q, %v", name, found, err)
		}
	}
}

// Roles of a tenant in the plane's account and those of one with an account of its own reach nothing of each other.
func TestNoStatementReachesAnotherAccount(t *testing.T) {
	shared, texts := read(t, rendered(t, id.NewTenant())["dedicated"]), rendered(t, id.NewTenant())
	in := stacktest.Place{Account: ownAccount, Region: place.Region}
	own, err := stacktest.Read(texts["of-account"], in)
	if err != nil {
		t.Fatal(err)
	}
	bootstrap, err := stacktest.Read(texts["account"], in)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := stacktest.Policy(bootstrap.Resources["TenantBoundary"].Properties["PolicyDocument"])
	if err != nil || len(theirs) == 0 {
		t.Fatal("the account has no boundary", err)
	}
	for name, c := range map[string]struct {
		from, to *stacktest.Stack
		bound    []stacktest.Statement
	}{"out of the plane's account": {shared, own, boundary(t)}, "into it": {own, shared, theirs}} {
		found, err := stacktest.Foreign(c.from, c.to, c.bound)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			// A key is closed to other accounts by allowing them nothing: where AWS's services use it for a grant, they do from theirs.
			if !strings.HasPrefix(f, "resource doesn't deny") || !strings.Contains(f, ":kms:") {
				t.Errorf("%s: %s", name, f)
			}
		}
	}
}

// wrong is a way to make a stack wrong, and what the checker has to say of it.
type wrong struct {
	resource string
	change   func(properties map[string]any)
	want     string
}

// wrongTenants are of a tenant's stack.
var wrongTenants = map[string]wrong{
	"a role that reads every secret":      {"AuditStartRole", ofStatement("ReadItsSecret", "Resource", []any{"*"}), "every resource"},
	"a secret's name that ends early":     {"AuditStartRole", ofStatement("ReadItsSecret", "Resource", []any{"arn:aws:secretsmanager:eu-central-1:123456789012:secret:tenant/tnt_a*"}), "may be another's"},
	"a role that may everything":          {"AuditStartRole", ofStatement("ReadItsSecret", "Action", []any{"secretsmanager:*"}), "more than anybody listed"},
	"a role that may everything but":      {"AuditStartRole", ofStatement("ReadItsSecret", "NotAction", []any{"secretsmanager:DeleteSecret"}), "what it is not about"},
	"a role about all but":                {"AuditStartRole", ofStatement("ReadItsSecret", "NotResource", []any{"x"}), "what it is not about"},
	"a role without the boundary":         {"AuditTaskRole", without("PermissionsBoundary"), "has the boundary"},
	"a role of another path":              {"AuditTaskRole", with("Path", "/"), "has the path"},
	"a role without the tag":              {"AuditTaskRole", without("Tags"), "not the tag of its tenant"},
	"a role that anybody's task takes":    {"AuditTaskRole", without("AssumeRolePolicyDocument", "Statement", "0", "Condition"), "for whoever asks it to"},
	"a role that another account takes":   {"AuditTaskRole", with("AssumeRolePolicyDocument", "Statement", "0", "Principal", map[string]any{"AWS": "210987654321"}), "under a name"},
	"a role with a policy from outside":   {"AuditTaskRole", with("ManagedPolicyArns", []any{"arn:aws:iam::aws:policy/AdministratorAccess"}), "kept elsewhere"},
	"a bucket for everybody":              {"StoreObjectsPolicy", with("PolicyDocument", "Statement", "0", map[string]any{"Sid": "X", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}), "is for everybody"},
	"a bucket that doesn't close":         {"StoreObjectsPolicy", without("PolicyDocument", "Statement", "0"), "doesn't deny a stranger"},
	"a bucket without TLS":                {"StoreObjectsPolicy", with("PolicyDocument", "Statement", "1", "Condition", "Bool", map[string]any{"aws:SecureTransport": "true"}), "without TLS"},
	"a bucket that may be public":         {"StoreObjects", with("PublicAccessBlockConfiguration", "BlockPublicPolicy", false), "BlockPublicPolicy"},
	"a bucket under AWS's own key":        {"StoreObjects", without("BucketEncryption"), "not encrypted under the set's key"},
	"a queue that closes to nobody":       {"QueuePolicy", without("PolicyDocument", "Statement", "0", "Principal"), "about nobody"},
	"a queue that closes all others out":  {"QueuePolicy", with("PolicyDocument", "Statement", "0", "NotPrincipal", map[string]any{"AWS": "123456789012"}), "what it is not about"},
	"a queue whose closing is narrower":   {"QueuePolicy", with("PolicyDocument", "Statement", "0", "Action", []any{"sqs:SendMessage"}), "doesn't deny a stranger sqs:ReceiveMessage"},
	"a secret that doesn't close":         {"AuditSecretPolicy", without("ResourcePolicy", "Statement", "0"), "doesn't deny a stranger"},
	"a secret in the template":            {"AuditSecret", with("SecretString", "x"), "value in the template"},
	"a key for all of the account":        {"Key", without("KeyPolicy", "Statement", "0", "Condition"), "every principal of an account"},
	"a key that opens instead of closing": {"Key", ofStatement("OnlyItsOwn", "Effect", "Allow"), "doesn't deny a stranger"},
	"a key for logs of whomever":          {"Key", ofStatement("EncryptItsLogs", "Condition", map[string]any{}), "compares no aws:SourceAccount"},
	"a group open to the internet":        {"AuditNetwork", with("SecurityGroupIngress", "0", "CidrIp", "0.0.0.0/0"), "lets 0.0.0.0/0 in"},
	"a group with every way out":          {"AuditNetwork", without("SecurityGroupEgress"), "ways out"},
	"a task as root":                      {"AuditTask", with("ContainerDefinitions", "1", "User", "0:0"), "as root"},
	"a task that writes to its root":      {"AuditTask", with("ContainerDefinitions", "1", "ReadonlyRootFilesystem", false), "write to its root"},
	"a task of whatever is latest":        {"AuditTask", with("ContainerDefinitions", "1", "Image", "accessos:latest"), "by digest"},
	"a task with a secret":                {"AuditTask", with("ContainerDefinitions", "1", "Environment", "0", "Value", "postgres://a:b@c/d"), "holds a secret"},
	"a service with a public address":     {"Audit", with("NetworkConfiguration", "AwsvpcConfiguration", "AssignPublicIp", "ENABLED"), "addresses of the internet"},
	"a service that keeps what fails":     {"Audit", with("DeploymentConfiguration", "DeploymentCircuitBreaker", "Rollback", false), "does not come up"},
	"a public database":                   {"Database", with("PubliclyAccessible", true), "is public"},
	"a policy of the old language":        {"StoreObjectsPolicy", with("PolicyDocument", "Version", "2008-10-17"), "2012-10-17"},
	"a condition that nobody understands": {"StoreObjectsPolicy", with("PolicyDocument", "Statement", "0", "Condition", map[string]any{"DateLessThan": map[string]any{"aws:CurrentTime": "x"}}), "isn't known here"},
}

// wrongPlanes are of the plane's stack.
var wrongPlanes = map[string]wrong{
	"a provisioner that passes roles on":   {"ProvisionerStacks", ofStatement("PassToTasks", "Condition", map[string]any{}), "other services than ECS's tasks"},
	"a provisioner that makes anybody":     {"ProvisionerStacks", ofStatement("BoundedRoles", "Condition", map[string]any{}), "without the boundary"},
	"a provisioner of all that is tagged":  {"ProvisionerTasks", ofStatement("MakeTagged", "Condition", map[string]any{}), "every resource"},
	"a provisioner that anybody becomes":   {"Provisioner", without("AssumeRolePolicyDocument", "Statement", "1", "Condition"), "under a name"},
	"a provisioner by any machine":         {"Provisioner", without("AssumeRolePolicyDocument", "Statement", "2", "Condition", "ArnEquals"), "under a name"},
	"a provisioner without a name":         {"Provisioner", without("AssumeRolePolicyDocument", "Statement", "2", "Condition", "StringEquals"), "under a name"},
	"a provisioner that is nobody":         {"Provisioner", with("AssumeRolePolicyDocument", "Statement", "0", "Condition", "Bool", map[string]any{"aws:MultiFactorAuthPresent": "true"}), "by nobody"},
	"a provisioner of policies elsewhere":  {"Provisioner", with("ManagedPolicyArns", []any{"arn:aws:iam::aws:policy/AdministratorAccess"}), "kept elsewhere"},
	"a provisioner of too many words":      {"ProvisionerStacks", ofStatement("PassToTasks", "Sid", strings.Repeat("x", 6144)), "IAM takes 6144"},
	"a glass with too many words":          {"BreakGlass", ofStatement("RescueKeys", "Sid", strings.Repeat("x", 10240)), "IAM takes 10240"},
	"a glass that breaks by itself":        {"BreakGlass", without("AssumeRolePolicyDocument", "Statement", "0", "Condition"), "under a name"},
	"a provisioner that tags what is":      {"ProvisionerTasks", ofStatement("TagNames", "Condition", map[string]any{"StringEqualsIfExists": map[string]any{"aws:ResourceTag/tenant": "${aws:RequestTag/tenant}"}}), "doesn't bound servicediscovery:TagResource"},
	"a provisioner that tags whatever is":  {"ProvisionerTasks", ofStatement("TagMade", "Condition", map[string]any{"Null": map[string]any{"aws:RequestTag/tenant": "false"}, "StringEqualsIfExists": map[string]any{"aws:ResourceTag/tenant": "${aws:RequestTag/tenant}"}}), "gives what is nobody's"},
	"a provisioner that sees no tags":      {"MakingPolicy", ofStatement("Look", "Condition", map[string]any{"Null": map[string]any{"aws:ResourceTag/tenant": "false"}}), "never allows servicediscovery:ListTagsForResource"},
	"a provisioner that finds no names":    {"MakingPolicy", ofStatement("Look", "Resource", []any{"arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-1"}), "AWS knows no resource"},
	"images for everybody":                 {"Repository", ofStatement("AccountsOfTenants", "Condition", map[string]any{}), "is for everybody"},
	"a way to AWS for every account":       {"ToSqs", without("PolicyDocument", "Statement", "0", "Condition"), "more than anybody listed"},
	"a load balancer at another port":      {"Balancer", with("SecurityGroupIngress", "0", "ToPort", 8443), "lets 0.0.0.0/0 in at 443-8443"},
	"a gateway that the internet reaches":  {"GatewayNetwork", with("SecurityGroupIngress", "0", "CidrIp", "0.0.0.0/0"), "GatewayNetwork lets 0.0.0.0/0 in"},
	"a front door that hides its clients":  {"Targets", with("TargetGroupAttributes", "1", "Value", "false"), "Targets hides the addresses"},
	"a front door of one zone":             {"LoadBalancer", with("LoadBalancerAttributes", "1", "Value", "false"), "go nowhere"},
	"a subnet with addresses of everybody": {"SubnetA", with("MapPublicIpOnLaunch", true), "addresses of the internet"},
}

// wrongLinks are of the stacks that join the network of a tenant's own account to the plane's, by the kind of stack.
var wrongLinks = map[string]map[string]wrong{
	"plane-joined": {
		"a registry for every account":       {"RegistryServiceAllowed", with("AllowedPrincipals", []any{"*"}), "lets * in"},
		"a registry for roles of any name":   {"RegistryServiceAllowed", with("AllowedPrincipals", []any{"arn:aws:iam::210987654321:role/*"}), "no account by its number"},
		"a registry for nobody by name":      {"RegistryServiceAllowed", with("AllowedPrincipals", []any{}), "RegistryService names nobody"},
		"a registry that faces the internet": {"RegistryBalancer", with("Scheme", "internet-facing"), "has addresses of the internet"},
		"a registry behind no group":         {"RegistryBalancer", without("SecurityGroups"), "no group that closes it"},
		"a registry for the plane's network": {"RegistryFront", with("SecurityGroupIngress", []any{map[string]any{"IpProtocol": "tcp", "FromPort": 7443, "ToPort": 7443, "CidrIp": "10.64.0.0/16"}}), "lets somebody in besides"},
	},
	"account": {
		"a set for every account":              {"SetServiceAllowed", with("AllowedPrincipals", []any{"arn:aws:iam::123456789012:root", "*"}), "lets * in"},
		"a set for its own network":            {"Gateway", with("SecurityGroupIngress", []any{map[string]any{"IpProtocol": "tcp", "FromPort": 7443, "ToPort": 7443, "SourceSecurityGroupId": "Endpoints"}}), "lets somebody in besides"},
		"a way to the registry for everybody":  {"PlaneClientsIn", without("SourceSecurityGroupId"), "doesn't name the group"},
		"a way to the registry for every port": {"PlaneClientsIn", with("ToPort", 65535), "the one port"},
	},
	"link": {
		"a way to a set for every port": {"SetEnd", with("SecurityGroupIngress", "0", "FromPort", 1), "the one port"},
		"a way to a set for nobody":     {"SetEnd", without("SecurityGroupIngress"), "doesn't name the group"},
	},
}

// Whoever comes in by a link is an account that is named, and nobody comes in beside it.
func TestCheckerNamesWhatIsWrongWithLinks(t *testing.T) {
	texts := rendered(t, id.NewTenant())
	for kind, all := range wrongLinks {
		for name, w := range all {
			found, err := stacktest.Rules(read(t, brokenAt(t, texts[kind], w.resource, w.change)))
			if err != nil || !strings.Contains(strings.Join(found, "\n"), w.want) {
				t.Errorf("%s: it finds %q, %v; want %q", name, found, err, w.want)
			}
		}
	}
}

// with sets what a path leads to, its last part; without takes it away. A number is a place in a list.
func with(path ...any) func(map[string]any) {
	return func(properties map[string]any) {
		change(properties, path[:len(path)-1], func(any) any { return path[len(path)-1] })
	}
}

func without(path ...any) func(map[string]any) {
	return func(properties map[string]any) { change(properties, path, func(any) any { return nil }) }
}

func change(in any, path []any, to func(any) any) any {
	if len(path) == 0 {
		return to(in)
	}
	switch in := in.(type) {
	case map[string]any:
		name := path[0].(string)
		if out := change(in[name], path[1:], to); out == nil {
			delete(in, name)
		} else {
			in[name] = out
		}
		return in
	case []any:
		var i int
		if _, err := fmt.Sscan(path[0].(string), &i); err != nil || i >= len(in) {
			panic(fmt.Sprintf("the list has no place %v", path[0]))
		}
		out := change(in[i], path[1:], to)
		if out == nil {
			return slices.Delete(in, i, i+1)
		}
		in[i] = out
		return in
	default:
		panic(fmt.Sprintf("nothing is at %v", path))
	}
}

// ofStatement sets fields, each before what it becomes, of the statement of a name, wherever below the properties it stands.
func ofStatement(sid string, fields ...any) func(map[string]any) {
	return func(properties map[string]any) {
		for i := 0; i < len(fields); i += 2 {
			if !setStatement(properties, sid, fields[i].(string), fields[i+1]) {
				panic("there is no statement " + sid)
			}
		}
	}
}

func setStatement(in any, sid, field string, to any) bool {
	switch in := in.(type) {
	case map[string]any:
		if in["Sid"] == sid {
			in[field] = to
			if to == nil {
				delete(in, field)
			}
			return true
		}
		for _, v := range in {
			if setStatement(v, sid, field, to) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(in, func(v any) bool { return setStatement(v, sid, field, to) })
	}
	return false
}

// A checker that finds nothing proves something only where it finds what is wrong.
func TestCheckerNamesWhatIsWrong(t *testing.T) {
	for good, all := range map[string]map[string]wrong{string(named(t, "tnt_a", dedicated)): wrongTenants, string(planeText(t)): wrongPlanes} {
		for name, w := range all {
			t.Run(name, func(t *testing.T) {
				found, err := stacktest.Rules(read(t, brokenAt(t, []byte(good), w.resource, w.change)))
				if err != nil {
					found = append(found, err.Error())
				}
				if !strings.Contains(strings.Join(found, "\n"), w.want) {
					t.Errorf("it finds %q, want %q", found, w.want)
				}
			})
		}
	}
}

// Each wall is seen to be one: with it taken down in one place, what stands behind it is reached by that place and is named.
func TestCheckerNamesWhatReachesAnother(t *testing.T) {
	good, plane := named(t, "tnt_a", dedicated), planeText(t)
	secrets := "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tenant/"
	for name, c := range map[string]struct {
		stack *[]byte
		wrong
	}{
		"an id that begins another":       {&good, wrong{"AuditStartRole", ofStatement("ReadItsSecret", "Resource", []any{secrets + "tnt_a*"}), "role: ReadItsSecret"}},
		"any tenant's secrets":            {&good, wrong{"AuditStartRole", ofStatement("ReadItsSecret", "Resource", []any{secrets + "*"}), "role: ReadItsSecret"}},
		"all but one's own":               {&good, wrong{"AuditStartRole", ofStatement("ReadItsSecret", "Action", nil, "NotAction", []any{"x:Y"}, "Resource", nil, "NotResource", []any{secrets + "tnt_a/*"}), "role: ReadItsSecret"}},
		"every key by every service":      {&good, wrong{"AuditStartRole", ofStatement("ReadItsSecretKey", "Resource", []any{"*"}), "role: ReadItsSecretKey"}},
		"roles that take others":          {&good, wrong{"AuditTaskRole", with("Policies", []any{map[string]any{"PolicyName": "x", "PolicyDocument": map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Sid": "Take", "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::123456789012:role/tenant/*"}}}}}), "role: Take"}},
		"a boundary without the tag":      {&plane, wrong{"TenantBoundary", ofStatement("Secrets", "Resource", []any{secrets + "*"}), "boundary: Secrets"}},
		"a boundary with every key":       {&plane, wrong{"TenantBoundary", ofStatement("Keys", "Condition", map[string]any{}), "boundary: Keys"}},
		"a boundary by a session's tag":   {&plane, wrong{"TenantBoundary", ofStatement("LogInToTheDatabase", "Condition", nil), "in a session tagged"}},
		"a boundary with a caller's word": {&plane, wrong{"TenantBoundary", ofStatement("Objects", "Resource", []any{"arn:aws:s3:::a3-dev-*"}), "boundary: Objects"}},
	} {
		t.Run(name, func(t *testing.T) {
			texts := map[*[]byte][]byte{&good: good, &plane: plane}
			texts[c.stack] = brokenAt(t, *c.stack, c.resource, c.change)
			statements, err := stacktest.Policy(read(t, texts[&plane]).Resources["TenantBoundary"].Properties["PolicyDocument"])
			if err != nil {
				t.Fatal(err)
			}
			found, err := stacktest.Foreign(read(t, texts[&good]), read(t, named(t, "tnt_ab", dedicated)), statements)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(found, "\n"), c.want) {
				t.Errorf("it finds %q, want %q", found, c.want)
			}
		})
	}
	// And at the other's door: a policy that lets everybody be.
	for resource, change := range map[string]func(map[string]any){
		"StoreObjectsPolicy": without("PolicyDocument", "Statement", "0"), "QueuePolicy": without("PolicyDocument", "Statement", "0"), "AuditSecretPolicy": without("ResourcePolicy", "Statement", "0"),
		"Key": ofStatement("OnlyItsOwn", "Effect", "Allow"), "AuditTaskRole": with("AssumeRolePolicyDocument", "Statement", "0", "Principal", map[string]any{"AWS": "*"}),
	} {
		found, err := stacktest.Foreign(read(t, good), read(t, brokenAt(t, named(t, "tnt_ab", dedicated), resource, change)), boundary(t))
		if err != nil || !strings.Contains(strings.Join(found, "\n"), "resource") {
			t.Errorf("%s that is open is not named: %q, %v", resource, found, err)
		}
	}
}

func brokenAt(t *testing.T, good []byte, resource string, change func(map[string]any)) []byte {
	t.Helper()
	var template map[string]any
	if err := json.Unmarshal(good, &template); err != nil {
		t.Fatal(err)
	}
	r, ok := template["Resources"].(map[string]any)[resource].(map[string]any)
	if !ok {
		t.Fatalf("there is no resource %s", resource)
	}
	change(r["Properties"].(map[string]any))
	text, err := json.Marshal(template)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
