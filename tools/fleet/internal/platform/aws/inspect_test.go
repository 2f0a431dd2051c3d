package aws_test

import (
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// loggedIn has this process find the provisioner's session as fleet finds it.
func loggedIn(t *testing.T, server *ministacktest.Server) {
	t.Helper()
	cfg := awstest.Provisioner(t, server)
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken} {
		t.Setenv(name, value)
	}
}

// ofPlane is the platform of a plane that was made, with a tenant's stack deployed as Start has it. No task runs.
func ofPlane(t *testing.T, tier registryv1.IsolationTier) (*ministacktest.Server, *aws.Platform, platform.Set) {
	t.Helper()
	t.Setenv("DOCKER_HOST", "unix:///nonexistent") // the emulator keeps services of which no task runs
	server, d := awstest.Account(t)
	loggedIn(t, server)
	own, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	tenants, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := awstest.Release(t)
	if err := st.SetImage(aws.Name+"/"+r.Digest, awstest.Digest); err != nil {
		t.Fatal(err)
	}
	p := &aws.Platform{Settings: settings.Settings{Home: t.TempDir(), Domain: awstest.Place.Domain, Port: 443, AWS: settings.AWS{Region: ministacktest.Region}},
		State: st, Own: platform.Set{Blueprint: own}, Tenants: tenants}
	p.Emulate(func(template []byte) ([]byte, error) { return stacktest.Emulated(template, false) })
	s := platform.Set{Blueprint: tenants, Tenant: id.NewTenant(), Slug: "acme", Tier: tier}
	deployed(t, server, d, p, s)
	return server, p, s
}

// deployed has a set's stack be there as Start has it.
func deployed(t *testing.T, server *ministacktest.Server, d *changeset.Driver, p *aws.Platform, s platform.Set) {
	t.Helper()
	made, err := stack.Tenant(stack.Input{Place: awstest.Place, Set: s, Release: awstest.Release(t), Image: awstest.Digest, Running: true, URL: p.Settings.URL(s.Slug)})
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, awstest.Place.StackOf(s.Tenant.String()), awstest.Emulated(t, made, false), awstest.Parameters)
	awstest.Bound(t, server, s.Tenant)
}

// What fleet status --inspect and fleet repair ask of the platform: a set as its release has it differs in nothing, one that was suspended and
// resumed neither; what was changed by hand is named, and put right when that is asked for.
func TestWhatWasChangedByHandIsFoundAndMendedByThePlatform(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	find := func() []platform.Difference {
		t.Helper()
		got, err := p.Inspect(t.Context(), s, awstest.Release(t))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	var _ platform.Inspector = p
	if got := find(); len(got) > 0 {
		t.Fatalf("a set that nobody touched differs: %v", got)
	}
	role := sdk.String(awstest.Place.TaskRole(s.Tenant.String(), "audit"))
	// What a suspended set's roles were denied gives nobody anything, and stays.
	put := func(name, policy string) {
		t.Helper()
		if _, err := iam.NewFromConfig(server.Root()).PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: role, PolicyName: &name, PolicyDocument: &policy}); err != nil {
			t.Fatal(err)
		}
	}
	put("AWSRevokeOlderSessions", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["*"],"Resource":["*"],"Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-01-01T00:00:00Z"}}}]}`)
	if got := find(); len(got) > 0 {
		t.Fatalf("a set that was suspended once differs: %v", got)
	}
	if changed, err := p.Mend(t.Context(), s, awstest.Release(t)); changed || err != nil {
		t.Fatalf("there was something to mend: %t, %v", changed, err)
	}
	put("more", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}}`)
	if _, err := ecs.NewFromConfig(server.Root()).UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: sdk.String(awstest.Place.Cluster()),
		Service: sdk.String(awstest.Place.Service(s.Tenant.String(), "audit")), EnableExecuteCommand: sdk.Bool(true), DesiredCount: sdk.Int32(0)}); err != nil {
		t.Fatal(err)
	}
	got := find()
	if len(got) != 2 || !strings.Contains(got[0].Reason, "is asked to run 0 tasks") || !strings.Contains(got[1].Reason, "was given the policy more") {
		t.Errorf("it finds %v", got)
	}
	if changed, err := p.Mend(t.Context(), s, awstest.Release(t)); !changed || err != nil {
		t.Errorf("mended %t, %v", changed, err)
	}
	if got := find(); len(got) > 0 {
		t.Errorf("mended, it differs still: %v", got)
	}
	names, err := iam.NewFromConfig(server.Root()).ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: role})
	if err != nil || strings.Join(names.PolicyNames, " ") == "" || !strings.Contains(strings.Join(names.PolicyNames, " "), "AWSRevokeOlderSessions") {
		t.Errorf("what denied the sessions of before is gone: %v, %v", names, err)
	}
	// A set of which nothing is there has nothing that somebody changed: Start makes it.
	s.Tenant = id.NewTenant()
	if changed, err := p.Mend(t.Context(), s, awstest.Release(t)); changed || err != nil {
		t.Errorf("a set that isn't there: %t, %v", changed, err)
	}
}

// What stands in the plane's cluster and is of no set is named, and so is a tenant's service that the plane's load balancer sends to, or that is found by the registry's name,
// whether the tenant's set runs or is suspended.
func TestWhatStandsBeforeThePlanesOwnIsNamed(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	var _ platform.PlaneInspector = p
	find := func() string {
		t.Helper()
		got, err := p.InspectPlane(t.Context(), []platform.Set{s})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range got {
			out = append(out, d.Reason)
		}
		return strings.Join(out, "\n")
	}
	if got := find(); got != "" {
		t.Fatalf("where nobody made anything there is %s", got)
	}
	cluster, services := sdk.String(awstest.Place.Cluster()), ecs.NewFromConfig(server.Root())
	definition := sdk.String(awstest.Place.Service(s.Tenant.String(), "audit"))
	if _, err := services.CreateService(t.Context(), &ecs.CreateServiceInput{Cluster: cluster, ServiceName: sdk.String(s.Tenant.String() + "-x"), TaskDefinition: definition, DesiredCount: sdk.Int32(0)}); err != nil {
		t.Fatal(err)
	}
	if got := find(); strings.Count(got, "\n") > 0 || !strings.Contains(got, s.Tenant.String()+"-x of cluster a3-dev is of no set") {
		t.Errorf("it finds %q", got)
	}
	underWay := s
	underWay.Blueprint = nil
	if got, err := p.InspectPlane(t.Context(), []platform.Set{underWay}); err != nil || len(got) > 0 {
		t.Errorf("while an operation works on it: %v, %v", got, err)
	}
	if _, err := services.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: cluster, Service: definition, LoadBalancers: []ecstypes.LoadBalancer{{ContainerName: sdk.String("audit"),
		ContainerPort: sdk.Int32(7443), TargetGroupArn: sdk.String("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/a3-dev-gateway/1")}}}); err != nil {
		t.Fatal(err)
	}
	if got := find(); strings.Count(got, "\n") != 1 || !strings.Contains(got, *definition+" of cluster a3-dev is behind the target group arn:") {
		t.Errorf("it finds %q", got)
	}

	// AWS takes other names for a service that is there, the emulator for one that is made.
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, "a3-dev-names", []byte(`{"Resources":{"Names":{"Type":"AWS::SNS::Topic"}},"Outputs":{"RegistryName":{"Value":"arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-1","Export":{"Name":"`+
		awstest.Place.NameExport("registry")+`"}}}}`), nil)
	service := sdk.String(awstest.Place.Service(s.Tenant.String(), "iam"))
	if _, err := services.DeleteService(t.Context(), &ecs.DeleteServiceInput{Cluster: cluster, Service: service, Force: sdk.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := services.CreateService(t.Context(), &ecs.CreateServiceInput{Cluster: cluster, ServiceName: service, TaskDefinition: definition, DesiredCount: sdk.Int32(0),
		ServiceRegistries: []ecstypes.ServiceRegistry{{RegistryArn: sdk.String("arn:aws:servicediscovery:eu-central-1:123456789012:service/srv-1")}}}); err != nil {
		t.Fatal(err)
	}
	if got := find(); strings.Count(got, "\n") != 2 || !strings.Contains(got, *service+" of cluster a3-dev is found by the name of the plane's registry") {
		t.Errorf("it finds %q", got)
	}
}

// What leads to the plane's own set is looked at as well: a target that no task of the gateway is, an address under the registry's name, a listener that sends elsewhere.
// Keys of who left are named, and the plane's that its stack doesn't have, until they wait for their deletion.
func TestWhatLeadsAwayFromThePlanesOwnAndKeysOfNobodyAreNamed(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	ctx, cfg := t.Context(), server.Root()
	find := func() string {
		t.Helper()
		got, err := p.InspectPlane(ctx, []platform.Set{s})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range got {
			if d.Next == "" {
				t.Errorf("it isn't said what to do about %v", d)
			}
			out = append(out, d.Reason)
		}
		return strings.Join(out, "\n")
	}
	balancers, names := elb.NewFromConfig(cfg), servicediscovery.NewFromConfig(cfg)
	group, err := balancers.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: sdk.String("a3-dev-gateway"), TargetType: elbtypes.TargetTypeEnumIp, Protocol: elbtypes.ProtocolEnumTls, Port: sdk.Int32(7443), VpcId: sdk.String("vpc-1")})
	if err != nil {
		t.Fatal(err)
	}
	arn := group.TargetGroups[0].TargetGroupArn
	zones, err := names.ListNamespaces(ctx, &servicediscovery.ListNamespacesInput{})
	if err != nil || len(zones.Namespaces) == 0 {
		t.Fatal(zones, err)
	}
	name, err := names.CreateService(ctx, &servicediscovery.CreateServiceInput{Name: sdk.String("registry"), NamespaceId: zones.Namespaces[0].Id})
	if err != nil {
		t.Fatal(err)
	}
	d, err := changeset.Open(ctx, cfg, awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, "a3-dev-names", []byte(`{"Resources":{"Names":{"Type":"AWS::SNS::Topic"}},"Outputs":{"RegistryName":{"Value":"`+*name.Service.Arn+`","Export":{"Name":"`+awstest.Place.NameExport("registry")+
		`"}},"Targets":{"Value":"`+*arn+`","Export":{"Name":"a3-dev-Targets"}}}}`), nil)
	if got := find(); got != "" {
		t.Fatalf("where nobody changed anything there is %s", got)
	}
	if _, err := balancers.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: arn, Targets: []elbtypes.TargetDescription{{Id: sdk.String("10.64.0.9"), Port: sdk.Int32(7443)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := names.RegisterInstance(ctx, &servicediscovery.RegisterInstanceInput{ServiceId: name.Service.Id, InstanceId: sdk.String("x"), Attributes: map[string]string{"AWS_INSTANCE_IPV4": "10.64.0.8"}}); err != nil {
		t.Fatal(err)
	}
	got := find()
	for _, want := range []string{`of service plane-dev-gateway sends to "10.64.0.9"`, `of service plane-dev-registry leads to "10.64.0.8"`} {
		if !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("it finds %q, want %q", got, want)
		}
	}
	if _, err := balancers.DeregisterTargets(ctx, &elb.DeregisterTargetsInput{TargetGroupArn: arn, Targets: []elbtypes.TargetDescription{{Id: sdk.String("10.64.0.9"), Port: sdk.Int32(7443)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := names.DeregisterInstance(ctx, &servicediscovery.DeregisterInstanceInput{ServiceId: name.Service.Id, InstanceId: sdk.String("x")}); err != nil {
		t.Fatal(err)
	}

	client, gone := kms.NewFromConfig(cfg), id.NewTenant().String()
	made := func(tags map[string]string) string {
		t.Helper()
		in := &kms.CreateKeyInput{}
		for key, value := range tags {
			in.Tags = append(in.Tags, kmstypes.Tag{TagKey: &key, TagValue: &value})
		}
		out, err := client.CreateKey(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.KeyMetadata.Arn
	}
	left, old := made(map[string]string{"plane": "dev", "tenant": gone}), made(map[string]string{"plane": "dev"})
	made(map[string]string{"plane": "dev", "tenant": s.Tenant.String()})
	made(map[string]string{"plane": "prod", "tenant": gone})
	made(map[string]string{"team": "dev"})
	got = find()
	for _, want := range []string{"key " + left + ", which is Enabled, is of tenant " + gone + ", whom the registry doesn't have", "key " + old + ", which is Enabled, is of plane dev, and not the one that stack a3-dev-plane has"} {
		if !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("it finds %q, want %q", got, want)
		}
	}
	for _, key := range []string{left, old} {
		if _, err := client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: sdk.Int32(30)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := find(); got != "" {
		t.Errorf("given up they are named still: %s", got)
	}
}
