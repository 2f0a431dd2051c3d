package aws_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// Row F33, of a tenant at AWS: it is made, upgraded and removed by a fleet that is killed, or whose process with that tenant's credentials is, before, while
// and after the tenant's stack is changed. Each time the same command goes on, and what there is in the end is what there is of a tenant that nobody disturbed.
func TestStoryOfATenantAtAWSKilledAsItsStackChanges(t *testing.T) {
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	server := account(t)
	p := newPlane(t, server, "acme")
	p.canBeKilled()
	balance(t)
	p.fleet("plane", "up")
	// The second one has a component more than the first, which its stack is to have ahead of it.
	p.release(p.withoutWorker(), "1.1.0", func(program []byte) []byte { return append(program, "another"...) })
	p.release("fleet", "1.2.0", func(program []byte) []byte { return append(program, "more"...) })
	kills := 0
	ids := map[string]string{}
	for _, o := range []struct {
		kind    string
		args    []string
		answers int
		// killedAt are the points of each of two tenants, one after the other: what was begun is waited for by who comes next, which passes the points before that
		// no more.
		killedAt map[string][]string
	}{
		{"provision", nil, http.StatusOK, map[string][]string{
			"hurried": {"fleet.stack.planned", "fleet.stack.changed", "fleet.stack.planned", "fleet.stack.begun"},
			"hasty":   {"fleet.stack.begun", "fleet.stack.planned", "fleet.stack.changed"}}},
		{"upgrade", []string{"--release", "1.1.0"}, http.StatusOK, map[string][]string{
			"hurried": {"fleet.stack.planned", "fleet.stack.begun"},
			"hasty":   {"fleet.stack.changed"}}},
		{"upgrade", []string{"--release", "1.2.0"}, http.StatusOK, map[string][]string{
			"hurried": {"fleet.stack.planned", "fleet.stack.changed", "fleet.set.ahead", "fleet.stack.planned", "fleet.stack.changed"},
			"hasty":   {"fleet.stack.begun", "fleet.set.ahead", "fleet.stack.begun"}}},
		{"offboard", nil, http.StatusNotFound, map[string][]string{
			"hurried": {"fleet.stack.deletable", "fleet.stack.deleting"}, "hasty": {"fleet.stack.deleting"}}},
	} {
		began := time.Now()
		p.cut(o.kind, "calm", o.args)
		if ids["calm"] == "" {
			ids["calm"] = p.idOf("calm")
		}
		want := p.worldOf(server, "calm", ids["calm"])
		for slug, points := range o.killedAt {
			kills += p.cut(o.kind, slug, o.args, points...)
			if ids[slug] == "" {
				ids[slug] = p.idOf(slug)
			}
			p.compared(fmt.Sprintf("%s of %s by a fleet that was killed", o.kind, slug), want, p.worldOf(server, slug, ids[slug]))
			if got := p.answers(slug); got != o.answers {
				t.Errorf("%s by a fleet that was killed, and %s answers %d", o.kind, slug, got)
			}
		}
		t.Logf("%s: %s", o.kind, time.Since(began).Round(time.Second))
	}
	t.Attr("row", fmt.Sprint("F33 ", kills))
}

// cut plans a change of one tenant and carries it out, killed at points one after the other and then no more.
func (p *plane) cut(kind, slug string, more []string, points ...string) (kills int) {
	p.t.Helper()
	var made registryv1.GetPlanResponse
	p.ask(&made, append([]string{"plan", kind, "--tenant", slug, "--reason", "it is to be killed"}, more...)...)
	hash := made.GetPlan().GetHash()
	for _, point := range points {
		cmd := p.command("apply", hash)
		cmd.Env = append(slices.Clone(cmd.Env), "A3_FAILPOINT="+point+" kill")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(err.Error()+string(out), "signal: killed") {
			p.t.Fatalf("%s of %s, to be killed at %s, ended with %v: %s", kind, slug, point, err, out)
		}
		kills++
	}
	p.fleet("apply", hash)
	return kills
}

// worldOf is all that there is of a tenant, at AWS and in the registry, with its id and its slug by their roles.
func (p *plane) worldOf(server *ministacktest.Server, slug, id string) (out []string) {
	p.t.Helper()
	ctx, names := p.t.Context(), strings.NewReplacer(id, "ID", strings.ReplaceAll(id, "_", "-"), "ID", slug, "SLUG")
	add := func(format string, args ...any) { out = append(out, names.Replace(fmt.Sprintf(format, args...))) }
	var services []string
	for _, component := range all {
		services = append(services, id+"-"+component)
	}
	for _, line := range p.stackAndServices(server, awstest.Place.StackOf(id), services...) {
		add("%s", line)
	}
	secrets, err := secretsmanager.NewFromConfig(server.Root()).ListSecrets(ctx, &secretsmanager.ListSecretsInput{MaxResults: sdk.Int32(100)})
	if err != nil || secrets.NextToken != nil {
		p.t.Fatalf("the secrets: %v, and there are more", err)
	}
	for _, s := range secrets.SecretList {
		if strings.Contains(sdk.ToString(s.Name), id) {
			add("secret %s", sdk.ToString(s.Name))
		}
	}
	for what, sql := range map[string]string{"role": "SELECT rolname || ' ' || rolconnlimit FROM pg_roles", "database": "SELECT datname FROM pg_database"} {
		for _, line := range p.column(server, "postgres", sql) {
			if strings.Contains(line, id) {
				add("%s %s", what, line)
			}
		}
	}
	status := p.tenant(id)
	add("registry %s %s", status.GetTenant().GetState(), status.GetServiceSet().GetRelease())
	var done registryv1.ListOperationsResponse
	p.ask(&done, "operation", "list", "--tenant", id)
	for _, op := range done.GetOperations() {
		line := fmt.Sprintf("operation %s %s", op.GetKind(), op.GetState())
		for _, s := range op.GetSteps() {
			line += " " + s.GetName() + " " + s.GetState().String()
		}
		add("%s", line)
	}
	return out
}
