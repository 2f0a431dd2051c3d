package stack_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"a3os.app/deploy/aws"
	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// roleOf is a component's task role, or the one that ECS starts it with.
func roleOf(t *testing.T, s *stacktest.Stack, suffix string) stacktest.Role {
	t.Helper()
	roles, err := s.Roles()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles {
		if name, _ := r.Properties["RoleName"].(string); strings.HasSuffix(name, "-"+suffix) {
			return r
		}
	}
	t.Fatalf("there is no role …-%s", suffix)
	return stacktest.Role{}
}

func actions(r stacktest.Role) []string {
	all := map[string]bool{}
	for _, st := range r.Statements {
		for _, a := range st.Action {
			all[a] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// What is written down beside the blueprints is what templates allow, no more and no less, for every component and no other.
func TestRolesMayWhatIsWrittenDownAndNoMore(t *testing.T) {
	written, err := aws.ReadPrivileges()
	if err != nil {
		t.Fatal(err)
	}
	set, plane := tenantSet(t, id.NewTenant(), dedicated), planeSet(t)
	texts := rendered(t, set.Tenant)
	for _, c := range []struct {
		blueprint *blueprint.Blueprint
		text      []byte
	}{{set.Blueprint, texts["dedicated"]}, {set.Blueprint, texts["database"]}, {plane.Blueprint, texts["plane"]}} {
		s, tasks := read(t, c.text), written.Tasks[c.blueprint.Name]
		if c.blueprint.Scope == blueprint.ScopeTenant {
			for keeper := range stack.Keepers {
				if got, want := actions(roleOf(t, s, string(keeper))), written.Keepers[string(keeper)]; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
					t.Errorf("the %s of stores may %q, written down is %q", keeper, got, want)
				}
			}
			if len(written.Keepers) != len(stack.Keepers) {
				t.Errorf("%d keepers are written down, and a stack has %d", len(written.Keepers), len(stack.Keepers))
			}
		}
		if len(tasks) != len(c.blueprint.Components) {
			t.Errorf("privileges of %d components of %s are written down, and it has %d", len(tasks), c.blueprint.Name, len(c.blueprint.Components))
		}
		for _, component := range c.blueprint.Components {
			want, is := tasks[component.Name]
			if got := actions(roleOf(t, s, component.Name+"-task")); !is || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("the task of %s may %q, written down is %q", component.Name, got, want)
			}
			if got := actions(roleOf(t, s, component.Name+"-start")); !slices.Equal(got, slices.Sorted(slices.Values(written.Start))) {
				t.Errorf("ECS may %q to start %s, written down is %q", got, component.Name, written.Start)
			}
		}
	}
}

// contexts are what a call of the set's own resources says, as AWS's services say it.
func contexts(s *stacktest.Stack, targets []stacktest.Target, tenant string) []map[string]string {
	out := []map[string]string{{"aws:SecureTransport": "true", "s3:prefix": tenant + "/exports", "secretsmanager:KmsKeyArn": s.Resources["Key"].ARN},
		{"aws:SecureTransport": "true", "kms:EncryptionContext:tenant": tenant}}
	for _, t := range targets {
		for kind, via := range map[string][2]string{"AWS::S3::Bucket": {"s3", "aws:s3:arn"}, "AWS::SecretsManager::Secret": {"secretsmanager", "SecretARN"}, "AWS::SQS::Queue": {"sqs", "aws:sqs:arn"}} {
			if t.Type == kind {
				out = append(out, map[string]string{"kms:ViaService": via[0] + "." + place.Region + ".amazonaws.com", "kms:EncryptionContext:" + via[1]: t.ARN})
			}
		}
	}
	return out
}

// Everything that is written down works on the set's own, through role, boundary and the resource's policy together: a wall that nothing gets
// through would prove nothing.
func TestEveryPrivilegeWorksOnTheSetsOwn(t *testing.T) {
	written, err := aws.ReadPrivileges()
	if err != nil {
		t.Fatal(err)
	}
	tenant := id.NewTenant()
	s, bound := read(t, rendered(t, tenant)["dedicated"]), boundary(t)
	targets, err := s.Targets()
	if err != nil {
		t.Fatal(err)
	}
	may := func(role stacktest.Role, action string) []string {
		var on []string
		for _, target := range targets {
			for _, name := range target.Names {
				for _, context := range contexts(s, targets, tenant.String()) {
					is, err := s.May(role, bound, target, stacktest.Request{Action: action, Resource: name, Context: context})
					if err != nil {
						t.Fatal(err)
					}
					if is && !slices.Contains(on, name) {
						on = append(on, name)
					}
				}
			}
		}
		return on
	}
	for component, list := range written.Tasks["accessos"] {
		for _, action := range list {
			if len(may(roleOf(t, s, component+"-task"), action)) == 0 {
				t.Errorf("%s can't %s on anything of its own set", component, action)
			}
		}
		// What ECS starts a component with reads that component's secret, and none of its siblings'.
		on := may(roleOf(t, s, component+"-start"), "secretsmanager:GetSecretValue")
		if want := "secret:tenant/" + tenant.String() + "/component/" + component + "-AbCdEf"; len(on) != 1 || !strings.HasSuffix(on[0], want) {
			t.Errorf("ECS reads %q to start %s, want %s alone", on, component, want)
		}
	}
	// The key wraps for the tenant by name, and for no other name.
	for _, target := range targets {
		if target.Type != "AWS::KMS::Key" {
			continue
		}
		for name, want := range map[string]bool{tenant.String(): true, id.NewTenant().String(): false, "": false} {
			is, err := s.May(roleOf(t, s, "iam-task"), bound, target, stacktest.Request{Action: "kms:Encrypt", Resource: target.Names[0], Context: map[string]string{"kms:EncryptionContext:tenant": name}})
			if err != nil || is != want {
				t.Errorf("iam wraps for %q: %t, %v", name, is, err)
			}
		}
	}
	// Who writes a credential can't read it, and reads the mark of the store alone.
	if on := may(roleOf(t, s, "integrations-task"), "secretsmanager:GetSecretValue"); len(on) != 1 || !strings.HasSuffix(on[0], "/store/secrets/MARK-AbCdEf") {
		t.Errorf("integrations reads %q", on)
	}
}

// Of what lies in a tenant's stores the custodian writes marks alone, who backs up reads all of it and writes nothing, and who restores writes
// all of it and reads the marks alone; the provisioner, who becomes each of them, reads and writes none of it.
func TestKeepersOfStoresDoEachItsOwn(t *testing.T) {
	tenant := id.NewTenant()
	s, plane, bound := read(t, rendered(t, tenant)["dedicated"]), read(t, rendered(t, tenant)["plane"]), boundary(t)
	targets, err := s.Targets()
	if err != nil {
		t.Fatal(err)
	}
	provisioner := roleOf(t, plane, "provisioner")
	tried := 0
	may := func(role stacktest.Role, bound []stacktest.Statement, target stacktest.Target, action, name string) bool {
		for _, context := range contexts(s, targets, tenant.String()) {
			tried++
			is, err := s.May(role, bound, target, stacktest.Request{Action: action, Resource: name, Context: context})
			if err != nil {
				t.Fatal(err)
			}
			if is {
				return true
			}
		}
		return false
	}
	for _, target := range targets {
		for _, name := range target.Names {
			mark := strings.HasSuffix(name, "/MARK") || strings.HasSuffix(name, "/MARK-AbCdEf")
			object := target.Type == "AWS::S3::Bucket" && strings.Contains(name, "/"+tenant.String()+"/")
			credential := strings.Contains(name, ":secret:") && strings.Contains(name, "/store/")
			queue := target.Type == "AWS::SQS::Queue" && strings.HasSuffix(name, "-queue")
			for keeper, want := range map[stack.Keeper]struct{ reads, writes, deletes, purges bool }{
				stack.Custodian: {reads: mark, writes: mark}, stack.Backup: {reads: true}, stack.Restore: {reads: mark, writes: true, deletes: true, purges: true},
			} {
				role := roleOf(t, s, string(keeper))
				for action, want := range map[string]bool{
					"s3:GetObject": object && want.reads, "s3:PutObject": object && want.writes, "s3:DeleteObject": object && want.deletes,
					"secretsmanager:GetSecretValue": credential && want.reads, "secretsmanager:PutSecretValue": credential && want.writes, "secretsmanager:DeleteSecret": credential && want.deletes,
					"sqs:PurgeQueue": queue && want.purges, "sqs:ReceiveMessage": false, "sqs:SendMessage": false,
				} {
					if got := may(role, bound, target, action, name); got != want {
						t.Errorf("the %s may %s on %s: %t, want %t", keeper, action, name, got, want)
					}
				}
			}
			for _, action := range []string{"s3:GetObject", "s3:PutObject", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"} {
				if (object || credential) && may(provisioner, provisioner.Statements, target, action, name) {
					t.Errorf("the provisioner itself may %s on %s", action, name)
				}
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d calls were tried", tried)
	}
}

// Only what calls a tenant's systems has a way out to the internet.
func TestOnlyOutsideGoesOutside(t *testing.T) {
	set := tenantSet(t, id.NewTenant(), dedicated)
	s := read(t, rendered(t, set.Tenant)["dedicated"])
	for id, r := range s.Resources {
		if r.Type != "AWS::EC2::SecurityGroup" && r.Type != "AWS::EC2::SecurityGroupEgress" {
			continue
		}
		rules, _ := r.Properties["SecurityGroupEgress"].([]any)
		for _, rule := range append(rules, r.Properties) {
			m, _ := rule.(map[string]any)
			if m["CidrIp"] == "0.0.0.0/0" && id != "DiscoveryWorkerNetwork" {
				t.Errorf("%s reaches the internet", id)
			}
		}
	}
	for _, c := range set.Blueprint.Components {
		if c.Needs.Outside != (c.Name == "discovery-worker") {
			t.Errorf("%s goes outside, or not: teach this test", c.Name)
		}
	}
}
