package pgtest_test

import (
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgtest"
)

func TestRoleLogsInToItsDatabaseAsItself(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	url := db.Role(t, "reader", "NOINHERIT")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var user, database string
	var inherits bool
	row := conn.QueryRow(t.Context(), "SELECT current_user, current_database(), rolinherit FROM pg_roles WHERE rolname = current_user")
	if err := row.Scan(&user, &database, &inherits); err != nil {
		t.Fatal(err)
	}
	if user != db.RoleName(url) || database != db.Name || inherits {
		t.Errorf("logged in as %s to %s (inherit %t), want %s to %s without", user, database, inherits, db.RoleName(url), db.Name)
	}
}

func TestRoleWithAWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	config, err := pgx.ParseConfig(db.Role(t, "reader"))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		conn.Close(t.Context())
		t.Error("the server let a wrong password in: it does not authenticate")
	}
}

func TestDatabaseAndRolesAreGoneWhenTheTestEnds(t *testing.T) {
	t.Parallel()
	witness := pgtest.New(t).Pool(t)
	var name, role, group string
	t.Run("user of a database", func(t *testing.T) {
		db := pgtest.New(t)
		group = db.Group(t, "readers")
		url := db.Role(t, "reader", "IN ROLE "+group)
		name, role = db.Name, db.RoleName(url)
		db.Exec(t, "CREATE TABLE things (id int); CREATE SCHEMA own AUTHORIZATION "+role+"; GRANT SELECT ON things TO "+role)
		db.Exec(t, "INSERT INTO things VALUES ($1)", 7)
		if err := db.PoolAs(t, url).Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	var left int
	err := witness.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1)
		+ (SELECT count(*) FROM pg_roles WHERE rolname IN ($2, $3))`, name, role, group).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d of database and roles are left (%v), want none", left, err)
	}
}

func TestCloneHasTheRowsOfItsTemplate(t *testing.T) {
	t.Parallel()
	template := pgtest.Template(t, func(db *pgtest.Database) {
		db.Exec(t, "CREATE TABLE things AS SELECT generate_series(1, 3) AS id")
	})
	clone := template.Clone(t)
	clone.Exec(t, "DELETE FROM things WHERE id = 1")
	for _, tt := range []struct {
		db   *pgtest.Database
		want int
	}{{template, 3}, {clone, 2}} {
		var got int
		if err := tt.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM things").Scan(&got); err != nil || got != tt.want {
			t.Errorf("%s has %d rows (%v), want %d", tt.db.Name, got, err, tt.want)
		}
	}
}

func TestPrivateServerComesBackAfterAKillWithWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Server(t, major)
			url, err := server.URL("postgres")
			if err != nil {
				t.Fatal(err)
			}
			ask := func(sql string) string {
				conn, err := pgx.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(t.Context())
				var got string
				if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
					t.Fatal(err)
				}
				return got
			}
			if got := ask("SELECT current_setting('server_version_num')::int / 10000 || ''"); got != strconv.Itoa(major) {
				t.Errorf("it is version %s, want %d", got, major)
			}
			for i := range 3 {
				ask("SELECT lo_create(" + strconv.Itoa(1000+i) + ")::text") // acknowledged, and at once:
				if err := server.Kill(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := ask("SELECT count(*)::text FROM pg_largeobject_metadata"); got != "3" {
				t.Errorf("%s of 3 acknowledged deeds outlived the kills", got)
			}
		})
	}
}

func TestVersionThatCanNotBeHadSkipsTheTest(t *testing.T) {
	t.Parallel()
	skipped := false
	t.Run("asks for PostgreSQL 99", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		pgtest.Server(t, 99)
	})
	if !skipped {
		t.Error("the test went on without its server")
	}
}
