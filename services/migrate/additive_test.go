package migrate_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/additive"
	"a3os.app/libs/pgtest"
	"a3os.app/services/migrate"
	"a3os.app/services/registry"
)

// landed are findings of migrations that went out before anybody looked, for anything or for that, and why each was all right. Nothing is
// added here but what a rule that is new finds in earlier ones, which stay as they are: a migration says itself what it takes away,
// `-- accepted RULE: reason`.
var landed = map[string]string{
	"audit/00002_layout new-constraint":                   "the program never wrote larger ones",
	"discovery/00002_matches drop-column":                 "generated columns, which no query named since",
	"discovery/00002_matches rewrites-table":              "there was no release before",
	"discovery/00002_matches index-holds-writers":         "there was no release before",
	"discovery/00004_dead_letters index-holds-writers":    "there was no release before, and the table is small",
	"discovery/00004_dead_letters new-constraint":         "of columns that it adds itself, and of causes that nobody wrote otherwise",
	"discovery/00004_dead_letters rewrites-table":         "there was no release before, and the table is small",
	"discovery/00005_persons_history index-holds-writers": "there was no release before, and the table has a row a run",
	"registry/00004_operations index-holds-writers":       "of tables with a row a tenant",
	"registry/00004_operations new-constraint":            "of columns that it adds itself",
	"registry/00012_readings change-function":             "it answers what the release before asks for, i and d, as it did, so that indexes by them hold as well",
}

// Each migration works with the release before it: a set is upgraded while the earlier programs still run, and goes back without its
// database.
func TestEveryMigrationWorksWithTheReleaseBefore(t *testing.T) {
	db := pgtest.New(t)
	all, err := migrate.All()
	if err != nil {
		t.Fatal(err)
	}
	var set []additive.Migration
	for _, m := range all {
		if !strings.HasPrefix(m.Name, "queue/") { // River's own, which its authors keep so
			set = append(set, additive.Migration{Name: m.Name, SQL: m.SQL})
		}
	}
	seen := map[string]bool{}
	for name, migrations := range map[string][]additive.Migration{"a tenant's database": set, "the registry's": registryMigrations(t)} {
		t.Run(name, func(t *testing.T) {
			found, err := additive.Check(t.Context(), db.URL, slices.Collect(slices.Chunk(migrations, 1))...) // as if each had been a release
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range additive.Breaking(found) {
				key := f.Migration + " " + f.Rule
				seen[key] = true
				if landed[key] == "" {
					t.Errorf("%s\nadd only, and take away a release later; where the release before doesn't use it, say so in the migration: -- accepted %s: why", f, f.Rule)
				}
			}
		})
	}
	for key := range landed {
		if !seen[key] {
			t.Errorf("%s is listed as landed, and isn't found: take it off", key)
		}
	}
}

func registryMigrations(t *testing.T) (out []additive.Migration) {
	t.Helper()
	schema := registry.Schema()
	names, err := fs.Glob(schema.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		text, err := fs.ReadFile(schema.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, additive.Migration{Name: schema.Schema + "/" + strings.TrimSuffix(name, ".sql"), SQL: string(text)})
	}
	return out
}

// A release is tried on whatever the release before had: all of it, River's own among it, runs as it is listed.
func TestEveryMigrationRunsAsItIsListed(t *testing.T) {
	db := pgtest.New(t)
	all, err := migrate.All()
	if err != nil {
		t.Fatal(err)
	}
	var listed []additive.Migration
	for _, m := range all {
		listed = append(listed, additive.Migration{Name: m.Name, SQL: m.SQL})
	}
	for name, before := range map[string]int{"on nothing": 0, "the last on the others": len(listed) - 1} {
		if _, err := additive.Check(t.Context(), db.URL, listed[:before], listed[before:]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
