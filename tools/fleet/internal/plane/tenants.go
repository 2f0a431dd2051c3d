package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/snapshot"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// Status is how a plane is.
type Status struct {
	// Processes in the order in which they start.
	Processes []supervise.Status `json:"processes"`
	// Tenants that the plane knows.
	Tenants []TenantStatus `json:"tenants"`
	// Anew says, a sentence each, how a process that runs and doesn't answer is started anew. None is for that by itself: it may be slow.
	Anew []string `json:"anew"`
	// Walls says, a sentence each, how processes are kept apart on this machine, and what can't be.
	Walls []string `json:"walls"`
}

// TenantStatus is how a tenant is, in short.
type TenantStatus struct {
	Slug string `json:"slug"`
	ID   string `json:"id"`
	URL  string `json:"url"`
	// State is `serving` when its set is there and every process of it serves.
	State string `json:"state"`
}

// Status reads how the plane is; it needs no registry. It fails with supervise.ErrNotRunning.
func (p *Plane) Status(ctx context.Context) (Status, error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return Status{}, p.whyNot(err)
	}
	if err := p.openState(); err != nil {
		return Status{}, err
	}
	st := p.state
	processes, err := p.processes(ctx)
	if err != nil {
		return Status{}, p.whyNot(err)
	}
	out := Status{Processes: processes, Tenants: []TenantStatus{}, Walls: p.walls(ctx, st)}
	for _, t := range st.Tenants() {
		out.Tenants = append(out.Tenants, TenantStatus{Slug: t.Slug, ID: t.ID.String(), URL: cmp.Or(t.URL, p.Settings.URL(t.Slug)), State: setState(processes, p.setOf(t))})
	}
	out.Anew = p.anew(processes)
	return out, nil
}

// anew says of each process that answers nothing how it is started anew.
func (p *Plane) anew(processes []supervise.Status) []string {
	out := []string{}
	for _, s := range processes {
		if what := p.anewOf(s); what != "" {
			out = append(out, fmt.Sprintf("%s runs and does not answer: if it does not by itself, it is started anew by: %s", s.Name, what))
		}
	}
	return out
}

// anewOf is what to type to have a process that answers nothing started anew; empty for any other.
func (p *Plane) anewOf(s supervise.Status) string {
	if p.docker != nil && s.State == supervise.NotAnswering && s.Log == p.docker.LogOf(s.Name) {
		return p.docker.Anew(s.Name)
	}
	return s.Anew()
}

// setState is how a set is: `serving` when all of its components are there and each of its processes serves.
func setState(processes []supervise.Status, set platform.Set) string {
	there, state := map[string]bool{}, supervise.Serving
	var first string
	for _, s := range processes {
		if s.Group != set.Name() {
			continue
		}
		there[s.Name] = true
		if s.State != supervise.Serving && first == "" {
			first, state = s.Name, s.State
		}
	}
	var missing []string
	for _, c := range set.Blueprint.Components {
		if name := set.Name() + "/" + c.Name; !there[name] {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) == len(set.Blueprint.Components):
		return "not started"
	case len(missing) > 0:
		return missing[0] + " is not started"
	case first != "":
		return first + " is " + string(state)
	}
	return string(supervise.Serving)
}

// whyNot says what to do about a plane that isn't running.
func (p *Plane) whyNot(err error) error {
	switch {
	case !errors.Is(err, supervise.ErrNotRunning):
		return err
	case RunDir(p.Settings.Home).Wanted():
		return fmt.Errorf("%w: its supervisor was killed, and its processes with it; make up brings them back", supervise.ErrNotRunning)
	case state.Exists(p.Settings.Home):
		return fmt.Errorf("%w: make up starts it", supervise.ErrNotRunning)
	case p.away():
		return fault.New(fault.FailedPrecondition, "this takes the plane's own machine: there is no plane in %s, and A3_OPERATOR_DIR leads to the registry alone", p.Settings.Home)
	}
	return fmt.Errorf("%w: there is no plane in %s; make up makes one", supervise.ErrNotRunning, p.Settings.Home)
}

// Exists says whether there is a plane in the home that the settings name.
func (p *Plane) Exists() bool { return state.Exists(p.Settings.Home) }

// openExisting is openState for what takes a plane that is there, running or not: by a mistyped A3_HOME nothing is made that looks like one.
func (p *Plane) openExisting() error {
	if err := p.anothers(); err != nil {
		return err
	}
	if !p.Exists() {
		return fault.New(fault.NotFound, "there is no plane in %s: A3_HOME names a plane's directory", p.Settings.Home)
	}
	return p.openState()
}

// away says that fleet works for an operator with a key of their own where there is no plane: at the registry alone.
func (p *Plane) away() bool { return p.Settings.OperatorDir != "" && !state.Exists(p.Settings.Home) }

// Invitation is how a tenant's first admin gets in; without a code once somebody is in through this plane.
func (p *Plane) Invitation(slug string) (local.FirstAdmin, error) {
	t, ok := p.state.Tenant(slug)
	if !ok {
		return local.FirstAdmin{}, fault.New(fault.NotFound, "there is no tenant %q", slug)
	}
	return p.platform.FirstAdmin(p.setOf(t))
}

// CreateTenant makes a tenant with its set in a plane that is up, and says whether there was anything to do. An empty admin is
// admin@SLUG.example.
func (p *Plane) CreateTenant(ctx context.Context, slug, name, admin string, tier registryv1.IsolationTier) (status *registryv1.TenantStatus, changed bool, err error) {
	if !snapshot.IsLabel(slug) {
		return nil, false, fault.New(fault.InvalidArgument, "%q is not a slug: lower-case letters, digits and hyphens, a letter first, at most 40 characters", slug)
	}
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, false, p.whyNot(err)
	}
	if err := p.openState(); err != nil {
		return nil, false, err
	}
	unlock, err := p.lockAndLook(ctx)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	conn, err := p.patient()
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	// It connects while the plane is opened.
	conn.Connect()
	if err := p.open(ctx); err != nil {
		return nil, false, err
	}
	if changed, err = p.tenant(ctx, conn, slug, name, admin, reasonCreate, tier); err != nil {
		return nil, changed, err
	}
	status, err = known(ctx, conn, slug)
	return status, changed, err
}

// Tenants lists every tenant of the registry.
func (p *Plane) Tenants(ctx context.Context) ([]*registryv1.TenantStatus, error) {
	r, done, err := p.reader(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return pages.All(ctx, r.ListTenants, &registryv1.ListTenantsRequest{}, (*registryv1.ListTenantsResponse).GetTenants)
}

// ShowTenant reads one tenant of the registry, by id or slug.
func (p *Plane) ShowTenant(ctx context.Context, name string) (*registryv1.TenantStatus, error) {
	r, done, err := p.reader(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := r.GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: name})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return res.GetStatus(), nil
}

// CopiesOf are the tenants that were made to be copies of one, by its id, and haven't left.
func (p *Plane) CopiesOf(ctx context.Context, id string) ([]string, error) {
	r, done, err := p.reader(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return plan.CopiesOf(ctx, r, id)
}

// reader connects to the registry of a plane that is up.
func (p *Plane) reader(ctx context.Context) (registryv1.TenantServiceClient, func(), error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, nil, err
	}
	return registryv1.NewTenantServiceClient(conn), done, nil
}
