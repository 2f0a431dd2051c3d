package aws_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	rdstypes "github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
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
