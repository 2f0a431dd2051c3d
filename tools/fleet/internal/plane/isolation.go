package plane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
	"a3os.app/tools/fleet/internal/welcome"
	"a3os.app/tools/internal/profile"
)

// Proof is a signed report of isolation, and the files it is in.
type Proof struct {
	Report     *isolation.Report
	JSON, HTML string
	// Key verifies it, the public half of the plane's.
	Key string
}

// VerifyIsolation tries the sets of tenants (all, where none is named) at each other, and writes the signed report into a directory: one
// of the plane's home where dir is empty. The plane is up, and is changed in nothing.
func (p *Plane) VerifyIsolation(ctx context.Context, slugs []string, dir string, progress isolation.Progress) (*Proof, error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, p.whyNot(err)
	}
	if err := p.openToRead(ctx); err != nil {
		return nil, err
	}
	processes, err := p.processes(ctx)
	if err != nil {
		return nil, err
	}
	sets, untried, err := p.setsOf(slugs)
	if err != nil {
		return nil, err
	}
	world, err := p.world(ctx, sets, processes)
	if err != nil {
		return nil, err
	}
	world.Gaps = append(world.Gaps, untried...)
	if world.WebRoots, err = p.webRoots(); err != nil {
		return nil, err
	}
	profiles := profile.In(p.Settings.Home)
	for _, set := range world.Sets {
		if session, err := profiles.Open(welcome.AdminProfile(set.Slug)); err == nil {
			set.Token = session.TokenFor("")
		} else if !errors.Is(err, profile.ErrNone) {
			return nil, err
		}
	}
	report, err := isolation.Verify(ctx, world, progress)
	if err != nil {
		return nil, err
	}
	return p.writeProof(ctx, report, dir)
}

// openToRead reads the plane's state without its lock: nothing is changed, and a tenant that is being made meanwhile is not looked at.
func (p *Plane) openToRead(ctx context.Context) error {
	if err := p.openState(); err != nil {
		return err
	}
	binaries, err := p.programs(ctx)
	if err != nil {
		return err
	}
	return p.useServers(ctx, binaries)
}

func pidsOf(processes []supervise.Status) map[string]int {
	out := map[string]int{}
	for _, s := range processes {
		out[s.Name] = s.PID
	}
	return out
}

// setsOf are the sets of the tenants that are named, or of all that run, and a sentence for each other tenant: what is there of it was not tried.
func (p *Plane) setsOf(slugs []string) (sets []platform.Set, untried []string, err error) {
	named := func(t state.Tenant) bool {
		return slices.ContainsFunc(slugs, func(name string) bool { return name == t.Slug || name == t.ID.String() })
	}
	for _, t := range p.state.Tenants() {
		switch {
		case t.ID.IsZero():
		case t.Served && !t.Suspended && (len(slugs) == 0 || named(t)):
			sets = append(sets, p.setOf(t))
		case named(t):
			return nil, nil, fault.New(fault.FailedPrecondition, "%s: its set doesn't run, so neither what it may nor what others may of it can be tried: leave it out, and the report says so", t.Slug)
		case !t.Served || t.Suspended:
			untried = append(untried, t.Slug+" was not tried, nor others at it: its set doesn't run")
		default:
			untried = append(untried, t.Slug+" was not tried, nor others at it: it was not named")
		}
	}
	for _, name := range slugs {
		if !slices.ContainsFunc(sets, func(s platform.Set) bool { return s.Slug == name || s.Tenant.String() == name }) {
			return nil, nil, fault.New(fault.NotFound, "there is no tenant %q that is served: see fleet tenant list", name)
		}
	}
	return sets, untried, nil
}

func (p *Plane) webRoots() (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if ca := p.WebCA(); ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read whom to believe the gateway's certificate by: %w", err)
		}
		roots.AppendCertsFromPEM(text)
	}
	return roots, nil
}

func (p *Plane) writeProof(ctx context.Context, report *isolation.Report, dir string) (*Proof, error) {
	private, err := p.platform.ProofKey()
	if err != nil {
		return nil, err
	}
	proof := &Proof{Report: report}
	if proof.Key, err = p.platform.ProofVerifier(); err != nil {
		return nil, err
	}
	signed, err := report.Sign(ctx, private)
	if err != nil {
		return nil, err
	}
	signer, _, _ := strings.Cut(proof.Key, "+")
	html, err := report.Page(signer + ", " + proof.Key)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = filepath.Join(p.Settings.Home, "reports")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of reports: %w", err)
	}
	base := filepath.Join(dir, "isolation-"+report.Began.Format("20060102T150405Z"))
	proof.JSON, proof.HTML = base+".json", base+".html"
	const mode = 0o600
	return proof, errors.Join(os.WriteFile(proof.JSON, signed, mode), os.WriteFile(proof.HTML, html, mode))
}

// ProofVerifier is what this plane's reports are verified with.
func (p *Plane) ProofVerifier() (string, error) {
	if err := p.openState(); err != nil {
		return "", err
	}
	return p.platform.ProofVerifier()
}

// ProgressTo tells a reporter now and then how far the attempts are.
func ProgressTo(note func(string)) isolation.Progress {
	const every = time.Second
	began, last := time.Now(), time.Now()
	return func(done, all int) {
		if done == all || time.Since(last) > every {
			last = time.Now()
			note(fmt.Sprintf("%d of %d attempts, %.0f s", done, all, time.Since(began).Seconds()))
		}
	}
}
