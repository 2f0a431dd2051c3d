package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/fault"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// Phase 1: the same command serves one company on its own machine, under its own host name and its own certificate. The plane is a
// small one of its own beside the shared one, which shows that neither touches the other, and is stopped and killed as it goes.
func TestOneCompanyUnderItsOwnHostName(t *testing.T) {
	full(t)
	t.Parallel()
	const domain, slug = "access.corp.example", "corp"
	dir := walkable(t)
	certificate, key, roots := ownCertificate(t, dir, domain)
	p := planeIn(t, dir, "A3_TENANTS="+slug, "A3_DOMAIN="+domain, "A3_TLS_CERT="+certificate, "A3_TLS_KEY="+key, "A3_UNIX_TENANTS=none")
	p.domain = domain
	// As `make up` makes it: where root starts the plane, PostgreSQL's user can't walk here and its data are kept elsewhere.
	const closed = 0o700
	if err := os.Chmod(p.home, closed); err != nil {
		t.Fatal(err)
	}
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	corp := p.tenants[slug]
	if len(p.tenants) != 1 || corp == nil || corp.url != fmt.Sprintf("https://%s:%d", domain, p.port) {
		t.Fatalf("the tenants are %v", p.tenants)
	}
	if !strings.Contains(p.first.out, corp.url) {
		t.Errorf("where it is served is not printed: %s", p.first.out)
	}
	admin := corp.admin(t)
	steps := []struct {
		promise string
		test    func(t *testing.T)
	}{
		{"its certificate is the one that is shown", func(t *testing.T) { corp.shows(t, certificate, roots) }},
		{"up after down continues", func(t *testing.T) { upAfterDownContinues(t, corp, admin) }},
		{"down stops only its own", func(t *testing.T) { downStopsOnlyItsOwn(t, p) }},
		{"a killed supervisor is replaced, and the plane heals", func(t *testing.T) { killedSupervisor(t, p, admin) }},
		{"killed with its watcher it leaves nothing behind, and up heals", func(t *testing.T) { killedWithItsWatcher(t, p, admin) }},
		{"without the issuer, rights end", func(t *testing.T) { silentIssuer(t, corp) }},
	}
	for _, s := range steps {
		if !t.Run(s.promise, s.test) {
			p.complaints(os.Stderr)
			return
		}
	}
}

// ownCertificate is a certificate from an authority of the company's own, as files, with the roots that prove it.
func ownCertificate(t *testing.T, dir, domain string) (certificate, key string, roots *x509.CertPool) {
	t.Helper()
	write := func(name, kind string, der ...[]byte) string {
		var text []byte
		for _, d := range der {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: d})...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter, template.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), true
		if signer == nil {
			parent, signer = template, own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return own, parsed
	}
	caKey, ca := make(&x509.Certificate{Subject: pkix.Name{CommonName: "Corp Authority"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leafKey, leaf := make(&x509.Certificate{Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, caKey)
	raw, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(ca)
	return write("tls.crt", "CERTIFICATE", leaf.Raw, ca.Raw), write("tls.key", "PRIVATE KEY", raw), roots
}

func (x *tenant) shows(t *testing.T, certificate string, roots *x509.CertPool) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: x.plane.domain, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", x.plane.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(want)
	if shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]; string(shown.Raw) != string(block.Bytes) {
		t.Errorf("the gateway shows the certificate of %v", shown.DNSNames)
	}
}

func upAfterDownContinues(t *testing.T, x *tenant, admin *person) {
	w := x.workspace(t, admin)
	before := x.plane.pids(t)
	down(t, x.plane)
	if s, err := x.plane.command(t.Context(), "fleet", "plane", "down"); err != nil || s.code != 0 || !strings.Contains(s.out, "nothing changed") {
		t.Errorf("down, again: %v %s", err, s)
	}
	again(t, x.plane)
	for name, pid := range x.plane.pids(t) {
		if before[name] == 0 || before[name] == pid {
			t.Errorf("%s was process %d and is %d", name, before[name], pid)
		}
	}
	listed := ask(t, client(admin, "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{}).GetWorkspaces()
	for _, have := range listed {
		if have.GetId() == w.GetId() && have.GetName() == w.GetName() {
			return
		}
	}
	t.Errorf("the workspace that was made before is not there: %v", listed)
}

// again brings the plane up where it was.
func again(t *testing.T, p *plane) {
	t.Helper()
	s, err := p.command(t.Context(), "fleet", "plane", "up")
	if err != nil || s.code != 0 {
		t.Fatalf("plane up: %v %s", err, s)
	}
}

// down takes the plane down and sees that nothing of it runs.
func down(t *testing.T, p *plane) {
	t.Helper()
	began := time.Now()
	s, err := p.command(t.Context(), "fleet", "plane", "down")
	if err != nil || s.code != 0 {
		t.Fatalf("plane down: %v %s", err, s)
	}
	t.Logf("down took %s", time.Since(began).Round(time.Millisecond))
	if left := p.running(); len(left) > 0 {
		t.Errorf("plane down left %s", strings.Join(left, "; "))
	}
}

func downStopsOnlyItsOwn(t *testing.T, p *plane) {
	// One that looks like one of the plane's own: the same program, somebody else's.
	bystander := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), "plane", "supervise", "--home", filepath.Join(t.TempDir(), "other"))
	bystander.Env = p.environ
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	others := steady(t)
	down(t, p)
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process that isn't the plane's was ended too: %v", err)
	}
	if now := steady(t); !maps.Equal(now, others) {
		t.Errorf("the processes of another plane were %v and are %v", others, now)
	}
	if err := bystander.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = bystander.Wait()
	again(t, p)
}

// keeper is one of the two processes that keep the others: `supervisor` or `watcher`.
func (p *plane) keeper(t *testing.T, which string) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.home, "run", which+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var id struct{ PID int }
	if err := json.Unmarshal(raw, &id); err != nil || id.PID <= 1 {
		t.Fatalf("the %s is %s, %v", which, raw, err)
	}
	return id.PID
}

func kill(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill process %d: %v", pid, err)
		}
	}
}

func killedSupervisor(t *testing.T, p *plane, admin *person) {
	before, supervisor := p.pids(t), p.keeper(t, "supervisor")
	kill(t, supervisor)
	took := within(t, 2*backWithin, func() error {
		s, err := p.status(t.Context())
		if err != nil {
			return err
		}
		if len(s.Processes) != len(before) {
			return fmt.Errorf("of %d processes, %d are kept", len(before), len(s.Processes))
		}
		for _, u := range s.Processes {
			if u.State != "serving" || u.PID == before[u.Name] {
				return fmt.Errorf("%s is %s", u.Name, u.State)
			}
		}
		return nil
	})
	t.Logf("everything served again %s after the supervisor was killed", took.Round(time.Millisecond))
	if now := p.keeper(t, "supervisor"); now == supervisor {
		t.Error("the supervisor that was killed is still the one that is known")
	}
	ask(t, client(admin, "", iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
	again(t, p)
}

func killedWithItsWatcher(t *testing.T, p *plane, admin *person) {
	kill(t, p.keeper(t, "watcher"), p.keeper(t, "supervisor"))
	took := within(t, backWithin, func() error {
		if left := p.running(); len(left) > 0 {
			return fmt.Errorf("with nobody to keep them still run %s", strings.Join(left, "; "))
		}
		return nil
	})
	t.Logf("everything had ended %s after both were killed", took.Round(time.Millisecond))
	again(t, p)
	ask(t, client(admin, "", iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
}

// Row T11, its end: nobody can be known as removed while the issuer is silent, so writes end after 10 s and reads after 60 s.
func silentIssuer(t *testing.T, x *tenant) {
	admin := x.admin(t)
	w := x.workspace(t, admin).GetId()
	reads := client(admin, w, integrationsv1connect.NewIntegrationServiceClient)
	writes := client(admin, w, integrationsv1connect.NewIntegrationWriteServiceClient)
	write := func() error {
		_, err := try(t, writes.CreateIntegration, &integrationsv1.CreateIntegrationRequest{Name: name("late"), Settings: csvSettings()})
		return err
	}
	read := func() error {
		_, err := try(t, reads.ListIntegrations, &integrationsv1.ListIntegrationsRequest{})
		return err
	}
	if err := errors.Join(write(), read()); err != nil {
		t.Fatal(err)
	}
	resume := x.pause(t, "iam")
	began := time.Now()
	ends := func(what string, call func() error, early, late time.Duration) {
		t.Helper()
		took := within(t, late-time.Since(began)+endsWithin, func() error {
			err := call()
			if fault.KindOf(err) == fault.Unavailable && strings.Contains(err.Error(), "issuer") {
				return nil
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			return fmt.Errorf("%s are still answered", what)
		})
		t.Logf("%s ended %s after the issuer fell silent", what, time.Since(began).Round(time.Millisecond))
		if time.Since(began) < early {
			t.Errorf("%s ended after %s already", what, took)
		}
	}
	const writesEnd, readsEnd, heartbeat = 10 * time.Second, 60 * time.Second, 2 * time.Second
	ends("writes", write, writesEnd-heartbeat, writesEnd)
	if err := read(); err != nil {
		t.Errorf("reads ended with the writes: %v", err)
	}
	ends("reads", read, readsEnd-heartbeat, readsEnd)
	resume()
	within(t, backWithin, func() error { return errors.Join(read(), write()) })
}
