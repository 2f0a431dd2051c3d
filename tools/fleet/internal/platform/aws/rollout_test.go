package aws_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// ask runs a command with -o json.
func (p *plane) ask(into proto.Message, args ...string) {
	p.t.Helper()
	var out, said bytes.Buffer
	cmd := p.command(append([]string{"-o", "json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("fleet %v: %v: %s", args, err, said.String())
	}
	if err := protojson.Unmarshal(out.Bytes(), into); err != nil {
		p.t.Fatalf("fleet %v: %v: %s", args, err, out.String())
	}
}

// release registers what change makes of the program, by a fleet, whose blueprint is the release's.
func (p *plane) release(fleet, version string, change func([]byte) []byte) {
	p.t.Helper()
	program, err := os.ReadFile(filepath.Join(p.bin, "accessos"))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "accessos-"+version)
	const executable = 0o755
	if err := os.WriteFile(file, change(program), executable); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.command("release", "register", "--version", version, "--artefact", "accessos="+file)
	cmd.Path = filepath.Join(p.bin, fleet)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s %v: %v: %s", fleet, cmd.Args, err, out)
	}
}

// withoutWorker builds a fleet in whose blueprint no discovery-worker is, and a store more.
func (p *plane) withoutWorker() (fleet string) {
	p.t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		p.t.Fatal(err)
	}
	text := string(b.Text)
	for _, part := range []string{"\n  - name: discovery-worker\n", "\nmachine_reader:\n"} {
		before, rest, is := strings.Cut(text, part)
		if !is {
			p.t.Fatalf("the blueprint has no %q", part)
		}
		// It ends where the next of its kind begins.
		if at := strings.Index(rest, "\n\n"); at >= 0 {
			text = before + rest[at:]
		} else {
			text = before + "\n"
		}
	}
	for _, more := range [][2]string{{"stores:\n", "stores:\n  clips: {kind: blob}\n"}, {"stores: [secrets, objects]\n    ports", "stores: [secrets, objects, clips]\n    ports"}} {
		if strings.Count(text, more[0]) != 1 {
			p.t.Fatalf("%q stands in the blueprint %d times", more[0], strings.Count(text, more[0]))
		}
		text = strings.Replace(text, more[0], more[1], 1)
	}
	dir, fleet := p.t.TempDir(), "fleet-without-worker"
	other, overlay := filepath.Join(dir, "accessos.yaml"), filepath.Join(dir, "overlay.json")
	of := strings.TrimSpace(run(p.t, "go", "list", "-f", "{{.Dir}}", "a3os.app/deploy/blueprint"))
	said, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(of, "accessos.yaml"): other}})
	if err == nil {
		err = errors.Join(os.WriteFile(other, []byte(text), 0o600), os.WriteFile(overlay, said, 0o600))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	build := exec.CommandContext(p.t.Context(), "go", "build", "-overlay", overlay, "-o", filepath.Join(p.bin, fleet), "a3os.app/tools/fleet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		p.t.Fatalf("build a fleet with another blueprint: %v: %s", err, out)
	}
	return fleet
}

// rollout plans one to both rings and carries it out, and answers how it ended and what was said.
func (p *plane) rollout(version string) (r *registryv1.Rollout, said string, failed error) {
	p.t.Helper()
	var plan registryv1.StoredPlan
	p.ask(&plan, "rollout", "plan", "--release", version, "--label", "ring=canary", "--label", "ring=general", "--bake", "1s", "--samples", "5",
		"--p99-factor", "0", "--reason", "the story goes on")
	out, failed := p.command("apply", plan.GetHash()).CombinedOutput()
	var all registryv1.ListRolloutsResponse
	p.ask(&all, "rollout", "list")
	if len(all.GetRollouts()) == 0 {
		p.t.Fatalf("there is no rollout: %v: %s", failed, out)
	}
	var res registryv1.GetRolloutResponse
	p.ask(&res, "rollout", "status", all.GetRollouts()[0].GetId())
	return res.GetRollout(), string(out), failed
}

// badRelease is one whose iam doesn't start, that has no discovery-worker and a store more: ECS's circuit breaker trips, the canary goes back, to a blueprint with a component
// more and without the store, whose bucket it keeps, and the other tenant's tasks stay the same ones.
func (p *plane) badRelease(server *ministacktest.Server, ids map[string]string) {
	p.t.Helper()
	// It can be migrated and can't serve: its iam knows its own setting by no name.
	p.release(p.withoutWorker(), "1.1.0", func(program []byte) []byte {
		return bytes.ReplaceAll(program, []byte(`env:"BOOTSTRAP_CODE_HASH"`), []byte(`env:"BOOTSTRAP_CODE_HAZH"`))
	})
	untouched := p.tasks(server, ids["globex"])
	halted, said, err := p.rollout("1.1.0")
	if err == nil || halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
		p.t.Fatalf("a bad release: %v, %s: %s", err, halted, said)
	}
	for _, x := range halted.GetTenants() {
		want := registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
		if x.GetSlug() == "acme" {
			want = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
		}
		if x.GetState() != want {
			p.t.Errorf("%s is %s, want %s", x.GetSlug(), x.GetState(), want)
		}
	}
	if !p.brokeCircuit(server, ids["acme"]+"-iam") || !strings.Contains(said, "iam of "+ids["acme"]+" does not come up") || !strings.Contains(said, "BOOTSTRAP_CODE_HASH") {
		p.t.Errorf("the circuit breaker of ECS isn't why it failed, or nobody said which component and why: %s", said)
	}
	now := p.tasks(server, ids["globex"])
	slices.Sort(untouched)
	slices.Sort(now)
	if len(now) != 5 || !slices.Equal(untouched, now) {
		p.t.Errorf("the other one was touched: its tasks were %v and are %v", untouched, now)
	}
	if got := p.answers("acme"); got != http.StatusOK {
		p.t.Errorf("the canary went back and answers %d", got)
	}
	if now := p.tasks(server, ids["acme"]); len(now) != 5 {
		p.t.Errorf("the canary went back and runs %v", now)
	}
	var back registryv1.Operation
	p.ask(&back, "operation", "show", p.tenant("acme").GetTenant().GetLastOperation())
	var plan registryv1.GetPlanResponse
	p.ask(&plan, "plan", "show", back.GetPlanHash())
	if c := plan.GetRead().GetTenants()[0].GetStackChange(); c.GetThenTemplate() == "" || !slices.Contains(c.GetChanges(), "add DiscoveryWorker (AWS::ECS::Service)") {
		p.t.Errorf("the canary went back by %v", c)
	} else if !slices.ContainsFunc(c.GetChanges(), func(line string) bool { return strings.HasPrefix(line, "keeps the bucket of store clips, ") }) || !p.hasBucket(server, ids["acme"], "clips") {
		p.t.Errorf("the canary went back over a store by %v, and its bucket is there %t", c, p.hasBucket(server, ids["acme"], "clips"))
	}
	p.fleet("rollout", "abort", halted.GetId(), "--reason", "the release is bad")
}

// hasBucket says whether a tenant has a bucket for a store.
func (p *plane) hasBucket(server *ministacktest.Server, tenant, store string) bool {
	p.t.Helper()
	_, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).HeadBucket(p.t.Context(), &s3.HeadBucketInput{Bucket: sdk.String(awstest.Place.Bucket(tenant, store))})
	return err == nil
}

// brokeCircuit says whether ECS gave a deployment of a service up.
func (p *plane) brokeCircuit(server *ministacktest.Server, service string) bool {
	p.t.Helper()
	got, err := ecs.NewFromConfig(server.Root()).DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: sdk.String("a3-dev"), Services: []string{service}})
	if err != nil || len(got.Services) != 1 {
		p.t.Fatalf("describe %s: %v, %v", service, got, err)
	}
	for _, e := range got.Services[0].Events {
		if strings.Contains(sdk.ToString(e.Message), "circuit breaker was triggered") {
			return true
		}
	}
	return false
}

// goodRelease goes through both waves, and each tenant runs it with new tasks.
func (p *plane) goodRelease(server *ministacktest.Server, ids map[string]string) {
	p.t.Helper()
	p.release("fleet", "1.2.0", func(program []byte) []byte { return append(program, "another"...) })
	before := append(p.tasks(server, ids["acme"]), p.tasks(server, ids["globex"])...)
	done, said, err := p.rollout("1.2.0")
	if err != nil || done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		p.t.Fatalf("a good release: %v, %s: %s", err, done, said)
	}
	for slug, id := range ids {
		if is := p.tenant(slug).GetServiceSet().GetRelease(); !strings.HasPrefix(is, "1.2.0@") {
			p.t.Errorf("%s runs %s", slug, is)
		}
		now := p.tasks(server, id)
		if len(now) != 5 || slices.ContainsFunc(now, func(task string) bool { return slices.Contains(before, task) }) {
			p.t.Errorf("%s runs %v, of which some ran before", slug, now)
		}
		if got := p.answers(slug); got != http.StatusOK {
			p.t.Errorf("%s was upgraded and answers %d", slug, got)
		}
	}
}
