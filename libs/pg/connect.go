package pg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// scram is how a server proves that it knows the role's password (RFC 5802 §3), and isn't told it.
const scram = "scram-sha-256"

var errNoURL = errors.New("it is not a PostgreSQL connection string")

// ParseConfig reads a connection string. Whoever answers without a certificate that is verified has not proved who it is: on a machine where the
// server is away, that may be anybody who listens at its port. It has to by SCRAM, unless the string says otherwise (require_auth), and is never
// told a password. The error repeats nothing of the string.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errNoURL
	}
	proves(cc)
	return cc, nil
}

// Connect connects to a database as ParseConfig says.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cc, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cc)
}

// OwnerPool is a pool of connections as ParseConfig says, which looks at nothing of whose the database is: for who migrates it.
func OwnerPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errNoURL
	}
	proves(pc.ConnConfig)
	return pgxpool.NewWithConfig(ctx, pc)
}

func proves(cc *pgx.ConnConfig) {
	if cc.RequireAuth == "" && !verified(cc) {
		cc.RequireAuth = scram
	}
}

// verified says whether each server that is connected to shows a certificate that is looked at.
func verified(cc *pgx.ConnConfig) bool {
	if cc.TLSConfig == nil || cc.TLSConfig.InsecureSkipVerify {
		return false
	}
	for _, f := range cc.Fallbacks {
		if f.TLSConfig == nil || f.TLSConfig.InsecureSkipVerify {
			return false
		}
	}
	return true
}
