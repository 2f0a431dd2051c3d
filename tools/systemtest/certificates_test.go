package systemtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// A certificate of a service is put back in time, as if the process had slept: it is issued by the tenant's own authority, so long ago.
func (p *plane) age(t *testing.T, tenant *tenant, service string, ago time.Duration) {
	t.Helper()
	identity := workload.Identity{Plane: "dev", Service: service}
	issuing, dir := filepath.Join(p.home, "pki", "issuing.pem"), filepath.Join(p.home, "plane", "components", service, "certificate")
	if service == "operator" {
		dir = filepath.Join(p.home, "pki", service)
	}
	if tenant != nil {
		of, err := id.ParseTenant(tenant.id)
		if err != nil {
			t.Fatal(err)
		}
		identity.Tenant = of
		issuing, dir = filepath.Join(p.home, "tenants", tenant.id, "pki", "issuing.pem"), filepath.Join(p.home, "tenants", tenant.id, "components", service, "certificate")
	}
	authority, err := workload.LoadAuthority(issuing)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.IssueKeypair(identity, time.Now().Add(-ago))
	if err != nil {
		t.Fatal(err)
	}
	// The file stays its owner's: a service may run as a user of its own.
	before, err := os.Stat(filepath.Join(dir, "workload.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(dir); err != nil {
		t.Fatal(err)
	}
	if owner, ok := before.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "workload.pem"), int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// presents says when the certificate expires that a service presents now.
func (x *tenant) presents(t *testing.T, component string) (time.Time, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	conn, err := d.DialContext(t.Context(), "tcp", x.addresses[component])
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	secured, ok := conn.(*tls.Conn)
	if !ok || len(secured.ConnectionState().PeerCertificates) == 0 {
		return time.Time{}, errors.New("it presents no certificate")
	}
	return secured.ConnectionState().PeerCertificates[0].NotAfter, nil
}

// restarted kills a process and waits until another one serves.
func (p *plane) restarted(t *testing.T, target string) (pid int) {
	t.Helper()
	before := p.pids(t)[target]
	kill(t, before)
	within(t, backWithin, func() error {
		now, err := p.process(t.Context(), target)
		if err == nil && (now.PID == 0 || now.PID == before) {
			err = fmt.Errorf("%s is %s", target, now.State)
		}
		pid = now.PID
		return err
	})
	return pid
}

// Certificates that are due are renewed by services that go on running, with the registry away and in any order; nobody restarts
// anything. The issuer, whose own is due as well, renews it at itself.
func TestCertificatesRenewWhileTheRegistryIsAway(t *testing.T) {
	full(t)
	x := borrow(t)
	resume := shared.pause(t, "plane/registry")
	// Past two thirds of a week, and not so near its end that fleet would step in.
	const due = 5*24*time.Hour + 6*time.Hour
	pids := map[string]int{}
	components := slices.Sorted(maps.Keys(x.addresses))
	for _, c := range components {
		shared.age(t, x, c, due)
		pids[c] = shared.restarted(t, x.id+"/"+c)
	}
	for _, c := range components {
		took := within(t, time.Minute, func() error {
			expires, err := x.presents(t, c)
			if left := time.Until(expires); err == nil && left < 6*24*time.Hour {
				err = fmt.Errorf("%s presents a certificate with %s left", c, left.Round(time.Hour))
			}
			return err
		})
		t.Logf("%s presents a new certificate after %s", c, took.Round(time.Millisecond))
		if now := shared.pids(t)[x.id+"/"+c]; now != pids[c] {
			t.Errorf("%s was restarted for it", c)
		}
	}
	resume()
	x.accepts(t, x.plane.as(t, x, "spare-admin").token(t, ""))
}

// A machine that was off for longer than certificates live comes up by the command that brings it up, and by nothing else.
func TestUpHealsAPlaneWhoseCertificatesHaveExpired(t *testing.T) {
	full(t)
	x := borrow(t)
	const over = workload.LeafLife + time.Hour
	for _, c := range slices.Sorted(maps.Keys(x.addresses)) {
		shared.age(t, x, c, over)
		shared.restarted(t, x.id+"/"+c)
	}
	shared.age(t, nil, "operator", over)
	for _, c := range []string{"registry", "gateway"} {
		shared.age(t, nil, c, over)
		shared.restarted(t, "plane/"+c)
	}
	if s := shared.tryA3(t, "spare-admin", "user", "list"); s.code == 0 {
		t.Fatal("the gateway passes requests to a service whose certificate has expired")
	}
	s, err := shared.command(t.Context(), "fleet", "plane", "up")
	if err != nil || s.code != 0 {
		t.Fatalf("plane up: %v %s", err, s)
	}
	took := within(t, time.Minute, func() error {
		if s := shared.tryA3(t, "spare-admin", "user", "list"); s.code != 0 {
			return errors.New(s.String())
		}
		return nil
	})
	t.Logf("answered again %s after plane up", took.Round(time.Millisecond))
	for _, c := range slices.Sorted(maps.Keys(x.addresses)) {
		within(t, time.Minute, func() error {
			expires, err := x.presents(t, c)
			if err == nil && time.Until(expires) < 6*24*time.Hour {
				err = fmt.Errorf("%s presents a certificate until %s", c, expires)
			}
			return err
		})
	}
}
