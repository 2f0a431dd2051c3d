package aws

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/dump"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// certified is a PostgreSQL server on localhost with a certificate, that lets nobody in without TLS; and the file with the authority of it.
func certified(t *testing.T) (s *server, roots string, installed pgserver.Binaries) {
	t.Helper()
	installed, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir, err := pgserver.DirFor(filepath.Join(t.TempDir(), "rds"), "")
	if err != nil {
		t.Fatal(err)
	}
	real, err := pgserver.New(pgserver.Config{Binaries: installed, Dir: dir, Port: port, MaxConnections: 20, Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := real.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd, err := real.Command(ctx)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, access := filepath.Join(real.Dir(), "server.pem"), filepath.Join(real.Dir(), "server.key"), filepath.Join(real.Dir(), "tls.conf")
	authorityOf(t, "localhost", certificate, key)
	if err := os.WriteFile(access, []byte("hostssl all all all scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	owner, err := os.Stat(real.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{certificate, key, access} {
		if is, ok := owner.Sys().(*syscall.Stat_t); !ok || os.Chown(file, int(is.Uid), int(is.Gid)) != nil {
			t.Fatalf("give %s to the server's user", file)
		}
	}
	cmd.Args = append(cmd.Args, "-c", "listen_addresses=127.0.0.1", "-c", "hba_file="+access, "-c", "ssl=on", "-c", "ssl_cert_file="+certificate, "-c", "ssl_key_file="+key)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	text, err := real.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	roots = filepath.Join(t.TempDir(), "roots.pem")
	if content, err := os.ReadFile(certificate); err != nil || os.WriteFile(roots, content, 0o600) != nil {
		t.Fatal(err)
	}
	return &server{host: net.JoinHostPort("localhost", strconv.Itoa(port)), user: u.User.Username(), password: password}, roots, installed
}

// authorityOf writes a certificate for a name, that vouches for itself, and its key.
func authorityOf(t *testing.T, name, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// With RDS's authorities named, a server is reached verified, by fleet and by PostgreSQL's own programs alike, and one that others vouch for is
// not reached; without them none is but an emulator's.
func TestDatabaseServerIsReachedVerified(t *testing.T) {
	s, roots, installed := certified(t)
	connect := func(s server) error {
		at, err := s.URL("postgres")
		if err != nil {
			return err
		}
		conn, err := pgx.Connect(t.Context(), at)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	}
	good := *s
	if err := good.verifiedBy(roots, false); err != nil {
		t.Fatal(err)
	}
	within, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.Tick(100 * time.Millisecond); ; <-tick {
		err := connect(good)
		if err == nil {
			break
		}
		if within.Err() != nil {
			t.Fatal(err)
		}
	}
	settles(t, good)
	others := filepath.Join(t.TempDir(), "others.pem")
	authorityOf(t, "localhost", others, filepath.Join(t.TempDir(), "key"))
	bad := *s
	if err := bad.verifiedBy(others, false); err != nil {
		t.Fatal(err)
	}
	renamed := good
	renamed.host = strings.Replace(good.host, "localhost", "127.0.0.1", 1)
	for name, wrong := range map[string]server{"others vouch for it": bad, "another name": renamed} {
		if err := connect(wrong); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
		at, _ := wrong.URL("postgres")
		if _, err := dump.Begin(t.Context(), config.NewSecret(at)); err == nil {
			t.Errorf("%s: and a backup of it begins", name)
		}
	}
	for name, c := range map[string]struct {
		s     server
		fails bool
	}{"verified": {good, false}, "others vouch for it": {bad, true}} {
		at, _ := c.s.URL("postgres")
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		program := exec.CommandContext(t.Context(), filepath.Join(installed.Dir, "pg_dump"), "--schema-only", "postgres") //nolint:gosec // PostgreSQL's own
		program.Env = append(dump.TLS(config.NewSecret(at)), "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+c.s.user, "PGPASSWORD="+c.s.password)
		out, err := program.CombinedOutput()
		if refused := err != nil && strings.Contains(string(out), "certificate"); refused != c.fails || err != nil && !c.fails {
			t.Errorf("pg_dump, %s: %v: %s", name, err, out)
		}
	}
	for name, c := range map[string]struct{ roots, want string }{"no file": {"", "A3_AWS_DATABASE_CA"}, "one that isn't there": {"/nonexistent", "A3_AWS_DATABASE_CA"}, "no certificates": {os.Args[0], "Region"}} {
		if err := (&server{}).verifiedBy(c.roots, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a task is told of its database names the authorities where the task has them, and has no password where the set's roles log in by tokens;
// who migrates has one.
func TestTaskIsToldHowItsRolesLogIn(t *testing.T) {
	s := server{host: "db.example:5432", mode: "verify-full", roots: "/of/this/machine.pem"}
	of := func(set platform.Set, tokens bool) *tenant {
		p := &Platform{Machine: &local.Platform{Settings: settings.Settings{Home: t.TempDir()}, State: &state.State{}}}
		if tokens {
			byTokens(t, p, set)
		}
		return &tenant{Platform: p, id: "tnt_x", set: set}
	}
	acme := platform.Set{Tenant: id.NewTenant()}
	tail := "@db.example:5432/tnt_x?sslmode=verify-full&sslrootcert=" + url.QueryEscape(stack.DatabaseRootsFile)
	for _, c := range []struct {
		tokens    bool
		key, want string
	}{
		{false, "database-iam", "postgres://tnt_x_iam:secret" + tail},
		{true, "database-iam", "postgres+iam://tnt_x_iam" + tail},
		{true, "database-" + local.OwnerRole, "postgres://tnt_x_iam:secret" + tail},
	} {
		got, err := of(acme, c.tokens).told(c.key, s.url("tnt_x_iam", "secret", "tnt_x")+"\n")
		if err != nil || got != c.want {
			t.Errorf("%s, by tokens %t: %q, %v", c.key, c.tokens, got, err)
		}
	}
	if got, err := of(platform.Set{}, true).told("database-registry", s.url("registry", "secret", "registry")); err != nil || !strings.HasPrefix(got, "postgres+iam://registry@") {
		t.Errorf("the registry is told %q, %v", got, err)
	}
	if got, err := of(acme, true).told("key-kek", "a key\n"); err != nil || got != "a key\n" {
		t.Errorf("a key: %q, %v", got, err)
	}
}

// byTokens says on file that the roles of a set log in by tokens.
func byTokens(t *testing.T, p *Platform, s platform.Set) {
	t.Helper()
	file := p.Machine.Files(s).ByTokens()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// settles sees roles of a set become ones that RDS lets in by tokens, where the server knows what that is, and go back; and that a set which was
// made before the plane's settings changed is told what its roles log in by, whatever the settings say by then.
func settles(t *testing.T, s server) {
	t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	p := &Platform{Machine: &local.Platform{Settings: settings.Settings{Home: t.TempDir()}, State: &state.State{}}, servers: map[string]*server{serverOf(set): &s}}
	if err := os.MkdirAll(filepath.Dir(p.Machine.Files(set).ByTokens()), 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := s.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for role := range b.Database.Roles {
		if _, err := conn.Exec(t.Context(), "CREATE ROLE "+local.RealRole(set, role)); err != nil {
			t.Fatal(err)
		}
	}
	told := func() string {
		t.Helper()
		got, err := (&tenant{Platform: p, id: set.Name(), set: set}).told("database-iam", s.url("tnt_x_iam", "secret", "tnt_x"))
		if err != nil {
			t.Fatal(err)
		}
		scheme, _, _ := strings.Cut(got, ":")
		return scheme
	}
	members := func() (count int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_auth_members WHERE roleid = to_regrole('rds_iam')").Scan(&count); err != nil {
			t.Fatal(err)
		}
		return count
	}
	if changed, err := p.settleLogins(t.Context(), set); err != nil || changed {
		t.Errorf("by passwords, as it is: %t, %v", changed, err)
	}
	p.Settings.AWS.DatabaseTokens = true
	if got := told(); got != "postgres" {
		t.Errorf("what was made before is told %s:// though nobody granted tokens", got)
	}
	if _, err := p.settleLogins(t.Context(), set); err == nil || !strings.Contains(err.Error(), "A3_AWS_DATABASE_LOGIN=password") {
		t.Errorf("a server that knows no tokens: %v", err)
	}
	if got := told(); got != "postgres" {
		t.Errorf("where nothing was granted a task is told %s://", got)
	}
	if _, err := conn.Exec(t.Context(), "CREATE ROLE rds_iam"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tokens  bool
		members int
		told    string
	}{{true, len(b.Database.Roles), "postgres+iam"}, {false, 0, "postgres"}} {
		before := told()
		p.Settings.AWS.DatabaseTokens = c.tokens
		if got := told(); got != before {
			t.Errorf("an upgrade hands the roles %s:// once the settings changed, and they log in by %s://", got, before)
		}
		for round := range 2 {
			if changed, err := p.settleLogins(t.Context(), set); err != nil || changed == (round == 1) {
				t.Errorf("tokens %t, time %d: changed %t, %v", c.tokens, round, changed, err)
			}
		}
		if got := members(); got != c.members {
			t.Errorf("tokens %t: %d of %d roles log in by tokens", c.tokens, got, len(b.Database.Roles))
		}
		if got := told(); got != c.told {
			t.Errorf("tokens %t: a task is told %s://", c.tokens, got)
		}
	}
}
