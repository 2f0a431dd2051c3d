package plane

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"a3os.app/deploy/sample"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
)

// Up brings the plane and the tenants of its settings up, and says whether there was anything to do. A tenant that can't be brought up keeps
// no other down; the error names each.
func (p *Plane) Up(ctx context.Context) (changed bool, err error) {
	if err := p.check(ctx); err != nil {
		return false, err
	}
	if err := p.openState(); err != nil {
		return false, err
	}
	unlock, err := p.lockAndLook(ctx)
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
	if err := p.platform.NotRestoring(p.own); err != nil {
		return false, err
	}
	// Where the product's blueprint is may have changed, if nothing else did.
	if err := errors.Join(p.state.Save(), p.keepSettings()); err != nil {
		return false, err
	}
	if names := local.Withheld(os.Environ()); len(names) > 0 {
		p.report.Note(fmt.Sprintf("%s: no process is told what may hold a token, which would be in the environment of every tenant's: have a collector on this machine add it", strings.Join(names, ", ")))
	}
	var slugs []string
	for _, t := range p.state.Tenants() {
		slugs = append(slugs, t.Slug)
	}
	for _, slug := range p.Settings.Tenants {
		if _, known := p.state.Tenant(slug); !known && p.state.Plane != prod {
			slugs = append(slugs, slug)
		}
	}
	if changed, err = p.control(ctx, slugs); err != nil {
		return changed, err
	}
	if err := errors.Join(p.tellRenewed(ctx, p.own), p.registerBuilt(ctx)); err != nil {
		return changed, err
	}
	did, up, err := p.eachTenant(ctx, slugs, func(slug string) (bool, error) {
		return p.Tenant(ctx, slug, "", "", reasonUp, registryv1.IsolationTier_ISOLATION_TIER_UNSPECIFIED)
	})
	changed = changed || did
	switch {
	case p.state.Plane != prod:
		did, greeted := p.welcomeAll(ctx, up, changed)
		return changed || did, errors.Join(err, greeted)
	case len(slugs) == 0:
		p.report.Note("a plane prod begins without tenants: register a release (fleet release register), then fleet plan provision --tenant SLUG --release VERSION --reason TEXT, fleet approve HASH --reason TEXT as another operator whose key is their own (fleet operator request NAME, on a machine of theirs), and fleet apply HASH")
	}
	return changed, err
}

// eachTenant does something with one tenant after the other, and answers with which it came out well. What is wrong with one keeps no other
// from its turn; what is wrong with the registry, or an interrupt, does.
func (p *Plane) eachTenant(ctx context.Context, slugs []string, do func(slug string) (bool, error)) (changed bool, well []string, err error) {
	var errs []error
	for _, slug := range slugs {
		did, err := do(slug)
		changed = changed || did
		if err == nil {
			well = append(well, slug)
			continue
		}
		errs = append(errs, fmt.Errorf("tenant %s: %w", slug, err))
		if ctx.Err() != nil {
			break
		}
		if err := p.awaitRegistry(ctx); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return changed, well, errors.Join(errs...)
}

// welcomeAll fills those of some tenants that the settings name, or notes them as newcomers.
func (p *Plane) welcomeAll(ctx context.Context, slugs []string, anew bool) (changed bool, err error) {
	slugs = slices.DeleteFunc(slugs, func(slug string) bool {
		return !slices.Contains(p.Settings.Tenants, slug) || slices.Contains(p.resting, slug)
	})
	if !p.hasSample() {
		return false, p.greet(slugs)
	}
	changed, _, err = p.eachTenant(ctx, slugs, func(slug string) (bool, error) {
		t, ok := p.state.Tenant(slug)
		if !ok || !anew && t.Welcomed {
			return false, nil
		}
		return p.welcomeTenant(ctx, t)
	})
	return changed, err
}

// greet notes the tenants that fleet doesn't fill itself and whose admins were not told yet how they get in.
func (p *Plane) greet(slugs []string) error {
	for _, slug := range slugs {
		if t, ok := p.state.Tenant(slug); ok && !t.Welcomed {
			if _, err := p.state.Change(slug, func(t *state.Tenant) { t.Welcomed = true }); err != nil {
				return err
			}
			p.newcomers = append(p.newcomers, slug)
		}
	}
	return nil
}

// Newcomers are the tenants that came with Up and whose first admins are to be handed what [Plane.Invitation] says.
func (p *Plane) Newcomers() []string { return p.newcomers }

// Serving are the tenants of this machine that Up brought up: none that the settings name and nobody made, nor one that rests.
func (p *Plane) Serving() []string {
	return slices.DeleteFunc(p.slugs(), func(slug string) bool { return slices.Contains(p.resting, slug) })
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
	if err := failpoint.Here("fleet.plane.before-step"); err != nil {
		return err
	}
	began := time.Now()
	did, err := do()
	*changed = *changed || did
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := failpoint.Here("fleet.plane.after-step"); err != nil {
		return err
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
	sets := p.carrier()
	sample := sequence(
		func() (bool, error) { return p.serveSample(ctx) },
		func() (bool, error) { return false, p.fillSample(ctx) })
	if p.state.Plane == prod {
		// Nothing invented stands beside what customers have.
		sample = func() (bool, error) { return false, nil }
	}
	steps := []struct {
		what string
		do   func() (bool, error)
	}{
		{"certificates of the plane", sequence(
			func() (bool, error) { return sets.Identity(ctx, p.own) },
			func() (bool, error) { return p.web(slugs...) })},
		{"supervisor", func() (bool, error) {
			return p.supervisor.Ensure(ctx, p.Programs())
		}},
		{p.groundIs(), func() (bool, error) { return p.ground(ctx) }},
		{"a sample company's PostgreSQL, to be discovered", sample},
		{"database of the registry", sequence(
			func() (bool, error) { return sets.Database(ctx, p.own) },
			func() (bool, error) { return sets.Migrate(ctx, p.own, p.controls) },
			func() (bool, error) { return sets.Mark(ctx, p.own) })},
		{"registry and gateway", sequence(
			func() (bool, error) { return false, p.noteFront() },
			func() (bool, error) { return sets.Start(ctx, p.own, p.controls) },
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
	if !p.hasSample() {
		return nil
	}
	url, err := p.sampleURL("postgres")
	if err != nil {
		return err
	}
	return sample.Apply(ctx, url)
}

// nameFirstAdmin makes the code that the tenant's first admin gets in with.
func (p *Plane) nameFirstAdmin(set platform.Set, email string) (bool, error) {
	if p.another() {
		return false, nil
	}
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
	err = fault.FromRPC(err)
	if fault.KindOf(err) == fault.PermissionDenied {
		return err // it answers, and not to this operator
	}
	if err != nil {
		return fmt.Errorf("the registry does not answer: %w; see `fleet plane status`", err)
	}
	return nil
}
