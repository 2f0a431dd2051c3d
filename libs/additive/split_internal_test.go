package additive

import (
	"slices"
	"testing"
)

func TestStatementsAreToldApartAsTheServerDoes(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                      nil,
		" ;; -- ;\n/* ; /* ; */ ; */ ;":         nil,
		"SELECT 1; SELECT 2":                    {"SELECT 1", "SELECT 2"},
		"-- first;\nSELECT 1 -- ;\n; SELECT 2;": {"SELECT 1 -- ;\n", "SELECT 2"},
		`SELECT ';' || "a;b" || 'it''s;'; SELECT 2`:                         {`SELECT ';' || "a;b" || 'it''s;'`, "SELECT 2"},
		`SELECT E'\';'; SELECT '\'; SELECT 3`:                               {`SELECT E'\';'`, `SELECT '\'`, "SELECT 3"},
		`SELECT E'''\';' ; SELECT 2`:                                        {`SELECT E'''\';' `, "SELECT 2"},
		`SELECT type'a;'; SELECT 2`:                                         {`SELECT type'a;'`, "SELECT 2"},
		"DO $$ a; $b$ ; $$; SELECT 2":                                       {"DO $$ a; $b$ ; $$", "SELECT 2"},
		"DO $é1$ a; $$ ; $é1$; SELECT 2":                                    {"DO $é1$ a; $$ ; $é1$", "SELECT 2"},
		"SELECT a$b$; SELECT $1; SELECT 2$x$":                               {"SELECT a$b$", "SELECT $1", "SELECT 2$x$"},
		"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3": {"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"},
		"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 2": {"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END", "SELECT 2"},
		"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; END; BEGIN; SELECT 2; END":                                   {"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; END", "BEGIN", "SELECT 2", "END"},
		"SELECT 'without an end;": {"SELECT 'without an end;"},
		"DO $$ without an end;":   {"DO $$ without an end;"},
	} {
		if got := commands(text); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestWhatGooseSendsAtOnceIsAUnit(t *testing.T) {
	text := `-- +goose NO TRANSACTION
-- +goose Up
SELECT 1; SELECT 2;
SELECT 3 -- ;
; -- with a word after it
-- +goose StatementBegin
DO $$ BEGIN
  NULL;
END $$;
-- +goose StatementEnd

SELECT 4`
	want := [][]string{{"SELECT 1", "SELECT 2"}, {"SELECT 3 -- ;\n"}, {"DO $$ BEGIN\n  NULL;\nEND $$"}, {"SELECT 4"}}
	var got [][]string
	for _, unit := range units(text) {
		got = append(got, commands(unit))
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}
