-- What a run staged and sealed becomes the workspace's history, in one transaction. A row of staging counts when its slice was sealed by
-- its attempt. First staging is pruned to what counts, each thing once; then what is gone is closed, what changed its meaning is closed
-- and opened anew, what changed its words is described anew, and what is new is opened.
--
-- The planner knows nothing of rows that were staged a moment ago, and a nested loop over a million of them never ends: PlanForMany goes
-- first. The workspace is asked for in a subquery, so that it is asked once and not for every row.

-- name: PlanForMany :exec
SELECT set_config('enable_nestloop', 'off', true), set_config('work_mem', '64MB', true);

-- name: SealedRecords :one
SELECT coalesce(sum(records), 0)::bigint FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1;

-- name: StagedRecords :one
WITH sealed AS (SELECT slice, attempt FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1)
SELECT ((SELECT count(*) FROM discovery.staged_resources s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_entitlements s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_grants s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1)
      + (SELECT count(*) FROM discovery.staged_expansions s JOIN sealed USING (slice, attempt) WHERE s.run_id = $1))::bigint;

-- name: LockHistory :exec
-- The history of a workspace changes one change at a time, so that the order of their times is the order in which they are seen. The key's
-- name is that of the release before, which takes it when it joins persons.
SELECT pg_advisory_xact_lock(hashtextextended('discovery.persons ' || a3.current_workspace(), 0));

-- name: EverPublished :one
SELECT EXISTS (SELECT FROM discovery.runs
WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND state IN ('complete', 'partial') AND finished_at IS NOT NULL);

-- name: LastChangedAt :one
-- When the history changed last; 1970 where it never did.
SELECT coalesce(greatest(
    (SELECT r.finished_at FROM discovery.runs r
     WHERE r.workspace_id = a3.current_workspace() AND r.state IN ('complete', 'partial') AND r.finished_at IS NOT NULL ORDER BY r.finished_at DESC LIMIT 1),
    (SELECT max(d.retired_at) FROM discovery.retired_integrations d WHERE d.workspace_id = a3.current_workspace())), 'epoch')::timestamptz AS changed_at;

-- name: UnfinishedScopes :many
-- Scopes that something was found in, and that the run neither read to the end nor names a gap in.
SELECT s.scope FROM (
    SELECT r.scope FROM discovery.staged_resources r WHERE r.run_id = sqlc.arg(run_id)
    UNION SELECT e.scope FROM discovery.staged_entitlements e WHERE e.run_id = sqlc.arg(run_id)
    UNION SELECT g.scope FROM discovery.staged_grants g WHERE g.run_id = sqlc.arg(run_id)
    UNION SELECT x.scope FROM discovery.staged_expansions x WHERE x.run_id = sqlc.arg(run_id)) s
WHERE s.scope <> ALL (sqlc.arg(told)::text[]) ORDER BY s.scope;

-- name: NoteGaps :one
UPDATE discovery.runs SET gaps = sqlc.arg(gaps) WHERE workspace_id = a3.current_workspace() AND id = sqlc.arg(run_id) RETURNING *;

-- name: PruneUnsealedResources :exec
DELETE FROM discovery.staged_resources s WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.slices d WHERE d.workspace_id = (SELECT a3.current_workspace()) AND d.run_id = sqlc.arg(run_id) AND d.slice = s.slice AND d.attempt = s.attempt);

-- name: MergeToldResources :exec
-- What a system names several times counts once, as the most that it says of it.
WITH told AS (
    DELETE FROM discovery.staged_resources s WHERE s.run_id = sqlc.arg(run_id) AND id IN (
        SELECT id FROM discovery.staged_resources o WHERE o.run_id = sqlc.arg(run_id) GROUP BY id HAVING count(*) > 1)
    RETURNING *
)
INSERT INTO discovery.staged_resources
SELECT DISTINCT ON (id) * FROM told
ORDER BY id, account DESC, length(attributes::text) DESC, length(display_name) DESC, display_name, attributes::text, parent_id, scope;

-- name: CloseResources :execrows
UPDATE discovery.resources h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND h.scope = ANY (sqlc.arg(completed)::text[])
  AND NOT EXISTS (SELECT FROM discovery.staged_resources s WHERE s.run_id = sqlc.arg(run_id) AND s.id = h.id);

-- name: DescribeResources :exec
UPDATE discovery.resources h SET display_name = s.display_name, parent_id = s.parent_id, attributes = s.attributes, account = s.account, scope = s.scope
FROM discovery.staged_resources s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.id = h.id AND ROW(h.display_name, h.parent_id, h.attributes, h.account, h.scope)
    IS DISTINCT FROM ROW(s.display_name, s.parent_id, s.attributes, s.account, s.scope);

-- name: OpenResources :execrows
INSERT INTO discovery.resources (workspace_id, integration_id, id, type, external_id, display_name, parent_id, attributes, account, scope, since, since_run)
SELECT (SELECT a3.current_workspace()), sqlc.arg(integration_id)::uuid, s.id, s.type, s.external_id, s.display_name, s.parent_id, s.attributes, s.account, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_resources s
WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.resources h WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND s.id = h.id AND h.until IS NULL)
ORDER BY s.id;

-- name: DropStagedResources :exec
DELETE FROM discovery.staged_resources WHERE run_id = $1;

-- name: PruneUnsealedEntitlements :exec
DELETE FROM discovery.staged_entitlements s WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.slices d WHERE d.workspace_id = (SELECT a3.current_workspace()) AND d.run_id = sqlc.arg(run_id) AND d.slice = s.slice AND d.attempt = s.attempt);

-- name: MergeToldEntitlements :exec
-- What a system names several times counts once, as the most that it says of it.
WITH told AS (
    DELETE FROM discovery.staged_entitlements s WHERE s.run_id = sqlc.arg(run_id) AND id IN (
        SELECT id FROM discovery.staged_entitlements o WHERE o.run_id = sqlc.arg(run_id) GROUP BY id HAVING count(*) > 1)
    RETURNING *
)
INSERT INTO discovery.staged_entitlements
SELECT DISTINCT ON (id) * FROM told ORDER BY id, purpose DESC, length(description) DESC, description, scope;

-- name: CloseEntitlements :execrows
UPDATE discovery.entitlements h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND h.scope = ANY (sqlc.arg(completed)::text[])
  AND NOT EXISTS (SELECT FROM discovery.staged_entitlements s WHERE s.run_id = sqlc.arg(run_id) AND s.id = h.id);

-- name: CloseChangedEntitlements :execrows
UPDATE discovery.entitlements h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM discovery.staged_entitlements s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.id = h.id AND s.purpose <> h.purpose;

-- name: DescribeEntitlements :exec
UPDATE discovery.entitlements h SET description = s.description, scope = s.scope
FROM discovery.staged_entitlements s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.id = h.id AND (h.description, h.scope) <> (s.description, s.scope);

-- name: OpenEntitlements :execrows
INSERT INTO discovery.entitlements (workspace_id, integration_id, id, resource_id, name, purpose, description, scope, since, since_run)
SELECT (SELECT a3.current_workspace()), sqlc.arg(integration_id)::uuid, s.id, s.resource_id, s.name, s.purpose, s.description, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_entitlements s
WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.entitlements h WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND s.id = h.id AND h.until IS NULL)
ORDER BY s.id;

-- name: DropStagedEntitlements :exec
DELETE FROM discovery.staged_entitlements WHERE run_id = $1;

-- name: PruneUnsealedGrants :exec
DELETE FROM discovery.staged_grants s WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.slices d WHERE d.workspace_id = (SELECT a3.current_workspace()) AND d.run_id = sqlc.arg(run_id) AND d.slice = s.slice AND d.attempt = s.attempt);

-- name: MergeToldGrants :exec
-- What a system names several times counts once, as the most that it says of it.
WITH told AS (
    DELETE FROM discovery.staged_grants s WHERE s.run_id = sqlc.arg(run_id) AND id IN (
        SELECT id FROM discovery.staged_grants o WHERE o.run_id = sqlc.arg(run_id) GROUP BY id HAVING count(*) > 1)
    RETURNING *
)
INSERT INTO discovery.staged_grants
SELECT run_id, min(slice), min(attempt), id, principal_id, entitlement_id, min(reason), bool_or(grantable), bool_and(not_inherited), min(scope)
FROM told GROUP BY run_id, id, principal_id, entitlement_id;

-- name: CloseGrants :execrows
UPDATE discovery.grants h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND h.scope = ANY (sqlc.arg(completed)::text[])
  AND NOT EXISTS (SELECT FROM discovery.staged_grants s WHERE s.run_id = sqlc.arg(run_id) AND s.id = h.id);

-- name: CloseChangedGrants :execrows
UPDATE discovery.grants h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM discovery.staged_grants s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.id = h.id AND (s.grantable, s.not_inherited) <> (h.grantable, h.not_inherited);

-- name: DescribeGrants :exec
UPDATE discovery.grants h SET reason = s.reason, scope = s.scope
FROM discovery.staged_grants s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.id = h.id AND (h.reason, h.scope) <> (s.reason, s.scope);

-- name: OpenGrants :execrows
INSERT INTO discovery.grants (workspace_id, integration_id, id, principal_id, entitlement_id, reason, grantable, not_inherited, scope, since, since_run)
SELECT (SELECT a3.current_workspace()), sqlc.arg(integration_id)::uuid, s.id, s.principal_id, s.entitlement_id, s.reason, s.grantable, s.not_inherited, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_grants s
WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.grants h WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND s.id = h.id AND h.until IS NULL)
ORDER BY s.id;

-- name: DropStagedGrants :exec
DELETE FROM discovery.staged_grants WHERE run_id = $1;

-- name: PruneUnsealedExpansions :exec
DELETE FROM discovery.staged_expansions s WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.slices d WHERE d.workspace_id = (SELECT a3.current_workspace()) AND d.run_id = sqlc.arg(run_id) AND d.slice = s.slice AND d.attempt = s.attempt);

-- name: MergeToldExpansions :exec
-- What a system names several times counts once, as the most that it says of it.
WITH told AS (
    DELETE FROM discovery.staged_expansions s WHERE s.run_id = sqlc.arg(run_id) AND (from_id, to_id) IN (
        SELECT from_id, to_id FROM discovery.staged_expansions o WHERE o.run_id = sqlc.arg(run_id) GROUP BY from_id, to_id HAVING count(*) > 1)
    RETURNING *
)
INSERT INTO discovery.staged_expansions
SELECT run_id, min(slice), min(attempt), from_id, to_id, bool_and(assumption), min(reason), min(scope)
FROM told GROUP BY run_id, from_id, to_id;

-- name: CloseExpansions :execrows
UPDATE discovery.expansions h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND h.scope = ANY (sqlc.arg(completed)::text[])
  AND NOT EXISTS (SELECT FROM discovery.staged_expansions s WHERE s.run_id = sqlc.arg(run_id) AND s.from_id = h.from_id AND s.to_id = h.to_id);

-- name: CloseChangedExpansions :execrows
UPDATE discovery.expansions h SET until = sqlc.arg(at), until_run = sqlc.arg(run_id)
FROM discovery.staged_expansions s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.from_id = h.from_id AND s.to_id = h.to_id AND s.assumption <> h.assumption;

-- name: DescribeExpansions :exec
UPDATE discovery.expansions h SET reason = s.reason, scope = s.scope
FROM discovery.staged_expansions s
WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND h.until IS NULL
  AND s.run_id = sqlc.arg(run_id) AND s.from_id = h.from_id AND s.to_id = h.to_id AND (h.reason, h.scope) <> (s.reason, s.scope);

-- name: OpenExpansions :execrows
INSERT INTO discovery.expansions (workspace_id, integration_id, from_id, to_id, assumption, reason, scope, since, since_run)
SELECT (SELECT a3.current_workspace()), sqlc.arg(integration_id)::uuid, s.from_id, s.to_id, s.assumption, s.reason, s.scope,
    sqlc.arg(at)::timestamptz, sqlc.arg(run_id)::uuid
FROM discovery.staged_expansions s
WHERE s.run_id = sqlc.arg(run_id) AND NOT EXISTS (
    SELECT FROM discovery.expansions h WHERE h.workspace_id = (SELECT a3.current_workspace()) AND h.integration_id = sqlc.arg(integration_id) AND s.from_id = h.from_id AND s.to_id = h.to_id AND h.until IS NULL)
ORDER BY s.from_id, s.to_id;

-- name: DropStagedExpansions :exec
DELETE FROM discovery.staged_expansions WHERE run_id = $1;

-- name: FinishPublishing :one
UPDATE discovery.runs r
SET state = CASE WHEN r.gaps = '[]'::jsonb THEN 'complete' ELSE 'partial' END, finished_at = sqlc.arg(at), progress = '', updated_at = now(),
    grants_added = sqlc.arg(grants_added), grants_removed = sqlc.arg(grants_removed)
WHERE r.workspace_id = a3.current_workspace() AND r.id = sqlc.arg(run_id)
RETURNING *;

