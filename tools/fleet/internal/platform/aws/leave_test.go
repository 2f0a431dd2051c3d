package aws_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	rdstypes "github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/awslabs/goformation/v7/cloudformation/sns"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

// A tenant with a server of its own leaves, by a fleet that is cut off once the stack is gone and goes on as another process. The server is deleted before
// its stack, though it was protected, and no copy of it stays: neither the one that the stack asks for, nor one that somebody had made.
func TestTenantWithAServerOfItsOwnLeavesTheServerToo(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	ctx, tenant := t.Context(), s.Tenant.String()
	name := sdk.String(awstest.Place.Server(tenant))
	p = anew(p)
	servers := rds.NewFromConfig(server.Root())
	if _, err := servers.CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBInstanceIdentifier: name, DBSnapshotIdentifier: sdk.String("before-the-move"),
		Tags: []rdstypes.Tag{{Key: sdk.String("tenant"), Value: &tenant}}}); err != nil { // which RDS copies from the server
		t.Fatal(err)
	}
	secret := sdk.String(awstest.Place.SecretPath(tenant) + "store/secrets/wsp_1/int_1")
	if _, err := secretsmanager.NewFromConfig(server.Root()).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: secret, SecretString: sdk.String("x")}); err != nil {
		t.Fatal(err)
	}
	if left := p.LeftServer(t, s); len(left) != 3 || left[0] != "database server "+*name || left[1] != "snapshot before-the-move of its database server" {
		t.Errorf("before it leaves there is %q", left)
	}

	if changed, err := p.Shred(ctx, s); err != nil || !changed {
		t.Fatal(changed, err)
	}
	// By then RDS may have lost the key, and changes nothing of the server any more.
	lostKey := server.Behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err != nil || r.Method != http.MethodDelete && !bytes.Contains(body, []byte("Action=ModifyDBInstance")) {
			return false
		}
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidState</Code><Message>not now</Message></Error></ErrorResponse>`)
		return true
	})
	t.Setenv("AWS_ENDPOINT_URL", lostKey.URL)
	if _, err := anew(p).Delete(ctx, s); err == nil || !strings.Contains(err.Error(), "delete bucket") {
		t.Fatalf("while no bucket can be deleted it ends with %v", err)
	}
	if _, err := cloudformation.NewFromConfig(server.Root()).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: sdk.String(awstest.Place.StackOf(tenant))}); err == nil {
		t.Error("its stack is there")
	}
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	again := anew(p)
	if changed, err := again.Delete(ctx, s); err != nil || !changed {
		t.Fatalf("taken up once the stack is gone: %t, %v", changed, err)
	}
	if left := again.LeftServer(t, s); len(left) > 0 {
		t.Errorf("there is still: %q", left)
	}
	if _, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).HeadBucket(ctx, &s3.HeadBucketInput{Bucket: sdk.String(awstest.Place.Bucket(tenant, "objects"))}); err == nil {
		t.Error("its bucket is there")
	}
	if _, err := secretsmanager.NewFromConfig(server.Root()).DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: secret}); err == nil {
		t.Error("a secret of its store is there")
	}
	if changed, err := again.Delete(ctx, s); changed || err != nil {
		t.Errorf("there is something to delete of who left: %t, %v", changed, err)
	}
}

// anew is the platform as another process opens it.
func anew(p *aws.Platform) *aws.Platform {
	out := &aws.Platform{Settings: p.Settings, State: p.State, Own: p.Own, Tenants: p.Tenants}
	out.Machine = &local.Platform{Settings: p.Settings, State: p.State, Own: p.Own, Places: out, Now: time.Now}
	return out
}

// Backups that somebody has RDS keep of a deleted server are named, with what takes them away.
func TestBackupsOfADeletedServerAreNamed(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	name := sdk.String(awstest.Place.Server(s.Tenant.String()))
	client := rds.NewFromConfig(server.Root())
	if _, err := client.ModifyDBInstance(t.Context(), &rds.ModifyDBInstanceInput{DBInstanceIdentifier: name, DeletionProtection: sdk.Bool(false), ApplyImmediately: sdk.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteDBInstance(t.Context(), &rds.DeleteDBInstanceInput{DBInstanceIdentifier: name, SkipFinalSnapshot: sdk.Bool(true), DeleteAutomatedBackups: sdk.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if left := p.LeftServer(t, s); len(left) != 1 || !strings.Contains(left[0], "aws rds delete-db-instance-automated-backup --dbi-resource-id db-") {
		t.Errorf("there is left: %q", left)
	}
}

// A tenant whose stack can't be changed is suspended all the same: nothing of it runs, and what its roles were handed is denied. That is no success, for
// its stack says otherwise, and it is said what helps.
func TestTenantWhoseStackIsStuckIsStoppedWithoutIt(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	ctx, tenant := t.Context(), s.Tenant.String()
	if err := p.State.SetRuns(s.Name(), awstest.Release(t).String(), s.Blueprint.Digest); err != nil {
		t.Fatal(err)
	}
	stuck := &awstest.Stuck{Stack: awstest.Place.StackOf(tenant)}
	t.Setenv("AWS_ENDPOINT_URL", server.Behind(t, stuck.Answers).URL)
	p.Settings.Home = t.TempDir()
	p = anew(p)
	for _, of := range []platform.Set{p.Own, s} {
		if _, err := p.Machine.Identity(ctx, of); err != nil { // of its keys the stack is told the public halves
			t.Fatal(err)
		}
	}
	if change, err := p.Foresee(ctx, s, awstest.Release(t), false); change != nil || err != nil {
		t.Errorf("that it stops is foreseen as %v, %v", change, err)
	}
	if _, err := p.Foresee(ctx, s, awstest.Release(t), true); !errors.Is(err, changeset.ErrStuck) {
		t.Errorf("that it runs is foreseen: %v", err)
	}
	if _, err := p.Stop(ctx, s); !errors.Is(err, changeset.ErrStuck) || !strings.Contains(err.Error(), "nothing of "+tenant+" runs any more") {
		t.Errorf("it is stopped: %v", err)
	}
	if names := running(t, server, tenant); len(names) > 0 {
		t.Errorf("there run %q", names)
	}
	policy := &iam.GetRolePolicyInput{RoleName: sdk.String(awstest.Place.TaskRole(tenant, "iam")), PolicyName: sdk.String("AWSRevokeOlderSessions")}
	if _, err := iam.NewFromConfig(server.Root()).GetRolePolicy(ctx, policy); err != nil {
		t.Errorf("what its roles were handed is not denied: %v", err)
	}
}

// running are the services of a tenant that are to run a task, of two.
func running(t *testing.T, server *ministacktest.Server, tenant string) (names []string) {
	t.Helper()
	got, err := ecs.NewFromConfig(server.Root()).DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: sdk.String(awstest.Place.Cluster()), Services: []string{awstest.Place.Service(tenant, "iam"), awstest.Place.Service(tenant, "audit")}})
	if err != nil || len(got.Services) != 2 {
		t.Fatal(got, err)
	}
	for _, one := range got.Services {
		if one.DesiredCount > 0 {
			names = append(names, *one.ServiceName)
		}
	}
	return names
}

// A tenant whose stack would lose data by the change that has it run nothing is suspended all the same, planned or not, and nothing is lost. Where the
// key's policy alone is another than it was, which CloudFormation calls a replacement of the server by chance, nothing is denied.
func TestTenantWhoseStackWouldLoseDataIsStoppedWithoutIt(t *testing.T) {
	for _, planned := range []bool{false, true} {
		server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
		ctx, tenant := t.Context(), s.Tenant.String()
		if err := p.State.SetRuns(s.Name(), awstest.Release(t).String(), s.Blueprint.Digest); err != nil {
			t.Fatal(err)
		}
		described := &awstest.Planned{Stack: awstest.Place.StackOf(tenant), Changes: awstest.KeyAndServer(false)}
		t.Setenv("AWS_ENDPOINT_URL", server.Behind(t, described.Answers).URL)
		p.Settings.Home = t.TempDir()
		p = anew(p)
		for _, of := range []platform.Set{p.Own, s} {
			if _, err := p.Machine.Identity(ctx, of); err != nil {
				t.Fatal(err)
			}
		}
		change, err := p.Foresee(ctx, s, awstest.Release(t), false)
		if err != nil || len(change.GetDenied()) > 0 {
			t.Fatalf("with another policy of its key it is foreseen: %v, %v", change, err)
		}
		described.Changes = awstest.KeyAndServer(true)
		if change, err = p.Foresee(ctx, s, awstest.Release(t), false); err != nil || len(change.GetDenied()) != 2 {
			t.Fatalf("with another key it is foreseen: %v, %v", change, err)
		}
		if planned {
			s.Planned = change
		}
		if len(running(t, server, tenant)) == 0 {
			t.Fatal("nothing runs: this shows nothing")
		}
		if _, err := p.Stop(ctx, s); !errors.Is(err, changeset.ErrLoses) || !strings.Contains(err.Error(), "nothing of "+tenant+" runs any more") {
			t.Errorf("planned %t, it is stopped: %v", planned, err)
		}
		if names := running(t, server, tenant); len(names) > 0 {
			t.Errorf("planned %t, there run %q", planned, names)
		}
	}
}

// What a tenant's stack was made by goes with it, each version of each template, and is looked for until then; another tenant's stays.
func TestTemplatesOfWhoLeftGo(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	ctx, bucket := t.Context(), sdk.String(awstest.Place.Templates())
	client := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true })
	// A name that begins as its own does is another's.
	own, others := awstest.Place.StackOf(s.Tenant.String()), awstest.Place.StackOf(s.Tenant.String())+"x"
	for _, key := range []string{own + "/1.json", own + "/1.json", own + "/2.json", others + "/1.json"} {
		if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader(key)}); err != nil {
			t.Fatal(err)
		}
	}
	if left := p.LeftTemplates(t, s); len(left) == 0 || !strings.Contains(left[0], own) {
		t.Errorf("before it leaves there is %q", left)
	}
	if changed, err := p.DeleteTemplates(t, s); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if left := p.LeftTemplates(t, s); len(left) > 0 {
		t.Errorf("there is still %q", left)
	}
	if changed, err := p.DeleteTemplates(t, s); err != nil || changed {
		t.Errorf("there is something to delete: %t, %v", changed, err)
	}
	versions, err := client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: &own})
	if err != nil || len(versions.Versions) != 1 || *versions.Versions[0].Key != others+"/1.json" || len(versions.DeleteMarkers) > 0 {
		t.Errorf("of others there is %v, %v", versions, err)
	}
}

// The plane's own set is not brought up under another domain than its stack has the certificate of.
func TestPlaneIsNotBroughtUpUnderAnotherDomain(t *testing.T) {
	server, p, _ := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	planes, err := stack.Plane(stack.Input{Place: awstest.Place, Set: p.Own, First: true})
	if err != nil {
		t.Fatal(err)
	}
	planes.Resources["Changed"] = &sns.Topic{} // to the emulator a change of outputs alone is none
	planes.Outputs["DatabaseHost"], planes.Outputs[stack.DomainOutput] = stack.Output{Value: "db.example"}, stack.Output{Value: awstest.Place.Domain}
	awstest.Change(t, d, awstest.Place.PlaneStack(), awstest.Emulated(t, planes, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + awstest.Place.Account + ":role/administrator"})
	p.Settings.Domain, p.Settings.Home = "other.example", t.TempDir()
	p = anew(p)
	if _, err := p.Identity(t.Context(), p.Own); err == nil || !strings.Contains(err.Error(), "A3_DOMAIN is other.example") {
		t.Errorf("it is brought up: %v", err)
	}
}

// The key of a tenant whose stack somebody deleted by hand goes as well, though no stack names it any more, and so does that of a stack that was there before;
// another tenant's stays, and what is left of one is named.
func TestKeyOutlivesNoTenantWhoseStackWasDeletedByHand(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	p = anew(p)
	ctx, stacks, keys := t.Context(), cloudformation.NewFromConfig(server.Root()), kms.NewFromConfig(server.Root())
	name := sdk.String(awstest.Place.StackOf(s.Tenant.String()))
	key := func(tenant string) string {
		out, err := keys.CreateKey(ctx, &kms.CreateKeyInput{Tags: []kmstypes.Tag{{TagKey: sdk.String("plane"), TagValue: sdk.String("dev")}, {TagKey: sdk.String("tenant"), TagValue: &tenant}}})
		if err != nil {
			t.Fatal(err)
		}
		return *out.KeyMetadata.Arn
	}
	others, before := key(id.NewTenant().String()), key(s.Tenant.String())
	is, err := stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: name})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(is.Stacks[0].Outputs, func(o cftypes.Output) bool { return *o.OutputKey == stack.KeyOutput })
	own := *is.Stacks[0].Outputs[at].OutputValue
	if _, err := stacks.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: name, EnableTerminationProtection: sdk.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := stacks.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: name}); err != nil {
		t.Fatal(err)
	}
	state := func(key string) kmstypes.KeyState {
		out, err := keys.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
		if err != nil {
			t.Fatal(err)
		}
		return out.KeyMetadata.KeyState
	}
	if state(own) != kmstypes.KeyStateEnabled {
		t.Fatalf("its key is %s with the stack: this shows nothing", state(own))
	}
	left := p.LeftKeys(t, s)
	for _, one := range []string{own, before} {
		if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "key "+one+", which is Enabled") }) {
			t.Errorf("key %s is not among what is left: %q", one, left)
		}
	}
	if changed, err := p.Shred(ctx, s); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if state(own) != kmstypes.KeyStatePendingDeletion || state(before) != kmstypes.KeyStatePendingDeletion || state(others) != kmstypes.KeyStateEnabled {
		t.Errorf("its key is %s, that of before %s, and another's %s", state(own), state(before), state(others))
	}
	if left := p.LeftKeys(t, s); len(left) > 0 {
		t.Errorf("there is still %q", left)
	}
	if changed, err := p.Shred(ctx, s); err != nil || changed {
		t.Errorf("once more: %t, %v", changed, err)
	}
}
