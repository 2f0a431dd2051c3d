package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// A backup becomes another tenant's, of any product: rows that its blueprint leaves behind are left behind, whatever guards them, logins and rights are the
// other's, and objects lie in the other's space. Neither set is touched.
func TestBackupOfOneTenantBecomesAnothers(t *testing.T) {
	k := backedUpSet(t, func(b *blueprint.Blueprint) {
		b.Stores = map[string]blueprint.Store{"things": {Kind: blueprint.StoreBlob, Named: "SELECT note FROM tiny.notes WHERE note = 'thing'"}}
		b.Backup.Copied = &blueprint.Copied{Empty: []string{"tiny.sealed", "tiny.nowhere"}, Statements: []string{"UPDATE tiny.notes SET note = 'off' WHERE note = 'on'"}}
	})
	of := k.set.Name()
	for _, sql := range []string{
		"CREATE TABLE tiny.sealed (what text)",
		"INSERT INTO tiny.sealed VALUES ('to the other tenant')",
		"CREATE FUNCTION tiny.never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''never''; END'",
		"CREATE TRIGGER never BEFORE UPDATE OR DELETE OR TRUNCATE ON tiny.sealed FOR EACH STATEMENT EXECUTE FUNCTION tiny.never()",
		"ALTER TABLE tiny.sealed ENABLE ALWAYS TRIGGER never",
		"GRANT SELECT ON tiny.sealed TO " + of + "_writer",
		"ALTER TABLE tiny.notes ENABLE ROW LEVEL SECURITY",
		"ALTER TABLE tiny.notes FORCE ROW LEVEL SECURITY",
		"CREATE POLICY its ON tiny.notes TO " + of + "_writer USING (true)",
	} {
		k.query(t, of, sql)
	}
	k.write(t, "thing")
	k.write(t, "on")
	objects := func(s platform.Set) string {
		return filepath.Join(k.p.Settings.Home, "tenants", s.Name(), "stores", "things", "objects", s.Name(), "thing@")
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(objects(k.set)), 0o750), os.WriteFile(objects(k.set), []byte("a thing"), 0o600)); err != nil {
		t.Fatal(err)
	}
	b, _ := k.backUp(t)

	to := *k
	to.set = platform.Set{Blueprint: k.set.Blueprint, Tenant: id.NewTenant(), Slug: "monday"}
	carryOut(t, k.p, to.set)
	to.write(t, "of its own")
	unlock, err := k.p.Backups().Lock(to.set.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	m, _, err := k.p.Copy(t.Context(), k.set, to.set, k.r, b)
	if err != nil {
		t.Fatal(err)
	}
	if m.Set != to.set.Name() || m.Copied == nil || m.Copied.Set != of || m.Copied.Backup != b.Manifest.Name || !m.TakenAt.Equal(b.Manifest.TakenAt) {
		t.Errorf("its manifest says %+v", m)
	}
	if notes := to.query(t, to.set.Name(), "SELECT note FROM tiny.notes ORDER BY 1"); !slices.Equal(notes, []string{"of its own", "started"}) {
		t.Errorf("before anything was restored the other set has %q", notes)
	}
	made, key := to.open(t, m.Name)
	to.restore(t, made, key)
	for sql, want := range map[string][]string{
		"SELECT note FROM tiny.notes ORDER BY 1":                                                          {"off", "started", "thing"},
		"SELECT what FROM tiny.sealed":                                                                    {},
		"SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'never'":                                   {"A"},
		"SELECT has_table_privilege('" + to.set.Name() + "_writer', 'tiny.sealed', 'SELECT')::text":       {"true"},
		"SELECT polroles::regrole[]::text FROM pg_policy WHERE polname = 'its'":                           {"{" + to.set.Name() + "_writer}"},
		"SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'tiny'::regnamespace": {to.set.Name() + "_owner"},
	} {
		if got := to.query(t, to.set.Name(), sql); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	if text, err := os.ReadFile(objects(to.set)); err != nil || string(text) != "a thing" {
		t.Errorf("the copy's object reads %q (%v)", text, err)
	}
	if notes := k.query(t, of, "SELECT note FROM tiny.notes ORDER BY 1"); !slices.Equal(notes, []string{"on", "started", "thing"}) {
		t.Errorf("the set that was copied has %q", notes)
	}
	if _, _, err := k.p.Copy(t.Context(), to.set, k.set, k.r, b); err == nil {
		t.Error("a backup is taken for that of another set than it is of")
	}
}
