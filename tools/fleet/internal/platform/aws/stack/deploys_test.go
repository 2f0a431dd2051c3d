package stack_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// raw is a template as CloudFormation reads it.
type raw struct {
	Resources map[string]struct {
		Type, DeletionPolicy string
		Properties           map[string]any
		DependsOn            any
	}
	Outputs map[string]struct {
		Value  json.RawMessage
		Export *struct{ Name string }
	}
}

func parsed(t *testing.T, text []byte) (out raw) {
	t.Helper()
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A template is of the Region that it is deployed in, whichever that is: what says where its subnets are, CloudFormation fills in there.
func TestTemplatesAreOfNoOtherRegion(t *testing.T) {
	regions, zones := regexp.MustCompile(`\b(us|eu|ap|sa|ca|me|af|il)(-[a-z]+)+-[0-9]`), 0
	for name, text := range rendered(t, id.NewTenant()) {
		for _, is := range regions.FindAllString(string(text), -1) {
			if is != place.Region {
				t.Errorf("%s names %s", name, is)
			}
		}
		for id, r := range parsed(t, text).Resources {
			if r.Type != "AWS::EC2::Subnet" {
				continue
			}
			at, err := json.Marshal([]any{r.Properties["AvailabilityZone"], r.Properties["AvailabilityZoneId"]})
			if zones++; err != nil || !strings.Contains(string(at), `{"Fn::GetAZs":""}`) && !strings.Contains(string(at), `{"Ref":"Zone`) {
				t.Errorf("%s: %s of %s stands in %s", name, id, place.Region, at)
			}
		}
	}
	if zones < 8 {
		t.Errorf("only %d subnets were looked at", zones)
	}
}

// EC2 takes few signs in what describes a group and its rules.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
func TestGroupsAreDescribedAsEC2TakesIt(t *testing.T) {
	taken, seen := regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{0,255}$`), 0
	var look func(where string, v any)
	look = func(where string, v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				look(where, x)
			}
		case map[string]any:
			for key, x := range v {
				if text, is := x.(string); is && (key == "Description" || key == "GroupDescription") {
					if seen++; !taken.MatchString(text) {
						t.Errorf("%s: %q", where, text)
					}
				}
				look(where, x)
			}
		}
	}
	for name, text := range rendered(t, id.NewTenant()) {
		for id, r := range parsed(t, text).Resources {
			if strings.HasPrefix(r.Type, "AWS::EC2::SecurityGroup") {
				look(name+", "+id, r.Properties)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d descriptions were looked at", seen)
	}
}

// reaches answers what other resources of a template each one needs, itself and by others.
func reaches(t *testing.T, template raw) map[string]map[string]bool {
	t.Helper()
	direct := map[string][]string{}
	for id, r := range template.Resources {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for other := range template.Resources {
			if other != id && (strings.Contains(string(text), `"`+other+`"`) || strings.Contains(string(text), "${"+other+".")) {
				direct[id] = append(direct[id], other)
			}
		}
	}
	out := map[string]map[string]bool{}
	for id := range template.Resources {
		out[id] = map[string]bool{}
		for next := direct[id]; len(next) > 0; next = next[1:] {
			if !out[id][next[0]] {
				out[id][next[0]] = true
				next = append(next, direct[next[0]]...)
			}
		}
	}
	return out
}

// What is protected from being deleted is made when all is there that can fail without it: CloudFormation can't take such a creation back.
func TestWhatIsProtectedIsMadeLast(t *testing.T) {
	seen := 0
	for name, text := range rendered(t, id.NewTenant()) {
		made := parsed(t, text)
		needs := reaches(t, made)
		for _, protected := range []string{"Database", "LoadBalancer"} {
			if _, is := made.Resources[protected]; !is {
				continue
			}
			seen++
			first := needs[protected]
			for id, after := range needs {
				if id != protected && !first[id] && !after[protected] && !after["Database"] && id != "LoadBalancer" {
					t.Errorf("%s: %s can fail when %s is there already", name, id, protected)
				}
			}
			if protected == "LoadBalancer" && !first["Database"] {
				t.Errorf("%s: both are made at once", name)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d were looked at", seen)
	}
}

// What outlives its stack goes with a creation that failed: by its name it would be in the way of the next.
func TestNothingIsLeftOfACreationThatFailed(t *testing.T) {
	for name, text := range rendered(t, id.NewTenant()) {
		for id, r := range parsed(t, text).Resources {
			if r.DeletionPolicy == "Retain" {
				t.Errorf("%s: %s stays", name, id)
			}
		}
	}
}

// The ways to AWS of the plane's network let fleet be the provisioner, and a keeper, of an account that a tenant has to itself, and nobody else be
// anybody of any other account.
func TestWaysToAWSLetFleetIntoAccountsOfTenants(t *testing.T) {
	joined, alone := read(t, rendered(t, id.NewTenant())["plane-joined"]), read(t, planeText(t))
	own := func(account, role string) stacktest.Principal {
		return stacktest.Principal{ARN: "arn:aws:iam::" + account + ":role/" + role, Account: account}
	}
	provisioner, theirs := own(place.Account, "a3/a3-dev-provisioner"), own(ownAccount, "a3/a3-dev-provisioner")
	for _, way := range []string{"ToSts", "ToSecretsmanager", "ToKms", "ToLogs", "ToSqs", "ToS3"} {
		for what, c := range map[string]struct {
			stack *stacktest.Stack
			who   stacktest.Principal
			whose string
			want  bool
		}{
			"a task at its own":                                {joined, own(place.Account, "tenant/tnt_a/tnt_a-iam-task"), place.Account, true},
			"fleet becomes the provisioner there":              {joined, provisioner, ownAccount, true},
			"the provisioner there at its own":                 {joined, theirs, ownAccount, true},
			"a keeper there at its own":                        {joined, own(ownAccount, "tenant/tnt_a/tnt_a-backup"), ownAccount, true},
			"a task of the plane's account at theirs":          {joined, own(place.Account, "tenant/tnt_a/tnt_a-iam-task"), ownAccount, false},
			"an administrator of theirs at their own":          {joined, own(ownAccount, "administrator"), ownAccount, false},
			"the provisioner there at the plane's":             {joined, theirs, place.Account, false},
			"fleet at an account that nobody named":            {joined, provisioner, "999999999999", false},
			"somebody of an account that nobody named":         {joined, own("999999999999", "a3/a3-dev-provisioner"), "999999999999", false},
			"fleet at theirs, of a plane without any":          {alone, provisioner, ownAccount, false},
			"the provisioner there, of a plane without any":    {alone, theirs, ownAccount, false},
			"fleet at its own account, of a plane without any": {alone, provisioner, place.Account, true},
		} {
			policy, err := stacktest.Policy(c.stack.Resources[way].Properties["PolicyDocument"])
			if err != nil || len(policy) == 0 {
				t.Fatal(way, err)
			}
			if is, err := stacktest.Allows(policy, stacktest.Request{Principal: c.who, Action: "s3:GetObject", Resource: "x", Context: map[string]string{"aws:ResourceAccount": c.whose}}); err != nil || is != c.want {
				t.Errorf("%s: %s: %t, want %t; %v", way, what, is, c.want, err)
			}
		}
	}
}

// Fleet's machine, which is Amazon Linux where nobody chose another, has its packages by the network's way to S3, for the routes there lead nowhere else; they
// are in one bucket of AWS's in each Region, which knows no name of who asks, and nothing else of another account's is read or anything written.
func TestPackagesOfTheMachineComeByTheWayToS3(t *testing.T) {
	texts := rendered(t, id.NewTenant())
	for _, c := range []struct {
		stack, action, resource string
		want                    bool
	}{
		{"plane", "s3:GetObject", "arn:aws:s3:::al2023-repos-eu-central-1-de612dc2/core/mirrors/latest/x86_64/mirror.list", true},
		{"plane", "s3:PutObject", "arn:aws:s3:::al2023-repos-eu-central-1-de612dc2/x", false},
		{"plane", "s3:GetObject", "arn:aws:s3:::al2023-repos-eu-central-1-somebodys/x", false},
		{"plane", "s3:GetObject", "arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/x", true},
		{"account", "s3:GetObject", "arn:aws:s3:::al2023-repos-eu-central-1-de612dc2/x", false}, // no machine stands there
	} {
		policy, err := stacktest.Policy(read(t, texts[c.stack]).Resources["ToS3"].Properties["PolicyDocument"])
		if err != nil || len(policy) == 0 {
			t.Fatal(c.stack, err)
		}
		if is, err := stacktest.Allows(policy, stacktest.Request{Principal: stacktest.Principal{}, Action: c.action, Resource: c.resource, Context: map[string]string{"aws:ResourceAccount": "999999999999"}}); err != nil || is != c.want {
			t.Errorf("%s: %s of %s: %t, want %t; %v", c.stack, c.action, c.resource, is, c.want, err)
		}
	}
}

// An object is encrypted under the set's key whatever is said of it when it is put there, or not put there; so no command that the docs tell to type
// says that S3's own key will do, as `aws cloudformation deploy --s3-bucket` does by itself.
func TestObjectsAreUnderTheSetsKeyOrNotThere(t *testing.T) {
	const how, key = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
	plane := read(t, planeText(t))
	targets, err := plane.Targets()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		if target.Type != "AWS::S3::Bucket" {
			continue
		}
		for what, c := range map[string]struct {
			headers map[string]string
			want    bool
		}{
			"nothing":                {nil, true},
			"the set's key":          {map[string]string{how: "aws:kms", key: plane.Resources["Key"].ARN}, true},
			"KMS and no key":         {map[string]string{how: "aws:kms"}, false},
			"another key":            {map[string]string{how: "aws:kms", key: "arn:aws:kms:eu-central-1:123456789012:key/other"}, false},
			"the key of S3 itself":   {map[string]string{how: "AES256"}, false},
			"two keys over another":  {map[string]string{how: "aws:kms:dsse", key: plane.Resources["Key"].ARN}, false},
			"the set's key, by S3's": {map[string]string{how: "AES256", key: plane.Resources["Key"].ARN}, false},
		} {
			context := map[string]string{"aws:SecureTransport": "true"}
			maps.Copy(context, c.headers)
			keeper := stacktest.Principal{ARN: place.Provisioner(), Account: place.Account}
			if target.ID == "Copies" {
				keeper = administrators
			}
			is, err := target.LetsIn(stacktest.Request{Principal: keeper, Action: "s3:PutObject", Resource: target.ARN + "/x", Context: context})
			if err != nil || is != c.want {
				t.Errorf("%s: an object of which was said %s is put there: %t, want %t; %v", target.ID, what, is, c.want, err)
			}
		}
	}
	docs, err := os.ReadFile("../../../../../../docs/aws.md")
	if err != nil || strings.Contains(string(docs), "--s3-bucket") {
		t.Error("docs/aws.md has somebody upload by a command that names S3's own key", err)
	}
}

// RDS gives the first user of a server another password each week, as its own role in the account, by a grant of who made the server: where there is a
// server the set's key isn't closed to that role, and gives it nothing besides, for it has no policy that would take it up.
func TestRDSRenewsItsFirstUserByItsGrant(t *testing.T) {
	rds := stacktest.Principal{ARN: "arn:aws:iam::" + place.Account + ":role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS", Account: place.Account}
	for name, server := range map[string]bool{"plane": true, "dedicated": true, "database": false} {
		s := read(t, rendered(t, id.NewTenant())[name])
		targets, err := s.Targets()
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			if target.Type != "AWS::KMS::Key" {
				continue
			}
			ask := stacktest.Request{Principal: rds, Action: "kms:GenerateDataKey", Resource: target.ARN, Context: map[string]string{
				"kms:ViaService": "secretsmanager." + place.Region + ".amazonaws.com", "kms:EncryptionContext:SecretARN": "arn:aws:secretsmanager:" + place.Region + ":" + place.Account + ":secret:rds!db-1-AbCdEf"}}
			if is, err := target.LetsIn(ask); err != nil || is {
				t.Errorf("%s: its key's policy allows RDS something: %v", name, err)
			}
			if is, err := target.ClosedTo(ask); err != nil || is == server {
				t.Errorf("%s: its key is closed to RDS: %t; %v", name, is, err)
			}
		}
	}
}

// Once the last account of its own was taken off the plane, what the plane's stack exports for it goes after the plane's own set stopped naming it, as
// CloudFormation lets it go.
func TestTheLastAccountIsTakenOffInTwoSteps(t *testing.T) {
	exported := func(in stack.Input) (exports []string, offered bool) {
		made, err := stack.Plane(in)
		template := parsed(t, text(t, made, err))
		for _, o := range template.Outputs {
			if o.Export != nil {
				exports = append(exports, o.Export.Name)
			}
		}
		_, offered = template.Outputs[stack.RegistryServiceOutput]
		return exports, offered
	}
	named := func(in stack.Input) string {
		made, err := stack.Control(in)
		return string(text(t, made, err))
	}
	const name = "a3-dev-RegistryTargets"
	in := input(t, planeSet(t))
	for step, c := range []struct {
		accounts         []string
		unoffered        bool
		exports, offered bool
	}{{[]string{ownAccount}, false, true, true}, {nil, true, true, false}, {nil, false, false, false}} {
		in.Accounts, in.Unoffered = c.accounts, c.unoffered
		exports, offered := exported(in)
		if slices.Contains(exports, name) != c.exports || offered != c.offered {
			t.Errorf("step %d exports %t and offers %t", step, slices.Contains(exports, name), offered)
		}
		if in.Joined = offered; strings.Contains(named(in), name) != c.offered {
			t.Errorf("step %d: the plane's set names it: %t", step, !c.offered)
		}
	}
}

// CloudFormation reads, in the caller's name, all that it compares with a template: what the schema of each type says that reading takes.
// https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
func TestProvisionerReadsWhatDriftIsLookedForIn(t *testing.T) {
	tenant := id.NewTenant().String()
	provisioner := roleOf(t, read(t, planeText(t)), "provisioner")
	reads := map[string][]string{
		"s3": {"GetAccelerateConfiguration", "GetAnalyticsConfiguration", "GetBucketCORS", "GetBucketLogging", "GetBucketNotification", "GetBucketVersioning", "GetBucketWebsite", "GetBucketObjectLockConfiguration",
			"GetIntelligentTieringConfiguration", "GetInventoryConfiguration", "GetMetricsConfiguration", "GetReplicationConfiguration", "GetEncryptionConfiguration", "GetBucketPublicAccessBlock", "GetBucketOwnershipControls",
			"GetLifecycleConfiguration", "GetBucketTagging", "GetBucketPolicy"},
		"cloudwatch": {"ListTagsForResource"}, "logs": {"GetDataProtectionPolicy", "DescribeIndexPolicies", "ListTagsForResource"}, "servicediscovery": {"ListTagsForResource"},
		"kms": {"DescribeKey", "GetKeyPolicy", "GetKeyRotationStatus", "ListResourceTags"}, "sqs": {"GetQueueAttributes", "ListQueueTags"}, "iam": {"GetRole", "GetRolePolicy", "ListRolePolicies", "ListAttachedRolePolicies"},
	}
	resources := map[string]string{"s3": "arn:aws:s3:::a3-dev-" + strings.ReplaceAll(tenant, "_", "-") + "-objects-" + place.Account, "iam": "arn:aws:iam::" + place.Account + ":role/tenant/" + tenant + "/x"}
	for service, name := range map[string]string{"cloudwatch": "alarm:" + tenant + "-x", "logs": "log-group:/a3/tenant/" + tenant + "/iam", "servicediscovery": "namespace/ns-1", "kms": "key/1", "sqs": tenant + "-queue"} {
		resources[service] = fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, place.Region, place.Account, name)
	}
	for service, actions := range reads {
		for _, action := range actions {
			r := stacktest.Request{Principal: provisioner.Principal(at), Action: service + ":" + action, Resource: resources[service], ResourceTags: map[string]string{"tenant": tenant}}
			if is, err := stacktest.Allows(provisioner.Statements, r); err != nil || !is {
				t.Errorf("the provisioner can't %s: %v", r.Action, err)
			}
		}
	}
}

// The walk from an empty account names each parameter of the plane's stack in its update, for CloudFormation gives one that isn't named its default: a machine that was the
// provisioner would be it no more. And each variable that a plane at AWS is brought up with here stands in the table of them.
func TestTheWalkNamesParametersAndVariables(t *testing.T) {
	text, err := os.ReadFile("../../../../../../docs/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(text)
	_, update, _ := strings.Cut(docs, "aws cloudformation update-stack")
	update, _, found := strings.Cut(update, "\n       aws ")
	if !found {
		t.Fatal("docs/aws.md updates no stack")
	}
	for name := range parameters(t, planeText(t)) {
		if !strings.Contains(update, "ParameterKey="+name+",") {
			t.Errorf("the walk doesn't name %s, which CloudFormation then gives its default: %s", name, update)
		}
	}
	story, err := os.ReadFile("../story_test.go")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(docs, "\n## ")
	variables := regexp.MustCompile(`"(A3_[A-Z_]+)=`).FindAllStringSubmatch(string(story), -1)
	for _, v := range variables {
		if !strings.Contains(table, "`"+v[1]+"`") {
			t.Errorf("docs/aws.md says nothing of %s, by which a plane is brought up", v[1])
		}
	}
	if len(variables) < 6 {
		t.Errorf("only %d variables were looked for", len(variables))
	}
}
