-- name: InsertRun :one
INSERT INTO discovery.runs (workspace_id, id, integration_id, integration_name, connector, state, started_by, due_at, source, transfer_id)
VALUES (a3.current_workspace(), $1, $2, $3, $4, 'queued', $5, $6, $7, $8)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: RunUnderWay :one
SELECT * FROM discovery.runs
WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND state IN ('queued', 'running', 'publishing');

-- name: GetRun :one
SELECT * FROM discovery.runs WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: LockRun :one
SELECT * FROM discovery.runs WHERE workspace_id = a3.current_workspace() AND id = $1 FOR UPDATE;

-- name: ShareRun :one
-- As GetRun, and whoever would end the run, seal its slice or claim it waits for this transaction.
SELECT * FROM discovery.runs WHERE workspace_id = a3.current_workspace() AND id = $1 FOR SHARE;

-- name: ListRuns :many
SELECT * FROM discovery.runs
WHERE workspace_id = a3.current_workspace()
  AND (sqlc.narg(integration_id)::uuid IS NULL OR integration_id = sqlc.narg(integration_id))
  AND (sqlc.narg(before)::uuid IS NULL OR id < sqlc.narg(before))
ORDER BY id DESC LIMIT sqlc.arg(most);

-- name: ClaimSlice :exec
UPDATE discovery.runs SET attempt = $2, job_id = $3, state = 'running', started_at = coalesce(started_at, now()), updated_at = now()
WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: NoteProgress :exec
UPDATE discovery.runs SET progress = $2, updated_at = now() WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: InsertSlice :exec
INSERT INTO discovery.slices (workspace_id, run_id, slice, attempt, records) VALUES (a3.current_workspace(), $1, $2, $3, $4);

-- name: AdvanceRun :exec
UPDATE discovery.runs
SET slice = slice + 1, attempt = 0, checkpoint = sqlc.arg(checkpoint), completed_scopes = sqlc.arg(completed_scopes), gaps = sqlc.arg(gaps),
    accounts = accounts + sqlc.arg(accounts), groups = groups + sqlc.arg(groups), resources = resources + sqlc.arg(resources),
    entitlements = entitlements + sqlc.arg(entitlements), grants = grants + sqlc.arg(grants),
    state = sqlc.arg(state), progress = sqlc.arg(progress), updated_at = now()
WHERE workspace_id = a3.current_workspace() AND id = sqlc.arg(id);

-- name: RestartRun :exec
UPDATE discovery.runs
SET slice = 0, attempt = 0, checkpoint = '', completed_scopes = '{}', gaps = '[]', restarts = restarts + 1, state = 'queued',
    accounts = 0, groups = 0, resources = 0, entitlements = 0, grants = 0, progress = $2, updated_at = now()
WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: DeleteSlices :exec
DELETE FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1;

-- name: EndRun :one
UPDATE discovery.runs SET state = $2, error = $3, progress = '', finished_at = clock_timestamp(), updated_at = now()
WHERE workspace_id = a3.current_workspace() AND id = $1
RETURNING *;

-- name: MarkReported :exec
UPDATE discovery.runs SET reported = true, updated_at = now() WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: LookOut :many
-- Runs to publish or to report, and those that no worker has touched since `stale`.
SELECT workspace_id, id, integration_id, state, started_by FROM discovery.runs
WHERE NOT reported AND (state IN ('publishing', 'complete', 'partial', 'failed', 'cancelled') OR updated_at < sqlc.arg(stale))
ORDER BY updated_at LIMIT sqlc.arg(most);

-- name: SealedBy :one
SELECT attempt FROM discovery.slices WHERE workspace_id = a3.current_workspace() AND run_id = $1 AND slice = $2;

-- name: StagedInSlice :one
SELECT
    (SELECT count(*) FROM discovery.staged_resources r WHERE r.run_id = $1 AND r.slice = $2 AND r.attempt = $3) AS resources,
    (SELECT count(*) FROM discovery.staged_resources r WHERE r.run_id = $1 AND r.slice = $2 AND r.attempt = $3 AND r.account) AS accounts,
    (SELECT count(*) FROM discovery.staged_resources r WHERE r.run_id = $1 AND r.slice = $2 AND r.attempt = $3 AND r.type IN ('group', 'role')) AS groups,
    (SELECT count(*) FROM discovery.staged_entitlements e WHERE e.run_id = $1 AND e.slice = $2 AND e.attempt = $3) AS entitlements,
    (SELECT count(*) FROM discovery.staged_grants g WHERE g.run_id = $1 AND g.slice = $2 AND g.attempt = $3) AS grants,
    (SELECT count(*) FROM discovery.staged_expansions x WHERE x.run_id = $1 AND x.slice = $2 AND x.attempt = $3) AS expansions;

-- name: DropAttemptsOfResources :exec
DELETE FROM discovery.staged_resources WHERE run_id = $1 AND slice = $2 AND attempt <> $3;

-- name: DropAttemptsOfEntitlements :exec
DELETE FROM discovery.staged_entitlements WHERE run_id = $1 AND slice = $2 AND attempt <> $3;

-- name: DropAttemptsOfGrants :exec
DELETE FROM discovery.staged_grants WHERE run_id = $1 AND slice = $2 AND attempt <> $3;

-- name: DropAttemptsOfExpansions :exec
DELETE FROM discovery.staged_expansions WHERE run_id = $1 AND slice = $2 AND attempt <> $3;

-- name: CountRunsSince :one
SELECT count(*) FROM discovery.runs WHERE created_at >= @since;
