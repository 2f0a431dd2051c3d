package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
)

// Identity implements platform.Platform. Certificates, keys and what is chosen for a set need nothing of one another.
func (p *Platform) Identity(ctx context.Context, s platform.Set) (changed bool, err error) {
	var certified, keyed bool
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() (err error) { certified, err = p.Authorities(s); return err })
	all.Go(func() (err error) { keyed, err = p.KeysAndStores(s); return err })
	if p.Places == nil {
		all.Go(func() error { return p.choose(ctx, s) })
	}
	err = all.Wait()
	return certified || keyed, err
}

// Authorities makes what is missing of a set's authorities and its components' first certificates, and renews those that nobody else
// did. The root rests in its file, sealed to this user; what is issued from day to day is issued by intermediates, also while the root is gone, which is the error
// then.
func (p *Platform) Authorities(s platform.Set) (changed bool, err error) {
	root, did, gone := p.root(s)
	if gone != nil && !errors.Is(gone, ErrKeyGone) {
		return false, gone
	}
	changed = did
	issuing, did, err := p.intermediate(s, root, gone, p.pki(s, "issuing.pem"))
	if err != nil {
		return false, err
	}
	changed = changed || did
	names := []string{}
	for _, c := range s.Blueprint.Components {
		if c.Needs.IssuingAuthority {
			if _, did, err = p.intermediate(s, root, gone, p.issuingAuthority(s, c)); err != nil {
				return false, err
			}
			changed = changed || did
		}
		names = append(names, c.Name)
	}
	for _, name := range names {
		if did, err = p.leaf(s, issuing, name, p.dir(s, "components", name, "certificate"), p.certificateLife()); err != nil {
			return false, err
		}
		changed = changed || did
	}
	if s.Tenant.IsZero() {
		if did, err = p.operators(s, issuing); err != nil {
			return false, err
		}
		changed = changed || did
	}
	return changed, gone
}

func (p *Platform) pki(s platform.Set, file string) string {
	if s.Tenant.IsZero() {
		return p.served("pki", file)
	}
	return p.dir(s, "pki", file)
}

func (p *Platform) issuingAuthority(s platform.Set, c blueprint.Component) string {
	return p.dir(s, "components", c.Name, "authority.pem")
}

// Roots are the certificates that the set's own are proven by, PEM.
func (p *Platform) Roots(s platform.Set) ([]byte, error) { return os.ReadFile(p.pki(s, "roots.pem")) }

func (p *Platform) root(s platform.Set) (root workload.Authority, changed bool, err error) {
	file := p.pki(s, "root.pem")
	root, err = workload.LoadAuthority(file)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := p.thereOrNever(s, rootKey, file); err != nil {
			return root, false, fmt.Errorf("the root of %s: %w", p.domain(s), err)
		}
		if root, err = workload.NewRoot(p.domain(s), p.Now()); err != nil {
			return root, false, err
		}
		changed, err = true, root.Save(file)
	}
	if err == nil {
		err = p.State.SetKeysMade(s.Name(), !changed, rootKey)
	}
	if err != nil {
		return root, false, fmt.Errorf("the root of %s: %w", p.domain(s), err)
	}
	roots := p.pki(s, "roots.pem")
	if have, err := os.ReadFile(roots); err == nil && bytes.Equal(have, root.CertificatePEM()) {
		return root, changed, nil
	}
	return root, true, writeFile(roots, string(root.CertificatePEM()))
}

// intermediate is renewed when less than a third of its life is left.
// Where the root is gone, one that is there does to its end.
func (p *Platform) intermediate(s platform.Set, root workload.Authority, gone error, file string) (a workload.Authority, changed bool, err error) {
	a, err = workload.LoadAuthority(file)
	if left := a.NotAfter().Sub(p.Now()); err == nil && (left > workload.IntermediateLife/3 || gone != nil && left > 0) {
		return a, false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return a, false, fmt.Errorf("an intermediate of %s: %w", p.domain(s), err)
	}
	if gone != nil {
		return a, false, gone
	}
	if a, err = root.NewIntermediate(p.Now()); err != nil {
		return a, false, err
	}
	return a, true, a.Save(file)
}

// certificateLife is how long a component's certificate lives that is made here.
func (p *Platform) certificateLife() time.Duration {
	if p.Places != nil {
		return p.Places.CertificateLife()
	}
	return workload.LeafLife
}

// leaf makes a service's certificate. Services of a tenant renew theirs at two thirds of its life; it is made anew here when less than
// a quarter is left, for those who can't.
func (p *Platform) leaf(s platform.Set, issuing workload.Authority, service, dir string, life time.Duration) (changed bool, err error) {
	identity := workload.Identity{Plane: p.State.Plane, Tenant: s.Tenant, Service: service}
	if _, err := os.Stat(filepath.Join(dir, "workload.pem")); err == nil {
		source, err := workload.OpenSource(dir, identity)
		if err != nil {
			return false, err
		}
		if source.NotAfter().Sub(p.Now()) > life/4 {
			return false, nil
		}
	}
	pair, err := issuing.IssueKeypairFor(identity, p.Now(), life)
	if err != nil {
		return false, err
	}
	return true, pair.Save(dir)
}
