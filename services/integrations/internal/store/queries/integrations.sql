-- name: InsertIntegration :one
INSERT INTO integrations.integrations (workspace_id, id, name, connector, settings, has_secret, schedule, next_due_at)
VALUES (a3.current_workspace(), $1, $2, $3, $4, $5, sqlc.narg(schedule), now() + sqlc.narg(schedule))
RETURNING *;

-- name: GetIntegration :one
SELECT * FROM integrations.integrations WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: LockIntegration :one
SELECT * FROM integrations.integrations WHERE workspace_id = a3.current_workspace() AND id = $1 FOR UPDATE;

-- name: ListIntegrations :many
SELECT * FROM integrations.integrations
WHERE workspace_id = a3.current_workspace() AND (sqlc.narg(after)::uuid IS NULL OR id > sqlc.narg(after))
ORDER BY id LIMIT sqlc.arg(most);

-- name: UpdateIntegration :one
UPDATE integrations.integrations
SET name = sqlc.arg(name), settings = sqlc.arg(settings), has_secret = sqlc.arg(has_secret), content_size = sqlc.arg(content_size), content_key = sqlc.arg(content_key),
    schedule = sqlc.narg(schedule),
    next_due_at = CASE WHEN schedule IS DISTINCT FROM sqlc.narg(schedule) THEN now() + sqlc.narg(schedule) ELSE next_due_at END,
    version = version + 1
WHERE workspace_id = a3.current_workspace() AND id = sqlc.arg(id)
RETURNING *;

-- name: DeleteIntegration :exec
DELETE FROM integrations.integrations WHERE workspace_id = a3.current_workspace() AND id = $1;

-- name: NoteRun :execrows
-- A report that is older than the one we have changes nothing.
UPDATE integrations.integrations SET last_run_id = $2, last_run_state = $3, last_run_at = $4
WHERE workspace_id = a3.current_workspace() AND id = $1 AND (last_run_at IS NULL OR last_run_at <= $4);

-- name: ClaimDue :many
-- Times that were missed while nobody asked are skipped: what is due runs once, not once for each missed time.
WITH due AS (
    SELECT i.workspace_id, i.id, i.next_due_at AS due_at FROM integrations.integrations i
    WHERE i.next_due_at <= now() ORDER BY i.next_due_at LIMIT sqlc.arg(most) FOR UPDATE SKIP LOCKED
)
UPDATE integrations.integrations i
SET next_due_at = CASE WHEN due.due_at + i.schedule > now() THEN due.due_at + i.schedule ELSE now() + i.schedule END
FROM due WHERE i.workspace_id = due.workspace_id AND i.id = due.id
RETURNING i.workspace_id, i.id, due.due_at;

-- name: KeepReplaced :exec
INSERT INTO integrations.replaced_contents (workspace_id, integration_id, content_key) VALUES (a3.current_workspace(), $1, $2);

-- name: ListReplaced :many
SELECT content_key FROM integrations.replaced_contents WHERE workspace_id = a3.current_workspace() AND integration_id = $1;

-- name: DropReplaced :many
-- Those that no run can be reading any more, and the oldest where there are too many.
DELETE FROM integrations.replaced_contents c
WHERE c.workspace_id = a3.current_workspace() AND c.integration_id = sqlc.arg(integration_id)
  AND (c.replaced_at < sqlc.arg(before) OR c.content_key NOT IN (
    SELECT k.content_key FROM integrations.replaced_contents k
    WHERE k.workspace_id = a3.current_workspace() AND k.integration_id = sqlc.arg(integration_id)
    ORDER BY k.replaced_at DESC LIMIT sqlc.arg(most)))
RETURNING c.content_key;

-- name: CountIntegrations :one
SELECT count(*) FROM integrations.integrations;
