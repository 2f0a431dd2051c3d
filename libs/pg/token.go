package pg

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/awssession"
)

// TokenScheme begins the connection string of a role that logs in to a server of RDS as the process's role of IAM, by a token in place of a
// password: `postgres+iam://role@host/database?sslmode=verify-full&sslrootcert=FILE`.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
const TokenScheme = "postgres+iam://"

// tokensRole is what whoever logs in to RDS by tokens is a member of, and which has no rights ("Creating a database account using IAM
// authentication", Amazon RDS User Guide).
const tokensRole = "rds_iam"

// parse reads a connection string. A token is made for each connection, for it is good for a quarter of an hour.
func parse(ctx context.Context, cfg Config) (*pgxpool.Config, error) {
	rest, byToken := strings.CutPrefix(cfg.URL, TokenScheme)
	text := cfg.URL
	if byToken {
		text = "postgres://" + rest
	}
	pc, err := pgxpool.ParseConfig(text)
	if err != nil {
		// The parser's error repeats the string, and with it the password.
		return nil, fmt.Errorf("the database URL is not a PostgreSQL connection string: check %s", cfg.Setting)
	}
	if !byToken {
		proves(pc.ConnConfig)
		return pc, nil
	}
	cc := pc.ConnConfig
	// A token is good at the server that it names, for whoever has it: it goes to nobody else.
	if tls := cc.TLSConfig; tls == nil || tls.InsecureSkipVerify || tls.ServerName == "" || len(cc.Fallbacks) > 0 {
		return nil, fmt.Errorf("the database URL has a role log in by a token of IAM, which goes to a verified server alone: have it say sslmode=verify-full and one host: check %s", cfg.Setting)
	}
	if cc.Password != "" {
		return nil, fmt.Errorf("the database URL has a role log in by a token of IAM, and a password besides: take that out of %s", cfg.Setting)
	}
	session, err := awssession.Load(ctx, "", awssession.Of(cfg.Owner.Plane()))
	if err != nil {
		return nil, fmt.Errorf("log in to the database by a token of IAM: %w", err)
	}
	pc.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		at := net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port)))
		token, err := auth.BuildAuthToken(ctx, at, session.Region, cc.User, session.Credentials)
		if err != nil {
			return fmt.Errorf("make the token that %s logs in to the database with: %w", cc.User, err)
		}
		cc.Password = token
		return nil
	}
	return pc, nil
}
