package plane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// madeBy is the blueprint that sets of a release are made and started by: the release's own, whose digest is in what was signed. A program
// refuses settings that it doesn't know, so fleet's own blueprint is for what was made by it alone. m is nil where nobody registered the
// release. What was built here goes by the blueprint that is here with it, and so does an earlier build whose own isn't here any more.
func (p *Plane) madeBy(name string, m *registryv1.ReleaseManifest) (*blueprint.Blueprint, error) {
	n, err := release.ParseName(name)
	if err != nil {
		return p.blueprint, nil //nolint:nilerr // none, or from before releases had this form
	}
	switch {
	case m == nil && n.Version != release.Development:
		return nil, fault.New(fault.FailedPrecondition, "the registry knows no release %s, and so not what its sets are made by: register it again, with the blueprint that lies in its sources: fleet release register --version %s --artefact NAME=FILE --blueprint FILE", name, n.Version)
	case m == nil, m.GetBlueprintDigest() == p.blueprint.Digest:
		return p.blueprint, nil
	case m.GetBlueprint() != p.blueprint.Name:
		return nil, fault.New(fault.FailedPrecondition, "release %s is of the product %s, and the plane's tenants have %s", name, m.GetBlueprint(), p.blueprint.Name)
	}
	return p.kept(n, m.GetBlueprintDigest())
}

// kept is the blueprint with a digest that isn't fleet's own, as a release has it.
func (p *Plane) kept(n release.Name, digest string) (*blueprint.Blueprint, error) {
	if n.Version == release.Development {
		built, err := local.Built(p.Program)
		if err == nil && n == built.Name {
			return p.blueprint, nil
		}
	}
	b, err := p.platform.Blueprint(digest)
	switch {
	case errors.Is(err, local.ErrNoBlueprint) && n.Version == release.Development:
		return p.blueprint, nil
	case errors.Is(err, local.ErrNoBlueprint):
		return nil, fault.New(fault.FailedPrecondition, "release %s was made by the blueprint %s, and this fleet has another, %s: %v; what runs is left as it is. "+
			"Take the blueprint of that release, as it lies in its sources, and have it kept: fleet release blueprint FILE", n, digest, p.blueprint.Digest, err)
	case err != nil:
		return nil, fmt.Errorf("release %s: %w", n, err)
	}
	return b, nil
}

// madeByName is madeBy of a release that the registry is asked for.
func (p *Plane) madeByName(ctx context.Context, releases registryv1.ReleaseServiceClient, name string) (*blueprint.Blueprint, error) {
	if _, err := release.ParseName(name); err != nil {
		return p.blueprint, nil //nolint:nilerr // none, or from before releases had this form
	}
	_, m, err := operate.Release(ctx, releases, name)
	if err != nil {
		return nil, err
	}
	return p.madeBy(name, m)
}

// remembered is the blueprint that a set was started by last, as this machine knows, whoever answers. Of one that was never started, and of what
// was built here, it is fleet's own. A fleet of before remembered the release alone, and that is FailedPrecondition: by what a release is made, the
// registry says.
func (p *Plane) remembered(set string) (*blueprint.Blueprint, error) {
	digest := p.state.Blueprints()[set]
	n, err := release.ParseName(p.state.Runs()[set])
	switch {
	case err != nil, digest == p.blueprint.Digest, digest == "" && n.Version == release.Development:
		return p.blueprint, nil //nolint:nilerr // none, or from before releases had this form
	case digest == "":
		return nil, fault.New(fault.FailedPrecondition, "by which blueprint release %s was started here is not remembered, and the registry has to say it: register the release again, with the blueprint that lies in its sources: fleet release register --version %s --artefact NAME=FILE --blueprint FILE", n, n.Version)
	}
	return p.kept(n, digest)
}

// started is a set with the blueprint that it is to be started by again, which is that of the release that it ran last, as the registry has it
// signed. Where that says nothing which is believed, as one that was restored from a backup of before the release was registered, it is what this
// machine remembers. FailedPrecondition, with the next step, where nobody knows, or the text isn't here.
func (p *Plane) started(ctx context.Context, s platform.Set) (platform.Set, error) {
	r := p.runs(s)
	if r.String() == p.release.String() {
		s.Blueprint = p.blueprint
		return s, nil
	}
	conn, err := p.registry()
	if err != nil {
		return s, err
	}
	defer conn.Close()
	releases, err := p.believedReleases(conn)
	if err != nil {
		return s, err
	}
	_, m, err := operate.Release(ctx, releases, r.String())
	switch {
	case err == nil && m != nil:
		s.Blueprint, err = p.madeBy(r.String(), m)
	case err == nil, errors.Is(err, release.ErrUnsigned), errors.Is(err, release.ErrChanged):
		b, forgot := p.remembered(s.Name())
		if forgot != nil {
			return s, errors.Join(err, forgot)
		}
		s.Blueprint, err = b, nil
	}
	return s, err
}

// readBlueprint reads a blueprint of the plane's product, for a version, where it is for one; that of fleet's own without a file. One that a release was
// made by is read as it was then, and any other by every rule that there is by now.
func (p *Plane) readBlueprint(ctx context.Context, file, version string) (*blueprint.Blueprint, error) {
	if file == "" {
		return p.blueprint, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the blueprint of the release: %w", err)
	}
	before, err := p.takenBefore(ctx, release.Digest(text), version)
	if err != nil {
		return nil, err
	}
	var b *blueprint.Blueprint
	if before {
		if b, err = local.TakenBefore(file, text); err != nil {
			return nil, err
		}
	} else if b, err = blueprint.Parse(file, text); err != nil {
		return nil, fmt.Errorf("the blueprint of the release is wrong, or of a later release than this fleet:\n%w", err)
	}
	if b.Name != p.blueprint.Name || b.Scope != blueprint.ScopeTenant {
		return nil, fault.New(fault.InvalidArgument, "%s is the blueprint of %s, scope %s: what the plane's tenants have is %s", file, b.Name, b.Scope, p.blueprint.Name)
	}
	return b, nil
}

// takenBefore says whether a blueprint with a digest is none that is new: its text is kept here, a release of the registry was made by it, or it is for
// a version that sets of this machine run while the registry doesn't know it, as one that was restored from before.
func (p *Plane) takenBefore(ctx context.Context, digest, version string) (bool, error) {
	if local.KeepsBlueprint(p.Settings.Home, digest) {
		return true, nil
	}
	all, err := p.Releases(ctx)
	if err != nil {
		return false, err
	}
	has := func(is func(*registryv1.ReleaseManifest) bool) bool {
		return slices.ContainsFunc(all, func(r *registryv1.Release) bool { return is(r.GetManifest()) })
	}
	if has(func(m *registryv1.ReleaseManifest) bool { return m.GetBlueprintDigest() == digest }) {
		return true, nil
	}
	if version == "" || version == release.Development || has(func(m *registryv1.ReleaseManifest) bool { return m.GetVersion() == version }) {
		return false, nil
	}
	for _, runs := range p.state.Runs() {
		if n, err := release.ParseName(runs); err == nil && n.Version == version {
			return true, nil
		}
	}
	return false, nil
}

// blueprintOf is the blueprint that a release is to be made by. One that is registered already is made again by what it was made by.
func (p *Plane) blueprintOf(ctx context.Context, o BuildOptions) (*blueprint.Blueprint, error) {
	if o.Blueprint != "" || o.Version == release.Development {
		return p.readBlueprint(ctx, o.Blueprint, o.Version)
	}
	r, err := p.Release(ctx, o.Version)
	if fault.KindOf(err) == fault.NotFound {
		return p.ranBy(o.Version)
	}
	if r.GetManifest().GetBlueprintDigest() == p.blueprint.Digest {
		return p.blueprint, nil
	}
	if err != nil {
		return nil, err
	}
	return p.blueprintFor(ctx, r.GetManifest(), "")
}

// ranBy is the blueprint that a version is to be made by which the registry doesn't know: fleet's own, unless sets of this machine run that version
// already, as where the registry was restored from before. Theirs is what it was made by, and fleet's own may be a later one.
func (p *Plane) ranBy(version string) (*blueprint.Blueprint, error) {
	ran := false
	for set, runs := range p.state.Runs() {
		n, err := release.ParseName(runs)
		if err != nil || n.Version != version {
			continue
		}
		ran = true
		if p.state.Blueprints()[set] != "" {
			return p.remembered(set)
		}
	}
	if ran {
		return nil, fault.New(fault.FailedPrecondition, "%s runs here already, and by which blueprint it was made is not remembered: name the one that lies in its sources with --blueprint FILE", version)
	}
	return p.blueprint, nil
}

// blueprintFor is the blueprint that a release was made by: of a file, fleet's own, or one that is kept already.
func (p *Plane) blueprintFor(ctx context.Context, m *registryv1.ReleaseManifest, file string) (*blueprint.Blueprint, error) {
	b, err := p.readBlueprint(ctx, file, m.GetVersion())
	if err != nil || b.Digest == m.GetBlueprintDigest() {
		return b, err
	}
	if file != "" {
		return nil, fault.New(fault.InvalidArgument, "%s has the digest %s, and release %s was made by %s: name the blueprint that it was made by", file, b.Digest, m.GetVersion(), m.GetBlueprintDigest())
	}
	b, err = p.platform.Blueprint(m.GetBlueprintDigest())
	if errors.Is(err, local.ErrNoBlueprint) {
		return nil, fault.New(fault.InvalidArgument, "release %s was made by the blueprint %s, and this fleet has another, %s: name the file that it was made by with --blueprint", m.GetVersion(), m.GetBlueprintDigest(), p.blueprint.Digest)
	}
	return b, err
}

// KeepBlueprint keeps the blueprint of releases that were registered without one, on a plane of before or another machine, and answers their
// versions. One that no release was made by is refused.
func (p *Plane) KeepBlueprint(ctx context.Context, file string) (versions []string, err error) {
	all, err := p.Releases(ctx)
	if err != nil {
		return nil, err
	}
	b, err := p.readBlueprint(ctx, file, "")
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.GetManifest().GetBlueprintDigest() == b.Digest {
			versions = append(versions, r.GetManifest().GetVersion())
		}
	}
	if len(versions) == 0 {
		return nil, fault.New(fault.InvalidArgument, "%s has the digest %s, and no release was made by it: fleet release show VERSION says by which one was", file, b.Digest)
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return versions, p.platform.KeepBlueprint(b)
}

// mended is a blueprint of a release of before with those statements of its product's own of now that it had no word for: without them that release
// refuses backups in which events waited, and names credentials that are gone, and it can't be mended any more.
func mended(then, now *blueprint.Blueprint) *blueprint.Blueprint {
	if then.Name != now.Name {
		return then
	}
	b := *then
	if then.Backup != nil && now.Backup != nil && then.Backup.PutBack == "" {
		backedUp := *then.Backup
		backedUp.PutBack, b.Backup = now.Backup.PutBack, &backedUp
	}
	b.Stores = maps.Clone(then.Stores)
	for name, store := range b.Stores {
		if of := now.Stores[name]; store.Emptied == "" && store.Kind == of.Kind && store.Named == of.Named {
			store.Emptied = of.Emptied
			b.Stores[name] = store
		}
	}
	return &b
}
