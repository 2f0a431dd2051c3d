package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/image"
	"a3os.app/tools/fleet/internal/platform"
)

// image is the id of the image of a release's artefact, which the engine has then.
func (p *Platform) image(ctx context.Context, b *blueprint.Blueprint, r platform.Release) (id string, changed bool, err error) {
	digest, err := r.DigestOf(b.Artefact)
	if err != nil {
		return "", false, err
	}
	return p.imageOf(ctx, digest, b.Artefact, r.String(), func() (image.Spec, error) {
		program, err := p.Machine.Program(b, r)
		if err != nil {
			return image.Spec{}, err
		}
		return image.Program(program)
	})
}

// imageOf gives the engine an image that it doesn't have. What a key's image was is remembered, so that nothing is read twice; the id
// says all the same whether the engine has those very bytes.
func (p *Platform) imageOf(ctx context.Context, key, name, version string, spec func() (image.Spec, error)) (id string, changed bool, err error) {
	if id = p.State.Images()[key]; id != "" {
		there, err := p.Engine.HasImage(ctx, id)
		if err != nil || there {
			return id, false, err
		}
	}
	s, err := spec()
	if err != nil {
		return "", false, err
	}
	made, err := image.Build(s)
	if err != nil {
		return "", false, err
	}
	if id, err = made.ID(); err != nil {
		return "", false, fmt.Errorf("make the image of %s: %w", name, err)
	}
	there, err := p.Engine.HasImage(ctx, id)
	if err == nil && !there {
		changed, err = true, p.Engine.Load(ctx, id, made.Write)
	}
	if err != nil {
		return "", changed, err
	}
	bill, err := s.BillOfMaterials(name, version)
	if err != nil {
		return "", changed, err
	}
	if err := p.writeBill(id, bill); err != nil {
		return "", changed, fmt.Errorf("write what is in the image of %s: %w", name, err)
	}
	return id, changed, p.State.SetImage(key, id)
}

// Bill is the file that says what is in an image, CycloneDX JSON.
func (p *Platform) Bill(id string) string {
	return filepath.Join(p.Settings.Home, "images", filepath.Base(id)+".cdx.json")
}

func (p *Platform) writeBill(id string, text []byte) error {
	const private = 0o700
	file := p.Bill(id)
	if err := os.MkdirAll(filepath.Dir(file), private); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
