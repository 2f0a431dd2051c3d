package aws_test

import (
	"context"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/deploy/blueprint"
	blobs3 "a3os.app/libs/blob/s3"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// planeStands is a plane's stack as an administrator deploys it, and its own set at a release as the provisioner does in the session for it, which it
// answers.
func planeStands(t *testing.T, server *ministacktest.Server, provisioner sdk.Config) sdk.Config {
	t.Helper()
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	in := stack.Input{Place: awstest.Place, Set: platform.Set{Blueprint: b}, Release: awstest.Release(t), Image: awstest.Digest}
	made, err := stack.Plane(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"Database", "DatabaseFull"} {
		delete(made.Resources, id) // the emulator has no RDS
	}
	delete(made.Outputs, "DatabaseHost")
	delete(made.Outputs, "DatabaseUser")
	awstest.Change(t, d, awstest.Place.PlaneStack(), awstest.Emulated(t, made, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator",
		"S3PrefixList": "pl-1"})
	if made, err = stack.Control(in); err != nil {
		t.Fatal(err)
	}
	own, err := session.ForPlane(t.Context(), provisioner, awstest.Place)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = changeset.Open(t.Context(), own, awstest.Where, awstest.Place.Templates()); err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, awstest.Place.ControlStack(), awstest.Emulated(t, made, false), map[string]string{"MarkKeys": "m", "LicenceKeys": "l", "ReleaseKeys": "r", "PublicKeySnapshot": "s"})
	return own
}

// The provisioner's session for the plane's own set does there what it has to, and nothing to a tenant; its session for a tenant nothing to the
// plane's set. Each attempt is made by the other session, too, with which it works.
func TestSessionsOfThePlaneAndOfATenantReachNothingOfEachOther(t *testing.T) {
	server, d := awstest.Account(t)
	tenant := id.NewTenant()
	provisioner := awstest.Provisioner(t, server)
	plane := planeStands(t, server, provisioner)
	awstest.Change(t, d, awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false), awstest.Parameters)
	tenants, err := session.ForTenant(t.Context(), provisioner, awstest.Place, tenant.String())
	if err != nil {
		t.Fatal(err)
	}
	attempts := map[string]func(ctx context.Context, cfg sdk.Config, of string, templates string) error{
		"write what a component is given": func(ctx context.Context, cfg sdk.Config, of, _ string) error {
			_, err := secretsmanager.NewFromConfig(cfg).PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: sdk.String(awstest.Place.ComponentSecret(of, component(of))), SecretString: sdk.String("{}")})
			return err
		},
		"read what a component is given": func(ctx context.Context, cfg sdk.Config, of, _ string) error {
			_, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: sdk.String(awstest.Place.ComponentSecret(of, component(of)))})
			return err
		},
		"read a log": func(ctx context.Context, cfg sdk.Config, of, _ string) error {
			_, err := cloudwatchlogs.NewFromConfig(cfg).DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: sdk.String(awstest.Place.LogGroup(of, component(of)))})
			return err
		},
		"write a template": func(ctx context.Context, cfg sdk.Config, _, templates string) error {
			_, err := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).PutObject(ctx, &s3.PutObjectInput{Bucket: sdk.String(awstest.Place.Templates()), Key: sdk.String(templates + "/x.json"), Body: strings.NewReader("{}")})
			return err
		},
	}
	sets := []struct {
		of, templates string
		own, other    sdk.Config
	}{{"plane", awstest.Place.ControlStack(), plane, tenants}, {tenant.String(), awstest.Place.StackOf(tenant.String()), tenants, plane}}
	for _, s := range sets {
		// Written before it is read.
		for _, name := range []string{"write what a component is given", "read what a component is given", "read a log", "write a template"} {
			if err := attempts[name](t.Context(), s.own, s.of, s.templates); err != nil {
				t.Errorf("its own session can't %s of %s: %v", name, s.of, err)
			}
			if err := attempts[name](t.Context(), s.other, s.of, s.templates); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("the other one's session may %s of %s: %v", name, s.of, err)
			}
		}
	}
	// What the plane's set stands on is made from templates that no session of the provisioner writes.
	for _, cfg := range []sdk.Config{plane, tenants, provisioner} {
		if err := attempts["write a template"](t.Context(), cfg, "", awstest.Place.PlaneStack()); err == nil {
			t.Error("the provisioner writes a template of the plane's stack")
		}
	}
}

// With the role of its task the gateway keeps its copy where its task is told to, and the registry's role neither reads nor writes it.
func TestGatewayKeepsItsCopyInThePlanesBucket(t *testing.T) {
	server, _ := awstest.Account(t)
	planeStands(t, server, awstest.Provisioner(t, server))
	where := "s3://" + awstest.Place.Bucket("plane", "copies") + "/gateway/snapshot"
	open := func(component string) *blobs3.Object {
		t.Helper()
		o, err := blobs3.OpenObject(awstest.As(t, server, awstest.Place.TaskRole("plane", component)), where)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	gateway, registry := open("gateway"), open("registry")
	const most = 10
	if _, err := gateway.Replace(t.Context(), []byte("held"), ""); err != nil {
		t.Fatal(err)
	}
	if content, _, err := gateway.Get(t.Context(), most); err != nil || string(content) != "held" {
		t.Errorf("the gateway reads %q, %v", content, err)
	}
	if _, _, err := registry.Get(t.Context(), most); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the registry reads it: %v", err)
	}
	if _, err := registry.Replace(t.Context(), []byte("other"), ""); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the registry writes it: %v", err)
	}
}

// component is one of a set's.
func component(of string) string {
	if of == "plane" {
		return "registry"
	}
	return "iam"
}
