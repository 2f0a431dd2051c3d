// Package awstest has an emulated account of AWS in which a plane's and tenants' stacks are deployed, as fleet deploys them, for tests.
package awstest

import (
	"encoding/json"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// Where and Place are the account.
var (
	Where = platform.Where{Account: ministacktest.Account, Region: ministacktest.Region}
	Place = stack.Place{Account: ministacktest.Account, Region: ministacktest.Region, Plane: "dev", Domain: "a3os.example"}
)

// Digest is of the release that is deployed.
const Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

// Release is the one that is deployed.
func Release(t testing.TB) platform.Release {
	t.Helper()
	r, err := platform.ParseRelease("1.2.3@" + Digest)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Tenant is a tenant's template of which nothing runs, as the emulator carries it out.
func Tenant(t testing.TB, tenant id.Tenant, tls bool) []byte {
	t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	made, err := stack.Tenant(stack.Input{Place: Place, Release: Release(t), Image: Digest,
		Set: platform.Set{Blueprint: b, Tenant: tenant, Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}})
	if err != nil {
		t.Fatal(err)
	}
	return Emulated(t, made, tls)
}

// Emulated is a template as the emulator carries it out.
func Emulated(t testing.TB, made *stack.Template, tls bool) []byte {
	t.Helper()
	text, err := made.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if text, err = stacktest.Emulated(text, tls); err != nil {
		t.Fatal(err)
	}
	return text
}

// ground is what a tenant's stack names of the plane's: names alone, for the emulator has no network.
func ground(t testing.TB) []byte {
	t.Helper()
	outputs := map[string]any{}
	for _, name := range []string{"Vpc", "SubnetA", "SubnetB", "DatabaseSubnets", "DatabaseParameters17", "Cluster", "Endpoints", "PlaneClients", "Operators", "Gateway", "S3PrefixList", "DatabaseClients", "Alarms"} {
		value := any("x-" + strings.ToLower(name))
		switch name {
		case "Vpc", "Cluster":
			value = map[string]string{"Ref": name}
		}
		outputs[name] = map[string]any{"Value": value, "Export": map[string]string{"Name": "a3-dev-" + name}}
	}
	text, err := json.Marshal(map[string]any{"Resources": map[string]any{
		"Vpc":     map[string]any{"Type": "AWS::EC2::VPC", "Properties": map[string]any{"CidrBlock": "10.64.0.0/16"}},
		"Cluster": map[string]any{"Type": "AWS::ECS::Cluster", "Properties": map[string]any{"ClusterName": "a3-dev"}},
	}, "Outputs": outputs})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Parameters are what a tenant's stack asks for.
var Parameters = map[string]string{"MarkKeys": "m", "LicenceKeys": "l", "PublicKeyEnvelope": "e", "PublicKeySecrets": "s"}

// Account is one with what comes first of a plane, with its bucket for templates, and with names of the ground that tenants stand on.
func Account(t testing.TB) (*ministacktest.Server, *changeset.Driver) {
	t.Helper()
	server := ministacktest.Start(t)
	return server, On(t, server)
}

// On has a server have the same.
func On(t testing.TB, server *ministacktest.Server) *changeset.Driver {
	t.Helper()
	d, err := changeset.Open(t.Context(), server.Root(), Where, Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	made, err := stack.Plane(stack.Input{Place: Place, Release: Release(t), Image: Digest, Set: platform.Set{Blueprint: b}, First: true})
	if err != nil {
		t.Fatal(err)
	}
	Change(t, d, Place.PlaneStack(), Emulated(t, made, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator"})
	Change(t, d, "a3-dev-ground", ground(t), nil)
	return d
}

// Change plans and carries out a change of a stack.
func Change(t testing.TB, d *changeset.Driver, name string, template []byte, parameters map[string]string) *changeset.Plan {
	t.Helper()
	p, err := d.Make(t.Context(), name, template, parameters)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Execute(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Bound gives the roles of a tenant's stack their boundary, which the emulator takes out of templates.
func Bound(t testing.TB, server *ministacktest.Server, tenant id.Tenant) {
	t.Helper()
	client := iam.NewFromConfig(server.Root())
	roles, err := client.ListRoles(t.Context(), &iam.ListRolesInput{PathPrefix: sdk.String("/tenant/" + tenant.String() + "/")})
	const least = 10
	if err != nil || len(roles.Roles) < least {
		t.Fatal(len(roles.Roles), err)
	}
	for _, r := range roles.Roles {
		if _, err := client.PutRolePermissionsBoundary(t.Context(), &iam.PutRolePermissionsBoundaryInput{RoleName: r.RoleName, PermissionsBoundary: sdk.String(Place.Boundary())}); err != nil {
			t.Fatal(err)
		}
	}
}

// As is a session of a role that a stack made. Tasks alone can take it: the test has the account's root added to its trust.
func As(t testing.TB, server *ministacktest.Server, name string) sdk.Config {
	t.Helper()
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + ministacktest.Account + `:root"},"Action":"sts:AssumeRole"}]}`
	client := iam.NewFromConfig(server.Root())
	if _, err := client.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: &trust}); err != nil {
		t.Fatal(err)
	}
	role, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		t.Fatal(err)
	}
	out, err := sts.NewFromConfig(server.Root()).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: sdk.String("test")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Root()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	return cfg
}

// Provisioner is a session of the plane's provisioner. The emulator asks some actions of IAM, STS and ECS about every resource alone, and so the
// role is given those there.
func Provisioner(t testing.TB, server *ministacktest.Server) sdk.Config {
	t.Helper()
	name := Place.Provisioner()
	name = name[strings.LastIndex(name, "/")+1:]
	if _, err := iam.NewFromConfig(server.Root()).PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: sdk.String("emulator"),
		PolicyDocument: sdk.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","ecs:CreateService","ecs:UpdateService","ecs:DescribeServices","ecs:ListServices","ecs:RunTask","ecs:DescribeTasks","ecs:ListTasks","iam:Get*","iam:List*","iam:PutRolePolicy","iam:DeleteRolePolicy","iam:UpdateAssumeRolePolicy"],"Resource":"*"}]}`)}); err != nil {
		t.Fatal(err)
	}
	return As(t, server, name)
}
