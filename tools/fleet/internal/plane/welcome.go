package plane

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/deploy/sample"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/welcome"
	"a3os.app/tools/internal/profile"
)

// welcomeTenant fills a new tenant that the settings name, as a user would.
func (p *Plane) welcomeTenant(ctx context.Context, t state.Tenant) (changed bool, err error) {
	if away, err := p.adminAway(t); err != nil || away {
		return false, err
	}
	guide := p.guide(&changed)
	if err := guide.Fill(ctx, p.guest(t)); err != nil {
		if p.signedOut(t, err) {
			return changed, nil
		}
		return changed, err
	}
	if t.Welcomed {
		return changed, nil
	}
	if err := p.forgetCode(t); err != nil {
		return changed, err
	}
	_, err = p.state.Change(t.Slug, func(t *state.Tenant) { t.Welcomed = true })
	return true, err
}

// adminAway says that a tenant is in use and its admin has no profile here, as after a lost machine: how they get in is theirs to decide, or an
// operator's with a reason, and what the tenant has is looked at by nobody until then.
func (p *Plane) adminAway(t state.Tenant) (bool, error) {
	if !t.Welcomed {
		return false, nil
	}
	_, err := profile.In(p.Settings.Home).Load(welcome.AdminProfile(t.Slug))
	if !errors.Is(err, profile.ErrNone) {
		return false, err
	}
	p.noteSignedOut(t)
	return true, nil
}

// signedOut says, of a tenant that is in use, that it refuses the session that its admin has here, as after a restore, which ends all of them: it is with
// them as adminAway has it.
func (p *Plane) signedOut(t state.Tenant, err error) bool {
	if !t.Welcomed || fault.KindOf(fault.FromRPC(err)) != fault.Unauthenticated {
		return false
	}
	p.noteSignedOut(t)
	return true
}

// noteSignedOut notes it once.
func (p *Plane) noteSignedOut(t state.Tenant) {
	if slices.Contains(p.unseen, t.Slug) {
		return
	}
	p.unseen = append(p.unseen, t.Slug)
	p.report.Note(t.Slug + " is in use and its admin isn't signed in here: what it has was not looked at; fleet tenant recover-admin " + t.Slug + " --reason '…' prints the line that they sign in with")
}

// forgetCode forgets a code that was redeemed. Its hash stays: without it the set would be told something new, and restart.
func (p *Plane) forgetCode(t state.Tenant) error {
	set := p.setOf(t)
	admin, err := p.platform.FirstAdmin(set)
	if err != nil {
		return err
	}
	admin.Code = ""
	return p.platform.PutFirstAdmin(set, admin)
}

// Results reads what those tenants of the settings have whose sets are to run. The plane is up. What customers of a plane `prod` have is nobody's to
// look at, also of one who is called as the settings name tenants by default.
func (p *Plane) Results(ctx context.Context) ([]welcome.Result, error) {
	if !p.hasSample() || p.state.Plane == prod {
		return nil, nil
	}
	var out []welcome.Result
	var ignored bool
	for _, slug := range p.Settings.Tenants {
		if t, ok := p.state.Tenant(slug); ok && !slices.Contains(p.resting, slug) {
			if _, err := profile.In(p.Settings.Home).Load(welcome.AdminProfile(slug)); t.Welcomed && errors.Is(err, profile.ErrNone) {
				continue
			}
			if slices.Contains(p.unseen, slug) {
				continue
			}
			r, err := p.guide(&ignored).Result(ctx, p.guest(t))
			if err != nil && p.signedOut(t, err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func (p *Plane) guide(changed *bool) welcome.Guide {
	return welcome.Guide{
		Profiles: profile.In(p.Settings.Home),
		Code:     p.firstAdminCode,
		Step:     func(what string, do func() (bool, error)) error { return p.step(changed, what, do) },
	}
}

// WebCA is the file that a client on this machine has to believe the gateway's certificate by; empty where the machine does anyway.
func (p *Plane) WebCA() string {
	if p.Settings.TLSCert != "" {
		return p.platform.TrustedChain()
	}
	return p.platform.WebCA()
}

// guest says what a tenant is filled with: the plane's first one discovers the sample server, those that the settings name this
// machine, and those that have neither an upload.
func (p *Plane) guest(t state.Tenant) welcome.Tenant {
	g := welcome.Tenant{Slug: t.Slug, URL: p.Settings.URL(t.Slug), CACert: p.WebCA(), Dial: p.Settings.Dial(),
		Machine: p.docker == nil && p.platform.MachineIsFor(t.Slug), Member: p.platform.SampleIsFor(t.Slug)}
	if p.platform.SampleIsFor(t.Slug) {
		q := sample.Questions()[0]
		host, port := p.sampleAddress(t)
		g.Postgres = &welcome.Postgres{
			Host: host, Port: port, Database: "northwind", User: "accessos_reader", Password: p.samplePassword,
			Question: &welcome.Question{Text: q.Text, Principal: q.Principal, Resource: q.Database + "." + q.Object, Entitlement: q.Privilege},
		}
	}
	g.Upload = !g.Machine && g.Postgres == nil
	return g
}

// samplePassword gives the sample server's reader a new password.
func (p *Plane) samplePassword(ctx context.Context) (string, error) {
	server, err := p.sampleURL("postgres")
	if err != nil {
		return "", err
	}
	password := rand.Text()
	reader, err := sample.Reader(ctx, server, password)
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(reader); err != nil || !strings.HasSuffix(u.Path, "/northwind") {
		return "", errors.New("the sample's reader has no database to begin with")
	}
	return password, nil
}

// firstAdminCode is the code that a tenant's first admin gets in with. A new one is made while this plane still fills the tenant: the
// command that spent the one before may have been killed with the session in its hands. After that it is the tenant's own affair.
func (p *Plane) firstAdminCode(ctx context.Context, slug string, anew bool) (string, error) {
	t, ok := p.state.Tenant(slug)
	if !ok {
		return "", errors.New("no such tenant")
	}
	set := p.setOf(t)
	admin, err := p.platform.FirstAdmin(set)
	if err != nil || !anew {
		return admin.Code, err
	}
	if t.Welcomed {
		return "", fault.New(fault.FailedPrecondition, "%s is in use and its admin's profile is gone from here: an admin makes a new code with `a3 user reinvite`, or an operator with `fleet tenant recover-admin %s --reason '…'`", slug, slug)
	}
	code, hash := newCode()
	return code, p.carrier().RecoverAdmin(ctx, set, blueprint.Recovery{Email: admin.Email, CodeHash: hash,
		Reason: "the first admin's code was spent or too old before fleet had kept their session"})
}

// RecoverAdmin lets a tenant's admin in again who has no session left, and answers the code that they redeem. An empty email is the
// first admin's.
func (p *Plane) RecoverAdmin(ctx context.Context, slug, email, reason string) (local.FirstAdmin, error) {
	var none local.FirstAdmin
	if err := p.supervisor.Ping(ctx); err != nil {
		return none, p.whyNot(err)
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := p.open(ctx); err != nil {
		return none, err
	}
	t, ok := p.state.Tenant(slug)
	if !ok || t.ID.IsZero() {
		return none, fault.New(fault.NotFound, "there is no tenant %q", slug)
	}
	p.noteSuspended(t)
	set := p.setOf(t)
	if email == "" {
		first, err := p.platform.FirstAdmin(set)
		if err != nil {
			return none, err
		}
		email = first.Email
	}
	code, hash := newCode()
	err = p.carrier().RecoverAdmin(ctx, set, blueprint.Recovery{Email: email, CodeHash: hash, Reason: reason})
	return local.FirstAdmin{Email: email, Code: code, CodeHash: hash}, err
}

// noteSuspended says of a tenant that is suspended that a code made now leads nowhere.
func (p *Plane) noteSuspended(t state.Tenant) {
	if t.Suspended {
		p.report.Note(t.Slug + " is suspended: nobody signs in until it serves again, and a code lives 15 minutes: make this one then, after fleet plan resume --tenant " + t.Slug + " --reason '…' and fleet apply HASH")
	}
}
