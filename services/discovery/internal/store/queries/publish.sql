-- What a run staged and sealed becomes the workspace's history, in one transaction. A row of staging counts when its slice was
-- sealed by its attempt. Where a system names one thing twice, the row that gives more is taken, and always the same one.

-- name: SealedRecords :one
SELECT coalesce(sum(records), 0)::bigint FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1;

-- name: StagedRecords :one
WITH sealed AS (SELECT slice, attempt FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1)
SELECT ((SELECT count(*) FROM discovery.staged_resources s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_entitlements s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_grants s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_expansions s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1))::bigint;

-- name: LastPublishedAt :one
SELECT finished_at FROM discovery.runs
WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND state IN ('complete', 'partial')
ORDER BY finished_at DESC LIMIT 1;

-- name: CloseGrants :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT s.id, bool_or(s.grantable) AS grantable, bool_and(s.not_inherited) AS not_inherited
    FROM discovery.staged_grants s JOIN sealed USING (slice, attempt) WHERE s.run_id = sqlc.arg(run_id) GROUP BY s.id
)
UPDATE discovery.grants g SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM w
WHERE g.workspace_id = w.id AND g.integration_id = sqlc.arg(integration_id) AND g.until IS NULL
  AND ((g.scope = ANY (sqlc.arg(completed)::text[]) AND NOT EXISTS (SELECT FROM staged s WHERE s.id = g.id))
    OR EXISTS (SELECT FROM staged s WHERE s.id = g.id AND (s.grantable, s.not_inherited) <> (g.grantable, g.not_inherited)));

-- name: DescribeGrants :exec
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT DISTINCT ON (s.id) s.id, s.reason, s.scope FROM discovery.staged_grants s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) ORDER BY s.id, s.grantable DESC, s.not_inherited, s.reason, s.scope
)
UPDATE discovery.grants g SET reason = s.reason, scope = s.scope
FROM staged s, w
WHERE g.workspace_id = w.id AND g.integration_id = sqlc.arg(integration_id) AND g.until IS NULL
  AND g.id = s.id AND (g.reason, g.scope) <> (s.reason, s.scope);

-- name: OpenGrants :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id))
INSERT INTO discovery.grants (workspace_id, integration_id, id, principal_id, entitlement_id, reason, grantable, not_inherited, scope, since, since_run)
SELECT DISTINCT ON (s.id) w.id, sqlc.arg(integration_id)::uuid, s.id, s.principal_id, s.entitlement_id, s.reason, s.grantable, s.not_inherited,
    s.scope, sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_grants s JOIN sealed USING (slice, attempt), w
WHERE s.run_id = sqlc.arg(run_id)
  AND NOT EXISTS (SELECT FROM discovery.grants g WHERE g.workspace_id = w.id AND g.integration_id = sqlc.arg(integration_id)
                  AND g.id = s.id AND g.until IS NULL)
ORDER BY s.id, s.grantable DESC, s.not_inherited, s.reason, s.scope;

-- name: CloseResources :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id))
UPDATE discovery.resources r SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM w
WHERE r.workspace_id = w.id AND r.integration_id = sqlc.arg(integration_id) AND r.until IS NULL
  AND r.scope = ANY (sqlc.arg(completed)::text[])
  AND NOT EXISTS (SELECT FROM discovery.staged_resources s JOIN sealed USING (slice, attempt) WHERE s.run_id = sqlc.arg(run_id) AND s.id = r.id);

-- name: DescribeResources :exec
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT DISTINCT ON (s.id) s.* FROM discovery.staged_resources s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) ORDER BY s.id, s.account DESC, s.display_name, s.attributes::text, s.scope
)
UPDATE discovery.resources r SET display_name = s.display_name, parent_id = s.parent_id, attributes = s.attributes, account = s.account, scope = s.scope
FROM staged s, w
WHERE r.workspace_id = w.id AND r.integration_id = sqlc.arg(integration_id) AND r.until IS NULL AND r.id = s.id
  AND ROW(r.display_name, r.parent_id, r.attributes, r.account, r.scope) IS DISTINCT FROM ROW(s.display_name, s.parent_id, s.attributes, s.account, s.scope);

-- name: OpenResources :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id))
INSERT INTO discovery.resources (workspace_id, integration_id, id, type, external_id, display_name, parent_id, attributes, account, scope, since, since_run)
SELECT DISTINCT ON (s.id) w.id, sqlc.arg(integration_id)::uuid, s.id, s.type, s.external_id, s.display_name, s.parent_id, s.attributes, s.account,
    s.scope, sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_resources s JOIN sealed USING (slice, attempt), w
WHERE s.run_id = sqlc.arg(run_id)
  AND NOT EXISTS (SELECT FROM discovery.resources r WHERE r.workspace_id = w.id AND r.integration_id = sqlc.arg(integration_id)
                  AND r.id = s.id AND r.until IS NULL)
ORDER BY s.id, s.account DESC, s.display_name, s.attributes::text, s.scope;

-- name: CloseEntitlements :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT s.id, max(s.purpose) AS purpose FROM discovery.staged_entitlements s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) GROUP BY s.id
)
UPDATE discovery.entitlements e SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM w
WHERE e.workspace_id = w.id AND e.integration_id = sqlc.arg(integration_id) AND e.until IS NULL
  AND ((e.scope = ANY (sqlc.arg(completed)::text[]) AND NOT EXISTS (SELECT FROM staged s WHERE s.id = e.id))
    OR EXISTS (SELECT FROM staged s WHERE s.id = e.id AND s.purpose <> e.purpose));

-- name: DescribeEntitlements :exec
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT DISTINCT ON (s.id) s.* FROM discovery.staged_entitlements s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) ORDER BY s.id, s.purpose DESC, s.description, s.scope
)
UPDATE discovery.entitlements e SET description = s.description, scope = s.scope
FROM staged s, w
WHERE e.workspace_id = w.id AND e.integration_id = sqlc.arg(integration_id) AND e.until IS NULL AND e.id = s.id
  AND (e.description, e.scope) <> (s.description, s.scope);

-- name: OpenEntitlements :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id))
INSERT INTO discovery.entitlements (workspace_id, integration_id, id, resource_id, name, purpose, description, scope, since, since_run)
SELECT DISTINCT ON (s.id) w.id, sqlc.arg(integration_id)::uuid, s.id, s.resource_id, s.name, s.purpose, s.description, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_entitlements s JOIN sealed USING (slice, attempt), w
WHERE s.run_id = sqlc.arg(run_id)
  AND NOT EXISTS (SELECT FROM discovery.entitlements e WHERE e.workspace_id = w.id AND e.integration_id = sqlc.arg(integration_id)
                  AND e.id = s.id AND e.until IS NULL)
ORDER BY s.id, s.purpose DESC, s.description, s.scope;

-- name: CloseExpansions :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT s.from_id, s.to_id, bool_and(s.assumption) AS assumption FROM discovery.staged_expansions s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) GROUP BY s.from_id, s.to_id
)
UPDATE discovery.expansions x SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM w
WHERE x.workspace_id = w.id AND x.integration_id = sqlc.arg(integration_id) AND x.until IS NULL
  AND ((x.scope = ANY (sqlc.arg(completed)::text[]) AND NOT EXISTS (SELECT FROM staged s WHERE s.from_id = x.from_id AND s.to_id = x.to_id))
    OR EXISTS (SELECT FROM staged s WHERE s.from_id = x.from_id AND s.to_id = x.to_id AND s.assumption <> x.assumption));

-- name: DescribeExpansions :exec
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id)),
staged AS (
    SELECT DISTINCT ON (s.from_id, s.to_id) s.* FROM discovery.staged_expansions s JOIN sealed USING (slice, attempt)
    WHERE s.run_id = sqlc.arg(run_id) ORDER BY s.from_id, s.to_id, s.assumption, s.reason, s.scope
)
UPDATE discovery.expansions x SET reason = s.reason, scope = s.scope
FROM staged s, w
WHERE x.workspace_id = w.id AND x.integration_id = sqlc.arg(integration_id) AND x.until IS NULL
  AND x.from_id = s.from_id AND x.to_id = s.to_id AND (x.reason, x.scope) <> (s.reason, s.scope);

-- name: OpenExpansions :execrows
WITH w AS MATERIALIZED (SELECT a3.current_workspace() AS id),
sealed AS (SELECT d.slice, d.attempt FROM discovery.slices d, w WHERE d.workspace_id = w.id AND d.run_id = sqlc.arg(run_id))
INSERT INTO discovery.expansions (workspace_id, integration_id, from_id, to_id, assumption, reason, scope, since, since_run)
SELECT DISTINCT ON (s.from_id, s.to_id) w.id, sqlc.arg(integration_id)::uuid, s.from_id, s.to_id, s.assumption, s.reason, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_expansions s JOIN sealed USING (slice, attempt), w
WHERE s.run_id = sqlc.arg(run_id)
  AND NOT EXISTS (SELECT FROM discovery.expansions x WHERE x.workspace_id = w.id AND x.integration_id = sqlc.arg(integration_id)
                  AND x.from_id = s.from_id AND x.to_id = s.to_id AND x.until IS NULL)
ORDER BY s.from_id, s.to_id, s.assumption, s.reason, s.scope;

-- name: FinishPublishing :one
UPDATE discovery.runs r
SET state = CASE WHEN r.gaps = '[]'::jsonb THEN 'complete' ELSE 'partial' END, finished_at = sqlc.arg(at), progress = '', updated_at = now(),
    grants_added = sqlc.arg(grants_added), grants_removed = sqlc.arg(grants_removed)
WHERE r.workspace_id = a3.current_workspace() AND r.id = sqlc.arg(run_id)
RETURNING *;

-- name: DropStagedResources :exec
DELETE FROM discovery.staged_resources WHERE run_id = $1;

-- name: DropStagedEntitlements :exec
DELETE FROM discovery.staged_entitlements WHERE run_id = $1;

-- name: DropStagedGrants :exec
DELETE FROM discovery.staged_grants WHERE run_id = $1;

-- name: DropStagedExpansions :exec
DELETE FROM discovery.staged_expansions WHERE run_id = $1;

-- name: LockPersons :exec
-- One publication of the workspace at a time joins persons.
SELECT pg_advisory_xact_lock(hashtextextended('discovery.persons ' || a3.current_workspace(), 0));

-- name: AddPersons :exec
-- Every address of a standing account is a person's. The id follows from the address, so who goes and comes back is who they were.
INSERT INTO discovery.persons (workspace_id, id, display_name, key)
SELECT DISTINCT ON (r.email_key) r.workspace_id, encode(substring(sha256(convert_to(r.workspace_id || ' person ' || r.email_key, 'UTF8')), 1, 16), 'hex')::uuid,
    CASE WHEN r.display_name <> '' THEN r.display_name ELSE r.email_key END, r.email_key
FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace() AND r.email_key IS NOT NULL AND r.until IS NULL
ORDER BY r.email_key, length(r.display_name) DESC, r.display_name
ON CONFLICT (workspace_id, key) DO UPDATE SET display_name = excluded.display_name WHERE persons.display_name <> excluded.display_name;

-- name: LeavePersons :exec
DELETE FROM discovery.person_accounts a
WHERE a.workspace_id = a3.current_workspace() AND NOT EXISTS (
    SELECT FROM discovery.matches m
    WHERE m.workspace_id = a3.current_workspace() AND (m.account_id, m.person_id, m.rule) = (a.account_id, a.person_id, a.rule));

-- name: JoinPersons :exec
INSERT INTO discovery.person_accounts (workspace_id, account_id, person_id, rule)
SELECT m.workspace_id, m.account_id, m.person_id, m.rule FROM discovery.matches m WHERE m.workspace_id = a3.current_workspace()
ON CONFLICT DO NOTHING;

-- name: LeavePersonless :exec
DELETE FROM discovery.persons p WHERE p.workspace_id = a3.current_workspace()
  AND NOT EXISTS (SELECT FROM discovery.person_accounts a WHERE a.workspace_id = p.workspace_id AND a.person_id = p.id);
