package answer_test

import (
	"context"
	"strings"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
)

// many fills a workspace with 20,000 accounts in 500 groups, each group in another, and 5,000 tables that groups may read: 200,000 grants.
const many = `
CREATE FUNCTION pg_temp.uid(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $f$ SELECT md5($1 || $2 || '%WORKSPACE%')::uuid $f$;
INSERT INTO discovery.resources (workspace_id, integration_id, id, type, external_id, display_name, attributes, account, scope, since, since_run)
SELECT '%WORKSPACE%', pg_temp.uid('int', 1), pg_temp.uid(kind, n), kind, kind || n, '', '{}', kind = 'user', 'test', now(), pg_temp.uid('run', 1)
FROM (SELECT 'user' AS kind, n FROM generate_series(1, 20000) n UNION ALL SELECT 'group', n FROM generate_series(1, 500) n
      UNION ALL SELECT 'table', n FROM generate_series(1, 5000) n) all_kinds;
INSERT INTO discovery.entitlements (workspace_id, integration_id, id, resource_id, name, purpose, description, scope, since, since_run)
SELECT '%WORKSPACE%', pg_temp.uid('int', 1), pg_temp.uid('of ' || kind, n), pg_temp.uid(kind, n), CASE kind WHEN 'group' THEN 'member' ELSE 'SELECT' END,
    CASE kind WHEN 'group' THEN 2 ELSE 1 END, '', 'test', now(), pg_temp.uid('run', 1)
FROM (SELECT 'group' AS kind, n FROM generate_series(1, 500) n UNION ALL SELECT 'table', n FROM generate_series(1, 5000) n) all_kinds;
INSERT INTO discovery.grants (workspace_id, integration_id, id, principal_id, entitlement_id, reason, grantable, not_inherited, scope, since, since_run)
SELECT '%WORKSPACE%', pg_temp.uid('int', 1), pg_temp.uid('grant', n), principal, entitlement, '', false, false, 'test', now(), pg_temp.uid('run', 1)
FROM (SELECT n, pg_temp.uid('user', n % 20000 + 1) AS principal, pg_temp.uid('of group', 251 + (n * 31 + n / 20000) % 250) AS entitlement FROM generate_series(1, 160000) n
      UNION ALL SELECT 200000 + n, pg_temp.uid('group', 250 + n), pg_temp.uid('of group', n) FROM generate_series(1, 250) n
      UNION ALL SELECT 300000 + n, pg_temp.uid('group', n % 500 + 1), pg_temp.uid('of table', n % 5000 + 1) FROM generate_series(1, 40000) n) edges
ON CONFLICT DO NOTHING;
INSERT INTO discovery.runs (workspace_id, id, integration_id, integration_name, connector, state, finished_at, started_by, source)
VALUES ('%WORKSPACE%', pg_temp.uid('run', 1), pg_temp.uid('int', 1), 'many', 'csv', 'complete', now(), 'schedule', '');
`

// TestQuestionsReadWhatTheyAreAboutAndNoMore counts what PostgreSQL really read, with the plans it made for itself after several calls.
func TestQuestionsReadWhatTheyAreAboutAndNoMore(t *testing.T) {
	t.Parallel()
	env := discoverytest.New(t)
	w := id.NewWorkspace()
	for _, workspace := range []id.Workspace{w, id.NewWorkspace()} {
		fillWith(t, env, many, workspace)
	}
	env.Exec(t, "ANALYZE")
	// Counting them would be a scan, which could be noted at any time later.
	total := env.Count(t, "SELECT reltuples::int FROM pg_class WHERE oid = 'discovery.grants'::regclass")
	if total < 300_000 {
		t.Fatalf("some %d grants were made, want 300,000 or more", total)
	}
	for name, ask := range map[string]func(context.Context, *answer.Answers) (int, error){
		"ListHolders": func(ctx context.Context, a *answer.Answers) (int, error) {
			res, err := a.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "table7", PageSize: 10})
			return int(res.GetAccounts()), err
		},
		"ExplainAccess": func(ctx context.Context, a *answer.Answers) (int, error) {
			res, err := a.Explain(ctx, &discoveryv1.ExplainAccessRequest{Principal: "user7", Resource: "group:group3"})
			return len(res.GetPrincipals()), err
		},
		"ListAccess": func(ctx context.Context, a *answer.Answers) (int, error) {
			res, err := a.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: "user:user7", PageSize: 10})
			return len(res.GetReaches()), err
		},
		"ListGrants": func(ctx context.Context, a *answer.Answers) (int, error) {
			res, err := a.Grants(ctx, &discoveryv1.ListGrantsRequest{PageSize: 10})
			return len(res.GetGrants()), err
		},
	} {
		before := counts(t, env)
		db, err := pg.Open(t.Context(), pg.Config{URL: env.RoleURL(t, "discovery"), Service: "scans", MaxConns: 1, Owner: bindingtest.Owner(t, env.ID)})
		check(t, err)
		const calls = 8 // from the sixth on a plan may be one for any parameters
		for range calls {
			if n, err := ask(env.In(t.Context(), w), answer.New(db, env.Pages, env.Sources)); err != nil || n == 0 {
				t.Fatalf("%s: %d, %v; want an answer", name, n, err)
			}
		}
		db.Close() // what a session read is counted for good when it ends
		discoverytest.Eventually(t, "the session ends", func() bool {
			return env.Count(t, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'scans'") == 0
		})
		after := counts(t, env)
		if n := after.scans - before.scans; n != 0 {
			t.Errorf("%s: %d sequential scans of history in %d calls, want none", name, n, calls)
		}
		rows := (after.rows - before.rows) / calls
		if most := total / 10; rows > most {
			t.Errorf("%s: a call reads %d rows of %d grants, want %d at most", name, rows, total, most)
		}
		t.Logf("%s: %d rows read a call", name, rows)
	}
}

type counted struct{ scans, rows int }

func counts(t *testing.T, env *discoverytest.Env) counted {
	t.Helper()
	var c counted
	err := env.Super.QueryRow(t.Context(), `SELECT
		(SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE schemaname = 'discovery' AND relname IN ('grants', 'entitlements', 'resources')),
		(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'discovery' AND relname IN ('grants', 'entitlements', 'resources'))`).Scan(&c.scans, &c.rows)
	check(t, err)
	return c
}

func fillWith(t testing.TB, env *discoverytest.Env, sql string, w id.Workspace) {
	t.Helper()
	u, err := w.UUIDValue()
	check(t, err)
	env.Exec(t, strings.ReplaceAll(sql, "%WORKSPACE%", u.String()))
}
