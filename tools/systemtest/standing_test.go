package systemtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/deploy/observability"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// page is what `fleet status -o json` answers.
type page struct {
	Blind   []string
	Tenants []row
}

// row is what it says of a tenant.
type row struct {
	ID, Slug, State, Severity string
	Serving, Components       int
	Findings                  []struct {
		Kind, Component, Reason, Next string
		Drift                         bool
	}
}

// found are the kinds of what the page says of a tenant, drift marked.
func (x *tenant) found(t *testing.T) ([]string, error) {
	t.Helper()
	var p page
	if err := x.plane.json(t.Context(), &p, "status"); err != nil {
		return nil, err
	}
	if len(p.Blind) > 0 {
		t.Errorf("the page is blind: %v", p.Blind)
	}
	for _, y := range p.Tenants {
		if y.ID != x.id {
			continue
		}
		kinds := []string{}
		for _, f := range y.Findings {
			kind := strings.TrimSuffix(f.Kind+" "+f.Component, " ")
			if f.Drift {
				kind = "drift: " + kind
			}
			if f.Reason == "" || f.Next == "" {
				t.Errorf("%s has no reason or no next step: %+v", f.Kind, f)
			}
			kinds = append(kinds, kind)
		}
		return kinds, nil
	}
	return nil, fmt.Errorf("the page has no tenant %s", x.slug)
}

// eventually waits until the page says this of a tenant, besides restarts and failed requests, which another test may have made: the page
// counts those of five minutes.
func (x *tenant) eventually(t *testing.T, want ...string) {
	t.Helper()
	within(t, 90*time.Second, func() error {
		got, err := x.found(t)
		if err != nil {
			return err
		}
		got = slices.DeleteFunc(got, func(k string) bool {
			return strings.HasPrefix(k, "restarts") || strings.HasPrefix(k, "report_late") || strings.HasPrefix(k, "errors")
		})
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("of %s the page says %q, want %q", x.slug, got, want)
		}
		return nil
	})
}

// comesFirst sees that nobody who is in no trouble stands before a tenant that is, and that the reason is told, on the page that people read
// and in the one that programs do. Other tests may have others in trouble meanwhile.
func (x *tenant) comesFirst(t *testing.T, reason, next string) {
	t.Helper()
	var p page
	if err := x.plane.json(t.Context(), &p, "status"); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(p.Tenants, func(y row) bool { return y.ID == x.id })
	for i, y := range p.Tenants {
		if i < at && y.Severity != "critical" {
			t.Errorf("%s is %s and stands before %s", y.Slug, y.Severity, x.slug)
		}
	}
	if y := p.Tenants[at]; y.Severity != "critical" || y.Serving != y.Components-1 {
		t.Errorf("%s is %s, %d of %d serve", y.Slug, y.Severity, y.Serving, y.Components)
	}
	s := x.plane.fleet(t, "status", "--exit-code")
	told := regexp.MustCompile(`(?m)^!! +` + x.slug + ` +active .* 4/5 `).FindStringIndex(s.out)
	well := regexp.MustCompile(`(?m)^ok +`).FindStringIndex(s.out)
	if s.code != 1 || told == nil || well != nil && well[0] < told[0] || !strings.Contains(s.out, reason) || !strings.Contains(s.out, "next: "+next) {
		t.Errorf("fleet status exits with %d and says\n%s", s.code, s.out)
	}
}

func TestPageSaysWhatIsWrongWithATenant(t *testing.T) {
	full(t)
	t.Parallel()
	x := borrow(t)
	x.eventually(t)
	t.Run("a component that hangs", func(t *testing.T) {
		pid := shared.pids(t)[x.id+"/integrations"]
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// Whoever is called begins with either of these, and is led to what ends it.
		within(t, 30*time.Second, func() error {
			if s := shared.fleet(t, "plane", "status").out; !regexp.MustCompile(`(?m)^`+x.slug+` +integrations +not answering for \d+s `).MatchString(s) ||
				!strings.Contains(s, x.id+"/integrations is not answering") || !strings.Contains(s, fmt.Sprintf("kill -9 %d", pid)) {
				return errors.New(s)
			}
			return nil
		})
		x.eventually(t, "unreachable integrations")
		within(t, 30*time.Second, func() error {
			if s := shared.fleet(t, "status").out; !strings.Contains(s, fmt.Sprintf("next: kill -9 %d", pid)) {
				return errors.New(s)
			}
			return nil
		})
		within(t, 30*time.Second, func() error { // until the set says so too
			var p page
			err := x.plane.json(t.Context(), &p, "status")
			if i := slices.IndexFunc(p.Tenants, func(y row) bool { return y.ID == x.id }); err == nil && p.Tenants[i].Serving == p.Tenants[i].Components {
				err = errors.New("all of it is said to serve")
			}
			return err
		})
		x.comesFirst(t, "integrations can't be reached by its set", fmt.Sprintf("kill -9 %d", pid))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
	x.eventually(t)
	writes := registryv1.NewTenantWriteServiceClient(shared.operator(t))
	set := func(t *testing.T, s registryv1.TenantState) {
		t.Helper()
		if _, err := writes.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: x.id, State: s}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a suspended set that runs", func(t *testing.T) {
		set(t, registryv1.TenantState_TENANT_STATE_SUSPENDED)
		defer set(t, registryv1.TenantState_TENANT_STATE_ACTIVE)
		x.eventually(t, "drift: should_not_run audit", "drift: should_not_run discovery", "drift: should_not_run discovery-worker", "drift: should_not_run iam",
			"drift: should_not_run integrations")
	})
	x.eventually(t)
	t.Run("a set that isn't what the registry says", func(t *testing.T) {
		got, err := registryv1.NewTenantServiceClient(shared.operator(t)).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: x.id})
		if err != nil {
			t.Fatal(err)
		}
		present := got.GetStatus().GetServiceSet()
		put := func(s *registryv1.ServiceSet) {
			t.Helper()
			if _, err := writes.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: x.id, ServiceSet: s}); err != nil {
				t.Fatal(err)
			}
		}
		// One more than there is, one fewer, and all of another program.
		wrong := &registryv1.ServiceSet{CaCertificatesPem: present.GetCaCertificatesPem(), Database: present.GetDatabase(),
			Release: "9.9.9@sha256:" + strings.Repeat("0", 64)}
		for _, c := range present.GetComponents() {
			if c.GetName() != "integrations" {
				wrong.Components = append(wrong.Components, c)
			} else {
				wrong.Components = append(wrong.Components, &registryv1.Component{Name: "ghost", Address: c.GetAddress()})
			}
		}
		put(wrong)
		defer put(present)
		within(t, 90*time.Second, func() error {
			found, err := x.found(t)
			for _, want := range []string{"drift: missing ghost", "drift: not_kept ghost", "drift: unexpected integrations", "drift: extra integrations",
				"drift: wrong_release iam", "drift: wrong_release_kept iam"} {
				if !slices.Contains(found, want) {
					return fmt.Errorf("the page says %q and nothing of %q: %w", found, want, err)
				}
			}
			return nil
		})
	})
	x.eventually(t)
}

// figures are the names of what a process tells at /metrics.
func scraped(t *testing.T, address string) (names map[string]bool, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	names = map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_0-9]+)[ {]`).FindAllSubmatch(body, -1) {
		names[string(m[1])] = true
	}
	return names, string(body)
}

// Every figure that an alert or a panel is made of is told by this plane, of every tenant and without a word of what its users wrote.
func TestAlertsAndDashboardAreMadeOfFiguresThatThereAre(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "watching")
	if s, err := shared.command(t.Context(), "fleet", "observability", dir); err != nil || s.code != 0 {
		t.Fatalf("%v %s", err, s)
	}
	scrape, err := os.ReadFile(filepath.Join(dir, "prometheus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`targets: \['([^']+)'\]`).FindAllSubmatch(scrape, -1)
	const processes = 2
	if len(targets) != processes {
		t.Fatalf("what is scraped: %s", scrape)
	}
	wanted := map[string]bool{}
	for _, text := range [][]byte{observability.Rules, observability.Dashboard} {
		for _, m := range regexp.MustCompile(`\b(?:a3|registry|gateway|rpc|http)_[a-z_]+`).FindAll(text, -1) {
			wanted[string(m)] = true
		}
	}
	delete(wanted, "rpc_method") // a label
	const atLeast = 20
	if len(wanted) < atLeast {
		t.Fatalf("only %d figures are wanted", len(wanted))
	}
	within(t, time.Minute, func() error {
		told, registry := map[string]bool{}, ""
		for _, target := range targets {
			names, text := scraped(t, string(target[1]))
			for name := range names {
				told[name] = true
			}
			if names["a3_fleet_up"] {
				registry = text
			}
		}
		for name := range wanted {
			if !told[name] && name != "a3_operations_unfinished" { // there is none of it where nothing is under way
				return fmt.Errorf("nobody tells %s", name)
			}
		}
		for _, x := range []*tenant{acme(), globex()} {
			for _, line := range []string{"a3_tenant_components_serving{tenant=%q} 5", "a3_tenant_components_wrong_release{tenant=%q} 0", "a3_tenant_active{tenant=%q} 1"} {
				if line = fmt.Sprintf(line, x.id); !strings.Contains(registry, line) {
					return fmt.Errorf("the registry doesn't tell %s", line)
				}
			}
		}
		return nil
	})
}

// Who doesn't stand beside the registry has its figures by fleet: once, or where a Prometheus of this machine scrapes them, and where nobody else
// reads them.
func TestFiguresComeThroughFleet(t *testing.T) {
	t.Parallel()
	line := fmt.Sprintf("a3_tenant_active{tenant=%q} 1", acme().id)
	within(t, time.Minute, func() error {
		s, err := shared.command(t.Context(), "fleet", "metrics")
		if err != nil || s.code != 0 || !strings.Contains(s.out, line) {
			return errors.Join(err, fmt.Errorf("fleet metrics doesn't tell %s: %s", line, s))
		}
		return nil
	})
	for _, open := range []string{"0.0.0.0:0", ":0", "a3.example:80", "9464"} {
		if s, err := shared.command(t.Context(), "fleet", "metrics", "--listen", open); err != nil || s.code != 2 || !strings.Contains(s.err, "loopback") {
			t.Errorf("at %s: %v %s", open, err, s)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), "metrics", "--listen", "127.0.0.1:0")
	cmd.Env = shared.environ
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	address, _, told := strings.Cut(strings.TrimPrefix(first, "Figures are told at http://"), "/metrics")
	if err != nil || !told {
		t.Fatalf("it says %q, %v", first, err)
	}
	if names, text := scraped(t, address); !names["a3_fleet_up"] || !strings.Contains(text, line) {
		t.Errorf("at %s there is told: %s", address, text)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "rebound.example:80"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a page of another name is answered %s", res.Status)
	}
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		t.Errorf("it was interrupted and ended with %v", err)
	}
}

// What a platform keeps for a set besides its components is no drift: a new plane says of no tenant that there is too much of it.
func TestWhatAPlatformKeepsItselfIsNoDrift(t *testing.T) {
	t.Parallel()
	kept := slices.ContainsFunc(shared.running(), func(name string) bool { return strings.Contains(name, "machine-reader") })
	t.Logf("a machine reader runs: %t", kept)
	for _, x := range shared.tenants {
		found, err := x.found(t)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range found {
			if strings.HasPrefix(kind, "drift: extra") {
				t.Errorf("of %s the page says %q", x.slug, kind)
			}
		}
	}
}
