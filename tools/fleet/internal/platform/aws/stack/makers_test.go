package stack_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// administrators are who deploys the plane's stack: what the parameter that names their role comes out as.
var administrators = stacktest.Principal{ARN: "AdministratorRole", Account: place.Account}

// Who deploys a stack is not shut out by what it makes: what has a policy of its own is changed and deleted again by whom made it, and a key that
// didn't let its maker change its policy KMS would not make.
func TestWhoDeploysAStackKeepsWhatItMakes(t *testing.T) {
	tenant := id.NewTenant()
	provisioner := stacktest.Principal{ARN: place.Provisioner(), Account: place.Account}
	keeps := map[string][]string{
		"AWS::S3::Bucket":             {"s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutBucketTagging", "s3:PutLifecycleConfiguration", "s3:DeleteBucket"},
		"AWS::SQS::Queue":             {"sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:DeleteQueue"},
		"AWS::SecretsManager::Secret": {"secretsmanager:UpdateSecret", "secretsmanager:TagResource", "secretsmanager:PutResourcePolicy", "secretsmanager:DeleteResourcePolicy", "secretsmanager:DeleteSecret"},
		"AWS::KMS::Key":               {"kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:EnableKeyRotation", "kms:GetKeyRotationStatus", "kms:TagResource", "kms:ListResourceTags", "kms:UpdateKeyDescription"},
	}
	seen := map[string]int{}
	for name, by := range map[string]stacktest.Principal{"plane-first": administrators, "plane": administrators, "plane-joined": administrators, "dedicated": provisioner, "database": provisioner} {
		s := read(t, rendered(t, tenant)[name])
		targets, err := s.Targets()
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			if s.Resources[target.ID].Type == "" {
				continue // what the set makes as it runs
			}
			for _, action := range keeps[target.Type] {
				seen[target.Type]++
				may(t, name, target, stacktest.Request{Principal: by, Action: action, Resource: target.ARN, Context: map[string]string{"aws:SecureTransport": "true"}})
			}
			if target.Type != "AWS::KMS::Key" || len(s.Resources["Database"].Type) == 0 {
				continue
			}
			for _, via := range []string{"rds", "secretsmanager"} {
				context := map[string]string{"kms:ViaService": via + "." + place.Region + ".amazonaws.com", "kms:GrantIsForAWSResource": "true",
					"kms:EncryptionContext:SecretARN": "arn:aws:secretsmanager:" + place.Region + ":" + place.Account + ":secret:rds!db-1-AbCdEf"}
				for _, action := range []string{"kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey"} {
					may(t, name, target, stacktest.Request{Principal: by, Action: action, Resource: target.ARN, Context: context})
				}
			}
		}
	}
	for kind := range keeps {
		if seen[kind] == 0 {
			t.Errorf("nothing of type %s was looked at", kind)
		}
	}
}

// may reports where a resource's own policy denies a request, or, a key's, doesn't allow it.
func may(t *testing.T, of string, target stacktest.Target, r stacktest.Request) {
	t.Helper()
	is, err := target.LetsIn(r)
	if err != nil {
		t.Fatal(err)
	}
	if !is {
		t.Errorf("%s: %s doesn't let %s do %s", of, target.ID, r.Principal.ARN, r.Action)
	}
}

// deed is one call that making, changing or taking away a tenant's stack takes, as AWS documents what the services ask; for tnt_a's with that id in it.
type deed struct {
	action, resource string
	context, tags    map[string]string
	// others says that it is one on something of another tenant's, or that makes something be: refused where the session is for another.
	others bool
	// makes says that it is one of the making of the stack, or of a service of it, alone, in a session of fleet's own.
	makes bool
}

// deeds are for a tenant's stack.
func deeds(tenant string) map[string]deed {
	arn := func(service, resource string) string {
		return "arn:aws:" + service + ":" + place.Region + ":" + place.Account + ":" + resource
	}
	dashed := strings.ReplaceAll(tenant, "_", "-")
	role := "arn:aws:iam::" + place.Account + ":role/tenant/" + tenant + "/" + tenant + "-iam-task"
	asked := map[string]string{"aws:RequestTag/tenant": tenant, "aws:RequestTag/label": dashed, "aws:RequestTag/plane": "dev"}
	with := func(more ...string) map[string]string {
		out := maps.Clone(asked)
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	own, via := map[string]string{"tenant": tenant}, map[string]string{"aws:ViaAWSService": "true"}
	through := with("aws:CalledVia", "cloudformation.amazonaws.com")
	bounded := []string{"iam:PermissionsBoundary", place.Boundary()}
	return map[string]deed{
		"make a role":                                {"iam:CreateRole", role, with(bounded...), nil, true, false},
		"tag a role":                                 {"iam:TagRole", role, asked, own, true, false},
		"give a role its policy":                     {"iam:PutRolePolicy", role, map[string]string{bounded[0]: bounded[1]}, own, true, false},
		"say who takes a role":                       {"iam:UpdateAssumeRolePolicy", role, nil, own, true, false},
		"pass a role":                                {"iam:PassRole", role, map[string]string{"iam:PassedToService": "ecs-tasks.amazonaws.com"}, own, true, false},
		"look for a role that isn't there":           {"iam:GetRole", "arn:aws:iam::" + place.Account + ":role/" + tenant + "-iam-task", nil, nil, true, false},
		"make a key":                                 {"kms:CreateKey", "*", asked, nil, true, false},
		"tag a key as it is made":                    {"kms:TagResource", arn("kms", "key/1"), through, nil, true, false},
		"have a key that was just made renew itself": {"kms:EnableKeyRotation", arn("kms", "key/1"), nil, nil, false, false},
		"tag a key again":                            {"kms:TagResource", arn("kms", "key/1"), asked, own, true, false},
		"say a key's policy":                         {"kms:PutKeyPolicy", arn("kms", "key/1"), nil, own, true, false},
		"make a group":                               {"ec2:CreateSecurityGroup", arn("ec2", "security-group/sg-1"), asked, nil, false, false},
		"make a group, and tag it after":             {"ec2:CreateSecurityGroup", arn("ec2", "security-group/sg-1"), nil, nil, false, false},
		"make a group in the network":                {"ec2:CreateSecurityGroup", arn("ec2", "vpc/vpc-1"), nil, map[string]string{"plane": "dev"}, false, false},
		"tag a group":                                {"ec2:CreateTags", arn("ec2", "security-group/sg-1"), through, nil, true, false},
		"tag a group again":                          {"ec2:CreateTags", arn("ec2", "security-group/sg-1"), asked, own, true, false},
		"let in by a group":                          {"ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-1"), nil, own, true, false},
		"describe a group's rule in anew":            {"ec2:UpdateSecurityGroupRuleDescriptionsIngress", arn("ec2", "security-group/sg-1"), nil, own, true, false},
		"describe a group's rule out anew":           {"ec2:UpdateSecurityGroupRuleDescriptionsEgress", arn("ec2", "security-group/sg-1"), nil, own, true, false},
		"delete a group":                             {"ec2:DeleteSecurityGroup", arn("ec2", "security-group/sg-1"), nil, own, true, false},
		"make a namespace":                           {"servicediscovery:CreatePrivateDnsNamespace", "*", asked, nil, false, true},
		"tag a namespace":                            {"servicediscovery:TagResource", arn("servicediscovery", "namespace/ns-1"), through, nil, true, false},
		"look at a name's tags":                      {"servicediscovery:ListTagsForResource", arn("servicediscovery", "service/srv-1"), nil, own, false, false},
		"look at what a name has":                    {"servicediscovery:GetServiceAttributes", arn("servicediscovery", "service/srv-1"), nil, own, false, false},
		"look for names":                             {"servicediscovery:ListServices", "*", nil, nil, false, false},
		"describe a name anew":                       {"servicediscovery:UpdateService", arn("servicediscovery", "service/srv-1"), nil, own, true, false},
		"make a name":                                {"servicediscovery:CreateService", arn("servicediscovery", "namespace/ns-1"), asked, own, true, false},
		"delete a namespace":                         {"servicediscovery:DeleteNamespace", arn("servicediscovery", "namespace/ns-1"), nil, own, true, false},
		"make the zone of a namespace":               {"route53:CreateHostedZone", "*", via, nil, false, true},
		"look for the zone of a namespace":           {"route53:ListHostedZonesByName", "*", via, nil, false, true},
		"look at the zone of a namespace":            {"route53:GetHostedZone", "arn:aws:route53:::hostedzone/Z1", via, nil, false, false},
		"delete the zone of a namespace":             {"route53:DeleteHostedZone", "arn:aws:route53:::hostedzone/Z1", via, nil, false, false},
		"look for the network of a zone":             {"ec2:DescribeRegions", "*", nil, nil, false, false},
		"make a server":                              {"rds:CreateDBInstance", arn("rds", "db:a3-dev-"+dashed), nil, nil, true, false},
		"make a server in subnets":                   {"rds:CreateDBInstance", arn("rds", "subgrp:plane"), nil, nil, false, false},
		"make a server with its options":             {"rds:CreateDBInstance", arn("rds", "og:default:postgres-17"), nil, nil, false, false},
		"make a server with its parameters":          {"rds:CreateDBInstance", arn("rds", "pg:a3-dev-postgres17"), nil, nil, false, false},
		"have RDS get its role":                      {"iam:CreateServiceLinkedRole", "arn:aws:iam::" + place.Account + ":role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS", map[string]string{"iam:AWSServiceName": "rds.amazonaws.com"}, nil, false, false},
		"take the protection off a server":           {"rds:ModifyDBInstance", arn("rds", "db:a3-dev-"+dashed), nil, nil, true, false},
		"delete a server":                            {"rds:DeleteDBInstance", arn("rds", "db:a3-dev-"+dashed), nil, nil, true, false},
		"delete a snapshot of whatever name":         {"rds:DeleteDBSnapshot", arn("rds", "snapshot:before-the-move"), nil, own, true, false},
		"look for snapshots":                         {"rds:DescribeDBSnapshots", arn("rds", "db:a3-dev-"+dashed), nil, nil, false, false},
		"look for automated backups":                 {"rds:DescribeDBInstanceAutomatedBackups", "*", nil, nil, false, false},
		"make a secret":                              {"secretsmanager:CreateSecret", arn("secretsmanager", "secret:tenant/"+tenant+"/component/iam-AbCdEf"), nil, nil, true, false},
		"keep a server's first user":                 {"secretsmanager:CreateSecret", arn("secretsmanager", "secret:rds!db-1-AbCdEf"), nil, nil, false, false},
		"read a server's first user":                 {"secretsmanager:GetSecretValue", arn("secretsmanager", "secret:rds!db-1-AbCdEf"), nil, map[string]string{"aws:rds:primaryDBInstanceArn": arn("rds", "db:a3-dev-"+dashed)}, true, false},
		"make a bucket":                              {"s3:CreateBucket", "arn:aws:s3:::a3-dev-" + dashed + "-objects-" + place.Account, nil, nil, true, false},
		"make a queue":                               {"sqs:CreateQueue", arn("sqs", tenant+"-queue"), nil, nil, true, false},
		"make a group of logs":                       {"logs:CreateLogGroup", arn("logs", "log-group:/a3/tenant/"+tenant+"/iam"), nil, nil, true, false},
		"keep logs for ever":                         {"logs:DeleteRetentionPolicy", arn("logs", "log-group:/a3/tenant/"+tenant+"/iam"), nil, nil, true, false},
		"look at indexes of logs":                    {"logs:DescribeIndexPolicies", arn("logs", "log-group:/a3/tenant/"+tenant+"/iam"), nil, nil, false, false},
		"register a task":                            {"ecs:RegisterTaskDefinition", "*", asked, nil, true, false},
		"run a task":                                 {"ecs:RunTask", arn("ecs", "task-definition/"+tenant+"-one-off:1"), nil, nil, true, false},
		"make a service":                             {"ecs:CreateService", arn("ecs", "service/a3-dev/"+tenant+"-iam"), nil, nil, true, true},
		"change a service":                           {"ecs:UpdateService", arn("ecs", "service/a3-dev/"+tenant+"-iam"), nil, nil, true, false},
		"delete a service":                           {"ecs:DeleteService", arn("ecs", "service/a3-dev/"+tenant+"-iam"), nil, nil, true, false},
		"look for a service's deployments":           {"ecs:ListServiceDeployments", arn("ecs", "service/a3-dev/"+tenant+"-iam"), nil, nil, true, false},
		"look at a service's deployment":             {"ecs:DescribeServiceDeployments", arn("ecs", "service-deployment/a3-dev/"+tenant+"-iam/1"), nil, nil, true, false},
		"stop a service's deployment":                {"ecs:StopServiceDeployment", arn("ecs", "service-deployment/a3-dev/"+tenant+"-iam/1"), nil, nil, true, false},
		"look at tasks":                              {"ecs:DescribeTasks", arn("ecs", "task/a3-dev/0123"), nil, nil, false, false},
		"look for tasks":                             {"ecs:ListTasks", "*", nil, nil, false, false},
		"look for definitions":                       {"ecs:ListTaskDefinitions", "*", nil, nil, false, false},
		"delete definitions":                         {"ecs:DeleteTaskDefinitions", arn("ecs", "task-definition/"+tenant+"-iam:1"), nil, nil, true, false},
		"make an alarm":                              {"cloudwatch:PutMetricAlarm", arn("cloudwatch", "alarm:"+tenant+"-DatabaseFull"), nil, nil, true, false},
		"read a template":                            {"s3:GetObject", "arn:aws:s3:::a3-dev-templates-" + place.Account + "/a3-dev-" + dashed + "/1", nil, nil, true, false},
		"delete a template":                          {"s3:DeleteObjectVersion", "arn:aws:s3:::a3-dev-templates-" + place.Account + "/a3-dev-" + dashed + "/1", nil, nil, true, false},
		"look for templates":                         {"s3:ListBucketVersions", "arn:aws:s3:::a3-dev-templates-" + place.Account, map[string]string{"s3:prefix": "a3-dev-" + dashed + "/"}, nil, false, false},
		"plan a stack's change":                      {"cloudformation:CreateChangeSet", arn("cloudformation", "stack/a3-dev-"+dashed+"/1"), nil, nil, true, false},
		"change a stack":                             {"cloudformation:ExecuteChangeSet", arn("cloudformation", "stack/a3-dev-"+dashed+"/1"), nil, nil, true, false},
		"go on taking a stack back":                  {"cloudformation:ContinueUpdateRollback", arn("cloudformation", "stack/a3-dev-"+dashed+"/1"), nil, nil, true, false},
		"look at the stack that is imported":         {"cloudformation:ListExports", "*", nil, nil, false, false},
	}
}

// The provisioner, in the session that it works on a tenant in, may do all that the tenant's stack takes, and nothing of that for another tenant.
func TestSessionMakesATenantsStackAndNoOthers(t *testing.T) {
	own, other := id.NewTenant().String(), id.NewTenant().String()
	plane := read(t, planeText(t))
	provisioner := roleOf(t, plane, "provisioner")
	text, err := stack.Session(place, own)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	session, err := stacktest.Policy(document)
	if err != nil {
		t.Fatal(err)
	}
	shared := map[bool][]stacktest.Statement{}
	for makes, name := range map[bool]string{false: "SessionPolicy", true: "MakingPolicy"} {
		if shared[makes], err = stacktest.Policy(plane.Resources[name].Properties["PolicyDocument"]); err != nil || len(shared[makes]) == 0 {
			t.Fatal("sessions share no policy", err)
		}
	}
	in := func(makes bool, d deed) bool {
		is, err := plane.May(provisioner, slices.Concat(session, shared[makes]), stacktest.Target{Resource: stacktest.Resource{Tags: d.tags}}, stacktest.Request{Action: d.action, Resource: d.resource, Context: d.context})
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	may := func(d deed) bool { return in(false, d) }
	// A zone of any name is made with the stack, by fleet itself, and so is a service, which could stand behind any load balancer. A session that works on the
	// tenant later, as those that are lent do, makes none, itself or by a template.
	for what, d := range deeds(own) {
		if !in(true, d) {
			t.Errorf("where it makes the stack it can't %s: %s on %s", what, d.action, d.resource)
		}
		if may(d) == d.makes {
			t.Errorf("it can %s: %t: %s on %s", what, d.makes, d.action, d.resource)
		}
	}
	refused := 0
	for what, d := range deeds(other) {
		if refused++; d.others && (may(d) || in(true, d)) {
			t.Errorf("for another tenant it can %s: %s on %s", what, d.action, d.resource)
		}
	}
	if refused < 40 {
		t.Errorf("only %d deeds were tried", refused)
	}
	// What carries another tenant's tag is what the boundary takes for that tenant's, wherever it stands: a role of one's own does not become one.
	// Nor does what is the plane's, which has no tenant's tag, nor what is nobody's here, as the key of an alarm's topic: with the tag would come all else.
	mine, theirs := deeds(own), deeds(other)
	plain, through, planes := mine["tag a key again"].context, mine["tag a group"].context, map[string]string{"plane": "dev"}
	for what, d := range map[string]deed{
		"give the plane's group its own tag":                     {"ec2:CreateTags", mine["tag a group"].resource, plain, planes, true, false},
		"have CloudFormation give the plane's group its own tag": {"ec2:CreateTags", mine["tag a group"].resource, through, planes, true, false},
		"give a group of nobody's its own tag":                   {"ec2:CreateTags", mine["tag a group"].resource, plain, nil, true, false},
		"give the plane's key its own tag":                       {"kms:TagResource", mine["tag a key again"].resource, plain, planes, true, false},
		"have CloudFormation give the plane's key its own tag":   {"kms:TagResource", mine["tag a key again"].resource, through, planes, true, false},
		"give a key of nobody's its own tag":                     {"kms:TagResource", mine["tag a key again"].resource, plain, nil, true, false},
		"make a name in the plane's namespace":                   {"servicediscovery:CreateService", mine["make a name"].resource, plain, planes, true, false},
		"open the plane's group":                                 {"ec2:AuthorizeSecurityGroupIngress", mine["let in by a group"].resource, nil, planes, true, false},
		"read by a key of nobody's":                              {"kms:Decrypt", mine["tag a key again"].resource, nil, nil, true, false},
		"make a role of its own with another's tags":             {"iam:CreateRole", mine["make a role"].resource, theirs["make a role"].context, nil, true, false},
		"make a role of its name at another's path":              {"iam:CreateRole", strings.Replace(mine["make a role"].resource, "/tenant/"+own+"/", "/tenant/"+other+"/", 1), theirs["make a role"].context, nil, true, false},
		"give a role of its own another's tag":                   {"iam:TagRole", mine["tag a role"].resource, map[string]string{"aws:RequestTag/tenant": other}, mine["tag a role"].tags, true, false},
		"give a role of its own another's label":                 {"iam:TagRole", mine["tag a role"].resource, map[string]string{"aws:RequestTag/label": strings.ReplaceAll(other, "_", "-")}, mine["tag a role"].tags, true, false},
		"give another's key its own tag":                         {"kms:TagResource", mine["tag a key again"].resource, mine["tag a key again"].context, theirs["tag a key again"].tags, true, false},
		"give another's group its own tag":                       {"ec2:CreateTags", mine["tag a group"].resource, mine["tag a group"].context, theirs["let in by a group"].tags, true, false},
		"give another's namespace its own tag":                   {"servicediscovery:TagResource", mine["tag a namespace"].resource, mine["make a namespace"].context, theirs["tag a key again"].tags, true, false},
		"take another's namespace into its stack":                {"cloudformation:CreateChangeSet", mine["change a stack"].resource, map[string]string{"cloudformation:ImportResourceTypes": "AWS::ServiceDiscovery::PrivateDnsNamespace"}, nil, true, false},
		"change the policy that bounds it":                       {"iam:CreatePolicyVersion", place.SessionPolicy(), nil, nil, true, false},
		"look for the plane's templates":                         {"s3:ListBucketVersions", "arn:aws:s3:::a3-dev-templates-" + place.Account, map[string]string{"s3:prefix": "a3-dev-plane/"}, nil, true, false},
		"ask Route 53 itself":                                    {"route53:DeleteHostedZone", "arn:aws:route53:::hostedzone/Z1", nil, nil, true, false},
		"become the provisioner of everybody once more":          {"sts:AssumeRole", place.Provisioner(), nil, nil, true, false},
	} {
		if may(d) || in(true, d) {
			t.Errorf("it can %s", what)
		}
	}
}

// The plane's provisioner is who an administrator becomes under a name, or the machine's role under the machine's: neither under the other's, and nobody
// else; in an account of a tenant's own no machine does.
func TestProvisionerIsTakenUnderANameOrAsTheMachine(t *testing.T) {
	role := func(arn string) stacktest.Principal { return stacktest.Principal{ARN: arn, Account: place.Account} }
	machine, stranger := role("MachineRole"), role("arn:aws:iam::"+place.Account+":role/stranger")
	texts := rendered(t, id.NewTenant())
	for name, first := range map[string]bool{"plane": false, "plane-first": true} {
		trust := roleOf(t, read(t, texts[name]), "provisioner").Trust
		for what, c := range map[string]struct {
			who  stacktest.Principal
			as   string
			want bool
		}{
			"an administrator under a name":    {administrators, "anna", true},
			"an administrator under none":      {administrators, "", false},
			"an administrator as the machine":  {administrators, stack.Machine, false},
			"the machine as the machine":       {machine, stack.Machine, true},
			"the machine under another's name": {machine, "anna", false},
			"the machine under none":           {machine, "", false},
			"a stranger as the machine":        {stranger, stack.Machine, false},
			"a stranger under a name":          {stranger, "anna", false},
		} {
			context := map[string]string{}
			if c.as != "" {
				context["sts:SourceIdentity"] = c.as
			}
			if is, err := stacktest.Allows(trust, stacktest.Request{Principal: c.who, Action: "sts:AssumeRole", Context: context}); err != nil || is != c.want {
				t.Errorf("%s (%t): %s becomes it: %t; %v", name, first, what, is, err)
			}
		}
	}
	for name, text := range texts {
		if _, is := parameters(t, text)["MachineRole"]; is != strings.HasPrefix(name, "plane") {
			t.Errorf("%s asks for the machine's role: %t", name, is)
		}
	}
}

// parameters are what a template asks for.
func parameters(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var read struct{ Parameters map[string]any }
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return read.Parameters
}

// Fleet makes the databases of tenants as the first user of their server, the plane's shared one or a tenant's own: it reaches each server, and
// reads that user's secret, which RDS encrypted under the key of whose server it is.
func TestFleetReachesEachServerAsItsFirstUser(t *testing.T) {
	tenant := id.NewTenant()
	plane := read(t, planeText(t))
	provisioner := roleOf(t, plane, "provisioner")
	for name, s := range map[string]*stacktest.Stack{"plane": plane, "dedicated": read(t, rendered(t, tenant)["dedicated"])} {
		targets, err := s.Targets()
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			if target.Type != "AWS::KMS::Key" {
				continue
			}
			for secret, want := range map[string]bool{"rds!db-1-AbCdEf": true, "tenant/" + tenant.String() + "/store/secrets/wsp_1/int_1-AbCdEf": false} {
				is, err := plane.May(provisioner, provisioner.Statements, target, stacktest.Request{Action: "kms:Decrypt", Resource: target.ARN, Context: map[string]string{
					"kms:ViaService": "secretsmanager." + place.Region + ".amazonaws.com", "kms:EncryptionContext:SecretARN": "arn:aws:secretsmanager:" + place.Region + ":" + place.Account + ":secret:" + secret}})
				if err != nil || is != want {
					t.Errorf("%s: the provisioner opens secret %s: %t, want %t; %v", name, secret, is, want, err)
				}
			}
		}
		operators := "Operators.GroupId"
		if name != "plane" {
			operators = "import a3-dev-Operators"
		}
		rules, _ := s.Resources["DatabaseNetwork"].Properties["SecurityGroupIngress"].([]any)
		if text := fmt.Sprint(rules); !strings.Contains(text, operators) || len(rules) != 2 {
			t.Errorf("%s: its server lets in %s", name, text)
		}
	}
	if in := fmt.Sprint(plane.Resources["OperatorsIn"].Properties); !strings.Contains(in, "RegistryNetwork") || !strings.Contains(in, "Operators") {
		t.Errorf("the registry doesn't let fleet in: %s", in)
	}
}
