package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/licence"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// LicenceKeys are what licences are verified with: the plane's own key, and those that the settings name.
func (p *Platform) LicenceKeys() (string, error) {
	name, err := p.ownKey(blueprint.KeyLicence)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(p.publicFile(p.Own, name))
	if err != nil {
		return "", fmt.Errorf("read the key that licences are verified with: %w", err)
	}
	keys := strings.TrimSpace(string(text))
	if p.Settings.LicenceKeys != "" {
		keys += "," + p.Settings.LicenceKeys
	}
	return keys, nil
}

// LicenceSigner signs licences of this plane. Only this program reads the key.
func (p *Platform) LicenceSigner() (*licence.Signer, error) {
	name, err := p.ownKey(blueprint.KeyLicence)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.keyFile(p.Own, name))
	if err != nil {
		return nil, fmt.Errorf("read the key that signs licences: %w", err)
	}
	return licence.NewSigner(p.State.Plane, string(text))
}

// licenceFile is where a component finds the tenant's licence. It is no secret; the set verifies it.
func (p *Platform) licenceFile(s platform.Set, c blueprint.Component) string {
	return p.dir(s, "components", c.Name, "licence")
}

// PutLicence lays the tenant's licence where its set finds it without a registry: when it starts first, and when there is none.
func (p *Platform) PutLicence(ctx context.Context, s platform.Set, file []byte) (changed bool, err error) {
	for _, c := range s.Blueprint.Components {
		if !c.Needs.Licence {
			continue
		}
		if have, err := os.ReadFile(p.licenceFile(s, c)); err == nil && bytes.Equal(have, file) {
			continue
		}
		if err := writeFile(p.licenceFile(s, c), string(file)); err != nil {
			return changed, err
		}
		changed = true
		if !p.Separated() {
			continue
		}
		user, err := p.user(ctx, s, c.Name)
		if err != nil {
			return changed, err
		}
		if err := p.ownLicence(s, c, user); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// ownLicence has a component read the licence, and root alone change it.
func (p *Platform) ownLicence(s platform.Set, c blueprint.Component, user *supervise.User) error {
	const readable = 0o640
	err := give(p.licenceFile(s, c), &supervise.User{GID: user.GID})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, chmod(p.licenceFile(s, c), readable))
}
