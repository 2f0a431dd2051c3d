package acceptance_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	data "a3os.app/deploy/aws"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/acceptance"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// options are those of an administrator of an emulated account. Of the boundary, which the emulator drops, it makes up nothing.
func options(t *testing.T, server *ministacktest.Server) (acceptance.Options, *bytes.Buffer) {
	t.Helper()
	prices, err := data.ParsePrices("prices.csv", strings.NewReader(data.PricesCSV))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	everything := ministacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}
	cfg := server.Role(t, "administrator", everything)
	return acceptance.Options{Config: cfg, Administrator: "arn:aws:iam::" + ministacktest.Account + ":role/administrator", PrefixList: "pl-1", Out: &out, In: strings.NewReader(""), Prices: prices,
		Emulated: func(text []byte) ([]byte, error) {
			out, err := stacktest.Emulated(text, false)
			// As large as it is at AWS, though there is less in it: it goes where that one goes.
			return append(out, bytes.Repeat([]byte(" "), max(0, len(text)-len(out)))...), err
		}}, &out
}

func stacks(t *testing.T, server *ministacktest.Server) []string {
	t.Helper()
	out, err := cloudformation.NewFromConfig(server.Root()).DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range out.Stacks {
		names = append(names, *s.StackName)
	}
	return names
}

// Nothing is made without the account's number, from a terminal or given beforehand, and what would be made and cost is said before.
func TestNothingIsMadeWithoutTheAccountsNumber(t *testing.T) {
	server := ministacktest.Start(t)
	o, out := options(t, server)
	for name, c := range map[string]struct {
		change func(*acceptance.Options)
		want   string
	}{
		"nobody to ask":               {func(*acceptance.Options) {}, "this is no terminal: consent beforehand with --yes " + ministacktest.Account},
		"an answer that is no number": {func(o *acceptance.Options) { o.Terminal, o.In = true, strings.NewReader("yes\n") }, "isn't the account's number"},
		"another account's number":    {func(o *acceptance.Options) { o.Terminal, o.In = true, strings.NewReader("210987654321\n") }, "isn't the account's number"},
		"no answer":                   {func(o *acceptance.Options) { o.Terminal = true }, "isn't the account's number"},
		"consent for another":         {func(o *acceptance.Options) { o.Yes = "210987654321" }, "--yes is for account 210987654321"},
		"consent that is a yes":       {func(o *acceptance.Options) { o.Yes = "true" }, "--yes is for account true"},
	} {
		out.Reset()
		now := o
		c.change(&now)
		err := acceptance.Run(t.Context(), now)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "nothing was made") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		for _, part := range []string{"Account " + ministacktest.Account + ", Region " + ministacktest.Region, "two NAT gateways", "at most", "USD"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: it doesn't say %q before", name, part)
			}
		}
		if made := stacks(t, server); len(made) > 0 {
			t.Fatalf("%s: %q were made", name, made)
		}
	}
}

// As far as an emulator carries it: everything is made, every point but the boundary's, which the emulator drops, is proven, and all is removed.
func TestWhatIsMadeIsProvenAndRemoved(t *testing.T) {
	server := ministacktest.Start(t)
	o, out := options(t, server)
	o.Yes = ministacktest.Account
	err := acceptance.Run(t.Context(), o)
	t.Log(out)
	if err == nil || !strings.Contains(err.Error(), "points are not proven") || strings.Contains(err.Error(), "left") {
		t.Errorf("it ends with %v", err)
	}
	for _, want := range []string{"proven  the plane's stack", "proven  an administrator", "proven  STS takes the policies", "proven  CloudFormation reads", "proven  the provisioner makes registry and gateway", "proven  the gateway's role writes the first copy", "FAILED  every role of a tenant is bounded", "removed: nothing is left"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it doesn't say %q", want)
		}
	}
	if left := stacks(t, server); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	buckets, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil || len(buckets.Buckets) > 0 {
		t.Errorf("buckets are left: %v, %v", buckets, err)
	}
	roles, rolesErr := iam.NewFromConfig(server.Root()).ListRoles(t.Context(), &iam.ListRolesInput{PathPrefix: sdk.String("/tenant/")})
	if err := errors.Join(rolesErr); err != nil || len(roles.Roles) > 0 {
		t.Errorf("roles are left: %v", err)
	}
}
