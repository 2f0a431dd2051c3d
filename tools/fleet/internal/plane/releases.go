package plane

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/additive"
	"a3os.app/libs/fault"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/build"
	"a3os.app/tools/fleet/internal/pages"
)

// BuildOptions say what a release is made of.
type BuildOptions struct {
	// Version of it, the oldest that may be upgraded from, and the version before: empty is the newest that is registered before it.
	Version, Minimum, Previous string
	// Artefacts are files, by name.
	Artefacts map[string]string
	// Key is a file with the key that signs; empty is the plane's own.
	Key string
	// Blueprint is a file with the one that the release is made by; empty is fleet's own.
	Blueprint string
}

// BuildRelease makes a signed release, and answers what its migrations take from the release before with their authors' consent.
func (p *Plane) BuildRelease(ctx context.Context, o BuildOptions) (envelope []byte, accepted []additive.Finding, err error) {
	previous, err := p.previous(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	signer, err := p.releaseSigner(o.Key)
	if err != nil {
		return nil, nil, err
	}
	made, err := p.blueprintOf(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	m, accepted, err := build.Manifest(ctx, build.Request{
		Plane: p.state.Plane, Blueprint: made, Version: o.Version, Minimum: o.Minimum, Artefacts: o.Artefacts, Previous: previous, Note: p.report.Note,
	})
	if err != nil {
		return nil, nil, err
	}
	envelope, err = signer.Sign(ctx, m)
	return envelope, accepted, err
}

func (p *Plane) releaseSigner(file string) (*release.Signer, error) {
	if file == "" {
		return p.platform.ReleaseSigner()
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key that signs releases: %w", err)
	}
	return release.NewSigner(p.state.Plane, string(text))
}

// previous is the release that a new one comes after.
func (p *Plane) previous(ctx context.Context, o BuildOptions) (*registryv1.ReleaseManifest, error) {
	if o.Previous != "" {
		r, err := p.Release(ctx, o.Previous)
		return r.GetManifest(), err
	}
	all, err := p.Releases(ctx)
	if err != nil {
		return nil, err
	}
	var newest *registryv1.ReleaseManifest
	for _, r := range all {
		m := r.GetManifest()
		if m.GetVersion() != release.Development && release.Compare(m.GetVersion(), o.Version) < 0 &&
			(newest == nil || release.Compare(m.GetVersion(), newest.GetVersion()) > 0) {
			newest = m
		}
	}
	return newest, nil
}

// RegisterRelease has a signed release kept by the registry, and its artefacts and its blueprint by this machine, where sets run from and are
// started by them. What is kept is what the release says, byte for byte. The blueprint is a file; empty is fleet's own, or one that is kept already.
func (p *Plane) RegisterRelease(ctx context.Context, envelope []byte, artefacts map[string]string, blueprint string) (*registryv1.Release, error) {
	if err := p.openUp(ctx); err != nil {
		return nil, err
	}
	verifier, err := p.platform.ReleaseVerifier()
	if err != nil {
		return nil, err
	}
	opened, err := verifier.Open(ctx, envelope)
	if err != nil {
		return nil, err
	}
	made, err := p.blueprintFor(ctx, opened.Manifest, blueprint)
	if err != nil {
		return nil, err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.platform.KeepBlueprint(made); err != nil {
		return nil, err
	}
	for _, a := range opened.Manifest.GetArtefacts() {
		file, ok := artefacts[a.GetName()]
		if !ok {
			return nil, fault.New(fault.InvalidArgument, "the release has an artefact %s: name its file, --artefact %s=FILE", a.GetName(), a.GetName())
		}
		if _, err := p.platform.Keep(a.GetName(), file, a.GetDigest()); err != nil {
			return nil, err
		}
	}
	conn, err := p.registry()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	res, err := registryv1.NewReleaseWriteServiceClient(conn).RegisterRelease(ctx, &registryv1.RegisterReleaseRequest{Envelope: envelope})
	return res.GetRelease(), fault.FromRPC(err)
}

// believed answers releases as they were signed, and none that nobody signed whom the plane trusts: what the registry's database says of
// one is held against its signature each time that something is done with it, so that who can write there can't say what sets run.
type believed struct {
	registryv1.ReleaseServiceClient
	verifier *release.Verifier
}

// believedReleases reads the registry's releases over a connection.
func (p *Plane) believedReleases(conn *grpc.ClientConn) (registryv1.ReleaseServiceClient, error) {
	verifier, err := p.platform.ReleaseVerifier()
	return believed{registryv1.NewReleaseServiceClient(conn), verifier}, err
}

// GetRelease implements registryv1.ReleaseServiceClient.
func (b believed) GetRelease(ctx context.Context, req *registryv1.GetReleaseRequest, opts ...grpc.CallOption) (*registryv1.GetReleaseResponse, error) {
	res, err := b.ReleaseServiceClient.GetRelease(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	return res, b.verifier.Hold(ctx, res.GetRelease())
}

// registerBuilt has what was built here known as a release of a plane for development, so that a rollout can lead away from it, and back.
func (p *Plane) registerBuilt(ctx context.Context) error {
	if p.state.Plane != "dev" {
		return nil
	}
	conn, err := p.registry()
	if err != nil {
		return err
	}
	defer conn.Close()
	releases, err := p.believedReleases(conn)
	if err != nil {
		return err
	}
	r, err := releases.GetRelease(ctx, &registryv1.GetReleaseRequest{Name: p.release.String()})
	switch {
	case errors.Is(err, release.ErrUnsigned): // the key that signed it is gone: it is signed anew
	case r != nil:
		return nil
	case fault.KindOf(fault.FromRPC(err)) != fault.NotFound:
		return fault.FromRPC(err)
	}
	envelope, _, err := p.BuildRelease(ctx, BuildOptions{Version: release.Development, Artefacts: map[string]string{p.blueprint.Artefact: p.Program}})
	if err != nil {
		return err
	}
	_, err = registryv1.NewReleaseWriteServiceClient(conn).RegisterRelease(ctx, &registryv1.RegisterReleaseRequest{Envelope: envelope})
	return fault.FromRPC(err)
}

// Releases lists releases, the newest registration first.
func (p *Plane) Releases(ctx context.Context) ([]*registryv1.Release, error) {
	if err := p.openUp(ctx); err != nil {
		return nil, err
	}
	conn, err := p.registry()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return pages.All(ctx, registryv1.NewReleaseServiceClient(conn).ListReleases, &registryv1.ListReleasesRequest{}, (*registryv1.ListReleasesResponse).GetReleases)
}

// Release reads one, by its name or its version.
func (p *Plane) Release(ctx context.Context, name string) (*registryv1.Release, error) {
	if err := p.openUp(ctx); err != nil {
		return nil, err
	}
	conn, err := p.registry()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	res, err := registryv1.NewReleaseServiceClient(conn).GetRelease(ctx, &registryv1.GetReleaseRequest{Name: name})
	return res.GetRelease(), fault.FromRPC(err)
}

// NewReleaseKey makes a key that signs releases of this plane: the private half goes into a file of its owner's, the public one is
// answered.
// Where no plane is, that of another machine is named by its kind in the settings.
func (p *Plane) NewReleaseKey(file string) (public string, err error) {
	if !p.Exists() && p.Settings.Plane == "" {
		return "", fault.New(fault.NotFound, "there is no plane in %s: A3_HOME names a plane's directory; for a plane of another machine say by A3_PLANE which it is, dev or prod", p.Settings.Home)
	}
	if err := p.openState(); err != nil {
		return "", err
	}
	private, public, err := release.NewKey(p.state.Plane)
	if err != nil {
		return "", err
	}
	const mode = 0o600
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return "", fmt.Errorf("write the key: %w", err)
	}
	_, err = f.WriteString(private + "\n")
	return public, errors.Join(err, f.Close())
}

// openUp opens a plane that is up.
func (p *Plane) openUp(ctx context.Context) error {
	if err := p.supervisor.Ping(ctx); err != nil {
		return p.whyNot(err)
	}
	if p.platform != nil {
		return nil
	}
	return p.openState()
}
