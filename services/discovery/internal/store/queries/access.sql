-- Access questions. A row of history stands at a time when it was seen by then and not yet found gone; no time means now. Keys come in
-- batches, and every query goes by an index that begins with the workspace and the key.

-- name: GrantsFrom :many
SELECT g.id, g.principal_id, g.entitlement_id, g.not_inherited, g.since FROM discovery.grants g
WHERE g.workspace_id = a3.current_workspace() AND g.principal_id = ANY (sqlc.arg(ids)::uuid[])
  AND g.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (g.until IS NULL OR g.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: GrantsTo :many
SELECT g.id, g.principal_id, g.entitlement_id, g.not_inherited, g.since FROM discovery.grants g
WHERE g.workspace_id = a3.current_workspace() AND g.entitlement_id = ANY (sqlc.arg(ids)::uuid[])
  AND g.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (g.until IS NULL OR g.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: ExpansionsFrom :many
SELECT x.from_id, x.to_id, x.assumption, x.reason, x.since FROM discovery.expansions x
WHERE x.workspace_id = a3.current_workspace() AND x.from_id = ANY (sqlc.arg(ids)::uuid[])
  AND x.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (x.until IS NULL OR x.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: ExpansionsTo :many
SELECT x.from_id, x.to_id, x.assumption, x.reason, x.since FROM discovery.expansions x
WHERE x.workspace_id = a3.current_workspace() AND x.to_id = ANY (sqlc.arg(ids)::uuid[])
  AND x.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (x.until IS NULL OR x.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: Entitlements :many
SELECT e.id, e.resource_id, e.name, e.purpose, e.since FROM discovery.entitlements e
WHERE e.workspace_id = a3.current_workspace() AND e.id = ANY (sqlc.arg(ids)::uuid[])
  AND e.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (e.until IS NULL OR e.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: EntitlementsOn :many
SELECT e.id, e.resource_id, e.name, e.purpose, e.since FROM discovery.entitlements e
WHERE e.workspace_id = a3.current_workspace() AND e.resource_id = ANY (sqlc.arg(ids)::uuid[])
  AND e.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (e.until IS NULL OR e.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: ResourcesByID :many
-- Where nothing stands at the time, what the id named last before it: a grant may outlive the resource that a run found gone.
SELECT DISTINCT ON (r.id) r.integration_id, r.id, r.type, r.external_id, r.display_name, r.account, r.attributes, r.since
FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace() AND r.id = ANY (sqlc.arg(ids)::uuid[])
  AND r.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
ORDER BY r.id, r.since DESC;

-- name: Accounts :many
-- Those of the ids that are accounts, and no more of them than an order of names needs.
SELECT r.id, r.display_name, r.external_id, coalesce(a.person_id, f.person_id)::uuid AS person_id FROM discovery.resources r
LEFT JOIN discovery.person_accounts a ON a.workspace_id = r.workspace_id AND a.account_id = r.id AND a.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
LEFT JOIN discovery.former_person_accounts f ON f.workspace_id = r.workspace_id AND f.account_id = r.id AND f.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND f.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity')
WHERE r.workspace_id = a3.current_workspace() AND r.id = ANY (sqlc.arg(ids)::uuid[]) AND r.account
  AND r.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (r.until IS NULL OR r.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: ResourceNames :many
-- As ResourcesByID, and no more than an order of names needs.
SELECT DISTINCT ON (r.id) r.id, r.type, r.display_name, r.external_id FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace() AND r.id = ANY (sqlc.arg(ids)::uuid[]) AND r.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
ORDER BY r.id, r.since DESC;

-- name: PersonsOf :many
-- Whose accounts were at the time: those that still are, and those that have been somebody's.
SELECT a.account_id, a.rule, p.id, p.display_name FROM discovery.person_accounts a
JOIN discovery.persons p ON p.workspace_id = a.workspace_id AND p.id = a.person_id
WHERE a.workspace_id = a3.current_workspace() AND a.account_id = ANY (sqlc.arg(ids)::uuid[]) AND a.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
UNION ALL
SELECT f.account_id, f.rule, f.person_id, f.display_name FROM discovery.former_person_accounts f
WHERE f.workspace_id = a3.current_workspace() AND f.account_id = ANY (sqlc.arg(ids)::uuid[]) AND f.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND f.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity');

-- name: AccountsOfPerson :many
SELECT a.account_id FROM discovery.person_accounts a
WHERE a.workspace_id = a3.current_workspace() AND a.person_id = sqlc.arg(person_id) AND a.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
UNION
SELECT f.account_id FROM discovery.former_person_accounts f
WHERE f.workspace_id = a3.current_workspace() AND f.person_id = sqlc.arg(person_id) AND f.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND f.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity')
ORDER BY account_id;

-- name: PersonByKey :one
-- A person's id follows from the address, so who has gone is found by it too.
SELECT p.id FROM discovery.persons p WHERE p.workspace_id = a3.current_workspace() AND p.key = lower(sqlc.arg(address))
UNION
SELECT f.person_id FROM discovery.former_person_accounts f WHERE f.workspace_id = a3.current_workspace() AND f.key = lower(sqlc.arg(address))
LIMIT 1;

-- name: ResourcesNamed :many
-- Resources that may go by a name: their id in the system, the name shown, an account's address or login. Keys are cut, so whole
-- names are compared as well.
SELECT r.id, r.integration_id, r.type, r.external_id, r.display_name, r.account,
    coalesce(r.attributes ->> 'email', '')::text AS email, coalesce(r.attributes ->> 'login', '')::text AS login
FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace()
  AND (r.external_key = left(lower(sqlc.arg(name)), 200) OR r.name_key = left(lower(sqlc.arg(name)), 200)
    OR r.email_key = lower(sqlc.arg(name)) OR r.login_key = lower(sqlc.arg(name)))
  AND lower(sqlc.arg(name)) IN (lower(r.external_id), lower(r.display_name), r.email_key, r.login_key)
  AND r.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (r.until IS NULL OR r.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'))
ORDER BY r.type, r.external_id, r.id LIMIT sqlc.arg(most);

-- name: ListResources :many
SELECT r.id FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace() AND r.id > coalesce(sqlc.narg(after)::uuid, '00000000-0000-0000-0000-000000000000')
  AND (sqlc.narg(type)::text IS NULL OR r.type = sqlc.narg(type)) AND (r.account OR NOT sqlc.arg(accounts_only)::boolean)
  AND (sqlc.narg(search)::text IS NULL OR strpos(lower(r.display_name), lower(sqlc.narg(search))) > 0 OR strpos(lower(r.external_id), lower(sqlc.narg(search))) > 0)
  AND r.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (r.until IS NULL OR r.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'))
ORDER BY r.id LIMIT sqlc.arg(most);

-- name: ListGrants :many
SELECT g.integration_id, g.id, g.principal_id, g.entitlement_id, g.reason, g.grantable, g.since, g.until FROM discovery.grants g
WHERE g.workspace_id = a3.current_workspace()
  AND (g.integration_id, g.id) > (coalesce(sqlc.narg(after_integration)::uuid, '00000000-0000-0000-0000-000000000000'),
                                  coalesce(sqlc.narg(after)::uuid, '00000000-0000-0000-0000-000000000000'))
  AND g.integration_id <= coalesce(sqlc.narg(last_integration)::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND g.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (g.until IS NULL OR g.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'))
ORDER BY g.integration_id, g.id LIMIT sqlc.arg(most);

-- name: GrantsByID :many
SELECT g.id, g.reason, g.since FROM discovery.grants g
WHERE g.workspace_id = a3.current_workspace() AND g.integration_id = ANY (sqlc.arg(integrations)::uuid[]) AND g.id = ANY (sqlc.arg(ids)::uuid[])
  AND g.since <= coalesce(sqlc.narg(at)::timestamptz, 'infinity') AND (g.until IS NULL OR g.until > coalesce(sqlc.narg(at)::timestamptz, 'infinity'));

-- name: EntitlementsByID :many
-- As ResourcesByID: what the id named last, where it stands no more.
SELECT DISTINCT ON (e.id) e.id, e.resource_id, e.name FROM discovery.entitlements e
WHERE e.workspace_id = a3.current_workspace() AND e.id = ANY (sqlc.arg(ids)::uuid[])
ORDER BY e.id, e.since DESC;

-- name: ListChanges :many
-- Grants that stood at one time and not, or not so, at the other: what came and went in between is no change. `from_at` NULL is before
-- everything.
SELECT g.id, g.principal_id, g.entitlement_id, g.reason, g.grantable, g.since, g.until, (g.since > coalesce(sqlc.narg(from_at)::timestamptz, '-infinity'))::boolean AS added
FROM discovery.grants g
WHERE g.workspace_id = a3.current_workspace() AND g.integration_id = sqlc.arg(integration)
  AND (g.id, g.since) > (coalesce(sqlc.narg(after)::uuid, '00000000-0000-0000-0000-000000000000'), coalesce(sqlc.narg(after_since)::timestamptz, '-infinity'))
  AND ((g.since <= sqlc.arg(to_at)::timestamptz AND (g.until IS NULL OR g.until > sqlc.arg(to_at)::timestamptz)
        AND g.since > coalesce(sqlc.narg(from_at)::timestamptz, '-infinity'))
    OR (g.since <= coalesce(sqlc.narg(from_at)::timestamptz, '-infinity')
        AND g.until > coalesce(sqlc.narg(from_at)::timestamptz, '-infinity') AND g.until <= sqlc.arg(to_at)::timestamptz))
  AND NOT EXISTS (
    SELECT FROM discovery.grants o
    WHERE o.workspace_id = g.workspace_id AND o.integration_id = g.integration_id AND o.id = g.id AND o.since <> g.since
      AND (o.grantable, o.not_inherited) = (g.grantable, g.not_inherited)
      AND CASE WHEN g.since > coalesce(sqlc.narg(from_at)::timestamptz, '-infinity')
               THEN o.since <= sqlc.narg(from_at) AND (o.until IS NULL OR o.until > sqlc.narg(from_at))
               ELSE o.since <= sqlc.arg(to_at) AND (o.until IS NULL OR o.until > sqlc.arg(to_at)) END)
ORDER BY g.id, g.since LIMIT sqlc.arg(most);

-- name: Freshness :many
-- Every integration that ever ran, found by skipping from one to the next, with its newest published run by the time that the answer
-- stands on, and its newest run at all by the time that was asked about.
WITH RECURSIVE ran AS (
    (SELECT r.integration_id FROM discovery.runs r WHERE r.workspace_id = a3.current_workspace() ORDER BY r.integration_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.integration_id FROM discovery.runs r
            WHERE r.workspace_id = a3.current_workspace() AND r.integration_id > ran.integration_id ORDER BY r.integration_id LIMIT 1)
    FROM ran WHERE ran.integration_id IS NOT NULL
)
SELECT newest.integration_id, newest.integration_name, p.id AS run_id, coalesce(p.state, '')::text AS state, p.finished_at, coalesce(p.gaps, '[]')::jsonb AS gaps,
    tried.id AS tried_id, coalesce(tried.state, '')::text AS tried_state, coalesce(tried.error, '')::text AS tried_error, tried.finished_at AS tried_at
FROM ran
JOIN LATERAL (
    SELECT r.integration_id, r.integration_name FROM discovery.runs r
    WHERE r.workspace_id = a3.current_workspace() AND r.integration_id = ran.integration_id ORDER BY r.id DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT r.id, r.state, r.finished_at, r.gaps FROM discovery.runs r
    WHERE r.workspace_id = a3.current_workspace() AND r.integration_id = ran.integration_id AND r.state IN ('complete', 'partial')
      AND r.finished_at <= coalesce(sqlc.narg(at)::timestamptz, 'infinity')
    ORDER BY r.finished_at DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT r.id, r.state, r.error, r.finished_at FROM discovery.runs r
    WHERE r.workspace_id = a3.current_workspace() AND r.integration_id = ran.integration_id AND r.state <> 'cancelled' AND r.created_at <= coalesce(sqlc.narg(asked)::timestamptz, 'infinity')
    ORDER BY r.id DESC LIMIT 1
) tried ON true
WHERE ran.integration_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM discovery.retired_integrations d WHERE d.workspace_id = a3.current_workspace()
                  AND d.integration_id = ran.integration_id AND d.retired_at <= coalesce(sqlc.narg(at)::timestamptz, 'infinity'))
ORDER BY newest.integration_name, newest.integration_id;
