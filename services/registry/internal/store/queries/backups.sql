-- name: PutBackup :exec
INSERT INTO registry.backups (tenant_id, name, taken_at, size_bytes, release, took_ms, verified_at, restore_took_ms, failure)
VALUES (sqlc.narg(tenant_id), sqlc.narg(name), @taken_at, @size_bytes, @release, @took_ms, sqlc.narg(verified_at), @restore_took_ms, @failure)
ON CONFLICT ON CONSTRAINT backups_name DO UPDATE
    SET verified_at = excluded.verified_at, restore_took_ms = excluded.restore_took_ms, failure = excluded.failure
    WHERE backups.tenant_id IS NOT DISTINCT FROM excluded.tenant_id;

-- name: ThinBackups :exec
-- The newest hundred of a set, and the newest that could be restored. Here and below, one from a time to come, of a clock that once ran ahead, is never the newest:
-- it would hide for as long that none was made since.
DELETE FROM registry.backups b WHERE b.tenant_id IS NOT DISTINCT FROM sqlc.narg(tenant_id)
    AND b.id NOT IN (SELECT n.id FROM registry.backups n WHERE n.tenant_id IS NOT DISTINCT FROM sqlc.narg(tenant_id) ORDER BY n.taken_at DESC LIMIT 100)
    AND b.id NOT IN (SELECT g.id FROM registry.backups g WHERE g.tenant_id IS NOT DISTINCT FROM sqlc.narg(tenant_id) AND g.verified_at IS NOT NULL
        AND g.taken_at < now() + interval '10 minutes' ORDER BY g.taken_at DESC LIMIT 1);

-- name: BackupsOf :many
SELECT * FROM registry.backups WHERE tenant_id IS NOT DISTINCT FROM sqlc.narg(tenant_id) AND (taken_at, id) < (@before::timestamptz, @before_id::bigint)
ORDER BY taken_at DESC, id DESC LIMIT @most;

-- name: NewestBackups :many
-- Of each set the newest attempt, and the newest that could be restored.
SELECT * FROM registry.backups WHERE (taken_at, id) < (@before::timestamptz, @before_id::bigint) AND (id IN (
    SELECT DISTINCT ON (n.tenant_id) n.id FROM registry.backups n WHERE n.taken_at < now() + interval '10 minutes' ORDER BY n.tenant_id, n.taken_at DESC)
OR id IN (
    SELECT DISTINCT ON (g.tenant_id) g.id FROM registry.backups g WHERE g.verified_at IS NOT NULL AND g.taken_at < now() + interval '10 minutes' ORDER BY g.tenant_id, g.taken_at DESC))
ORDER BY taken_at DESC, id DESC LIMIT @most;

-- name: InsertRestore :exec
INSERT INTO registry.restores (tenant_id, backup, taken_at, actor, reason, size, witnessed_size, witnessed_note, plan_hash, planned_by, approved_by)
VALUES (@tenant_id, @backup, @taken_at, @actor, @reason, @size, @witnessed_size, @witnessed_note, @plan_hash, @planned_by, @approved_by);

-- name: PlannedRestores :many
-- Restores that were begun by plans as they were made last.
SELECT r.* FROM registry.planned_restores r JOIN registry.plans p ON p.hash = r.plan_hash
WHERE r.plan_hash = ANY (@hashes::text[]) AND r.begun_at >= p.created_at;

-- name: BeginPlannedRestore :exec
INSERT INTO registry.planned_restores (plan_hash, tenant_id, actor, planned_by, approved_by)
VALUES (@plan_hash, @tenant_id, @actor, @planned_by, @approved_by)
ON CONFLICT (plan_hash) DO UPDATE SET tenant_id = excluded.tenant_id, actor = excluded.actor, planned_by = excluded.planned_by,
    approved_by = excluded.approved_by, begun_at = clock_timestamp(), recorded_at = NULL;

-- name: EndPlannedRestore :exec
UPDATE registry.planned_restores SET recorded_at = clock_timestamp() WHERE plan_hash = @plan_hash;

-- name: RestoredSince :one
-- When a tenant was restored last, and by whom, since a moment; none where it wasn't.
SELECT recorded_at, actor, backup FROM registry.restores WHERE tenant_id = @tenant_id AND recorded_at >= @moment::timestamptz ORDER BY id DESC LIMIT 1;

-- name: ForgetCheckpointsBeyond :exec
DELETE FROM registry.checkpoints WHERE tenant_id = @tenant_id AND size > @size;

-- name: CheckpointAt :one
SELECT * FROM registry.checkpoints WHERE tenant_id = @tenant_id AND size = @size;

-- name: WitnessedBefore :one
-- The size of the newest log that was witnessed before a moment; 0 where none was.
SELECT coalesce(max(size), 0)::bigint FROM registry.checkpoints WHERE tenant_id = @tenant_id AND witnessed_at < @moment;

-- name: BackupRecorded :many
-- When a tenant's backup was recorded first, by this clock, and what making it and trying it out had taken by then; none where it isn't on record.
SELECT l.at, b.took_ms + b.restore_took_ms AS took_ms FROM registry.backups b
JOIN registry.operations_log l ON l.target = @target AND l.action = 'registry.backup.recorded' AND l.detail = b.name
WHERE b.tenant_id = @tenant_id AND b.name = @name::text ORDER BY l.id LIMIT 1;
