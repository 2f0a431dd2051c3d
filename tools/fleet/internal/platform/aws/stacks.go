package aws

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/smithy-go"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// input completes what a stack is rendered from.
func (t *tenant) input(in stack.Input) stack.Input {
	in.Place, in.Set, in.DatabaseRoots, in.LogLevel = t.place, t.set, t.Settings.AWS.DatabaseCA != "", t.Settings.LogLevel
	if t.set.Tenant.IsZero() {
		in.Apex, in.TenantRate = t.Settings.Apex(), strconv.FormatFloat(t.Settings.TenantRate, 'f', -1, 64)
	} else {
		in.URL, in.Origins = t.Settings.URL(t.set.Slug), t.Settings.CORSOrigins
	}
	return in
}

// keeping is the set with the stores of objects that its stack has besides its blueprint's: what is in them is nowhere else, so that no release without them
// takes them away. They go when the tenant leaves.
func (t *tenant) keeping(ctx context.Context) (platform.Set, error) {
	s := t.set
	if s.Tenant.IsZero() {
		return s, nil
	}
	told, err := t.outputs(ctx, t.stackName())
	s.Blueprint, _ = stack.Keeping(t.place, s.Blueprint, t.id, told)
	return s, err
}

// render renders the set's stack.
func (t *tenant) render(in stack.Input) (*stack.Template, error) {
	if t.set.Tenant.IsZero() {
		return stack.Control(in)
	}
	return stack.Tenant(in)
}

// planned is a change set of the set's stack, which nobody has carried out yet.
func (t *tenant) planned(ctx context.Context, in stack.Input) (*changeset.Driver, *changeset.Plan, error) {
	in, err := t.joined(ctx, t.input(in))
	if err == nil {
		in.Set, err = t.keeping(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	template, err := t.render(in)
	if err != nil {
		return nil, nil, err
	}
	text, err := template.JSON()
	if err != nil {
		return nil, nil, err
	}
	parameters, err := t.parameters(template)
	if err != nil {
		return nil, nil, err
	}
	d, err := changeset.Open(ctx, t.cfg, t.at(), t.place.Templates())
	if err != nil {
		return nil, nil, err
	}
	p, err := d.Make(ctx, t.stackName(), text, parameters)
	return d, p, err
}

// change has the set's stack be what it is rendered as.
func (t *tenant) change(ctx context.Context, in stack.Input, running bool) (changed bool, err error) {
	in.Running = running
	if t.set.Planned != nil {
		return t.changeAsPlanned(ctx, in)
	}
	d, p, err := t.planned(ctx, in)
	if err != nil {
		return false, err
	}
	if err := keepsAll(p); err != nil {
		return false, err
	}
	return p.ID != "" || p.Unprotected, d.Execute(ctx, p)
}

// parameters are what a template asks for: public halves of keys, and how the first admin gets in.
func (t *tenant) parameters(template *stack.Template) (map[string]string, error) {
	var facts blueprint.Facts
	for _, c := range t.set.Blueprint.Components {
		f := blueprint.Facts{DatabaseURLs: map[string]string{}, KeyFiles: map[string]string{}, PublicKeys: map[string]string{}, StoreDirs: map[string]string{}}
		if err := t.Machine.Credentials(&f, t.set, c); err != nil {
			return nil, err
		}
		if facts.PublicKeys == nil {
			facts.PublicKeys = map[string]string{}
		}
		for name, key := range f.PublicKeys {
			facts.PublicKeys[name] = key
		}
		if f.FirstAdmin != nil {
			facts.FirstAdmin = f.FirstAdmin
		}
	}
	out := map[string]string{}
	for name := range template.Parameters {
		var value string
		var err error
		switch name {
		case "MarkKeys":
			value, err = t.Machine.MarkKeys()
		case "LicenceKeys":
			value, err = t.Machine.LicenceKeys()
		case "ReleaseKeys":
			value, err = t.Machine.ReleaseKeys()
		case "FirstAdminEmail":
			if facts.FirstAdmin != nil {
				value = facts.FirstAdmin.Email
			}
		case "FirstAdminCodeHash":
			if facts.FirstAdmin != nil {
				value = facts.FirstAdmin.CodeHash
			}
		default:
			key, is := stack.PublicKey(t.set.Blueprint, name)
			if !is {
				return nil, fmt.Errorf("the stack of %s asks for %s, which this platform doesn't know", t.id, name)
			}
			value = facts.PublicKeys[key]
		}
		if err != nil {
			return nil, err
		}
		out[name] = value
	}
	return out, nil
}

// gone says of an error that what was asked about isn't there.
func gone(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "NotFoundException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "ServiceNotFoundException", "ClusterNotFoundException",
		"DBInstanceNotFound", "DBSnapshotNotFound", "DBInstanceAutomatedBackupNotFound":
		return true
	}
	return strings.Contains(api.ErrorMessage(), "does not exist")
}

// Start implements platform.Platform: the stack with its services running a release, and each component's deployment come to its end.
func (p *Platform) Start(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	if done, changed, err := t.byWhoMakes(ctx); done || err != nil {
		return changed, err
	}
	given, err := t.give(ctx)
	changed = given.changed
	if err != nil {
		return changed, err
	}
	if err := failpoint.Here("fleet.set.given"); err != nil {
		return changed, err
	}
	versions := given.versions
	if !s.Tenant.IsZero() {
		versions = nil // a tenant's components renew their certificates themselves
	}
	image, did, err := p.image(ctx, s.Blueprint, r)
	if changed = changed || did; err != nil {
		return changed, err
	}
	if err := p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest); err != nil {
		return changed, err
	}
	did, err = t.change(ctx, stack.Input{Release: r, Image: image, Given: versions}, true)
	if changed = changed || did; err != nil {
		return changed, err
	}
	if err := t.await(ctx); err != nil || s.Tenant.IsZero() {
		return changed, err
	}
	return changed, t.takeBack(ctx, given.over)
}

// Renew has the tasks of a set be started anew with what they are given by now, of the release that they run. A set that runs nothing stays so.
func (p *Platform) Renew(ctx context.Context, s platform.Set) (changed bool, err error) {
	run, err := p.Components(ctx, s)
	if err != nil || len(run) == 0 {
		return false, err
	}
	r, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return false, fmt.Errorf("which release %s runs is not known here: bring it up with fleet plane up: %w", s.Name(), err)
	}
	return p.Start(ctx, s, r)
}

// StopHolders has the components of a set that use its database run nothing, and leaves the others at work: of the plane's own, the gateway, which
// serves on from its snapshot.
func (p *Platform) StopHolders(ctx context.Context, s platform.Set) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	run, err := p.Components(ctx, s)
	if err != nil || len(run) == 0 {
		return false, err
	}
	in := t.stopped()
	if in.Image == nothing {
		p.Note("which image the set " + s.Name() + " runs is not known here: all of it is stopped, what doesn't use its database, too")
		return p.Stop(ctx, s)
	}
	given, err := t.give(ctx)
	if changed = given.changed; err != nil {
		return changed, err
	}
	in.Given = given.versions
	var holders []blueprint.Component
	for _, c := range s.Blueprint.Components {
		if len(c.Needs.Database) > 0 {
			holders, in.Idle = append(holders, c), append(in.Idle, c.Name)
		}
	}
	did, err := t.change(ctx, in, true)
	if changed = changed || did; err != nil {
		return changed, err
	}
	return changed, t.awaitNothing(ctx, holders...)
}

// stopped is what the stack of a set that runs nothing is rendered from: what it ran last stays, so that services alone change.
func (t *tenant) stopped() stack.Input {
	in := stack.Input{Image: nothing}
	if r, err := platform.ParseRelease(t.State.Runs()[t.set.Name()]); err == nil {
		if in.Release = r; t.State.Images()[imageKey(t.set.Blueprint, r)] != "" {
			in.Image = t.State.Images()[imageKey(t.set.Blueprint, r)]
		}
	}
	return in
}

// Stop implements platform.Platform: the stack with its services running nothing. What its roles were handed before works no more, which comes first:
// it is what matters where a set was broken into, and takes no stack. Nor does that it ends where the stack can't be changed, or would lose data by it: the
// template is this fleet's, and changes what the set's release had otherwise.
func (p *Platform) Stop(ctx context.Context, s platform.Set) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	// One that is being deleted is gone by then.
	if there, err := changeset.Settled(ctx, cloudformation.NewFromConfig(t.cfg), t.stackName()); err != nil || there == nil {
		return false, err
	}
	if err := t.revoke(ctx); err != nil {
		return false, err
	}
	if done, changed, err := t.byWhoMakes(ctx); done || err != nil {
		return changed, err
	}
	changed, err = t.change(ctx, t.stopped(), false)
	if errors.Is(err, changeset.ErrStuck) || errors.Is(err, changeset.ErrLoses) {
		return true, t.halt(ctx, err)
	}
	if err != nil {
		return changed, err
	}
	return changed, t.atRest(ctx)
}

// halt has nothing of a set run whose stack can't be changed. That is no success, for the stack says otherwise, and would have the set run again or
// take a resume for done.
func (t *tenant) halt(ctx context.Context, why error) error {
	services, err := t.services(ctx)
	for _, s := range services {
		if err != nil || s.DesiredCount == 0 {
			continue
		}
		_, err = ecs.NewFromConfig(t.cfg).UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: sdk.String(t.place.Cluster()), Service: s.ServiceName, DesiredCount: sdk.Int32(0)})
	}
	if err == nil {
		err = t.atRest(ctx)
	}
	if err != nil {
		return errors.Join(why, fmt.Errorf("nor could the services of %s be stopped without it: %w", t.id, err))
	}
	return fmt.Errorf("nothing of %s runs any more, and what its roles were handed is denied, but its stack says otherwise until this is gone on with: %w", t.id, why)
}

// atRest returns when nothing of the set runs, and what its tasks were handed until then is denied.
func (t *tenant) atRest(ctx context.Context) error {
	if err := t.awaitNothing(ctx, t.set.Blueprint.Components...); err != nil {
		return err
	}
	return t.revoke(ctx)
}
