package session_test

import (
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// An account of a tenant's own is made from its template; the plane's provisioner becomes that account's for this tenant, and for no other, and
// nobody else does. What it plans there is planned in that account.
func TestPlanesProvisionerTakesAnAccountForItsTenantAlone(t *testing.T) {
	server, _ := awstest.Account(t)
	const account = "210987654321"
	tenant := id.NewTenant()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	place := awstest.Place
	place.Account, place.Hub = account, awstest.Place.Account
	in := stack.Input{Place: place, Release: awstest.Release(t), Image: awstest.Digest,
		Set: platform.Set{Blueprint: b, Tenant: tenant, Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED}}
	made, err := stack.Account(in)
	if err != nil {
		t.Fatal(err)
	}
	// The emulator takes an account's number for its root, as which alone the test prepares it.
	root := server.Root()
	root.Credentials = credentials.NewStaticCredentialsProvider(account, "root", "")
	where := platform.Where{Account: account, Region: place.Region}
	d, err := changeset.Open(t.Context(), root, where, "")
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, place.PlaneStack(), awstest.Emulated(t, made, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + account + ":role/administrator", "S3PrefixList": "pl-1",
		"RegistryService": "com.amazonaws.vpce." + place.Region + ".vpce-svc-1", "ZoneA": "euc1-az1", "ZoneB": "euc1-az2"})

	provisioner := awstest.Provisioner(t, server)
	theirs, err := session.InAccount(t.Context(), provisioner, place, tenant.String())
	if err != nil {
		t.Fatal(err)
	}
	lastsAnHour(t, theirs)
	who, err := sts.NewFromConfig(theirs).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || sdk.ToString(who.Account) != account || !strings.Contains(sdk.ToString(who.Arn), "a3-dev-provisioner/"+tenant.String()) {
		t.Fatalf("it is %v: %v", who, err)
	}
	if d, err = changeset.Open(t.Context(), theirs, where, place.Templates()); err != nil {
		t.Fatal(err)
	}
	if _, err := changeset.Open(t.Context(), theirs, awstest.Where, ""); err == nil {
		t.Error("what is planned for the plane's account is carried out in the tenant's")
	}
	if made, err = stack.Tenant(in); err != nil {
		t.Fatal(err)
	}
	p, err := d.Make(t.Context(), place.StackOf(tenant.String()), awstest.Emulated(t, made, false), awstest.Parameters)
	if err != nil || len(p.Changes) < 40 || !strings.Contains(p.ID, ":"+account+":") {
		t.Errorf("it plans %+v: %v", p, err)
	}

	everything := ministacktest.Statement{Effect: "Allow", Action: []string{"sts:AssumeRole"}, Resource: []string{"*"}}
	for name, c := range map[string]struct {
		cfg    sdk.Config
		place  stack.Place
		tenant string
	}{
		"for another tenant":          {provisioner, place, id.NewTenant().String()},
		"another role of the plane's": {server.Role(t, "stranger", everything), place, tenant.String()},
		"in the plane's own account":  {provisioner, awstest.Place, tenant.String()},
	} {
		if _, err := session.InAccount(t.Context(), c.cfg, c.place, c.tenant); err == nil {
			t.Errorf("%s: it becomes the provisioner", name)
		}
	}
}
