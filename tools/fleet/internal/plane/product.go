package plane

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// useOwnProduct has tenants get AccessOS, whose program stands beside this one.
func (p *Plane) useOwnProduct() (err error) {
	if p.blueprint, err = blueprint.AccessOS(); err != nil {
		return err
	}
	p.Program = filepath.Join(filepath.Dir(p.Self), p.blueprint.Artefact)
	return nil
}

// chooseProduct takes the product that the plane was made for, or, for a new one, that the settings name. Its program stands beside its
// blueprint. The blueprint may change from release to release, and where it is; the product may not. One that the plane keeps already is read as it
// was when it came, and any other by every rule that there is by now: a later fleet is no reason for a plane to have its own file refused.
func (p *Plane) chooseProduct() error {
	made := p.state.Product
	file := p.Settings.Blueprint
	if made != nil {
		file = cmp.Or(file, made.File)
	}
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the blueprint of the plane's product: %w: say with A3_BLUEPRINT where it is", err)
	}
	var b *blueprint.Blueprint
	if made != nil && local.KeepsBlueprint(p.Settings.Home, release.Digest(text)) {
		if b, err = local.TakenBefore(file, text); err != nil {
			return err
		}
	} else if b, err = blueprint.Parse(file, text); err != nil {
		return fmt.Errorf("the blueprint of the plane's product is wrong:\n%w\nMend it, or name another with A3_BLUEPRINT", err)
	}
	if b.Scope != blueprint.ScopeTenant {
		return fmt.Errorf("%s has scope %s: what the plane's tenants have has scope %s", file, b.Scope, blueprint.ScopeTenant)
	}
	switch {
	case made == nil && state.Exists(p.Settings.Home):
		return fmt.Errorf("the plane in %s serves %s and A3_BLUEPRINT is %s's: a plane stays at the product that it was made for; choose another place with A3_HOME", p.Settings.Home, p.blueprint.Name, b.Name)
	case made != nil && made.Name != b.Name:
		return fmt.Errorf("the plane in %s serves %s and A3_BLUEPRINT is %s's: a plane stays at the product that it was made for; choose another place with A3_HOME", p.Settings.Home, made.Name, b.Name)
	}
	p.state.Product = &state.Product{Name: b.Name, File: file}
	p.blueprint, p.Program = b, filepath.Join(filepath.Dir(file), b.Artefact)
	return nil
}

// another says that the plane's tenants have another product than AccessOS: nothing is known of what its people do with it.
func (p *Plane) another() bool { return p.state.Product != nil }
