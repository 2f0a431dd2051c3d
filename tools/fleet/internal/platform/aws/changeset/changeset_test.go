package changeset_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
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

var (
	where = platform.Where{Account: ministacktest.Account, Region: ministacktest.Region}
	place = stack.Place{Account: ministacktest.Account, Region: ministacktest.Region, Plane: "dev", Domain: "a3os.example"}
)

const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

func release(t *testing.T) platform.Release {
	t.Helper()
	r, err := platform.ParseRelease("1.2.3@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tenantTemplate is a tenant's template of which nothing runs, as the emulator carries it out.
func tenantTemplate(t *testing.T, tenant id.Tenant, tls bool) []byte {
	t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	made, err := stack.Tenant(stack.Input{Place: place, Release: release(t), Image: digest,
		Set: platform.Set{Blueprint: b, Tenant: tenant, Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}})
	if err != nil {
		t.Fatal(err)
	}
	return emulated(t, made, tls)
}

func emulated(t *testing.T, made *stack.Template, tls bool) []byte {
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
func ground(t *testing.T) []byte {
	t.Helper()
	outputs := map[string]any{}
	for _, name := range []string{"Vpc", "SubnetA", "SubnetB", "DatabaseSubnets", "Cluster", "Endpoints", "PlaneClients", "Gateway", "S3PrefixList", "DatabaseClients"} {
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

var parameters = map[string]string{"MarkKeys": "m", "LicenceKeys": "l", "PublicKeyEnvelope": "e", "PublicKeySecrets": "s"}

// account is one with what comes first of a plane, with its bucket for templates, and with names of the ground that tenants stand on.
func account(t *testing.T) (*ministacktest.Server, *changeset.Driver) {
	t.Helper()
	server := ministacktest.Start(t)
	d, err := changeset.Open(t.Context(), server.Root(), where, place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	made, err := stack.Plane(stack.Input{Place: place, Release: release(t), Image: digest, Set: platform.Set{Blueprint: b}, First: true})
	if err != nil {
		t.Fatal(err)
	}
	change(t, d, place.PlaneStack(), emulated(t, made, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator"})
	change(t, d, "a3-dev-ground", ground(t), nil)
	return server, d
}

func change(t *testing.T, d *changeset.Driver, name string, template []byte, parameters map[string]string) *changeset.Plan {
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

// as is a session of a role that a stack made. Tasks alone can take it: the test has the account's root added to its trust.
func as(t *testing.T, server *ministacktest.Server, name string) sdk.Config {
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

// Two tenants' stacks are deployed on an emulator, and each component's own role reaches what is its set's and nothing of the other's.
func TestTwoTenantsReachTheirOwnAndNothingOfEachOther(t *testing.T) {
	server, d := account(t)
	tenants := []id.Tenant{id.NewTenant(), id.NewTenant()}
	for _, tenant := range tenants {
		p := change(t, d, place.StackOf(tenant.String()), tenantTemplate(t, tenant, false), parameters)
		if len(p.Changes) < 40 || !strings.HasPrefix(p.Changes[0].String(), "add ") {
			t.Errorf("its plan is %v", p.Changes)
		}
	}
	for i, own := range tenants {
		other := tenants[1-i]
		for component, attempts := range map[string]func(cfg sdk.Config, of id.Tenant) map[string]error{
			"integrations": func(cfg sdk.Config, of id.Tenant) map[string]error { return objects(t, cfg, of) },
			"discovery":    func(cfg sdk.Config, of id.Tenant) map[string]error { return send(t, cfg, of) },
		} {
			cfg := as(t, server, own.String()+"-"+component+"-task")
			for what, err := range attempts(cfg, own) {
				if err != nil {
					t.Errorf("%s can't %s of its own set: %v", component, what, err)
				}
			}
			for what, err := range attempts(cfg, other) {
				if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
					t.Errorf("%s can %s of another: %v", component, what, err)
				}
			}
		}
		// A role that may nothing, though the bucket's policy were to let it in.
		for what, err := range objects(t, as(t, server, own.String()+"-audit-task"), own) {
			if err == nil {
				t.Errorf("audit can %s of its set, which it doesn't need", what)
			}
		}
	}
}

// The emulator is called without TLS, and the policies of a stack as it is rendered deny just that, to the set's own roles too.
func TestNothingIsReachedWithoutTLS(t *testing.T) {
	server, d := account(t)
	tenant := id.NewTenant()
	change(t, d, place.StackOf(tenant.String()), tenantTemplate(t, tenant, true), parameters)
	for what, err := range objects(t, as(t, server, tenant.String()+"-integrations-task"), tenant) {
		if err == nil || !strings.Contains(err.Error(), "explicit deny in a resource-based policy") {
			t.Errorf("%s without TLS: %v", what, err)
		}
	}
}

func objects(t *testing.T, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := "a3-dev-" + strings.ReplaceAll(of.String(), "_", "-") + "-objects-" + ministacktest.Account
	key := of.String() + "/objects/x"
	_, putErr := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("x")})
	_, getErr := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	_, listErr := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: sdk.String(of.String() + "/objects/")})
	return map[string]error{"write an object": putErr, "read an object": getErr, "list objects": listErr}
}

func send(t *testing.T, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	url := *cfg.BaseEndpoint + "/" + ministacktest.Account + "/" + of.String() + "-queue"
	_, err := sqs.NewFromConfig(cfg).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: sdk.String("x")})
	return map[string]error{"send a message": err}
}

// The provisioner keeps templates in the plane's bucket, and CloudFormation makes stacks of them; nobody else of the account reads or writes
// one, whatever else allows it, and one that is too large goes nowhere but there.
func TestTemplatesAreTheProvisionersAlone(t *testing.T) {
	server, _ := account(t)
	tenant := id.NewTenant()
	name, template := place.StackOf(tenant.String()), tenantTemplate(t, tenant, false)
	if len(template) < 51200 {
		t.Fatalf("the template has %d bytes, so it needs no bucket: this test shows nothing", len(template))
	}
	provisioner := as(t, server, "a3-dev-provisioner")
	d, err := changeset.Open(t.Context(), provisioner, where, place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Make(t.Context(), name, template, parameters)
	if err != nil || len(p.Changes) < 40 {
		t.Fatalf("the provisioner plans %+v: %v", p, err)
	}
	sum := sha256.Sum256(template)
	key := name + "/" + hex.EncodeToString(sum[:]) + ".json"
	everything := ministacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}
	for who, c := range map[string]struct {
		cfg  sdk.Config
		want string
	}{"the provisioner": {provisioner, ""}, "a stranger who may everything": {server.Role(t, "stranger", everything), "explicit deny in a resource-based policy"}} {
		client := s3.NewFromConfig(c.cfg, func(o *s3.Options) { o.UsePathStyle = true })
		_, readErr := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: sdk.String(place.Templates()), Key: &key})
		_, writeErr := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: sdk.String(place.Templates()), Key: &key, Body: bytes.NewReader(template)})
		for what, err := range map[string]error{"reads": readErr, "writes": writeErr} {
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s a template: %v", who, what, err)
			}
		}
	}
	client := s3.NewFromConfig(provisioner, func(o *s3.Options) { o.UsePathStyle = true })
	for _, elsewhere := range []string{place.PlaneStack() + "/x.json", "x.json"} {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: sdk.String(place.Templates()), Key: &elsewhere, Body: strings.NewReader("{}")}); err == nil {
			t.Errorf("the provisioner writes %s, which is no tenant's", elsewhere)
		}
	}
	versions, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: sdk.String(place.Templates())})
	if err != nil || versions.Status != "Enabled" {
		t.Errorf("the bucket keeps no versions: %+v, %v", versions, err)
	}
	if d, err = changeset.Open(t.Context(), provisioner, where, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Make(t.Context(), name, template, parameters); err == nil || !strings.Contains(err.Error(), "name the plane's bucket") {
		t.Errorf("without a bucket: %v", err)
	}
}

func TestCredentialsOfAnotherAccountOrRegionAreRefused(t *testing.T) {
	server := ministacktest.Start(t)
	for _, want := range []platform.Where{{Account: "210987654321", Region: where.Region}, {Account: where.Account, Region: "us-east-1"}} {
		if _, err := changeset.Open(t.Context(), server.Root(), want, ""); err == nil || !strings.Contains(err.Error(), want.Account+" in "+want.Region) {
			t.Errorf("%v: %v", want, err)
		}
	}
}

// What a plan says is what is carried out: a second change set of the same template has nothing to do, and what goes is shouted.
func TestPlanSaysWhatChanges(t *testing.T) {
	_, d := account(t)
	queue := func(name, also string) []byte {
		return []byte(`{"Resources":{"Queue":{"Type":"AWS::SQS::Queue","Properties":{"QueueName":"` + name + `"}}` + also + `}}`)
	}
	const topic = `,"Topic":{"Type":"AWS::SNS::Topic"}`
	if p := change(t, d, "small", queue("a", topic), nil); len(p.Changes) != 2 {
		t.Fatalf("it makes %v", p.Changes)
	}
	if p, err := d.Make(t.Context(), "small", queue("a", topic), nil); err != nil || p.ID != "" || len(p.Changes) != 0 {
		t.Errorf("the same once more is %+v, %v", p, err)
	}
	p, err := d.Make(t.Context(), "small", queue("a", ""), nil)
	if err != nil || len(p.Changes) != 1 || p.Changes[0].String() != "REMOVES remove Topic (AWS::SNS::Topic)" {
		t.Errorf("a topic less is %+v, %v", p, err)
	}
	if got := (changeset.Change{Action: "Modify", ID: "Database", Type: "AWS::RDS::DBInstance", Replaces: true}).String(); got != "REPLACES modify Database (AWS::RDS::DBInstance)" {
		t.Error(got)
	}
	if err := d.Execute(t.Context(), &changeset.Plan{}); err != nil {
		t.Error(err)
	}
}
