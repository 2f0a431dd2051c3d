package additive_test

import (
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/additive"
	"a3os.app/libs/pgtest"
)

const base = `-- +goose Up
CREATE TYPE s.kind AS ENUM ('one', 'two');
CREATE TABLE s.people (id bigint PRIMARY KEY, name text NOT NULL DEFAULT '', age integer, team bigint, nick text, kind s.kind, state text CHECK (state IN ('here', 'gone')));
CREATE TABLE s.teams (id bigint PRIMARY KEY);
CREATE INDEX people_name ON s.people (name);
CREATE VIEW s.names AS SELECT name FROM s.people;
CREATE FUNCTION s.greet(who text) RETURNS text LANGUAGE sql AS $$ SELECT 'hello ' || who; $$;
CREATE POLICY of_all ON s.people USING (true);
INSERT INTO s.teams VALUES (1);
GRANT SELECT, INSERT ON s.people TO role_reader;
-- +goose Down
DROP TABLE s.people;
`

// Each is what a migration may do, and what it must be called. A migration of several statements is one transaction.
var cases = map[string]struct {
	sql  string
	want string // rules, sorted
}{
	"column that may be empty":          {"ALTER TABLE s.people ADD COLUMN note text", ""},
	"column with a default":             {"ALTER TABLE s.people ADD COLUMN note text NOT NULL DEFAULT ''", ""},
	"column that counts":                {"ALTER TABLE s.people ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY", "rewrites-table"},
	"table of its own":                  {"CREATE TABLE s.more (id bigint PRIMARY KEY, name text NOT NULL UNIQUE); CREATE INDEX more_name ON s.more (name); INSERT INTO s.more VALUES (1, 'x'); ALTER TABLE s.more DROP COLUMN name; DROP TABLE s.more", ""},
	"function, grant, policy":           {"CREATE FUNCTION s.more() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT UPDATE ON s.people TO role_reader; CREATE POLICY more ON s.people USING (false)", ""},
	"index made while nobody waits":     {"-- +goose NO TRANSACTION\nCREATE INDEX CONCURRENTLY people_age ON s.people (age);\n", ""},
	"constraint less, index less":       {"DROP INDEX s.people_name; ALTER TABLE s.people DROP CONSTRAINT people_state_check", ""},
	"table dropped":                     {"DROP TABLE s.teams", "drop-table"},
	"table dropped with what is on it":  {"DROP TABLE s.people CASCADE", "drop-table drop-table"},
	"view dropped":                      {"DROP VIEW s.names", "drop-table"},
	"column dropped":                    {"ALTER TABLE s.people DROP COLUMN age", "drop-column"},
	"column dropped by a program":       {"DO $$ BEGIN EXECUTE 'ALTER TABLE s.people DROP COL' || 'UMN age'; END $$", "drop-column"},
	"column renamed":                    {"ALTER TABLE s.people RENAME COLUMN age TO years", "rename"},
	"table renamed":                     {"ALTER TABLE s.teams RENAME TO groups", "rename"},
	"table moved":                       {"CREATE SCHEMA t; ALTER TABLE s.teams SET SCHEMA t", "rename"},
	"type changed, as large":            {"ALTER TABLE s.people ALTER COLUMN nick TYPE varchar", "change-type"},
	"type changed, written anew":        {"ALTER TABLE s.people ALTER COLUMN age TYPE bigint", "change-type rewrites-table"},
	"column that demands a value":       {"ALTER TABLE s.people ADD COLUMN must text NOT NULL", "required-column"},
	"default of the moment":             {"ALTER TABLE s.people ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()", "rewrites-table"},
	"value demanded from now on":        {"ALTER TABLE s.people ALTER COLUMN age SET NOT NULL", "set-not-null"},
	"default taken away":                {"ALTER TABLE s.people ALTER COLUMN name DROP DEFAULT", "drop-default"},
	"check":                             {"ALTER TABLE s.people ADD CHECK (age > 0)", "new-constraint"},
	"check that looks at nothing old":   {"ALTER TABLE s.people ADD CHECK (age > 0) NOT VALID", "new-constraint"},
	"unique":                            {"ALTER TABLE s.people ADD UNIQUE (name)", "new-constraint"},
	"unique by an index":                {"CREATE UNIQUE INDEX ON s.people (name)", "index-holds-writers new-constraint"},
	"unique by an index, concurrently":  {"-- +goose NO TRANSACTION\nCREATE UNIQUE INDEX CONCURRENTLY people_one ON s.people (name);\n", "new-constraint"},
	"foreign key":                       {"ALTER TABLE s.people ADD FOREIGN KEY (team) REFERENCES s.teams", "new-constraint"},
	"index that holds writers up":       {"CREATE INDEX people_age ON s.people (age)", "index-holds-writers"},
	"rows changed":                      {"UPDATE s.people SET name = upper(name)", "writes-rows"},
	"rows removed":                      {"DELETE FROM s.people WHERE age IS NULL", "writes-rows"},
	"emptied":                           {"TRUNCATE s.people", "rewrites-table"},
	"right taken away":                  {"REVOKE INSERT ON s.people FROM role_reader", "revoke"},
	"function dropped":                  {"DROP FUNCTION s.greet(text)", "drop-function"},
	"function of other arguments":       {"DROP FUNCTION s.greet(text); CREATE FUNCTION s.greet(who text, how text) RETURNS text LANGUAGE sql AS 'SELECT who'", "drop-function"},
	"row security":                      {"ALTER TABLE s.people ENABLE ROW LEVEL SECURITY", "row-security"},
	"policy dropped":                    {"DROP POLICY of_all ON s.people", "drop-policy"},
	"policy narrowed":                   {"ALTER POLICY of_all ON s.people USING (age > 3)", "change-policy"},
	"policy that hides":                 {"CREATE POLICY hide ON s.people AS RESTRICTIVE USING (false)", "change-policy"},
	"trigger":                           {"CREATE FUNCTION s.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER t BEFORE INSERT ON s.people FOR EACH ROW EXECUTE FUNCTION s.t()", "new-trigger"},
	"lock timeout lifted":               {"SET lock_timeout = 0", "no-lock-timeout"},
	"lock timeout lifted for this once": {"SET LOCAL lock_timeout = '0'; ALTER TABLE s.people ADD COLUMN x int", "no-lock-timeout"},
	"check replaced":                    {"ALTER TABLE s.people DROP CONSTRAINT people_state_check; ALTER TABLE s.people ADD CONSTRAINT people_state_check CHECK (state IN ('here'))", "new-constraint"},
}

func TestWhatAMigrationTakesAwayIsNamed(t *testing.T) {
	db := pgtest.New(t)
	t.Run("each", func(t *testing.T) { tryEach(t, db) })
	if left := leftovers(t, db); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func tryEach(t *testing.T, db *pgtest.Database) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := additive.Check(t.Context(), db.URL, []additive.Migration{{Name: "s/00001_s", SQL: base}}, []additive.Migration{{Name: "s/00002_change", SQL: c.sql}})
			if err != nil {
				t.Fatal(err)
			}
			var rules []string
			for _, f := range found {
				rules = append(rules, f.Rule)
				if f.Migration != "s/00002_change" || f.What == "" || strings.Contains(f.What, "a3_check") {
					t.Errorf("it is told as %q", f)
				}
			}
			slices.Sort(rules)
			if got := strings.Join(rules, " "); got != c.want {
				t.Errorf("got %q, want %q: %v", got, c.want, found)
			}
		})
	}
}

func leftovers(t *testing.T, db *pgtest.Database) []string {
	t.Helper()
	var left []string
	err := db.Pool(t).QueryRow(t.Context(), `SELECT coalesce(array_agg(name), '{}') FROM (
		SELECT datname::text FROM pg_database UNION ALL SELECT rolname::text FROM pg_roles) x (name) WHERE name LIKE 'a3\_check\_%'`).Scan(&left)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// What came between two releases was nobody's.
func TestWhatNoReleaseHadIsChangedFreely(t *testing.T) {
	db := pgtest.New(t)
	all := []additive.Migration{
		{Name: "s/00001_s", SQL: base},
		{Name: "s/00002_more", SQL: "CREATE TABLE s.more (id int, was int)"},
		{Name: "s/00003_less", SQL: "ALTER TABLE s.more DROP COLUMN was"},
	}
	found, err := additive.Check(t.Context(), db.URL, all[:1], all[1:])
	if err != nil || len(found) != 0 {
		t.Errorf("between two releases: %v, %v", found, err)
	}
	found, err = additive.Check(t.Context(), db.URL, all[:1], all[1:2], all[2:])
	if err != nil || len(found) != 1 || found[0].Rule != "drop-column" {
		t.Errorf("where each was one: %v, %v", found, err)
	}
}

func TestAnAuthorAcceptsWhatTheyName(t *testing.T) {
	db := pgtest.New(t)
	sql := "-- accepted drop-column: no release since 1.3 reads it\nALTER TABLE s.people DROP COLUMN age; ALTER TABLE s.people RENAME COLUMN team TO crew"
	found, err := additive.Check(t.Context(), db.URL, []additive.Migration{{Name: "s/00001_s", SQL: base}}, []additive.Migration{{Name: "s/00002_less", SQL: sql}})
	if err != nil {
		t.Fatal(err)
	}
	if breaking := additive.Breaking(found); len(found) != 2 || len(breaking) != 1 || breaking[0].Rule != "rename" {
		t.Errorf("found %v, breaking %v", found, breaking)
	}
}

func TestMigrationThatFailsIsNamedAndLeavesNothing(t *testing.T) {
	db := pgtest.New(t)
	_, err := additive.Check(t.Context(), db.URL, nil, []additive.Migration{{Name: "s/00001_s", SQL: "CREATE TABLE nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "s/00001_s") {
		t.Errorf("got %v", err)
	}
	if left := leftovers(t, db); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
