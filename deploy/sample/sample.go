// Package sample is two invented companies to discover: Northwind Robotics, whose PostgreSQL server has people, nested groups,
// contractors, service accounts and the mistakes that real servers have, and Globex, who keep a list of people and apps as
// CSV. It promises that what it applies is there whole or not at all and that nothing of anybody else's is touched.
//
// A question worth asking it: who can read hr.salaries, and why can a contractor? See Questions.
package sample

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
)

//go:embed roles.sql northwind.sql analytics.sql telemetry.sql
var scripts embed.FS

//go:embed globex.csv
var globex []byte

// lockKey is an arbitrary number by which two that apply at once wait for each other.
const lockKey = 0x6e6f727468

// databases of the company, each with a script of its name.
var databases = [...]string{"northwind", "analytics", "telemetry"}

// Question is what a newcomer would ask of the sample, with the answer that PostgreSQL itself gives.
type Question struct {
	Text string
	// Principal is a role that logs in, Database and Object (`schema.table`) what is asked about, Privilege as in GRANT.
	Principal, Database, Object, Privilege string
	// Path is the roles from the principal to the one that the privilege was granted to, each a member of the next.
	Path []string
}

// Questions about Northwind Robotics; the first is the one to show.
func Questions() []Question {
	return []Question{
		{
			Text:      "How does the contractor marek_dvorak come to read everybody's salary?",
			Principal: "marek_dvorak", Database: "northwind", Object: "hr.salaries", Privilege: "SELECT",
			Path: []string{"marek_dvorak", "contractors_ledgerworks", "finance_close", "finance_controlling", "payroll_read"},
		},
		{
			Text:      "Why does a dashboard, svc_grafana, read everybody's salary too?",
			Principal: "svc_grafana", Database: "northwind", Object: "hr.salaries", Privilege: "SELECT",
			Path: []string{"svc_grafana", "analysts", "pg_read_all_data"},
		},
	}
}

// SQL of one part (`roles`, or a database's name), to read.
func SQL(part string) (string, error) {
	text, err := scripts.ReadFile(part + ".sql")
	if err != nil {
		return "", fmt.Errorf("the sample has no part %q: it has roles, northwind, analytics and telemetry", part)
	}
	return string(text), nil
}

// CSV of Globex: 40 grants, UTF-8, header line `login,name,email,app,role,team,status,remarks`. Its columns hold, in this order,
// account id, display name, e-mail, resource, entitlement, group and status; remarks are for people.
func CSV() []byte { return append([]byte(nil), globex...) }

// Apply makes Northwind Robotics on a server, given a superuser's URL to any of its databases. Each part is one transaction that
// ends by leaving a mark, so an interrupted Apply is taken up where it was, and an applied one changes nothing. A server that
// has roles or databases of these names from somebody else is refused, unchanged.
func Apply(ctx context.Context, superuserURL string) error {
	conn, err := pgx.Connect(ctx, superuserURL)
	if err != nil {
		return fmt.Errorf("connect to the server for the sample: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The lock belongs to the session and goes with it.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lockKey); err != nil {
		return fmt.Errorf("wait for another who applies the sample: %w", err)
	}
	if err := applyPart(ctx, conn, "roles", "ROLE everyone", "SELECT shobj_description(to_regrole('everyone'), 'pg_authid')"); err != nil {
		return err
	}
	for _, database := range databases {
		if err := applyDatabase(ctx, conn, superuserURL, database); err != nil {
			return err
		}
	}
	return nil
}

func applyDatabase(ctx context.Context, server *pgx.Conn, superuserURL, database string) error {
	var owner string
	err := server.QueryRow(ctx, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", database).Scan(&owner)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look for database %s: %w", database, err)
	case err == nil && owner != "cluster_owner":
		return fmt.Errorf("the server has a database %s that belongs to %s: apply the sample to another server", database, owner)
	case err != nil:
		if _, err := server.Exec(ctx, "CREATE DATABASE "+database+" OWNER cluster_owner TEMPLATE template0"); err != nil {
			return fmt.Errorf("create database %s: %w", database, err)
		}
	}
	at, err := withDatabase(superuserURL, database)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return fmt.Errorf("connect to database %s: %w", database, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return applyPart(ctx, conn, database, "DATABASE "+database,
		"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()")
}

// applyPart runs a script and marks the object in one transaction, unless the object carries the mark.
func applyPart(ctx context.Context, conn *pgx.Conn, part, marked, readMark string) error {
	const mark = "part of the sample company Northwind Robotics"
	var found *string
	if err := conn.QueryRow(ctx, readMark).Scan(&found); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for the mark of the sample's %s: %w", part, err)
	}
	if found != nil && *found == mark {
		return nil
	}
	script, err := SQL(part)
	if err != nil {
		return err
	}
	// One string of several statements is one transaction.
	if _, err := conn.PgConn().Exec(ctx, script+"\nCOMMENT ON "+marked+" IS '"+mark+"';").ReadAll(); err != nil {
		return fmt.Errorf("apply the sample's %s, which changed nothing; apply it to a server without things of these names: %w", part, err)
	}
	return nil
}

// Reader gives the role accessos_reader of an applied sample a password, and returns the URL of database northwind as that role: it
// may connect to every database and read the catalogues, which is all that discovery needs. The password must be printable ASCII.
func Reader(ctx context.Context, superuserURL, password string) (string, error) {
	u, err := url.Parse(superuserURL)
	if err != nil {
		return "", errors.New("the superuser's URL is not one") // the cause would quote its password
	}
	conn, err := pgx.Connect(ctx, superuserURL)
	if err != nil {
		return "", fmt.Errorf("connect to the server for the sample: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// ALTER ROLE takes no parameters; format's %L quotes.
	var alter string
	if err := conn.QueryRow(ctx, "SELECT format('ALTER ROLE accessos_reader PASSWORD %L', $1::text)", password).Scan(&alter); err != nil {
		return "", fmt.Errorf("quote the reader's password: %w", err)
	}
	if _, err := conn.Exec(ctx, alter); err != nil {
		return "", fmt.Errorf("set the reader's password (is the sample applied?): %w", err)
	}
	u.User, u.Path = url.UserPassword("accessos_reader", password), "/northwind"
	return u.String(), nil
}

func withDatabase(serverURL, database string) (string, error) {
	u, err := url.Parse(serverURL)
	if err != nil {
		return "", errors.New("the superuser's URL is not one") // the cause would quote its password
	}
	u.Path = "/" + database
	return u.String(), nil
}
