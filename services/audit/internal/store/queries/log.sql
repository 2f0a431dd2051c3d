-- name: NewestCheckpoint :one
SELECT size, root, note FROM audit.checkpoints ORDER BY size DESC LIMIT 1;

-- name: CheckpointsFrom :many
SELECT size, note FROM audit.checkpoints WHERE size >= sqlc.arg(from_size)::bigint ORDER BY size LIMIT sqlc.arg(most)::int;

-- name: Tile :one
SELECT hashes FROM audit.tiles WHERE level = sqlc.arg(level) AND idx = sqlc.arg(idx);

-- name: TileRoots :many
-- Roots of the full tiles of a level from an index on: the hashes of one tile of the level above.
SELECT idx, root FROM audit.tiles WHERE level = sqlc.arg(level) AND idx >= sqlc.arg(from_idx)::bigint
    AND idx < sqlc.arg(from_idx)::bigint + 256 ORDER BY idx;

-- name: LeafHashes :many
-- Stored hashes of the leaves of one tile.
SELECT idx, leaf_hash FROM audit.entries WHERE idx >= sqlc.arg(from_idx)::bigint AND idx < sqlc.arg(from_idx)::bigint + 256
ORDER BY idx;

-- name: Leaves :many
-- A run of leaves, at most most_rows of them and, but for the first, most_bytes.
SELECT b.idx, b.leaf, b.leaf_hash
FROM (
    SELECT w.idx, w.leaf, w.leaf_hash, sum(octet_length(w.leaf)) OVER (ORDER BY w.idx) AS total
    FROM (
        SELECT e.idx, e.leaf, e.leaf_hash FROM audit.entries e
        WHERE e.idx >= sqlc.arg(from_idx)::bigint AND e.idx < sqlc.arg(to_idx)::bigint
        ORDER BY e.idx LIMIT sqlc.arg(most_rows)::int
    ) w
) b
WHERE b.total <= sqlc.arg(most_bytes)::bigint OR b.total = octet_length(b.leaf)
ORDER BY b.idx;

-- name: EntryOf :one
SELECT idx, leaf, leaf_hash FROM audit.entries WHERE event_id = sqlc.arg(event_id);

-- name: ListEntries :many
-- Newest first, below an index. Every filter is optional; the transaction plans it anew for those that are given.
SELECT idx, leaf FROM audit.entries
WHERE idx < sqlc.arg(before_idx)::bigint
    AND (sqlc.narg(workspace_id)::uuid IS NULL OR workspace_id = sqlc.narg(workspace_id)::uuid)
    AND (sqlc.narg(action)::text IS NULL OR action = sqlc.narg(action)::text)
    AND (sqlc.narg(action_prefix)::text IS NULL OR starts_with(action, sqlc.narg(action_prefix)::text))
    AND (sqlc.narg(actor)::text IS NULL OR actor = sqlc.narg(actor)::text)
    AND (sqlc.narg(target)::text IS NULL OR target = sqlc.narg(target)::text)
    AND (sqlc.narg(since)::timestamptz IS NULL OR recorded_at >= sqlc.narg(since)::timestamptz)
    AND (sqlc.narg(until)::timestamptz IS NULL OR recorded_at < sqlc.narg(until)::timestamptz)
    AND (sqlc.narg(outcome)::smallint IS NULL OR outcome = sqlc.narg(outcome)::smallint)
ORDER BY idx DESC
LIMIT sqlc.arg(most)::int;

-- name: PlanEachTime :exec
-- For this transaction: a plan that serves every set of filters would use the index of none.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: Backlog :one
-- Waiting events, counted up to a bound.
SELECT count(*) FROM (SELECT FROM audit.inbox LIMIT 100000) w;

-- name: Oldest :one
-- How long the oldest event waits, in seconds; 0 where none does.
SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - i.recorded_at) FROM audit.inbox i ORDER BY i.seq LIMIT 1), 0)::float8;
