// Package aws carries sets out as tasks of ECS: one CloudFormation stack for each tenant, changed by change sets, with the tenant's own roles,
// key, secrets and database, and one for the plane's own set at a release. Authorities and keys are kept on the machine that fleet works from,
// as platform local keeps them; a task is given its part of them by Secrets Manager. It promises what local promises, and that nothing is called
// with credentials of another account or Region than the plane's. It relies on package stack for what a set is.
package aws

import (
	"context"
	"fmt"
	"sync"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/quota"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// Name of the platform.
const Name = "aws"

// Platform is one account and Region of AWS.
type Platform struct {
	// Settings and State of the plane.
	Settings settings.Settings
	State    *state.State
	// Own is the plane's own set.
	Own platform.Set
	// Tenants is the blueprint of tenants' sets.
	Tenants *blueprint.Blueprint
	// Machine keeps the plane's files and makes its databases; its Places are this platform.
	Machine *local.Platform

	// Note is told what is waited for; nil for nobody.
	Note func(text string)

	login sync.Once
	cfg   sdk.Config
	where platform.Where
	fault error

	mu sync.Mutex
	// servers of databases that were looked up.
	servers map[string]*server
	// sessions are those of tenants.
	sessions map[string]sdk.Config
	// releases are what revisions of task definitions run, by ARN.
	releases sync.Map
	// toPush are the digests of images that were made for a plan, and not pushed yet.
	toPush map[string]string

	// lent are the keys of a tenant's session at AWS, which is all that this process is; nil where it is who the operator is.
	lent sdk.CredentialsProvider
	// door is where that process asks for what takes more.
	door platform.Door

	// emulated answers a template as an emulator carried it out, by which drift is looked for there; nil at AWS.
	emulated func(template []byte) ([]byte, error)
}

// KeptBeside implements platform.Keeper: what is a task besides a set's components.
func (p *Platform) KeptBeside() []string { return []string{stack.Migration, stack.OneOff} }

// Name implements platform.Platform.
func (p *Platform) Name() string { return Name }

// config is who fleet is at AWS: it logs in once, and looks where that is.
func (p *Platform) config(ctx context.Context) (sdk.Config, error) {
	p.login.Do(func() {
		if p.cfg, p.fault = session.Load(ctx, p.Settings.AWS.Region); p.fault == nil {
			p.cfg = session.Patient(p.cfg, p.Note)
			if p.lent != nil {
				p.cfg.Credentials = p.lent
				return
			}
			if p.where, p.fault = changeset.Where(ctx, p.cfg); p.fault == nil && p.Settings.AWS.SourceIdentity != "" {
				p.cfg, p.fault = session.AsProvisioner(ctx, p.cfg, stack.Place{Account: p.where.Account, Plane: p.State.Plane}, p.Settings.AWS.SourceIdentity)
			}
		}
	})
	return p.cfg, p.fault
}

// Where implements platform.Platform.
func (p *Platform) Where(ctx context.Context) (platform.Where, error) {
	_, err := p.config(ctx)
	return p.where, err
}

// place is where stacks are.
func (p *Platform) place(ctx context.Context) (stack.Place, error) {
	where, err := p.Where(ctx)
	return stack.Place{Account: where.Account, Region: where.Region, Plane: p.State.Plane, Domain: p.Settings.Domain}, err
}

// placeOf is where a tenant's stack is: with the plane's, or in an account of its own.
func (p *Platform) placeOf(ctx context.Context, s platform.Set) (stack.Place, error) {
	place, err := p.place(ctx)
	if s.Account != "" {
		place.Account, place.Hub = s.Account, place.Account
	}
	return place, err
}

// tenant is who works on one set, a tenant's or, which has none, the plane's own: where it is, by which names, with which credentials.
type tenant struct {
	*Platform
	set platform.Set
	// id is the tenant's, or the name of the plane's own set.
	id    string
	place stack.Place
	cfg   sdk.Config
}

// of takes what it needs to work on a set.
func (p *Platform) of(ctx context.Context, s platform.Set) (*tenant, error) {
	place, err := p.placeOf(ctx, s)
	if err != nil {
		return nil, err
	}
	t := &tenant{Platform: p, set: s, id: s.Name(), place: place}
	t.cfg, err = p.session(ctx, t)
	return t, err
}

// at is the account and Region that the set is in, which is the plane's or the tenant's own.
func (t *tenant) at() platform.Where {
	return platform.Where{Account: t.place.Account, Region: t.place.Region}
}

// stackName is what the set's stack is called.
func (t *tenant) stackName() string {
	if t.set.Tenant.IsZero() {
		return t.place.ControlStack()
	}
	return t.place.StackOf(t.id)
}

// Identity implements platform.Platform: what is the set's own on this machine, and the stack with nothing that runs; of one that is there what it lacks.
func (p *Platform) Identity(ctx context.Context, s platform.Set) (changed bool, err error) {
	if changed, err = p.Machine.Identity(ctx, s); err != nil {
		return changed, err
	}
	t, err := p.of(ctx, s)
	if err != nil {
		return changed, err
	}
	if err := t.stands(ctx); err != nil {
		return changed, err
	}
	if err := t.linked(ctx); err != nil {
		return changed, err
	}
	// One whose making nobody saw the end of has no outputs yet, which the steps after this one read.
	there, err := changeset.Makeable(ctx, cloudformation.NewFromConfig(t.cfg), t.stackName())
	if err != nil {
		return changed, err
	}
	if there != nil {
		if s.Tenant.IsZero() {
			return changed, nil // what its components have is another stack's
		}
		did, err := t.ahead(ctx)
		return changed || did, err
	}
	if err := p.carries(s); err != nil {
		return changed, err
	}
	if t.cfg, err = p.making(ctx, t); err != nil {
		return changed, err
	}
	// Its image comes with Start: a stack whose services run nothing names one that nobody pulls.
	did, err := t.change(ctx, stack.Input{Image: nothing, Release: platform.Release{}}, false)
	return changed || did, err
}

// carries says that a new tenant has no room in the plane's one shared database server, by the connections that it has for each.
func (p *Platform) carries(s platform.Set) error {
	if s.Tenant.IsZero() || s.Dedicated() {
		return nil
	}
	most, err := quota.Shared()
	if err != nil {
		return err
	}
	others := 0
	for _, t := range p.State.Tenants() {
		if !t.Dedicated && !t.ID.IsZero() && t.ID != s.Tenant {
			others++
		}
	}
	if others >= most {
		return fmt.Errorf("the plane's one shared database server has connections for %d tenants, and carries %d: give tenant %s a server of its own, with --tier dedicated, or have another leave first", most, others, s.Tenant)
	}
	return nil
}

// nothing is the digest of no image.
const nothing = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// Database implements platform.Platform.
func (p *Platform) Database(ctx context.Context, s platform.Set) (changed bool, err error) {
	if err := p.useServer(ctx, s); err != nil {
		return false, err
	}
	if changed, err = p.Machine.Database(ctx, s); err != nil {
		return changed, err
	}
	did, err := p.settleLogins(ctx, s)
	return changed || did, err
}

// Placed implements platform.Platform.
func (p *Platform) Placed(ctx context.Context, s platform.Set, r platform.Release) (*registryv1.ServiceSet, error) {
	if err := p.useServer(ctx, s); err != nil {
		return nil, err
	}
	return p.Machine.Placed(ctx, s, r)
}

// outputsOf are the outputs of a stack; nil where there is no such stack.
func (p *Platform) outputsOf(ctx context.Context, cfg sdk.Config, name string) (map[string]string, error) {
	out, err := cloudformation.NewFromConfig(cfg).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("look at stack %s: %w", name, err)
	}
	told := map[string]string{}
	for _, s := range out.Stacks {
		if s.StackStatus == "REVIEW_IN_PROGRESS" {
			return nil, nil
		}
		for _, o := range s.Outputs {
			told[sdk.ToString(o.OutputKey)] = sdk.ToString(o.OutputValue)
		}
	}
	return told, nil
}

func (t *tenant) outputs(ctx context.Context, name string) (map[string]string, error) {
	return t.outputsOf(ctx, t.cfg, name)
}

// stateOf says a component's in one word.
func stateOf(desired, running int32, failed bool) platform.ComponentState {
	switch {
	case failed:
		return platform.Failing
	case desired == 0:
		return platform.Stopping
	case running < desired:
		return platform.Starting
	}
	return platform.Serving
}
