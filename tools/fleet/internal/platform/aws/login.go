package aws

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pg"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

// rootsOf is the part of a connection string that names the file which a server's certificate is verified by.
const rootsOf = "sslrootcert"

// mostRoots is what a component's secret has room for: those of one Region are a few KB, those of all are not.
const mostRoots = 16 << 10

// verifiedBy has a server be reached with its certificate verified. An emulator of AWS has no RDS: its server is one of the test's, which may be
// without TLS.
func (s *server) verifiedBy(roots string, emulator bool) error {
	if roots == "" {
		if s.mode = "prefer"; !emulator {
			return errors.New("nobody vouches for the database server's certificate: name the file with RDS's authorities of this Region in A3_AWS_DATABASE_CA; see docs/aws.md")
		}
		return nil
	}
	text, err := os.ReadFile(roots) //nolint:gosec // G304: an operator names it
	if err != nil {
		return fmt.Errorf("read RDS's authorities: %w: check A3_AWS_DATABASE_CA", err)
	}
	if len(text) > mostRoots || !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificates in the form PEM, or more than one Region's (%d KB): name the bundle of the plane's Region in A3_AWS_DATABASE_CA", roots, mostRoots>>10)
	}
	s.mode, s.roots = "verify-full", roots
	return nil
}

// told is what a component is given of a key: of a connection string, where its task finds what it names, and without the password where the set's
// roles log in by tokens. Whoever migrates has none to make one with, and a password.
func (t *tenant) told(key, text string) (string, error) {
	role, is := strings.CutPrefix(key, "database-")
	if !is {
		return text, nil
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return "", fmt.Errorf("the file of role %s of %s holds no connection string", role, t.id)
	}
	query := u.Query()
	if query.Has(rootsOf) {
		query.Set(rootsOf, stack.DatabaseRootsFile)
		u.RawQuery = query.Encode()
	}
	if role == local.OwnerRole {
		return u.String(), nil
	}
	if _, err := os.Stat(t.Machine.Files(t.set).ByTokens()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return u.String(), nil
		}
		return "", err
	}
	u.User = url.User(u.User.Username())
	return pg.TokenScheme + strings.TrimPrefix(u.String(), "postgres://"), nil
}

// tokensRole is the role of RDS whose members log in by tokens, and by nothing else.
const tokensRole = "rds_iam"

// settleLogins has a set's roles log in as the plane's settings say, and keeps on file which way that is. Only where roles are made are they
// changed: a set that runs goes on as it was made, and an upgrade hands it what the server takes.
func (p *Platform) settleLogins(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Blueprint.Database == nil {
		return false, nil
	}
	if changed, err = p.grantLogins(ctx, s); err != nil {
		return changed, err
	}
	file := p.Machine.Files(s).ByTokens()
	if !p.Settings.AWS.DatabaseTokens {
		if err := os.Remove(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		return changed, nil
	}
	if _, err := os.Stat(file); err == nil {
		return changed, nil
	}
	return true, renameio.WriteFile(file, nil, 0o600)
}

// grantLogins has the server let a set's roles in by tokens, or by their passwords again.
func (p *Platform) grantLogins(ctx context.Context, s platform.Set) (changed bool, err error) {
	server, err := p.Databases(s)
	if err != nil {
		return false, err
	}
	at, err := server.URL("postgres")
	if err != nil {
		return false, err
	}
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return false, fmt.Errorf("connect to the server of %s: %w", s.Name(), err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tokens := p.Settings.AWS.DatabaseTokens
	names, err := rolesThatLogIn(ctx, conn, s, !tokens)
	if err != nil || len(names) == 0 {
		return false, err
	}
	verb, to := "GRANT ", " TO "
	if !tokens {
		verb, to = "REVOKE ", " FROM "
	}
	if _, err := conn.Exec(ctx, verb+tokensRole+to+strings.Join(names, ", ")); err != nil {
		err = fmt.Errorf("have the roles of %s log in by what A3_AWS_DATABASE_LOGIN says: %w", s.Name(), err)
		if tokens {
			err = fmt.Errorf("%w: see that IAM authentication is on at the server, or set A3_AWS_DATABASE_LOGIN=password", err)
		}
		return false, err
	}
	return true, nil
}

// rolesThatLogIn are the roles of a set, quoted, that log in by tokens, or those that don't.
func rolesThatLogIn(ctx context.Context, conn *pgx.Conn, s platform.Set, byTokens bool) (names []string, err error) {
	for role := range s.Blueprint.Database.Roles {
		names = append(names, local.RealRole(s, role))
	}
	const ask = `SELECT r.rolname::text FROM pg_roles r WHERE r.rolname = ANY($1) AND $3 = EXISTS (
	SELECT FROM pg_auth_members m JOIN pg_roles t ON t.oid = m.roleid WHERE m.member = r.oid AND t.rolname = $2)
ORDER BY 1`
	rows, _ := conn.Query(ctx, ask, names, tokensRole, byTokens) // the next call tells
	if names, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return nil, fmt.Errorf("look how the roles of %s log in: %w", s.Name(), err)
	}
	for i, name := range names {
		names[i] = pgx.Identifier{name}.Sanitize()
	}
	return names, nil
}
