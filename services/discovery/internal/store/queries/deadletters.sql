-- name: InsertDeadLetter :many
INSERT INTO discovery.dead_letters (public_id, job_id, reason, cause, attempt, envelope, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (job_id) DO NOTHING
RETURNING *;

-- name: GetDeadLetter :one
SELECT * FROM discovery.dead_letters WHERE public_id = $1;

-- name: LockDeadLetter :one
SELECT * FROM discovery.dead_letters WHERE public_id = $1 FOR UPDATE;

-- name: ListDeadLetters :many
SELECT * FROM discovery.dead_letters
WHERE (sqlc.arg(state)::text = '' OR state = sqlc.arg(state))
  AND (sqlc.arg(before)::bigint = 0 OR id < sqlc.arg(before))
ORDER BY id DESC LIMIT sqlc.arg(most);

-- name: SettleDeadLetter :one
-- A dropped letter's bytes go; a retried one keeps them, as what was put on the queue.
UPDATE discovery.dead_letters
SET state = sqlc.arg(state)::text, settled_at = clock_timestamp(), settled_by = sqlc.arg(settled_by), settled_reason = sqlc.arg(settled_reason),
    envelope = CASE WHEN sqlc.arg(state)::text = 'dropped' THEN '' ELSE envelope END,
    payload = CASE WHEN sqlc.arg(state)::text = 'dropped' THEN '' ELSE payload END
WHERE public_id = $1
RETURNING *;

-- name: SliceOfRun :one
-- How a run stands, over all workspaces: for a message whose envelope names the workspace.
SELECT state, slice, attempt FROM discovery.runs WHERE workspace_id = $1 AND id = $2;

-- name: PruneDeadLetters :many
-- Deletes what is older than a time, and what is past a number: of those that still wait the newest are kept first.
WITH placed AS (
    SELECT id, row_number() OVER (ORDER BY state = 'waiting' DESC, id DESC) AS place FROM discovery.dead_letters
)
DELETE FROM discovery.dead_letters d USING placed p
WHERE d.id = p.id AND (d.created_at < sqlc.arg(before)::timestamptz OR p.place > sqlc.arg(most)::bigint)
RETURNING d.state, d.created_at;
