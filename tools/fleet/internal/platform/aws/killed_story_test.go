package aws_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// A plane at AWS is brought up, put back from its backup, taken down, brought up again and removed by a fleet that is killed at each of its steps,
// and before, while and after it changes the plane's stack. Each time the same command goes on, and what there is in the end is what there is of a plane
// that nobody disturbed. While the registry's database is put back, the gateway's task stays the one that it was and answers all the while.
func TestStoryOfAPlaneKilledAtEachStep(t *testing.T) {
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	server := account(t)
	p := newPlane(t, server, "acme")
	p.canBeKilled()
	balance(t)

	up := []string{"plane", "up"}
	// The stack is made, and changed once: killed when it was made it is unprotected.
	kills := p.killedAt(up, "fleet.stack.planned", "fleet.stack.changed", "fleet.set.migrated", "fleet.set.given", "fleet.stack.planned", "fleet.stack.begun")
	kills += p.killedThrough(up...)
	came := p.world(server)
	if got := p.answers("acme"); got != http.StatusOK {
		t.Errorf("brought up by a fleet that was killed acme answers %d", got)
	}

	kills += p.planeRestored(server)
	p.same("restored", came, server)

	tenant, down := p.idOf("acme"), []string{"plane", "down"}
	kills += p.killedAt(down, "fleet.plane.processes-ended", "fleet.stack.planned", "fleet.stack.begun")
	p.down(server, tenant)
	kills += p.killedAt(up, "fleet.stack.planned", "fleet.stack.changed")
	p.fleet(up...)
	p.same("taken down and brought up", came, server)
	if got := p.answers("acme"); got != http.StatusOK {
		t.Errorf("taken down and brought up by a fleet that was killed acme answers %d", got)
	}

	remove := []string{"plane", "down", "--remove-data"}
	kills += p.killedAt(remove, "fleet.plane.is-down", "fleet.stack.deletable", "fleet.stack.deleting", "fleet.plane.tasks-forgotten")
	p.fleet(remove...)
	if left := p.world(server); len(left) > 0 {
		t.Errorf("removed, and there is still: %q", left)
	}
	t.Logf("fleet was killed %d times", kills)

	// Its database and what it was given stay, and are the next plane's no more.
	as, _ := p.administers(server)
	for _, sql := range []string{"DROP DATABASE " + ownDatabase + " WITH (FORCE)", "DROP OWNED BY " + strings.Join(p.ownRoles(server), ", "), "DROP ROLE " + strings.Join(p.ownRoles(server), ", ")} {
		p.sql(as, "postgres", sql)
	}
	p.fleet(up...)
	p.same("never disturbed", came, server)
}

// canBeKilled has fleet be one with failpoints.
func (p *plane) canBeKilled() {
	p.t.Helper()
	build := exec.CommandContext(p.t.Context(), "go", "build", "-tags", "failpoint", "-o", filepath.Join(p.bin, "fleet"), "a3os.app/tools/fleet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		p.t.Fatalf("build fleet with failpoints: %v: %s", err, out)
	}
}

// killedAt runs a command once for each point, which has it killed there.
func (p *plane) killedAt(args []string, points ...string) (kills int) {
	p.t.Helper()
	for _, point := range points {
		if !p.killed(point+" kill", args...) {
			p.t.Fatalf("fleet %v came to its end, and was to be killed at %s", args, point)
		}
		kills++
	}
	return kills
}

// killedThrough runs a command until it comes to its end, killed before its first step, then before its second, and so on.
func (p *plane) killedThrough(args ...string) (kills int) {
	p.t.Helper()
	for p.killed(fmt.Sprintf("fleet.plane.before-step kill %d", kills+1), args...) {
		kills++
	}
	const least = 6
	if kills < least {
		p.t.Errorf("fleet %v has %d steps: this shows less than it says", args, kills)
	}
	return kills
}

// killed runs a command that is told where it ends, and answers whether it was killed there; a command that fails by itself fails the test.
func (p *plane) killed(line string, args ...string) bool {
	p.t.Helper()
	cmd := p.command(args...)
	cmd.Env = append(slices.Clone(cmd.Env), "A3_FAILPOINT="+line)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if status, is := ended.Sys().(syscall.WaitStatus); is && status.Signaled() {
			return true
		}
	}
	if err != nil {
		p.t.Fatalf("fleet %v, to be killed (%s): %v: %s", args, line, err, out)
	}
	return false
}

// planeRestored has the registry's database be put back to what it was in a backup, once undisturbed and once killed at each step.
func (p *plane) planeRestored(server *ministacktest.Server) (kills int) {
	p.t.Helper()
	var made []struct {
		Name     string
		Verified time.Time
	}
	p.json(&made, "backup", "--tenant", "plane")
	if len(made) != 1 || made[0].Verified.IsZero() {
		p.t.Fatalf("the backup is %+v", made)
	}
	restore := []string{"restore", "--from", made[0].Name, "--to", "plane", "--replace", "--reason", "its server was lost"}
	for name, carryOut := range map[string]func(){
		"undisturbed": func() { p.fleet(restore...) },
		"killed": func() {
			kills += p.killedAt(restore, "fleet.stack.planned", "fleet.stack.begun")
			kills += p.killedThrough(restore...)
		},
	} {
		p.fleet("tenant", "label", "acme", "of=later")
		registry, _ := p.ownTasks(server, "registry")
		gateway, _ := p.ownTasks(server, "gateway")
		watched := p.watch("acme")
		carryOut()
		asked, others := watched()
		if len(others) > 0 || asked == 0 {
			p.t.Errorf("%s: while the registry was put back acme was asked %d times and answered otherwise: %v", name, asked, others)
		}
		if now, _ := p.ownTasks(server, "gateway"); !slices.Equal(now, gateway) {
			p.t.Errorf("%s: the registry was put back and the gateway runs %v, before that %v", name, now, gateway)
		}
		if now, _ := p.ownTasks(server, "registry"); len(now) != 1 || slices.Equal(now, registry) {
			p.t.Errorf("%s: the registry was put back and runs %v, before that %v", name, now, registry)
		}
		if label := p.tenant("acme").GetTenant().GetLabels()["of"]; label != "" {
			p.t.Errorf("%s: what came after the backup is there", name)
		}
	}
	return kills
}

// watch asks a host all the while, and answers how often it did and what was answered that is not 200.
func (p *plane) watch(slug string) func() (asked int, others []int) {
	ctx, stop := context.WithCancel(p.t.Context())
	var wg sync.WaitGroup
	var asked int
	var others []int
	wg.Go(func() {
		for tick := time.Tick(200 * time.Millisecond); ctx.Err() == nil; <-tick {
			asked++
			if got := p.answered(slug); got != http.StatusOK {
				others = append(others, got)
			}
		}
	})
	return func() (int, []int) {
		stop()
		wg.Wait()
		return asked, others
	}
}

func (p *plane) idOf(slug string) string { return p.tenant(slug).GetTenant().GetId() }

// same holds what there is of the plane against what there was.
func (p *plane) same(when string, was []string, server *ministacktest.Server) {
	p.t.Helper()
	p.compared(when, was, p.world(server))
}

// compared tells what is there no more, and what is there besides.
func (p *plane) compared(when string, was, is []string) {
	p.t.Helper()
	for _, line := range was {
		if !slices.Contains(is, line) {
			p.t.Errorf("%s, and this is no more: %s", when, line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			p.t.Errorf("%s, and this is besides: %s", when, line)
		}
	}
}

// ownDatabase is the plane's.
const ownDatabase = "registry"

func (p *plane) ownRoles(server *ministacktest.Server) []string {
	p.t.Helper()
	return p.column(server, "postgres", "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'registry') ORDER BY 1")
}

func (p *plane) column(server *ministacktest.Server, database, sql string) []string {
	p.t.Helper()
	as, _ := p.administers(server)
	as.Path = database
	conn, err := pgx.Connect(p.t.Context(), as.String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(p.t.Context())
	rows, err := conn.Query(p.t.Context(), sql)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// stackAndServices is what AWS says of a stack, where it is there, and of services of the plane's cluster that are.
func (p *plane) stackAndServices(server *ministacktest.Server, stack string, services ...string) (out []string) {
	p.t.Helper()
	ctx := p.t.Context()
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	stacks := cloudformation.NewFromConfig(server.Root())
	if told, err := stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &stack}); err == nil {
		policy, err := stacks.GetStackPolicy(ctx, &cloudformation.GetStackPolicyInput{StackName: &stack})
		if err != nil {
			p.t.Fatal(err)
		}
		add("stack %s protected %v policy %s", told.Stacks[0].StackStatus, sdk.ToBool(told.Stacks[0].EnableTerminationProtection), sdk.ToString(policy.StackPolicyBody))
	}
	client := ecs.NewFromConfig(server.Root())
	told, err := client.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: sdk.String("a3-dev"), Services: services})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range told.Services {
		if sdk.ToString(s.Status) != "ACTIVE" {
			continue
		}
		d, err := client.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: s.TaskDefinition})
		if err != nil {
			p.t.Fatal(err)
		}
		add("service %s desired %d runs %d deployments %d", sdk.ToString(s.ServiceName), s.DesiredCount, s.RunningCount, len(s.Deployments))
		for _, c := range d.TaskDefinition.ContainerDefinitions {
			add("service %s container %s of %s", sdk.ToString(s.ServiceName), sdk.ToString(c.Name), sdk.ToString(c.Image))
		}
	}
	return out
}

// world is all that there is of the plane's own set, at AWS and on this machine; nothing where it was removed, but for what stays then.
func (p *plane) world(server *ministacktest.Server) (out []string) {
	p.t.Helper()
	ctx := p.t.Context()
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	out = p.stackAndServices(server, awstest.Place.ControlStack(), "plane-dev-registry", "plane-dev-gateway")
	if _, err := os.Stat(p.home); errors.Is(err, fs.ErrNotExist) {
		return out
	}
	secrets := secretsmanager.NewFromConfig(server.Root())
	for _, component := range []string{"registry", "gateway", "migrate"} {
		got, err := secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: sdk.String(awstest.Place.ComponentSecret("plane", component))})
		var keys map[string]string
		if err == nil {
			err = json.Unmarshal([]byte(sdk.ToString(got.SecretString)), &keys)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		for key, value := range keys {
			add("%s is given %s, nothing %v", component, key, value == "")
		}
	}
	for _, line := range p.column(server, "postgres", "SELECT rolname || ' ' || rolconnlimit FROM pg_roles WHERE starts_with(rolname, 'registry')") {
		add("role %s", line)
	}
	for _, line := range p.column(server, "postgres", "SELECT datname FROM pg_database WHERE starts_with(datname, 'registry')") {
		add("database %s", line)
	}
	for _, line := range p.column(server, ownDatabase, "SELECT schemaname || '.' || tablename || ' ' || tableowner FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')") {
		add("table %s", line)
	}
	var state struct {
		Served, Front          string
		Runs, Migrated, Images map[string]string
	}
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	add("front %s runs %s migrated %s images %v", state.Front, state.Runs["plane"], state.Migrated["plane"], state.Images)
	for _, dir := range []string{"plane", "keys", "restoring"} {
		p.files(filepath.Join(cmp.Or(state.Served, p.home), dir), add)
	}
	return out
}

func (p *plane) files(dir string, add func(format string, args ...any)) {
	p.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(dir), path)
		add("file %s %s", rel, info.Mode())
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}
