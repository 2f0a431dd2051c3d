package aws_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// plane is a plane whose tenants are at AWS, driven by the program as an operator drives it.
type plane struct {
	t         testing.TB
	bin, home string
	environ   []string
}

func newPlane(t testing.TB, server *ministacktest.Server, tenants string) *plane {
	t.Helper()
	p := &plane{t: t, bin: filepath.Join(t.TempDir(), "bin"), home: filepath.Join(t.TempDir(), "home")}
	if built := os.Getenv("A3_BIN"); built != "" {
		// The plane is upgraded by another program in its place.
		if err := os.CopyFS(p.bin, os.DirFS(built)); err != nil {
			t.Fatal(err)
		}
	} else {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", p.bin+string(filepath.Separator), "a3os.app/services/accessos", "a3os.app/tools/fleet", "a3os.app/tools/a3")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cfg := awstest.Provisioner(t, server)
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.environ = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "A3_") || strings.HasPrefix(kv, "AWS_") })
	p.environ = append(p.environ, "A3_HOME="+p.home, "A3_PLATFORM=aws", "A3_AWS_REGION="+ministacktest.Region,
		"A3_DOMAIN="+awstest.Place.Domain, "A3_PORT=443", "A3_TENANTS="+tenants, "A3_UNIX_TENANTS=none",
		"AWS_ENDPOINT_URL="+server.URL, "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
		"AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_SESSION_TOKEN="+keys.SessionToken)
	t.Cleanup(func() {
		p.calls(server) // whoever throttles has ended
		if out, err := p.command("plane", "down").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return p
}

// calls has fleet call AWS at a server.
func (p *plane) calls(server *ministacktest.Server) {
	p.environ = slices.DeleteFunc(p.environ, func(kv string) bool { return strings.HasPrefix(kv, "AWS_ENDPOINT_URL=") })
	p.environ = append(p.environ, "AWS_ENDPOINT_URL="+server.URL)
}

// command outlives the test's context: the plane is taken down after that has ended.
func (p *plane) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, "fleet"), args...) //nolint:noctx // see above
	cmd.Env = p.environ
	return cmd
}

func (p *plane) fleet(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		operations, _ := p.command("-o", "json", "operation", "list").CombinedOutput()
		p.t.Fatalf("fleet %v: %v: %s\n%s", args, err, out, operations)
	}
	return string(out)
}

// A fleet of two tenants as tasks of ECS on an emulator, each in its own stack, and so the plane's registry and gateway, through which they answer: a
// registry that ends comes back, a gateway that ends meanwhile serves from the copy of what it held, its certificate is renewed, the plane is upgraded and taken down. A bad release fails on its canary, which goes back, to a component more, with no task
// of the other one touched, and a good one goes through; an admin is let in again, no role of one reaches anything of the other's; one is
// suspended and resumed, leaves, and nothing of it is found but a key that waits for its end; the other one answers all the while, and comes back
// from a backup with its objects and credentials, and a third one is made in an account of its own. A plan is
// carried out where it was made, by the change set that it names and no other. Row F28, of the platform: CloudFormation, ECS and Secrets Manager
// throttle fleet all the while, which is waited for, and said. Row O40, at the stores of AWS: with each role of each set.
func TestStoryOfAFleetOnAWS(t *testing.T) {
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	server := account(t)
	p := newPlane(t, server, "acme,globex")
	busy := awstest.Throttle(t, server)
	p.calls(busy.Server)
	balance(t)
	said := p.fleet("plane", "up")
	if !strings.Contains(said, "AWS is asked too often") {
		t.Errorf("nobody is told what is waited for: %s", said)
	}
	ids := map[string]string{}
	for _, slug := range []string{"acme", "globex"} {
		if got := p.answers(slug); got != http.StatusOK {
			t.Errorf("%s answers %d", slug, got)
		}
		ids[slug] = p.tenant(slug).GetTenant().GetId()
		p.explains(server, slug, said)
	}
	p.standsAtAWS(server)
	p.servesWithoutARegistry(server)
	p.recertified(server)
	p.fleet("tenant", "label", "acme", "ring=canary")
	p.fleet("tenant", "label", "globex", "ring=general")
	p.badRelease(server, ids)
	busy.Again()
	p.goodRelease(server, ids)
	t.Attr("row", fmt.Sprint("F28 ", busy.Refusals(t)))
	p.elsewhereOrGone(server, "globex", ids["globex"])
	p.renewed(server, ids["acme"])
	p.proven()
	// It ends the admin's sessions, one of which the proof has for a control.
	p.letInAgain("acme")
	p.suspended(server, "globex", ids["globex"])
	if got := p.answers("acme"); got != http.StatusOK {
		t.Errorf("the other one is suspended and acme answers %d", got)
	}
	p.resumed("globex")
	p.leaves(server, "globex", ids["globex"])
	if got := p.answers("acme"); got != http.StatusOK {
		t.Errorf("the other one left and acme answers %d", got)
	}
	p.restored(server, "acme")
	p.inItsOwnAccount(server, "initech")
	p.down(server, ids["acme"])
}

// tasks are those of a tenant that run.
func (p *plane) tasks(server *ministacktest.Server, tenant string) []string {
	p.t.Helper()
	client := ecs.NewFromConfig(server.Root())
	var out []string
	for _, component := range []string{"audit", "iam", "integrations", "discovery", "discovery-worker"} {
		got, err := client.ListTasks(p.t.Context(), &ecs.ListTasksInput{Cluster: sdk.String("a3-dev"), Family: sdk.String(tenant + "-" + component)})
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, got.TaskArns...)
	}
	return out
}

// suspended has no task of a tenant run, and its roles' sessions of before denied.
func (p *plane) suspended(server *ministacktest.Server, slug, tenant string) {
	p.t.Helper()
	if tasks := p.tasks(server, tenant); len(tasks) != 5 {
		p.t.Errorf("before, these run: %v", tasks)
	}
	p.does("suspend", slug)
	if tasks := p.tasks(server, tenant); len(tasks) != 0 {
		p.t.Errorf("suspended, these run: %v", tasks)
	}
	if got := p.answers(slug); got != http.StatusNotFound {
		p.t.Errorf("suspended it answers %d", got)
	}
	policy, err := iam.NewFromConfig(server.Root()).GetRolePolicy(p.t.Context(), &iam.GetRolePolicyInput{RoleName: sdk.String(tenant + "-iam-task"), PolicyName: sdk.String("AWSRevokeOlderSessions")})
	if err != nil || !strings.Contains(sdk.ToString(policy.PolicyDocument), "TokenIssueTime") {
		p.t.Errorf("its sessions of before are not denied: %v", err)
	}
}

// resumed has it answer as before.
func (p *plane) resumed(slug string) {
	p.t.Helper()
	p.does("resume", slug)
	if got := p.answers(slug); got != http.StatusOK {
		p.t.Errorf("resumed it answers %d", got)
	}
}

// leaves has a tenant leave, and looks with the account's root that nothing of it is there but a key that waits for its end.
func (p *plane) leaves(server *ministacktest.Server, slug, tenant string) {
	p.t.Helper()
	stacks := cloudformation.NewFromConfig(server.Root())
	told, err := stacks.DescribeStacks(p.t.Context(), &cloudformation.DescribeStacksInput{StackName: sdk.String(awstest.Place.StackOf(tenant))})
	if err != nil {
		p.t.Fatal(err)
	}
	key := ""
	for _, o := range told.Stacks[0].Outputs {
		if sdk.ToString(o.OutputKey) == "Key" {
			key = sdk.ToString(o.OutputValue)
		}
	}
	// What a fleet that was killed while a program ran leaves.
	definitions := ecs.NewFromConfig(server.Root())
	if _, err := definitions.RegisterTaskDefinition(p.t.Context(), &ecs.RegisterTaskDefinitionInput{Family: sdk.String(tenant + "-one-off"), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: sdk.String("iam"), Image: sdk.String("none")}}}); err != nil {
		p.t.Fatal(err)
	}
	p.does("offboard", slug)
	for _, status := range []ecstypes.TaskDefinitionStatus{ecstypes.TaskDefinitionStatusActive, ecstypes.TaskDefinitionStatusInactive} {
		left, err := definitions.ListTaskDefinitions(p.t.Context(), &ecs.ListTaskDefinitionsInput{FamilyPrefix: &tenant, Status: status})
		if err != nil || len(left.TaskDefinitionArns) > 0 {
			p.t.Errorf("task definitions of it that are %s: %v, %v", status, left, err)
		}
	}
	if _, err := stacks.DescribeStacks(p.t.Context(), &cloudformation.DescribeStacksInput{StackName: sdk.String(awstest.Place.StackOf(tenant))}); err == nil {
		p.t.Error("its stack is still there")
	}
	is, err := kms.NewFromConfig(server.Root()).DescribeKey(p.t.Context(), &kms.DescribeKeyInput{KeyId: &key})
	if err != nil || is.KeyMetadata.KeyState != kmstypes.KeyStatePendingDeletion {
		p.t.Errorf("its key %s: %+v, %v", key, is, err)
	}
	if got := p.answers(slug); got != http.StatusNotFound {
		p.t.Errorf("it left and answers %d", got)
	}
	// The plane's own stand in every network of the emulator's.
	left := strings.Join(slices.DeleteFunc(strings.Split(run(p.t, "docker", "ps", "--format", `{{.Label "a3.plane"}} {{.Names}} {{.Networks}}`), "\n"), func(line string) bool { return !strings.HasPrefix(line, " ") }), "\n")
	if strings.Contains(left, strings.ReplaceAll(tenant, "_", "-")) {
		p.t.Errorf("the engine runs still of it: %s", left)
	}
}

// does plans and carries out a change of one tenant.
func (p *plane) does(kind, slug string) {
	p.t.Helper()
	var made struct{ Plan struct{ Hash string } }
	out, err := p.command("-o", "json", "plan", kind, "--tenant", slug, "--reason", "the story goes on").Output()
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil {
		p.t.Fatalf("plan %s: %v: %s", kind, err, out)
	}
	p.fleet("apply", made.Plan.Hash)
}

func (p *plane) tenant(slug string) *registryv1.TenantStatus {
	p.t.Helper()
	out, err := p.command("-o", "json", "tenant", "show", slug).Output()
	var status registryv1.TenantStatus
	if err == nil {
		err = protojson.Unmarshal(out, &status)
	}
	if err != nil {
		p.t.Fatalf("tenant show %s: %v: %s", slug, err, out)
	}
	return &status
}

// answers is what a host of the plane answers to who asks it for its issuer's configuration; answered is 0 where nobody does.
func (p *plane) answers(slug string) int {
	p.t.Helper()
	status := p.answered(slug)
	if status == 0 {
		p.t.Fatalf("nobody answers for %s", slug)
	}
	return status
}

func (p *plane) answered(slug string) int {
	p.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:443")
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, //nolint:gosec // who answers is not what is asked
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "https://"+slug+"."+awstest.Place.Domain+"/.well-known/openid-configuration", http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}
