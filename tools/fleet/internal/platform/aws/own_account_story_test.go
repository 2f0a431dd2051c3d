package aws_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// ownAccount is one that a tenant has to itself.
const ownAccount = "210987654321"

// ownServersUser is the secret with the first user of what stands for a tenant's own server of RDS.
const ownServersUser = "rds!db-own"

// onTheServer has a stack with a server of its own have the test's for it, for the emulator has no RDS.
func onTheServer(text []byte) ([]byte, error) {
	var template map[string]any
	if err := json.Unmarshal(text, &template); err != nil {
		return nil, err
	}
	resources, _ := template["Resources"].(map[string]any)
	if _, has := resources["Database"]; !has {
		return text, nil
	}
	delete(resources, "Database")
	outputs, _ := template["Outputs"].(map[string]any)
	outputs["DatabaseHost"], outputs["DatabaseUser"] = map[string]any{"Value": net.JoinHostPort(hubAddress, strconv.Itoa(ownPort))}, map[string]any{"Value": ownServersUser}
	for id, r := range resources {
		if of, _ := r.(map[string]any); strings.Contains(string(must(json.Marshal(of))), `"Database.`) {
			delete(resources, id) // an alarm of the server's
		}
	}
	return json.Marshal(template)
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

// inItsOwnAccount makes a tenant in an account of its own: the plan names it; carried out before that account's administrators have let the plane
// in, and before the plane's have something lead there, it says what they deploy, and it is taken up where it was. Then the set's tasks run in that account and none in the plane's, and it answers
// through the plane's gateway.
func (p *plane) inItsOwnAccount(server *ministacktest.Server, slug string) {
	p.t.Helper()
	ctx := p.t.Context()
	root := server.Root()
	root.Credentials = credentials.NewStaticCredentialsProvider(ownAccount, "root", "")
	_, user := database(p.t, ownPort)
	if _, err := secretsmanager.NewFromConfig(root).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: sdk.String(ownServersUser), SecretString: &user}); err != nil {
		p.t.Fatal(err)
	}
	var made struct{ Plan struct{ Hash string } }
	p.json(&made, "plan", "provision", "--tenant", slug, "--tier", "dedicated", "--account", ownAccount, "--reason", "it has an account to itself")
	if page := p.fleet("plan", "show", made.Plan.Hash); !strings.Contains(page, ownAccount+", which it has to itself") {
		p.t.Errorf("the plan doesn't name the account: %s", page)
	}
	early, err := p.command("apply", made.Plan.Hash).CombinedOutput()
	tenant := p.tenant(slug).GetTenant().GetId()
	if err == nil || !strings.Contains(string(early), "fleet aws render --account "+ownAccount+" --account-per-tenant "+awstest.Place.Account+" --first --tenant "+tenant) {
		p.t.Fatalf("without its account it is carried out, or doesn't say what is missing: %v: %s", err, early)
	}
	p.letsIn(root, slug, tenant)
	operations := &registryv1.ListOperationsResponse{}
	p.ask(operations, "operation", "list", "--tenant", slug)
	operation := operations.GetOperations()[0].GetId()
	early, err = p.command("operation", "resume", operation).CombinedOutput()
	if err == nil || !strings.Contains(string(early), "--account-per-tenant "+awstest.Place.Account+" --link --tenant "+tenant) {
		p.t.Fatalf("with nothing that leads to its account it is carried out, or doesn't say what is missing: %v: %s", err, early)
	}
	p.leadsTo(server, slug, tenant)
	p.fleet("operation", "resume", operation)
	if got := p.answers(slug); got != http.StatusOK {
		p.t.Errorf("in its own account %s answers %d", slug, got)
	}
	for of, cfg := range map[string]sdk.Config{ownAccount: root, awstest.Place.Account: server.Root()} {
		got, err := ecs.NewFromConfig(cfg).ListTasks(ctx, &ecs.ListTasksInput{Cluster: sdk.String("a3-dev"), Family: sdk.String(tenant + "-iam")})
		if err != nil || (len(got.TaskArns) == 1) != (of == ownAccount) {
			p.t.Errorf("in account %s its iam runs as %v: %v", of, got, err)
		}
		_, err = cloudformation.NewFromConfig(cfg).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: sdk.String(awstest.Place.StackOf(tenant))})
		if (err == nil) != (of == ownAccount) {
			p.t.Errorf("in account %s its stack: %v", of, err)
		}
	}
	out, err := p.command("plan", "provision", "--tenant", "second", "--tier", "dedicated", "--account", ownAccount, "--reason", "into somebody's account").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is tenant "+slug+"'s own") {
		p.t.Errorf("a second tenant is planned into the account: %v: %s", err, out)
	}
}

// letsIn deploys what the administrators of a tenant's account do, as fleet renders it.
func (p *plane) letsIn(root sdk.Config, slug, tenant string) {
	p.t.Helper()
	text := p.rendered("--first", slug, tenant)
	d, err := changeset.Open(p.t.Context(), root, platform.Where{Account: ownAccount, Region: ministacktest.Region}, "")
	if err != nil {
		p.t.Fatal(err)
	}
	place := awstest.Place
	place.Account, place.Hub = ownAccount, awstest.Place.Account
	awstest.Change(p.t, d, place.PlaneStack(), text, map[string]string{"AdministratorRole": "arn:aws:iam::" + ownAccount + ":role/administrator", "S3PrefixList": "pl-1",
		"RegistryService": "com.amazonaws.vpce." + ministacktest.Region + ".vpce-svc-1", "ZoneA": "euc1-az1", "ZoneB": "euc1-az2"})
}

// leadsTo deploys what the administrators of the plane's account do.
func (p *plane) leadsTo(server *ministacktest.Server, slug, tenant string) {
	p.t.Helper()
	d, err := changeset.Open(p.t.Context(), server.Root(), awstest.Where, "")
	if err != nil {
		p.t.Fatal(err)
	}
	awstest.Change(p.t, d, awstest.Place.LinkStack(tenant), p.rendered("--link", slug, tenant), map[string]string{"SetService": "com.amazonaws.vpce." + ministacktest.Region + ".vpce-svc-2"})
}

// rendered is what fleet prints of a tenant's own account, as the emulator makes it.
func (p *plane) rendered(kind, slug, tenant string) []byte {
	p.t.Helper()
	text, err := p.command("aws", "render", "--account", ownAccount, "--account-per-tenant", awstest.Place.Account, kind, "--tenant", tenant, "--slug", slug, "--tier", "dedicated",
		"--region", ministacktest.Region, "--domain", awstest.Place.Domain, "--release", "1.2.3@"+awstest.Digest, "--image", awstest.Digest).Output()
	if err == nil {
		text, err = stacktest.Emulated(text, false)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}
