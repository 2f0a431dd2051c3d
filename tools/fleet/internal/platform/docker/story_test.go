package docker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/internal/enginetest"
)

// A fleet of three tenants in containers, the first with a database server of its own (tier dedicated): it discovers and answers, and is kept to its share of memory; a bad
// release halts at its canary and goes back, with no container of the others touched (row F32); a good one goes through; tenants of either tier are
// suspended and resumed, backed up and restored, one is copied, and the registry is restored, which knows those again that came after; and one of each leaves, of which
// nothing is found.
func TestStoryOfAFleetInContainers(t *testing.T) {
	enginetest.Need(t)
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	p := newPlane(t)
	p.environ = []string{"A3_TENANTS=globex"}
	p.fleet("plane", "up")
	p.environ = []string{"A3_TENANTS=acme,globex,initech"}
	p.fleet("tenant", "create", "acme", "--tier", "dedicated")
	if up := p.fleet("plane", "up"); !strings.Contains(up, "1 path; everything that it rests on was read") {
		t.Errorf("the tenant with a server of its own gets no answer:\n%s", up)
	}
	p.ownServerIsApart(t, "acme")
	p.fleet("tenant", "label", "acme", "ring=canary")
	for _, slug := range []string{"globex", "initech"} {
		p.fleet("tenant", "label", slug, "ring=general")
	}
	p.well(t, "acme", "globex", "initech")
	p.outgrows(t, "acme", "globex")
	p.badRelease(t)
	p.goodRelease(t, "acme", "globex", "initech")
	p.suspended(t, "globex")
	p.suspended(t, "acme")
	p.restored(t, "acme")
	p.copied(t, "monday", "acme")
	p.restoredAsleep(t, "globex")
	p.registryRestored(t)
	p.leaves(t, "initech")
	p.leaves(t, "acme")
	if got := p.answers(t, "monday"); got != http.StatusOK {
		t.Errorf("the tenant that it is a copy of left, and monday answers %d", got)
	}
}

// well waits until the page of the fleet, which is made of what the engine and the sets' own reports say, finds nothing wrong.
func (p *plane) well(t *testing.T, slugs ...string) {
	t.Helper()
	const tries, every = 30, 2 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for range tries {
		if said = p.fleet("status"); strings.Contains(said, fmt.Sprintf("%d tenants: 0 in trouble", len(slugs))) && !strings.Contains(said, "drift") {
			return
		}
		<-tick.C
	}
	t.Errorf("status says: %s", said)
}

// ask runs a command with -o json.
func (p *plane) ask(t *testing.T, into proto.Message, args ...string) {
	t.Helper()
	var out, said bytes.Buffer
	cmd := p.command(append([]string{"-o", "json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("fleet %v: %v: %s", args, err, said.String())
	}
	if err := protojson.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatalf("fleet %v: %v: %s", args, err, out.String())
	}
}

// containers are the ids of a plane's containers by name.
func (p *plane) containers(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(run(t, "docker", "ps", "--no-trunc", "--format", "{{.Names}} {{.ID}}")) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = id
	}
	return out
}

// release registers what change makes of the program.
func (p *plane) release(t *testing.T, version string, change func([]byte) []byte) {
	t.Helper()
	program, err := os.ReadFile(p.product.program)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(p.product.program)
	file := filepath.Join(t.TempDir(), name+"-"+version)
	const executable = 0o755
	if err := os.WriteFile(file, change(program), executable); err != nil {
		t.Fatal(err)
	}
	p.fleet("release", "register", "--version", version, "--artefact", name+"="+file)
}

// rollout plans one to both rings and carries it out, and answers how it ended.
func (p *plane) rollout(t *testing.T, version string) (*registryv1.Rollout, error) {
	t.Helper()
	var plan registryv1.StoredPlan
	p.ask(t, &plan, "rollout", "plan", "--release", version, "--label", "ring=canary", "--label", "ring=general", "--bake", "1s", "--samples", "5",
		"--p99-factor", "0", "--reason", "the story goes on")
	said, failed := p.command("apply", plan.GetHash()).CombinedOutput()
	var all registryv1.ListRolloutsResponse
	p.ask(t, &all, "rollout", "list")
	if len(all.GetRollouts()) == 0 {
		t.Fatalf("there is no rollout: %v: %s", failed, said)
	}
	var res registryv1.GetRolloutResponse
	p.ask(t, &res, "rollout", "status", all.GetRollouts()[0].GetId())
	return res.GetRollout(), failed
}

func (p *plane) badRelease(t *testing.T) {
	t.Helper()
	// It can be migrated and can't serve: a component knows its own setting by no name.
	p.release(t, "1.1.0", func(program []byte) []byte {
		return bytes.ReplaceAll(program, []byte(p.product.setting), []byte(strings.Replace(p.product.setting, "E", "Z", 1)))
	})
	of := func(id string) func(string, string) bool {
		return func(name, _ string) bool { return strings.Contains(name, id) }
	}
	acme := p.tenant(t, "acme").GetTenant().GetId()
	untouched := p.containers(t)
	maps.DeleteFunc(untouched, of(acme))
	halted, err := p.rollout(t, "1.1.0")
	if err == nil || halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
		t.Fatalf("a bad release: %v, %s", err, halted)
	}
	for _, x := range halted.GetTenants() {
		want := registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
		if x.GetSlug() == "acme" {
			want = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
		}
		if x.GetState() != want {
			t.Errorf("%s is %s, want %s", x.GetSlug(), x.GetState(), want)
		}
	}
	now := p.containers(t)
	maps.DeleteFunc(now, of(acme))
	if !maps.Equal(untouched, now) || len(now) == 0 {
		t.Errorf("others were touched: containers were %v and are %v", untouched, now)
	}
	if got := p.answers(t, "acme"); got != http.StatusOK {
		t.Errorf("the canary went back and answers %d", got)
	}
	p.fleet("rollout", "abort", halted.GetId(), "--reason", "the release is bad")
	t.Attr("row", fmt.Sprintf("F32 %d", len(halted.GetTenants())))
}

func (p *plane) goodRelease(t *testing.T, slugs ...string) {
	t.Helper()
	p.release(t, "1.2.0", func(program []byte) []byte { return append(program, "another"...) })
	done, err := p.rollout(t, "1.2.0")
	if err != nil || done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		t.Fatalf("a good release: %v, %s", err, done)
	}
	for _, slug := range slugs {
		if is := p.tenant(t, slug).GetServiceSet().GetRelease(); !strings.HasPrefix(is, "1.2.0@") {
			t.Errorf("%s runs %s", slug, is)
		}
	}
}

func (p *plane) suspended(t *testing.T, slug string) {
	t.Helper()
	id := p.tenant(t, slug).GetTenant().GetId()
	p.does(t, "suspend", slug)
	if got, stranger := p.answers(t, slug), p.answers(t, "nobody-ever"); got != http.StatusNotFound || stranger != got {
		t.Errorf("suspended it answers %d, and a host that there isn't %d", got, stranger)
	}
	for name := range p.containers(t) {
		if strings.Contains(name, id) && !strings.HasSuffix(name, "-postgres") {
			t.Errorf("suspended, %s runs", name)
		}
	}
	p.does(t, "resume", slug)
	if got := p.answers(t, slug); got != http.StatusOK {
		t.Errorf("resumed it answers %d", got)
	}
}

func (p *plane) leaves(t *testing.T, slug string) {
	t.Helper()
	id := p.tenant(t, slug).GetTenant().GetId()
	p.does(t, "offboard", slug)
	if got := p.answers(t, slug); got != http.StatusNotFound {
		t.Errorf("it left and answers %d", got)
	}
	left := run(t, "docker", "ps", "-a", "--format", "{{.Names}}") + run(t, "docker", "network", "ls", "--format", "{{.Name}}") + run(t, "docker", "volume", "ls", "--format", "{{.Name}}")
	if strings.Contains(left, id) {
		t.Errorf("the engine has still of it: %s", left)
	}
	exported := 0
	for _, root := range []string{p.home, "/run/a3", pgserver.PlaceForOthers} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "export-"+slug+"-") {
				exported++
				return fs.SkipDir
			}
			if strings.Contains(filepath.Base(path), id) {
				t.Errorf("%s is still there", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if exported != 1 {
		t.Errorf("there are %d exports", exported)
	}
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err != nil || bytes.Contains(text, []byte(id)) {
		t.Errorf("the plane remembers it: %v", err)
	}
}

// does plans and carries out a change of one tenant.
func (p *plane) does(t *testing.T, kind, slug string, more ...string) {
	t.Helper()
	var made struct{ Plan struct{ Hash string } }
	p.json(t, &made, append([]string{"plan", kind, "--tenant", slug, "--reason", "the story goes on"}, more...)...)
	p.fleet("apply", made.Plan.Hash)
}

func (p *plane) tenant(t *testing.T, slug string) *registryv1.TenantStatus {
	t.Helper()
	var status registryv1.TenantStatus
	p.ask(t, &status, "tenant", "show", slug)
	return &status
}

// answers is what a host of the plane answers to who asks it for what its product answers to everybody.
func (p *plane) answers(t *testing.T, slug string) int {
	t.Helper()
	status, _ := p.request(t, slug, http.MethodGet, p.product.answers, "")
	return status
}

// request sends a host of the plane a request through its gateway.
func (p *plane) request(t *testing.T, slug, method, path, text string) (code int, body string) {
	t.Helper()
	if p.door == nil {
		// Where it is doesn't change, and who asks after the last tenant left is answered as well.
		var status struct{ Tenants []struct{ URL string } }
		if p.json(t, &status, "plane", "status"); len(status.Tenants) == 0 {
			t.Fatal("the plane has no tenants")
		}
		var err error
		if p.door, err = url.Parse(status.Tenants[0].URL); err != nil {
			t.Fatal(err)
		}
	}
	_, domain, _ := strings.Cut(p.door.Hostname(), ".")
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", p.door.Port()))
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, //nolint:gosec // who answers is not what is asked
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+slug+"."+domain+path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}
