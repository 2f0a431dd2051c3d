package aws_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// balance stands for the load balancer, which the emulator has none of that passes anything on: each connection goes to the gateway's task that
// the plane's zone names then. At AWS it ends TLS with a certificate of ACM's and speaks TLS to the gateway; here it passes octets on.
func balance(t testing.TB) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go passOn(t.Context(), client)
		}
	}()
}

func passOn(ctx context.Context, client net.Conn) {
	defer client.Close()
	var d net.Dialer
	gateway, err := d.DialContext(ctx, "tcp", "gateway.plane."+awstest.Place.Zone()+":7443")
	if err != nil {
		return // whoever calls sees that nobody answers
	}
	defer gateway.Close()
	go func() {
		_, _ = io.Copy(gateway, client)
		_ = gateway.Close()
	}()
	_, _ = io.Copy(client, gateway)
}

// ownTasks are those of the plane's own set that run, with the image of each.
func (p *plane) ownTasks(server *ministacktest.Server, components ...string) (tasks, images []string) {
	p.t.Helper()
	client := ecs.NewFromConfig(server.Root())
	for _, component := range components {
		got, err := client.ListTasks(p.t.Context(), &ecs.ListTasksInput{Cluster: sdk.String("a3-dev"), Family: sdk.String("plane-dev-" + component)})
		if err != nil {
			p.t.Fatal(err)
		}
		if len(got.TaskArns) == 0 {
			continue
		}
		told, err := client.DescribeTasks(p.t.Context(), &ecs.DescribeTasksInput{Cluster: sdk.String("a3-dev"), Tasks: got.TaskArns})
		if err != nil {
			p.t.Fatal(err)
		}
		for _, task := range told.Tasks {
			for _, c := range task.Containers {
				if sdk.ToString(c.Name) == component {
					tasks, images = append(tasks, sdk.ToString(task.TaskArn)), append(images, sdk.ToString(c.Image))
				}
			}
		}
	}
	return tasks, images
}

// standsAtAWS sees that registry and gateway are tasks of the release's image, that another plane up changes nothing, and that a registry that
// is killed is there again, with every tenant answering meanwhile.
func (p *plane) standsAtAWS(server *ministacktest.Server) {
	p.t.Helper()
	before, images := p.ownTasks(server, "registry", "gateway")
	if len(before) != 2 || !strings.Contains(images[0], "@sha256:") || images[0] != images[1] {
		p.t.Fatalf("of the plane these run: %v of %v", before, images)
	}
	if said := p.fleet("plane", "up"); !strings.Contains(said, "nothing changed") {
		p.t.Errorf("plane up again: %s", said)
	}
	registry, _ := p.ownTasks(server, "registry")
	id := registry[0][strings.LastIndex(registry[0], "/")+1:]
	run(p.t, "docker", "kill", "ministack-ecs-"+id[:8]+"-registry")
	if got := p.answers("acme"); got != http.StatusOK {
		p.t.Errorf("the registry was killed and acme answers %d", got)
	}
	p.await("a registry again", func() bool {
		now, _ := p.ownTasks(server, "registry")
		return len(now) == 1 && now[0] != registry[0] && p.command("tenant", "list").Run() == nil
	})
	if got := p.answers("acme"); got != http.StatusOK {
		p.t.Errorf("with the registry's new task acme answers %d", got)
	}
	p.await("the registry's figures", func() bool {
		out, err := p.command("metrics").Output()
		return err == nil && strings.Contains(string(out), "a3_fleet_up 1\n") && strings.Count(string(out), "\na3_tenant_info{") == 2
	})
}

// servesWithoutARegistry has the gateway's task end while no registry runs: its next one goes on from the copy of what it held.
func (p *plane) servesWithoutARegistry(server *ministacktest.Server) {
	p.t.Helper()
	client := ecs.NewFromConfig(server.Root())
	registries := func(n int32) {
		p.t.Helper()
		if _, err := client.UpdateService(p.t.Context(), &ecs.UpdateServiceInput{Cluster: sdk.String("a3-dev"), Service: sdk.String("plane-dev-registry"), DesiredCount: &n}); err != nil {
			p.t.Fatal(err)
		}
		p.await("as many registries as there are to be", func() bool {
			now, _ := p.ownTasks(server, "registry")
			return len(now) == int(n)
		})
	}
	registries(0)
	if p.command("tenant", "list").Run() == nil {
		p.t.Error("there is no registry, and it answers")
	}
	gateway, _ := p.ownTasks(server, "gateway")
	id := gateway[0][strings.LastIndex(gateway[0], "/")+1:]
	run(p.t, "docker", "kill", "ministack-ecs-"+id[:8]+"-gateway")
	p.await("a gateway that answers, without a registry", func() bool {
		now, _ := p.ownTasks(server, "gateway")
		return len(now) == 1 && now[0] != gateway[0] && p.answered("acme") == http.StatusOK
	})
	registries(1)
	p.await("a registry again", func() bool { return p.command("tenant", "list").Run() == nil })
}

// recertified has the gateway's task be started anew with another certificate, where its own is not to be used any longer, and no other task.
func (p *plane) recertified(server *ministacktest.Server) {
	p.t.Helper()
	registry, _ := p.ownTasks(server, "registry")
	gateway, _ := p.ownTasks(server, "gateway")
	if said := p.fleet("plane", "renew"); !strings.Contains(said, "nothing changed") {
		p.t.Errorf("no certificate ends soon: %s", said)
	}
	// One that is gone is made anew as one that ends soon is.
	var state struct{ Served string }
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err == nil {
		err = os.Remove(filepath.Join(cmp.Or(state.Served, p.home), "plane", "components", "gateway", "certificate", "workload.pem"))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if said := p.fleet("plane", "renew"); !strings.Contains(said, "renewed") {
		p.t.Errorf("plane renew: %s", said)
	}
	if now, _ := p.ownTasks(server, "registry"); !slices.Equal(now, registry) {
		p.t.Errorf("the gateway's certificate was renewed and the registry runs %v, before that %v", now, registry)
	}
	if now, _ := p.ownTasks(server, "gateway"); len(now) != 1 || now[0] == gateway[0] {
		p.t.Errorf("the gateway's certificate was renewed and it runs %v, before that %v", now, gateway)
	}
	if got := p.answers("acme"); got != http.StatusOK {
		p.t.Errorf("with a renewed certificate acme answers %d", got)
	}
	if said := p.fleet("plane", "renew"); !strings.Contains(said, "nothing changed") {
		p.t.Errorf("plane renew again: %s", said)
	}
}

// renewed has plane up, of another release, replace registry and gateway, and no task of a tenant.
func (p *plane) renewed(server *ministacktest.Server, tenant string) {
	p.t.Helper()
	own, images := p.ownTasks(server, "registry", "gateway")
	tenants := p.tasks(server, tenant)
	file := filepath.Join(p.bin, "accessos")
	program, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file+".new", append(program, "newer"...), 0o755) //nolint:gosec // G306: it is a program
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.fleet("plane", "up")
	now, newer := p.ownTasks(server, "registry", "gateway")
	if len(now) != 2 || slices.ContainsFunc(now, func(task string) bool { return slices.Contains(own, task) }) || newer[0] == images[0] || newer[0] != newer[1] {
		p.t.Errorf("the plane was upgraded and runs %v of %v; before that %v of %v", now, newer, own, images)
	}
	if is := p.tasks(server, tenant); !slices.Equal(is, tenants) {
		p.t.Errorf("the plane was upgraded and the tenant runs %v, before that %v", is, tenants)
	}
	if got := p.answers("acme"); got != http.StatusOK {
		p.t.Errorf("the plane was upgraded and acme answers %d", got)
	}
}

// down has registry and gateway run nothing, and leaves tenants' tasks alone.
func (p *plane) down(server *ministacktest.Server, tenant string) {
	p.t.Helper()
	p.fleet("plane", "down")
	if left, _ := p.ownTasks(server, "registry", "gateway"); len(left) != 0 {
		p.t.Errorf("the plane is down and these run: %v", left)
	}
	if tasks := p.tasks(server, tenant); len(tasks) != 5 {
		p.t.Errorf("the plane is down and of the tenant these run: %v", tasks)
	}
	if said := p.fleet("plane", "down"); !strings.Contains(said, "nothing changed") {
		p.t.Errorf("plane down again: %s", said)
	}
}

func (p *plane) await(what string, is func() bool) {
	p.t.Helper()
	within, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	for tick := time.Tick(500 * time.Millisecond); !is(); {
		select {
		case <-within.Done():
			p.t.Fatalf("there is not: %s", what)
		case <-tick:
		}
	}
}
