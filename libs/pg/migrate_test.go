package pg_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pg"
)

func files(text ...string) fstest.MapFS {
	fs := fstest.MapFS{}
	for i, t := range text {
		fs[fmt.Sprintf("%05d_step.sql", i+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + t)}
	}
	return fs
}

func ask(t *testing.T, b base, sql string) string {
	t.Helper()
	var got string
	if err := b.Pool(t).QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSchemasAreMigratedOnceEachWithItsOwnVersions(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	app := pg.Migration{Schema: "app", Files: files("CREATE TABLE app.steps AS SELECT 1 AS n;", "INSERT INTO app.steps VALUES (2);")}
	for range 2 {
		if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Base(), app); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(t, b, "SELECT string_agg(n::text, ',' ORDER BY n) FROM app.steps"); got != "1,2" {
		t.Errorf("steps %s were run, want 1,2", got)
	}
	for schema, want := range map[string]string{"a3": "1", "app": "2"} {
		if got := ask(t, b, "SELECT max(version_id) FROM "+schema+".schema_migrations"); got != want {
			t.Errorf("schema %s is at version %s, want %s", schema, got, want)
		}
	}
}

func TestServiceCanNotAlterWhatItWasGiven(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	for _, sql := range []string{
		"ALTER TABLE app.things DISABLE ROW LEVEL SECURITY", "ALTER TABLE app.things NO FORCE ROW LEVEL SECURITY",
		"DROP POLICY workspace ON app.things", "CREATE POLICY p ON app.things USING (true)", "CREATE TABLE app.mine ()",
		"CREATE OR REPLACE FUNCTION a3.current_workspace() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
		"SET row_security = off; SELECT * FROM app.things", "UPDATE a3.idempotency_keys SET principal = 'usr'",
		"UPDATE app.schema_migrations SET version_id = 0", "SELECT * FROM a3.schema_migrations",
	} {
		if err := db.Service(t.Context(), inTx(sql)); err == nil {
			t.Errorf("it could: %s", sql)
		}
	}
}

func TestMigrationThatNamesAnUnknownRoleIsRefusedWhole(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Migration{Schema: "app", Files: files(
		"CREATE TABLE app.first ();", "CREATE TABLE app.second (); GRANT SELECT ON app.second TO role_auditor;")})
	if err == nil || !strings.Contains(err.Error(), "role_auditor") || !strings.Contains(err.Error(), "00002_step.sql") || !strings.Contains(err.Error(), "schema app") {
		t.Errorf("error is %v", err)
	}
	if got := ask(t, b, "SELECT to_regclass('app.second') IS NULL"); got != "true" {
		t.Error("the table is there, without the grants beside it")
	}
}

func TestRoleNamesAreQuoted(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	odd := b.Group(t, `tnt-"x; DROP SCHEMA app`)
	err := pg.Migrate(t.Context(), b.URL, pg.Roles{"role_odd": odd}, pg.Migration{Schema: "app", Files: files("GRANT USAGE ON SCHEMA app TO role_odd;")})
	if err != nil {
		t.Fatal(err)
	}
	var may bool
	if err := b.Pool(t).QueryRow(t.Context(), "SELECT has_schema_privilege($1, 'app', 'USAGE')", odd).Scan(&may); err != nil || !may {
		t.Errorf("the role was given nothing, %v", err)
	}
}

func TestFailedMigrationIsAsIfNeverBegun(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	bad := pg.Migration{Schema: "app", Files: files("CREATE TABLE app.first ();", "CREATE TABLE app.second (); SELECT 1/0;")}
	if err := pg.Migrate(t.Context(), b.URL, b.roles, bad); err == nil {
		t.Fatal("no error")
	}
	if got := ask(t, b, "SELECT to_regclass('app.first') IS NOT NULL AND to_regclass('app.second') IS NULL AND (SELECT max(version_id) = 1 FROM app.schema_migrations)"); got != "true" {
		t.Error("the failed step left something, or took the one before along")
	}
	mended := pg.Migration{Schema: "app", Files: files("CREATE TABLE app.first ();", "CREATE TABLE app.second ();")}
	if err := pg.Migrate(t.Context(), b.URL, b.roles, mended); err != nil {
		t.Error(err)
	}
}

func TestMigrationsGoForwardOnly(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	step := func(n int) string {
		return fmt.Sprintf("CREATE TABLE app.step%d ();\n-- +goose Down\nDROP TABLE app.step%d;", n, n)
	}
	newer := pg.Migration{Schema: "app", Files: files(step(1), step(2), step(3))}
	if err := pg.Migrate(t.Context(), b.URL, b.roles, newer); err != nil {
		t.Fatal(err)
	}
	// The release before starts beside the newer schema, and changes nothing.
	if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Migration{Schema: "app", Files: files(step(1))}); err != nil {
		t.Errorf("the release before: %v", err)
	}
	if got := ask(t, b, "SELECT count(*) || ' at ' || (SELECT max(version_id) FROM app.schema_migrations) FROM pg_tables WHERE schemaname = 'app' AND tablename LIKE 'step%'"); got != "3 at 3" {
		t.Errorf("%s steps are there, want 3 at 3", got)
	}
	// A step that slips in before one that was taken would run on a schema it was not written for.
	late := files(step(1), step(2), step(3))
	late["00000002500_late.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE app.late ();")}
	delete(late, "00003_step.sql")
	late["00000003000_step.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE app.step3000 ();")}
	if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Migration{Schema: "app", Files: late}); err != nil {
		t.Fatal(err)
	}
	late["00000002600_later.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE app.later ();")}
	if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Migration{Schema: "app", Files: late}); err == nil {
		t.Error("a step before the present version was run")
	}
}

func TestMigrationsAtOnceWaitForEachOther(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	app := pg.Migration{Schema: "app", Files: files("CREATE TABLE app.steps AS SELECT 1 AS n;", "INSERT INTO app.steps VALUES (2);")}
	var begin, all sync.WaitGroup
	begin.Add(1)
	for range 4 {
		all.Go(func() {
			begin.Wait()
			if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Base(), app); err != nil {
				t.Error(err)
			}
		})
	}
	begin.Done()
	all.Wait()
	if got := ask(t, b, "SELECT count(*) FROM app.steps"); got != "2" {
		t.Errorf("%s steps were run, want 2", got)
	}
}

// TestMain lets this test's own binary be the process that migrates and is killed.
func TestMain(m *testing.M) {
	if url := os.Getenv("TEST_MIGRATE_URL"); url != "" {
		if err := pg.Migrate(context.Background(), url, nil, gated); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// gated stops in the middle of its second step for as long as somebody holds the lock.
var gated = pg.Migration{Schema: "app", Files: files("CREATE TABLE app.first ();",
	"CREATE TABLE app.second AS SELECT 1 AS n;\nSELECT pg_advisory_xact_lock(4711);\nINSERT INTO app.second VALUES (2);")}

func TestKilledMigrationIsResumed(t *testing.T) {
	t.Parallel()
	b := newBase(t)
	gate, err := pgx.Connect(t.Context(), b.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close(context.WithoutCancel(t.Context()))
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_lock(4711)"); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), os.Args[0])
	process.Env = append(os.Environ(), "TEST_MIGRATE_URL="+b.URL)
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	watch := b.Pool(t)
	eventually(t, 10*time.Second, "the process is in the middle of its second step", func() bool {
		var n int
		err := watch.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND application_name = 'migrate' AND wait_event = 'advisory'`).Scan(&n)
		return err == nil && n == 1
	})
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait()
	if got := ask(t, b, "SELECT max(version_id) FROM app.schema_migrations"); got != "1" {
		t.Errorf("the schema is at version %s, want 1", got)
	}
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_unlock(4711)"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Migrate(t.Context(), b.URL, nil, gated); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, b, "SELECT count(*) || ' at ' || (SELECT max(version_id) FROM app.schema_migrations) FROM app.second"); got != "2 at 2" {
		t.Errorf("rows and version are %s, want 2 at 2", got)
	}
}
