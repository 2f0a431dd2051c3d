package aws

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

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

// told is what a component is given of a key: of a connection string, where its task finds what it names, and without the password where roles
// log in by tokens. Whoever migrates has none to make one with, and a password.
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
	if !t.Settings.AWS.DatabaseTokens || role == local.OwnerRole {
		return u.String(), nil
	}
	u.User = url.User(u.User.Username())
	return pg.TokenScheme + strings.TrimPrefix(u.String(), "postgres://"), nil
}

// grantTokens has a set's roles be ones that RDS lets log in by tokens, and by nothing else from then on.
func (p *Platform) grantTokens(ctx context.Context, s platform.Set) error {
	if !p.Settings.AWS.DatabaseTokens || s.Blueprint.Database == nil {
		return nil
	}
	server, err := p.Databases(s)
	if err != nil {
		return err
	}
	at, err := server.URL("postgres")
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return fmt.Errorf("connect to the server of %s: %w", s.Name(), err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var names []string
	for role := range s.Blueprint.Database.Roles {
		names = append(names, pgx.Identifier{local.RealRole(s, role)}.Sanitize())
	}
	slices.Sort(names)
	if _, err := conn.Exec(ctx, "GRANT rds_iam TO "+strings.Join(names, ", ")); err != nil {
		return fmt.Errorf("have the roles of %s log in by tokens: %w: see that IAM authentication is on at the server, or set A3_AWS_DATABASE_LOGIN=password", s.Name(), err)
	}
	return nil
}
