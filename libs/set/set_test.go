package set_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/authn"
	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/set"
	"a3os.app/libs/workload"
)

// platform is what `fleet` lays down for one tenant: its authority, and the plane's.
type platform struct {
	tenant      id.Tenant
	root, plane workload.Authority
	cfg         set.Config
}

func newPlatform(t *testing.T) platform {
	t.Helper()
	before := slog.Default() // joining sets the process's logger
	t.Cleanup(func() { slog.SetDefault(before) })
	p := platform{tenant: id.NewTenant()}
	dir := t.TempDir()
	p.root, p.plane = authority(t, workload.TrustDomain{Plane: "dev", Tenant: p.tenant}), authority(t, workload.TrustDomain{Plane: "dev"})
	p.cfg = set.Config{Plane: "dev", Tenant: p.tenant, Listen: "127.0.0.1:0", Certificates: filepath.Join(dir, "cert"), Issuer: "https://acme.localhost:7443",
		MarkKeys: bindingtest.Keys(t), LicenceKeys: licencetest.Keys(), TenantRoots: filepath.Join(dir, "tenant-roots.pem"), PlaneRoots: filepath.Join(dir, "plane-roots.pem"), LogLevel: "error",
		Peers: map[string]string{"iam": "127.0.0.1:1"}}
	write(t, p.cfg.TenantRoots, p.root.CertificatePEM())
	write(t, p.cfg.PlaneRoots, p.plane.CertificatePEM())
	p.issue(t, p.root, workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "audit"})
	return p
}

func authority(t *testing.T, domain workload.TrustDomain) workload.Authority {
	t.Helper()
	a, err := workload.NewRoot(domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue puts a keypair of who into the directory of the process.
func (p platform) issue(t *testing.T, root workload.Authority, who workload.Identity) {
	t.Helper()
	intermediate, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := intermediate.IssueKeypair(who, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.cfg.Certificates, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(p.cfg.Certificates); err != nil {
		t.Fatal(err)
	}
}

// bare is the tenant's id as it stands in the names of certificates, without its prefix.
func bare(tenant id.Tenant) string { return tenant.String()[len("tnt_"):] }

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// join tries both ways into a set; they refuse the same.
func join(t *testing.T, cfg set.Config, service string) error {
	t.Helper()
	owner, err := cfg.Owner()
	if err != nil {
		return err
	}
	_, err = set.Join(t.Context(), cfg, service, owner)
	_, asIssuer := set.JoinIssuer(t.Context(), cfg, service, owner, authn.NewRemoteKeys(nil, nil))
	if (err == nil) != (asIssuer == nil) {
		t.Errorf("as a member: %v; as the issuer: %v", err, asIssuer)
	}
	return err
}

func TestMemberKnowsWhoItIs(t *testing.T) {
	p := newPlatform(t)
	owner, err := p.cfg.Owner()
	if err != nil {
		t.Fatal(err)
	}
	m, err := set.Join(t.Context(), p.cfg, "audit", owner)
	if err != nil {
		t.Fatal(err)
	}
	if m.Identity != (workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "audit"}) || m.Source.Identity() != m.Identity {
		t.Errorf("it is %s, its certificate %s", m.Identity, m.Source.Identity())
	}
	if s := m.Sibling("iam"); s.Tenant != p.tenant || s.Service != "iam" || s.Plane != "dev" {
		t.Errorf("its sibling is %s", s)
	}
	if _, err := m.Trust.Roots(workload.TrustDomain{Plane: "dev", Tenant: id.NewTenant()}); err == nil {
		t.Error("it trusts another tenant")
	}
	if m.Config.Audience() != "https://acme.localhost:7443/api" {
		t.Errorf("its audience is %s", m.Config.Audience())
	}
}

func TestMemberWithSomebodyElsesThingsDoesNotStart(t *testing.T) {
	other := id.NewTenant()
	for name, c := range map[string]struct {
		change func(t *testing.T, p *platform)
		want   func(p platform) []string
	}{
		"certificate of another service": {
			func(t *testing.T, p *platform) {
				p.issue(t, p.root, workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "iam"})
			},
			func(p platform) []string { return []string{p.cfg.Certificates, "iam", "audit"} },
		},
		"certificate of another tenant": {
			func(t *testing.T, p *platform) {
				p.issue(t, authority(t, workload.TrustDomain{Plane: "dev", Tenant: other}), workload.Identity{Plane: "dev", Tenant: other, Service: "audit"})
			},
			func(p platform) []string { return []string{p.cfg.Certificates, bare(other), bare(p.tenant)} },
		},
		"certificate of another plane": {
			func(t *testing.T, p *platform) {
				p.issue(t, authority(t, workload.TrustDomain{Plane: "prod", Tenant: p.tenant}), workload.Identity{Plane: "prod", Tenant: p.tenant, Service: "audit"})
			},
			func(p platform) []string { return []string{p.cfg.Certificates, "prod", "dev"} },
		},
		"told another tenant": {
			func(_ *testing.T, p *platform) { p.cfg.Tenant = other },
			func(p platform) []string { return []string{p.cfg.TenantRoots, bare(other)} },
		},
		"no key of marks": {
			func(_ *testing.T, p *platform) { p.cfg.MarkKeys = "" },
			func(platform) []string { return []string{"A3_MARK_KEYS"} },
		},
		"told no tenant": {
			func(_ *testing.T, p *platform) { p.cfg.Tenant = id.Tenant{} },
			func(platform) []string { return nil },
		},
		"told another plane": {
			func(_ *testing.T, p *platform) { p.cfg.Plane = "prod" },
			func(platform) []string { return []string{"A3_MARK_KEYS", "dev", "prod"} },
		},
		"roots of another tenant": {
			func(t *testing.T, p *platform) {
				write(t, p.cfg.TenantRoots, authority(t, workload.TrustDomain{Plane: "dev", Tenant: other}).CertificatePEM())
			},
			func(p platform) []string { return []string{p.cfg.TenantRoots, bare(other)} },
		},
		"roots of another tenant among its own": {
			func(t *testing.T, p *platform) {
				more := authority(t, workload.TrustDomain{Plane: "dev", Tenant: other}).CertificatePEM()
				write(t, p.cfg.TenantRoots, append(p.root.CertificatePEM(), more...))
			},
			func(p platform) []string { return []string{p.cfg.TenantRoots, bare(other)} },
		},
		"tenant's roots as the plane's": {
			func(t *testing.T, p *platform) { write(t, p.cfg.PlaneRoots, p.root.CertificatePEM()) },
			func(p platform) []string { return []string{p.cfg.PlaneRoots, bare(p.tenant)} },
		},
		"plane's roots as the tenant's": {
			func(t *testing.T, p *platform) { write(t, p.cfg.TenantRoots, p.plane.CertificatePEM()) },
			func(p platform) []string { return []string{p.cfg.TenantRoots} },
		},
		"certificate that the tenant's roots do not vouch for": {
			func(t *testing.T, p *platform) {
				p.issue(t, authority(t, workload.TrustDomain{Plane: "dev", Tenant: p.tenant}), workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "audit"})
			},
			func(p platform) []string { return []string{p.cfg.Certificates, p.cfg.TenantRoots} },
		},
		"no roots": {
			func(t *testing.T, p *platform) {
				if err := os.Remove(p.cfg.TenantRoots); err != nil {
					t.Fatal(err)
				}
			},
			func(p platform) []string { return []string{p.cfg.TenantRoots} },
		},
		"empty roots": {
			func(t *testing.T, p *platform) { write(t, p.cfg.PlaneRoots, nil) },
			func(p platform) []string { return []string{p.cfg.PlaneRoots} },
		},
		"no certificate": {
			func(t *testing.T, p *platform) {
				if err := os.RemoveAll(p.cfg.Certificates); err != nil {
					t.Fatal(err)
				}
			},
			func(p platform) []string { return []string{p.cfg.Certificates} },
		},
		"unknown log level": {
			func(_ *testing.T, p *platform) { p.cfg.LogLevel = "loud" },
			func(platform) []string { return []string{"loud"} },
		},
		"no issuer": {
			func(_ *testing.T, p *platform) { p.cfg.Issuer = "" },
			func(platform) []string { return []string{"issuer"} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			c.change(t, &p)
			err := join(t, p.cfg, "audit")
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range c.want(p) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// held is a resource that is not what it should be.
type held struct{ err error }

func (h held) Prove(context.Context) error { return h.err }

// Nothing is served before it is proven whose it is, and a service that opened nothing as its set's own has proven nothing.
func TestMemberServesNothingUnproven(t *testing.T) {
	p := newPlatform(t)
	foreign := binding.Refuse(binding.ErrForeign, "that is another's")
	for name, hold := range map[string]func(o *binding.Owner){
		"nothing":   func(*binding.Owner) {},
		"another's": func(o *binding.Owner) { o.Hold(held{}); o.Hold(held{foreign}) },
	} {
		owner, err := p.cfg.Owner()
		if err != nil {
			t.Fatal(err)
		}
		m, err := set.Join(t.Context(), p.cfg, "audit", owner)
		if err != nil {
			t.Fatal(err)
		}
		hold(owner)
		// Taken already: a member that listened first would say so.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		m.Config.Listen, m.Config.OpsListen = l.Addr().String(), l.Addr().String()
		if err := m.Serve(t.Context(), set.Serving{}); !errors.Is(err, binding.ErrRefused) {
			t.Errorf("holding %s it serves: %v", name, err)
		}
	}
	other := p.cfg
	other.Tenant = id.NewTenant()
	stranger, err := other.Owner()
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []*binding.Owner{nil, stranger} {
		if _, err := set.Join(t.Context(), p.cfg, "audit", owner); err == nil {
			t.Errorf("a member opens its resources as %v", owner)
		}
	}
}

// Nobody is told that a member is ready while it waits for its issuer and does not listen yet.
func TestMemberIsReadyNoEarlierThanItListens(t *testing.T) {
	p := newPlatform(t)
	intermediate, err := p.root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := intermediate.IssueKeypair(workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "audit"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(p.cfg.Certificates); err != nil {
		t.Fatal(err)
	}
	owner, err := p.cfg.Owner()
	if err != nil {
		t.Fatal(err)
	}
	owner.Hold(held{})
	cfg := p.cfg
	cfg.Listen, cfg.OpsListen = address(t), address(t)
	m, err := set.Join(t.Context(), cfg, "audit", owner)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- m.Serve(ctx, set.Serving{Ready: func(context.Context) error { return nil }})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	const most = 30 * time.Second
	end := time.After(most)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var d net.Dialer
		if c, err := d.DialContext(t.Context(), "tcp", cfg.OpsListen); err == nil {
			_ = c.Close()
			break
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatal(err)
		case <-end:
			t.Fatalf("after %s it tells nobody whether it is ready", most)
		case <-tick.C:
		}
	}
	// The server's own socket is opened right after; a moment is its, and the two seconds that it waits for an issuer are not.
	const moment = time.Second
	late := time.After(moment)
	for {
		var d net.Dialer
		if c, err := d.DialContext(t.Context(), "tcp", cfg.Listen); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-late:
			t.Fatalf("it says that it is ready and does not listen %s later", moment)
		case <-tick.C:
		}
	}
}

// address is one of this machine that is free.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestCertificateThatExpiredIsNoReasonNotToStart(t *testing.T) {
	p := newPlatform(t)
	intermediate, err := p.root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// It waits for a new one, which its renewer asks for.
	pair, err := intermediate.IssueKeypair(workload.Identity{Plane: "dev", Tenant: p.tenant, Service: "audit"}, time.Now().Add(-30*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(p.cfg.Certificates); err != nil {
		t.Fatal(err)
	}
	if err := join(t, p.cfg, "audit"); err != nil {
		t.Error(err)
	}
}

func TestFaultsOfTheConfigurationAreToldByName(t *testing.T) {
	_, err := config.Load[set.Config]("audit", []string{"A3_PLANE=dev", "A3_TENANT=wsp_01h455vb4pex5vsknk084sn02q", "A3_ISSUR=https://acme.localhost", "A3_DATABASE_URL=c4nary"})
	faults, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{`role "audit"`, "did you mean A3_ISSUER?", "A3_DATABASE_URL is not known", "A3_ISSUER is missing: the tenant's issuer",
		"A3_LISTEN is missing", "A3_CERT_DIR is missing: directory of this service's key and certificate", "A3_TENANT_ROOTS is missing", "A3_PLANE_ROOTS is missing", "A3_MARK_KEYS is missing", "A3_LICENCE_KEYS is missing", "A3_PEERS is missing"} {
		if !strings.Contains(faults.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "c4nary") || strings.Contains(err.Error(), "A3_OPS_LISTEN is missing") {
		t.Errorf("the error says too much:\n%v", err)
	}
}

func TestConfigurationIsRead(t *testing.T) {
	tenant := id.NewTenant()
	cfg, err := config.Load[set.Config]("audit", []string{"A3_PLANE=dev", "A3_TENANT=" + tenant.String(), "A3_LISTEN=127.0.0.1:4002", "A3_CERT_DIR=/c", "A3_TENANT_ROOTS=/t",
		"A3_PLANE_ROOTS=/p", "A3_MARK_KEYS=k", "A3_LICENCE_KEYS=l", "A3_ISSUER=https://acme.localhost:7443", "A3_PEERS=iam=127.0.0.1:4001,audit=127.0.0.1:4002"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Tenant != tenant || cfg.Peers["iam"] != "127.0.0.1:4001" || cfg.Peers["audit"] != "127.0.0.1:4002" || cfg.LogLevel != "info" || len(cfg.CORSOrigins) != 0 {
		t.Errorf("read %+v", cfg)
	}
}
