package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

// server is a PostgreSQL server of RDS: the plane's shared one, or a tenant's own.
type server struct {
	host           string
	user, password string
	// mode is libpq's sslmode, roots the file that it verifies by.
	mode, roots string
}

// Outputs of a stack that name its server, and the secret with its first user.
const (
	hostOutput = "DatabaseHost"
	userOutput = "DatabaseUser"
	rdsPort    = "5432"
)

// useServer finds the server that has a set's database, before the machine's side of the platform asks for it.
func (p *Platform) useServer(ctx context.Context, s platform.Set) error {
	t, err := p.of(ctx, s)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.servers == nil {
		p.servers = map[string]*server{}
	}
	if p.servers[serverOf(s)] != nil {
		return nil
	}
	// A shared server is the plane's, and its first user is for who makes tenants' databases.
	name, cfg := t.place.PlaneStack(), p.cfg
	if s.Dedicated() {
		name, cfg = t.stackName(), t.cfg
	}
	told, err := p.outputsOf(ctx, cfg, name)
	if err != nil {
		return err
	}
	if told[hostOutput] == "" {
		return fmt.Errorf("stack %s names no database server: see docs/aws.md", name)
	}
	found, err := read(ctx, cfg, told)
	if err == nil {
		err = found.verifiedBy(p.Settings.AWS.DatabaseCA, cfg.BaseEndpoint != nil)
	}
	if err == nil {
		p.servers[serverOf(s)] = found
	}
	return err
}

// serverOf tells servers apart.
func serverOf(s platform.Set) string {
	if s.Dedicated() {
		return s.Name()
	}
	return "shared"
}

// read reads who the server's first user is.
func read(ctx context.Context, cfg sdk.Config, told map[string]string) (*server, error) {
	got, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: sdk.String(told[userOutput])})
	if err != nil {
		return nil, fmt.Errorf("read who the first user of the database server is: %w", err)
	}
	var user struct{ Username, Password string }
	if err := json.Unmarshal([]byte(sdk.ToString(got.SecretString)), &user); err != nil {
		return nil, errors.New("the secret of the database server's first user can't be read")
	}
	s := &server{host: told[hostOutput], user: user.Username, password: user.Password}
	if _, _, err := net.SplitHostPort(s.host); err != nil {
		s.host = net.JoinHostPort(s.host, rdsPort)
	}
	return s, nil
}

func (s *server) url(role, password, database string) string {
	query := url.Values{"sslmode": {s.mode}}
	if s.roots != "" {
		query.Set(rootsOf, s.roots)
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: s.host, Path: database, RawQuery: query.Encode()}
	return u.String()
}

// URL implements local.Databases.
func (s *server) URL(database string) (string, error) {
	return s.url(s.user, s.password, database), nil
}

// URLAs implements local.Databases.
func (s *server) URLAs(role, password, database string) string {
	return s.url(role, password, database)
}

// Address implements local.Databases.
func (s *server) Address() string { return s.host }

// Databases implements local.Places.
func (p *Platform) Databases(s platform.Set) (local.Databases, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.servers[serverOf(s)]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("the database server of %s was not looked up", s.Name())
}

// Serve implements local.Places: AWS keeps servers; the set's is looked up.
func (p *Platform) Serve(ctx context.Context, s platform.Set) (bool, error) {
	return false, p.useServer(ctx, s)
}

// Zone implements local.Places.
func (p *Platform) Zone() string { return stack.Place{Plane: p.State.Plane}.Zone() }

// CertificateLife implements local.Places: ECS starts tasks whenever it has to, with what was handed over last, and nobody of this machine is there
// then. Tenants' components replace what they started with; the plane's own are started anew with another by who brings the plane up.
func (p *Platform) CertificateLife() time.Duration {
	const days = 90
	return days * 24 * time.Hour
}

// Installed implements local.Places: those of this machine, by which databases are exported.
func (p *Platform) Installed() pgserver.Binaries { return p.Machine.Postgres.Binaries() }

// Stores implements local.Places: those of tenants are buckets and secrets at AWS.
func (p *Platform) Stores(s platform.Set) local.Stores {
	if s.Tenant.IsZero() {
		return nil
	}
	return &keptStores{p: p, set: s}
}

// Address implements local.Places: components have names in the set's zone.
func (p *Platform) Address(s platform.Set, component, port string) (string, error) {
	b := s.Blueprint
	if s.Tenant.IsZero() {
		b = p.Own.Blueprint
	}
	c, ok := b.Component(component)
	if !ok {
		return "", fmt.Errorf("%s has no component %q", b.Name, component)
	}
	// Only whether it has an account to itself says which port that is.
	return stack.Place{Plane: p.State.Plane, Hub: s.Account}.Address(b, s.Name(), c, port), nil
}
