package aws_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	rdstypes "github.com/aws/aws-sdk-go-v2/service/rds/types"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// Row F33, of a tenant with a server of its own, which where fleet is killed as a program the emulator has none of (killed_tenant_story_test.go): fleet is
// cut off once it had RDS delete the server, which takes RDS minutes. Who comes next deletes it no second time, waits for it, and leaves no copy of it.
func TestServerThatIsBeingDeletedIsWaitedForByWhoComesNext(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	ctx, name := t.Context(), sdk.String(awstest.Place.Server(s.Tenant.String()))
	if _, err := rds.NewFromConfig(server.Root()).CreateDBSnapshot(ctx, &rds.CreateDBSnapshotInput{DBInstanceIdentifier: name, DBSnapshotIdentifier: sdk.String("before-the-move"),
		Tags: []rdstypes.Tag{{Key: sdk.String("tenant"), Value: sdk.String(s.Tenant.String())}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := anew(p).Shred(ctx, s); err != nil {
		t.Fatal(err)
	}
	bound, cut := context.WithCancel(ctx)
	defer cut()
	// asks are those that the server be deleted; looks are those after that which are answered that it still is, before it is gone.
	asks, looks := 0, 2
	going := server.Behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch {
		case err != nil:
			return false
		case bytes.Contains(body, []byte("Action=DeleteDBInstance&")):
			asks++
			return false
		case asks == 0 || !bytes.Contains(body, []byte("Action=DescribeDBInstances&")) || looks == 0:
			return false
		}
		if bound.Err() == nil {
			cut()
		} else {
			looks--
		}
		// As RDS answers for minutes; the emulator has none left at once.
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, `<DescribeDBInstancesResponse><DescribeDBInstancesResult><DBInstances><DBInstance><DBInstanceIdentifier>`+*name+
			`</DBInstanceIdentifier><DBInstanceStatus>deleting</DBInstanceStatus></DBInstance></DBInstances></DescribeDBInstancesResult></DescribeDBInstancesResponse>`)
		return true
	})
	t.Setenv("AWS_ENDPOINT_URL", going.URL)
	if _, err := anew(p).Delete(bound, s); err == nil || bound.Err() == nil {
		t.Fatalf("it was to be cut off while the server is deleted, and ended with %v", err)
	}
	if changed, err := anew(p).Delete(ctx, s); err != nil || !changed {
		t.Fatalf("taken up: %t, %v", changed, err)
	}
	if asks != 1 || looks != 0 {
		t.Errorf("the server was to be deleted %d times, and %d looks at it were left", asks, looks)
	}
	if left := anew(p).LeftServer(t, s); len(left) > 0 {
		t.Errorf("there is still: %q", left)
	}
	t.Attr("row", "F33 1")
}
