package stack_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// Of what lasts of the plane's own set the provisioner says what components are given, and passes their roles to tasks; all else that its stack
// holds is administrators' to make and to change.
func TestProvisionerChangesNothingThatLastsOfThePlane(t *testing.T) {
	plane := read(t, planeText(t))
	provisioner := roleOf(t, plane, "provisioner")
	targets, err := plane.Targets()
	if err != nil {
		t.Fatal(err)
	}
	via := map[string]string{"aws:SecureTransport": "true", "iam:PassedToService": "ecs-tasks.amazonaws.com"}
	var given, passed []string
	tried := 0
	for _, target := range targets {
		for _, action := range []string{
			"secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:PutResourcePolicy", "secretsmanager:UpdateSecret", "iam:PassRole", "iam:PutRolePolicy", "iam:AttachRolePolicy",
			"iam:UpdateAssumeRolePolicy", "iam:DeleteRole", "logs:DeleteLogGroup", "logs:PutRetentionPolicy", "s3:DeleteBucket", "s3:PutBucketPolicy", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey",
			"rds:ModifyDBInstance", "rds:DeleteDBInstance",
		} {
			tried++
			is, err := plane.May(provisioner, provisioner.Statements, target, stacktest.Request{Action: action, Resource: target.Names[0], Context: via})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case !is:
			case action == "secretsmanager:PutSecretValue":
				given = append(given, target.ID)
			case action == "iam:PassRole":
				passed = append(passed, target.ID)
			default:
				t.Errorf("the provisioner may %s on %s of the plane's stack", action, target.ID)
			}
		}
	}
	slices.Sort(given)
	slices.Sort(passed)
	if want := []string{"GatewaySecret", "MigrateSecret", "RegistrySecret"}; !slices.Equal(given, want) {
		t.Errorf("the provisioner writes %q, want %q", given, want)
	}
	if want := []string{"GatewayStartRole", "GatewayTaskRole", "MigrateStartRole", "RegistryStartRole", "RegistryTaskRole"}; !slices.Equal(passed, want) {
		t.Errorf("the provisioner passes %q to tasks, want %q", passed, want)
	}
	if tried < 100 {
		t.Errorf("only %d calls were tried", tried)
	}
}

// In the session for the plane's own set the provisioner does all that CloudFormation asks for to change its services, and nothing of that to a tenant's.
func TestPlanesSessionChangesItsServicesAndNoTenants(t *testing.T) {
	plane := read(t, planeText(t))
	provisioner := roleOf(t, plane, "provisioner")
	text, err := stack.PlaneSession(place)
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
	ecs, roles := "arn:aws:ecs:"+place.Region+":"+place.Account+":", "arn:aws:iam::"+place.Account+":role/"
	for own, want := range map[bool]bool{true: true, false: false} {
		path, name := "plane/dev/plane-dev-registry", "plane-dev-registry"
		if !own {
			path, name = "tenant/tnt_a/tnt_a-iam", "tnt_a-iam"
		}
		for action, resource := range map[string]string{
			"ecs:CreateService": ecs + "service/a3-dev/" + name, "ecs:UpdateService": ecs + "service/a3-dev/" + name, "ecs:ListServiceDeployments": ecs + "service/a3-dev/" + name,
			"ecs:DescribeServiceDeployments": ecs + "service-deployment/a3-dev/" + name + "/1", "ecs:StopServiceDeployment": ecs + "service-deployment/a3-dev/" + name + "/1",
			"iam:GetRole": roles + path + "-task", "iam:PassRole": roles + path + "-task",
		} {
			is, err := plane.May(provisioner, session, stacktest.Target{}, stacktest.Request{Action: action, Resource: resource, Context: map[string]string{"iam:PassedToService": "ecs-tasks.amazonaws.com"}})
			if err != nil || is != want {
				t.Errorf("it may %s on %s: %t, want %t; %v", action, resource, is, want, err)
			}
		}
	}
}

// What a release changes is tasks and what keeps them: a stack that held more would need a provisioner who may more.
func TestReleaseOfThePlaneChangesTasksAlone(t *testing.T) {
	var control struct {
		Resources map[string]struct{ Type string }
	}
	if err := json.Unmarshal(rendered(t, id.NewTenant())["control"], &control); err != nil {
		t.Fatal(err)
	}
	for name, r := range control.Resources {
		if r.Type != "AWS::ECS::TaskDefinition" && r.Type != "AWS::ECS::Service" {
			t.Errorf("%s is a %s", name, r.Type)
		}
	}
	if len(control.Resources) != 5 {
		t.Errorf("it holds %d resources", len(control.Resources))
	}
}

// What the stack of a release names of the plane's is there, and two planes of one account have nothing of one name.
func TestPlanesOfOneAccountMeetNowhere(t *testing.T) {
	names := map[string]map[string]bool{}
	for _, which := range []string{"dev", "prod"} {
		in := input(t, planeSet(t))
		in.Place.Plane = which
		made, err := stack.Plane(in)
		whole := text(t, made, err)
		made, err = stack.Control(in)
		control := text(t, made, err)
		names[which] = namesIn(t, whole, control)
		var told struct {
			Outputs map[string]struct{ Export *struct{ Name string } }
		}
		if err := json.Unmarshal(whole, &told); err != nil {
			t.Fatal(err)
		}
		exports := map[string]bool{}
		for _, o := range told.Outputs {
			if o.Export != nil {
				exports[o.Export.Name] = true
			}
		}
		for _, part := range strings.Split(string(control), `{"Fn::ImportValue":"`)[1:] {
			if name, _, _ := strings.Cut(part, `"`); !exports[name] {
				t.Errorf("the release's stack names %s, which the plane's does not export", name)
			}
		}
	}
	for name := range names["dev"] {
		if names["prod"][name] {
			t.Errorf("both have a %s", name)
		}
	}
	if len(names["dev"]) < 20 {
		t.Errorf("only %d names were compared", len(names["dev"]))
	}
}

// namesIn are the names that resources are given in the account.
func namesIn(t *testing.T, templates ...[]byte) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, text := range templates {
		var read struct {
			Resources map[string]struct {
				Type       string
				Properties map[string]any
			}
		}
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		for _, r := range read.Resources {
			for _, field := range []string{"RoleName", "ManagedPolicyName", "LogGroupName", "Family", "AlarmName", "BucketName", "ClusterName", "RepositoryName", "DBInstanceIdentifier", "DBParameterGroupName"} {
				// What a group of parameters is of a family of, everybody has.
				if name, is := r.Properties[field].(string); is && (field != "Family" || r.Type == "AWS::ECS::TaskDefinition") {
					out[r.Type+" "+name] = true
				}
			}
			if name, is := r.Properties["Name"].(string); is && r.Type != "AWS::ServiceDiscovery::Service" {
				out[r.Type+" "+name] = true // a service's name is within its namespace's
			}
		}
	}
	return out
}

// The gateway reads and replaces the one object that its next task goes on from; nothing else of the plane's does, and it does nothing else there.
func TestGatewayReachesItsCopyAlone(t *testing.T) {
	plane := read(t, planeText(t))
	targets, err := plane.Targets()
	if err != nil {
		t.Fatal(err)
	}
	var copies *stacktest.Target
	for i := range targets {
		if targets[i].ID == "Copies" {
			copies = &targets[i]
		}
	}
	if copies == nil {
		t.Fatal("there is no bucket for copies")
	}
	own := copies.ARN + "/gateway/snapshot"
	if told := "s3://" + strings.TrimPrefix(own, "arn:aws:s3:::"); !strings.Contains(string(rendered(t, id.NewTenant())["control"]), told) {
		t.Errorf("its task isn't told of %s", told)
	}
	via := map[string]string{"aws:SecureTransport": "true"}
	tried := 0
	for _, suffix := range []string{"gateway-task", "registry-task", "gateway-start", "registry-start", "provisioner", "break-glass"} {
		role := roleOf(t, plane, suffix)
		for _, name := range []string{own, copies.ARN, copies.ARN + "/gateway/snapshot2", copies.ARN + "/gateway/", copies.ARN + "/registry/snapshot"} {
			for _, action := range []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutObjectTagging"} {
				tried++
				want := suffix == "gateway-task" && name == own && (action == "s3:GetObject" || action == "s3:PutObject")
				is, err := plane.May(role, role.Statements, *copies, stacktest.Request{Action: action, Resource: name, Context: via})
				if err != nil || is != want {
					t.Errorf("%s may %s on %s: %t, want %t; %v", suffix, action, name, is, want, err)
				}
			}
		}
	}
	if tried != 6*5*7 {
		t.Errorf("%d calls were tried", tried)
	}
}

// On each plane the registry's role in the database has the same name, so its role of AWS names the server as well.
func TestRegistryLogsInAtTheServerOfItsPlaneAlone(t *testing.T) {
	plane := read(t, planeText(t))
	at := func(server, user string) string {
		return "arn:aws:rds-db:" + plane.Place.Region + ":" + plane.Place.Account + ":dbuser:" + server + "/" + user
	}
	const own = "Database.DbiResourceId"
	for _, suffix := range []string{"gateway-task", "registry-task", "gateway-start", "registry-start", "provisioner", "break-glass"} {
		role := roleOf(t, plane, suffix)
		for _, name := range []string{at(own, "registry"), at(own, "owner"), at(own, "a3"), at(own, "registry2"), at("db-ABCDEFGHIJKLMNOPQRSTUVWXYZ", "registry"), at("*", "registry")} {
			target := stacktest.Target{Resource: stacktest.Resource{ID: "login", Type: "AWS::RDS::DBUser", ARN: name}}
			want := suffix == "registry-task" && name == at(own, "registry")
			is, err := plane.May(role, role.Statements, target, stacktest.Request{Action: "rds-db:connect", Resource: name})
			if err != nil || is != want {
				t.Errorf("%s may log in at %s: %t, want %t; %v", suffix, name, is, want, err)
			}
		}
	}
}
