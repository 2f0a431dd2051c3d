package plane

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"a3os.app/deploy/sample"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// Up brings the plane and the tenants of its settings up, and says whether there was anything to do.
func (p *Plane) Up(ctx context.Context) (changed bool, err error) {
	if err := p.check(ctx); err != nil {
		return false, err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := p.replaceOutdated(ctx); err != nil {
		return false, err
	}
	if err := p.open(ctx); err != nil {
		return false, err
	}
	var slugs []string
	for _, t := range p.state.Tenants {
		slugs = append(slugs, t.Slug)
	}
	for _, slug := range p.Settings.Tenants {
		if _, known := p.state.Tenant(slug); !known {
			slugs = append(slugs, slug)
		}
	}
	if changed, err = p.control(ctx, slugs); err != nil {
		return changed, err
	}
	for _, slug := range slugs {
		did, err := p.Tenant(ctx, slug, "", "")
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	for _, slug := range p.Settings.Tenants {
		if t, ok := p.state.Tenant(slug); ok && (changed || !t.Welcomed) {
			did, err := p.welcomeTenant(ctx, t)
			if err != nil {
				return changed, err
			}
			changed = changed || did
		}
	}
	return changed, nil
}

// replaceOutdated stops a plane that an earlier release, or another user, keeps running: its processes are kept otherwise than they
// are to be.
func (p *Plane) replaceOutdated(ctx context.Context) error {
	if !p.supervisor.Outdated(ctx) {
		return nil
	}
	p.report.Note("the plane runs as an earlier release, or another user, started it: it is stopped first")
	if err := p.supervisor.Stop(ctx); err != nil {
		return fmt.Errorf("stop the plane: %w", err)
	}
	return nil
}

// step does one thing, tells it when it changed something, and says what it was about when it fails.
func (p *Plane) step(changed *bool, what string, do func() (bool, error)) error {
	began := time.Now()
	did, err := do()
	*changed = *changed || did
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if did {
		p.report.Done(what, time.Since(began))
	}
	return nil
}

// sequence does steps until one fails.
func sequence(steps ...func() (bool, error)) func() (bool, error) {
	return func() (changed bool, err error) {
		for _, s := range steps {
			did, err := s()
			if changed = changed || did; err != nil {
				return changed, err
			}
		}
		return changed, nil
	}
}

// control brings the plane's own services up.
func (p *Plane) control(ctx context.Context, slugs []string) (changed bool, err error) {
	pf, sets := p.platform, p.carrier()
	steps := []struct {
		what string
		do   func() (bool, error)
	}{
		{"certificates of the plane", sequence(
			func() (bool, error) { return sets.Identity(ctx, p.own) },
			func() (bool, error) { return pf.Web(slugs) })},
		{"supervisor", func() (bool, error) {
			return p.supervisor.Ensure(ctx, p.Programs())
		}},
		{p.groundIs(), func() (bool, error) { return p.ground(ctx) }},
		{"a sample company's PostgreSQL, to be discovered", sequence(
			func() (bool, error) { return p.serveSample(ctx) },
			func() (bool, error) { return false, p.fillSample(ctx) })},
		{"database of the registry", sequence(
			func() (bool, error) { return sets.Database(ctx, p.own) },
			func() (bool, error) { return sets.Migrate(ctx, p.own, p.release) },
			func() (bool, error) { return sets.Mark(ctx, p.own) })},
		{"registry and gateway", sequence(
			func() (bool, error) { return false, p.noteFront() },
			func() (bool, error) { return sets.Start(ctx, p.own, p.release) },
			func() (bool, error) { return false, p.awaitRegistry(ctx) })},
	}
	for _, s := range steps {
		if err := p.step(&changed, s.what, s.do); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (p *Plane) noteFront() error {
	if p.state.Front == p.Settings.Address() {
		return nil
	}
	p.state.Front = p.Settings.Address()
	return p.state.Save()
}

func (p *Plane) fillSample(ctx context.Context) error {
	url, err := p.sampleURL("postgres")
	if err != nil {
		return err
	}
	return sample.Apply(ctx, url)
}

// Tenant makes a tenant with its set, or brings what is there up to date, and says whether there was anything to do. The plane's own
// services run.
func (p *Plane) Tenant(ctx context.Context, slug, name, admin string) (changed bool, err error) {
	t, known := p.state.Tenant(slug)
	if !known {
		if name == "" {
			name = slug
		}
		p.state.Tenants = append(p.state.Tenants, state.Tenant{Slug: slug, Name: name, CreateKey: rand.Text()})
		if err := p.state.Save(); err != nil {
			return false, err
		}
		t = &p.state.Tenants[len(p.state.Tenants)-1]
	}
	conn, err := p.registry()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	err = p.step(&changed, slug+": known to the registry", func() (bool, error) { return p.register(ctx, conn, t) })
	if err != nil {
		if t.ID.IsZero() && isUsage(err) {
			// The registry will never have it: nothing is left behind.
			p.state.Tenants = p.state.Tenants[:len(p.state.Tenants)-1]
			return changed, errors.Join(err, p.state.Save())
		}
		return changed, err
	}
	sets, set := p.carrier(), platform.Set{Blueprint: p.blueprint, Tenant: t.ID, Slug: t.Slug}
	if err := p.platform.NotRestoring(set); err != nil {
		return changed, err
	}
	steps := []struct {
		what string
		do   func() (bool, error)
	}{
		{"keys and certificates of its own", sequence(
			func() (bool, error) { return sets.Identity(ctx, set) },
			func() (bool, error) { return p.licensed(ctx, conn, set) },
			func() (bool, error) { return p.nameFirstAdmin(set, admin) })},
		{"database and roles of its own", sequence(
			func() (bool, error) { return sets.Database(ctx, set) },
			func() (bool, error) { return sets.Migrate(ctx, set, p.release) },
			func() (bool, error) { return sets.Mark(ctx, set) })},
		{fmt.Sprintf("its %d services", len(p.blueprint.Components)), func() (bool, error) { return sets.Start(ctx, set, p.release) }},
		{"reachable at " + p.Settings.URL(t.Slug), sequence(
			func() (bool, error) { return false, p.publish(ctx, conn, set) },
			func() (bool, error) { return p.awaitGateway(ctx, t) })},
	}
	for _, s := range steps {
		if err := p.step(&changed, slug+": "+s.what, s.do); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// isUsage says that the registry refused what was asked for, whoever asks again.
func isUsage(err error) bool {
	k := fault.KindOf(err)
	return k == fault.InvalidArgument || k == fault.AlreadyExists
}

// register makes the tenant known. A command that was killed after the registry had made it gets the same tenant again.
func (p *Plane) register(ctx context.Context, conn *grpc.ClientConn, t *state.Tenant) (bool, error) {
	if !t.ID.IsZero() {
		return false, nil
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", t.CreateKey)
	res, err := registryv1.NewTenantWriteServiceClient(conn).CreateTenant(ctx, &registryv1.CreateTenantRequest{
		Slug: t.Slug, DisplayName: t.Name, Region: "local", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE,
	})
	if err != nil {
		return false, fault.FromRPC(err)
	}
	if t.ID, err = id.ParseTenant(res.GetTenant().GetId()); err != nil {
		return false, fmt.Errorf("the registry answered a tenant without an id: %w", err)
	}
	return true, p.state.Save()
}

// nameFirstAdmin makes the code that the tenant's first admin gets in with.
func (p *Plane) nameFirstAdmin(set platform.Set, email string) (bool, error) {
	have, err := p.platform.FirstAdmin(set)
	if err != nil || have.CodeHash != "" {
		return false, err
	}
	if email == "" {
		email = "admin@" + set.Slug + ".example"
	}
	return true, p.putFirstAdmin(set, email)
}

func (p *Plane) putFirstAdmin(set platform.Set, email string) error {
	code, hash := newCode()
	return p.platform.PutFirstAdmin(set, local.FirstAdmin{Email: email, Code: code, CodeHash: hash})
}

// newCode makes a setup code, and what the set is told of it.
func newCode() (code, hash string) {
	code = rand.Text()
	sum := sha256.Sum256([]byte(code))
	return code, hex.EncodeToString(sum[:])
}

// publish says to the registry where the set is, and that it is served.
func (p *Plane) publish(ctx context.Context, conn *grpc.ClientConn, set platform.Set) error {
	w := registryv1.NewTenantWriteServiceClient(conn)
	placed, err := p.carrier().Placed(ctx, set, p.release)
	if err != nil {
		return err
	}
	if _, err := w.PutServiceSet(ctx, &registryv1.PutServiceSetRequest{TenantId: set.Tenant.String(), ServiceSet: placed}); err != nil {
		return fault.FromRPC(err)
	}
	res, err := registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: set.Tenant.String()})
	if err != nil {
		return fault.FromRPC(err)
	}
	if res.GetStatus().GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_PROVISIONING {
		return nil
	}
	_, err = w.SetTenantState(ctx, &registryv1.SetTenantStateRequest{TenantId: set.Tenant.String(), State: registryv1.TenantState_TENANT_STATE_ACTIVE})
	if err != nil {
		return fault.FromRPC(err)
	}
	return nil
}

// registry connects to the plane's registry as its operator.
func (p *Plane) registry() (*grpc.ClientConn, error) { return p.platform.Registry() }

// awaitRegistry returns when the registry answers. One that runs serves already, but where its certificate had expired it takes a moment
// to take up the one that was just made.
func (p *Plane) awaitRegistry(ctx context.Context) error {
	const most = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	conn, err := p.registry()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = registryv1.NewTenantServiceClient(conn).ListTenants(ctx, &registryv1.ListTenantsRequest{PageSize: 1}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("the registry does not answer: %w; see `fleet plane status`", fault.FromRPC(err))
	}
	return nil
}

// awaitGateway returns when the tenant's issuer answers through the gateway.
func (p *Plane) awaitGateway(ctx context.Context, t *state.Tenant) (bool, error) {
	const most = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = ask(ctx, client, p.Settings.URL(t.Slug)+"/.well-known/openid-configuration"); last == nil {
			first := !t.Served
			if !first && t.URL == p.Settings.URL(t.Slug) {
				return false, nil
			}
			t.Served, t.URL = true, p.Settings.URL(t.Slug)
			return first, p.state.Save()
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("the gateway does not lead there yet: %w; see `fleet plane status`", last)
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

// client reaches the gateway whatever its host names resolve to, and trusts the local authority.
func (p *Plane) client() (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if ca := p.WebCA(); ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read whom to believe the gateway's certificate by: %w", err)
		}
		roots.AppendCertsFromPEM(text)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, p.Settings.Dial())
		},
	}}, nil
}
