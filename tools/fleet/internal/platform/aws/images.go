package aws

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/image"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Fetch implements platform.Platform: the artefact as local has it, and its image in the plane's repository.
func (p *Platform) Fetch(ctx context.Context, r platform.Release) (changed bool, err error) {
	if changed, err = p.Machine.Fetch(ctx, r); err != nil {
		return changed, err
	}
	// Of the plane's own and of tenants' it is the image of whose artefact the release holds; where both have one artefact, of both.
	for _, b := range []*blueprint.Blueprint{p.Tenants, p.Own.Blueprint} {
		if _, none := r.DigestOf(b.Artefact); none != nil {
			continue
		}
		_, did, err := p.image(ctx, b, r)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// imageKey is what the digest of an image is remembered by.
func imageKey(b *blueprint.Blueprint, r platform.Release) string {
	digest, err := r.DigestOf(b.Artefact)
	if err != nil {
		return ""
	}
	return Name + "/" + digest
}

// image is the digest of a release's image, which the plane's repository has then. Once pushed it is there: no tag can move, and nobody but
// administrators removes images.
func (p *Platform) image(ctx context.Context, b *blueprint.Blueprint, r platform.Release) (digest string, changed bool, err error) {
	key := imageKey(b, r)
	if digest = p.State.Images()[key]; digest != "" {
		return digest, false, nil
	}
	made, digest, err := p.build(b, r)
	if err != nil {
		return "", false, err
	}
	if changed, err = p.push(ctx, made, b.Artefact); err != nil {
		return "", false, fmt.Errorf("push the image of %s: %w", r, err)
	}
	return digest, changed, p.State.SetImage(key, digest)
}

// build makes a release's image.
func (p *Platform) build(b *blueprint.Blueprint, r platform.Release) (made image.Image, digest string, err error) {
	program, err := p.Machine.Artefact(b, r)
	if err != nil {
		return made, "", err
	}
	spec, err := image.Program(program)
	if err != nil {
		return made, "", err
	}
	if spec.Architecture != stack.Architecture {
		return made, "", fmt.Errorf("release %s is a program for %s, and tasks run on %s: register the release with a program that was built with GOARCH=%s", r, spec.Architecture, stack.Architecture, stack.Architecture)
	}
	spec.Volumes = stack.Volumes()
	if made, err = image.Build(spec); err != nil {
		return made, "", err
	}
	if digest, err = made.Manifest(); err != nil {
		return made, "", fmt.Errorf("make the image of %s: %w", r, err)
	}
	return made, digest, nil
}

// imageOf is the digest that a release's image has, or will have once it is pushed.
func (p *Platform) imageOf(b *blueprint.Blueprint, r platform.Release) (string, error) {
	key := imageKey(b, r)
	if digest := p.State.Images()[key]; digest != "" {
		return digest, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if digest := p.toPush[key]; digest != "" {
		return digest, nil
	}
	_, digest, err := p.build(b, r)
	if err != nil {
		return "", err
	}
	if p.toPush == nil {
		p.toPush = map[string]string{}
	}
	p.toPush[key] = digest
	return digest, nil
}

// push puts an image where ECR says that the account's repositories are.
func (p *Platform) push(ctx context.Context, made image.Image, artefact string) (changed bool, err error) {
	cfg, err := p.config(ctx)
	if err != nil {
		return false, err
	}
	place, err := p.place(ctx)
	if err != nil {
		return false, err
	}
	got, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return false, err
	}
	if len(got.AuthorizationData) == 0 {
		return false, fmt.Errorf("ECR hands out no login to its repositories")
	}
	login, err := base64.StdEncoding.DecodeString(sdk.ToString(got.AuthorizationData[0].AuthorizationToken))
	if err != nil {
		return false, fmt.Errorf("ECR's login can't be read")
	}
	user, password, _ := strings.Cut(string(login), ":")
	_, host, _ := strings.Cut(sdk.ToString(got.AuthorizationData[0].ProxyEndpoint), "://")
	return made.Push(ctx, host+"/"+place.Repository(artefact), &authn.Basic{Username: user, Password: password})
}
