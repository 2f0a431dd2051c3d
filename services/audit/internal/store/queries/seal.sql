-- name: Lock :one
-- Takes the sealer's lock for the transaction, so that one seals at a time. The sequence and the clock are read before anything is
-- drained: what shows later than this is waiting still. A checkpoint must not be published that a crash can take back, whatever
-- the database's own setting is, hence synchronous_commit.
SELECT pg_try_advisory_xact_lock(hashtextextended('a3 audit sealer', 0)) AS locked,
    coalesce(pg_sequence_last_value('audit.inbox_seq_seq'::regclass), 0)::bigint AS last_seq,
    clock_timestamp()::timestamptz AS at,
    set_config('synchronous_commit', 'on', true)::text AS synchronous_commit;

-- name: Waiting :one
-- Says, without a lock, whether there is anything to do: events, or a sequence that rolled back deeds moved so far ahead that it
-- would soon pass for backlog.
SELECT (EXISTS (SELECT FROM audit.inbox)
    OR coalesce(pg_sequence_last_value('audit.inbox_seq_seq'::regclass), 0) - p.drained_seq > least(1000, s.max_backlog_rows / 2))::boolean
FROM audit.progress p, audit.settings s;

-- name: Head :one
-- The last entry; no row for an empty log.
SELECT idx, leaf_hash FROM audit.entries ORDER BY idx DESC LIMIT 1;

-- name: Drain :many
-- Takes the oldest visible rows, at most most_rows of them and most_bytes of bodies.
DELETE FROM audit.inbox i
WHERE i.seq <= (
    SELECT max(b.seq)
    FROM (
        SELECT w.seq, sum(octet_length(w.body)) OVER (ORDER BY w.seq) AS total
        FROM (SELECT o.seq, o.body FROM audit.inbox o ORDER BY o.seq LIMIT sqlc.arg(most_rows)::int) w
    ) b
    WHERE b.total <= sqlc.arg(most_bytes)::bigint
)
RETURNING i.seq, i.id, i.body, i.producer::text AS producer, i.recorded_at;

-- name: Known :many
-- Which of the events are sealed already.
SELECT event_id, leaf FROM audit.entries WHERE event_id = ANY (sqlc.arg(event_ids)::uuid[]);

-- name: AppendEntries :exec
-- Arrays and not COPY, which can't enter tables with row-level security.
INSERT INTO audit.entries (idx, event_id, leaf, leaf_hash, action, actor, target, workspace_id, outcome, recorded_at)
SELECT unnest(sqlc.arg(idxs)::bigint[]), unnest(sqlc.arg(event_ids)::uuid[]), unnest(sqlc.arg(leaves)::bytea[]),
    unnest(sqlc.arg(leaf_hashes)::bytea[]), unnest(sqlc.arg(actions)::text[]), unnest(sqlc.arg(actors)::text[]),
    unnest(sqlc.arg(targets)::text[]), unnest(sqlc.arg(workspace_ids)::uuid[]), unnest(sqlc.arg(outcomes)::smallint[]),
    unnest(sqlc.arg(recorded_ats)::timestamptz[]);

-- name: AppendTiles :exec
INSERT INTO audit.tiles (level, idx, hashes, root)
SELECT unnest(sqlc.arg(levels)::smallint[]), unnest(sqlc.arg(idxs)::bigint[]), unnest(sqlc.arg(hashes)::bytea[]),
    unnest(sqlc.arg(roots)::bytea[]);

-- name: MoveProgress :exec
UPDATE audit.progress SET drained_seq = greatest(drained_seq, sqlc.arg(drained_seq)::bigint),
    drained_until = greatest(drained_until, sqlc.arg(drained_until)::timestamptz);

-- name: AddCheckpoint :exec
INSERT INTO audit.checkpoints (size, root, note) VALUES (sqlc.arg(size), sqlc.arg(root), sqlc.arg(note));

-- name: Open :exec
-- Lets deeds in without a closer look for as far as the bounds allow from here. Sequences don't roll back, so this comes after the
-- commit that it rests on; when it doesn't come, deeds take the closer look.
SELECT setval('audit.open_to_seq', p.drained_seq + s.max_backlog_rows),
    setval('audit.open_until', greatest(0, extract(epoch FROM p.drained_until + s.max_backlog_age)::bigint))
FROM audit.progress p, audit.settings s;
