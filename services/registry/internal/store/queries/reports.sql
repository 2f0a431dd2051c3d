-- name: LastReports :many
-- In the order of tenants, so that two processes that take reports don't wait for each other in a circle.
SELECT tenant_id, body, reported_at FROM registry.set_reports WHERE tenant_id = ANY (@tenant_ids::uuid[]) ORDER BY tenant_id FOR UPDATE;

-- name: MeantStarts :many
-- When a tenant's components were started anew by who looks after it: from when to when an operation was worked on, and what was restored was started.
SELECT o.tenant_id, o.created_at::timestamptz AS since, coalesce(o.ended_at, o.lease_expires_at, o.created_at)::timestamptz AS until FROM registry.operations o
WHERE o.tenant_id = ANY (@tenant_ids::uuid[]) AND (o.ended_at IS NULL OR o.ended_at > clock_timestamp() - interval '1 day')
UNION ALL
SELECT r.tenant_id, r.recorded_at, r.recorded_at + interval '1 hour' FROM registry.restores r
WHERE r.tenant_id = ANY (@tenant_ids::uuid[]) AND r.recorded_at > clock_timestamp() - interval '1 day';

-- name: PutReports :exec
INSERT INTO registry.set_reports (tenant_id, audit_backlog, reported_at, body)
SELECT unnest(@tenant_ids::uuid[]), unnest(@audit_backlogs::bigint[]), clock_timestamp(), unnest(@bodies::bytea[])
ON CONFLICT (tenant_id) DO UPDATE SET audit_backlog = excluded.audit_backlog, reported_at = excluded.reported_at, body = excluded.body;

-- name: PutPoints :exec
-- The first report of a minute is kept, and makes room: each point that comes in looks after those of its own tenant, so that no
-- tenant has more than a day's and nobody has to sweep. The quarter of an hour is for points that a pause in reports left over.
WITH added AS (
    INSERT INTO registry.report_points (tenant_id, minute, reported_at, body)
    SELECT unnest(@tenant_ids::uuid[]), date_trunc('minute', clock_timestamp()), clock_timestamp(), unnest(@bodies::bytea[])
    ON CONFLICT DO NOTHING RETURNING tenant_id
)
DELETE FROM registry.report_points p USING added a WHERE p.tenant_id = a.tenant_id
    AND (p.minute < clock_timestamp() - interval '24 hours 10 minutes'
        OR (p.minute < clock_timestamp() - interval '2 hours' AND p.minute >= clock_timestamp() - interval '2 hours 15 minutes'
            AND extract(minute FROM p.minute)::int % 10 <> 0));

-- name: WitnessedSizes :many
SELECT tenant_id, max(size)::bigint AS size FROM registry.checkpoints WHERE tenant_id = ANY (@tenant_ids::uuid[]) GROUP BY tenant_id;

-- name: ReportsOf :many
SELECT tenant_id, reported_at, body FROM registry.set_reports WHERE tenant_id = ANY (@tenant_ids::uuid[]) AND body IS NOT NULL;

-- name: PointsOf :many
-- From the last one before the window on, to know what had been counted when it began; and the newest report where it is in the window.
SELECT p.tenant_id, p.reported_at, p.body FROM registry.report_points p
WHERE p.tenant_id = ANY (@tenant_ids::uuid[]) AND p.reported_at <= @until::timestamptz
    AND p.minute >= coalesce((SELECT max(b.minute) FROM registry.report_points b
        WHERE b.tenant_id = p.tenant_id AND b.minute <= @since::timestamptz AND b.reported_at <= @since::timestamptz), '-infinity')
UNION ALL
SELECT s.tenant_id, s.reported_at, s.body FROM registry.set_reports s
WHERE s.tenant_id = ANY (@tenant_ids::uuid[]) AND s.reported_at <= @until::timestamptz AND s.body IS NOT NULL
ORDER BY tenant_id, reported_at;

-- name: VerifierKey :one
SELECT verifier_key FROM registry.witnessed_logs WHERE tenant_id = @tenant_id;

-- name: InsertLog :exec
INSERT INTO registry.witnessed_logs (tenant_id, verifier_key) VALUES (@tenant_id, @verifier_key);

-- name: NewestCheckpoint :one
SELECT * FROM registry.checkpoints WHERE tenant_id = @tenant_id ORDER BY size DESC LIMIT 1;

-- name: InsertCheckpoint :exec
INSERT INTO registry.checkpoints (tenant_id, size, root_hash, note, witnessed_at)
VALUES (@tenant_id, @size, @root_hash, @note, clock_timestamp());

-- name: ThinCheckpoints :exec
DELETE FROM registry.checkpoints WHERE tenant_id = @tenant_id AND size < @newest
    AND date_trunc('hour', witnessed_at, 'UTC') = date_trunc('hour', clock_timestamp(), 'UTC');

-- name: CheckpointsOf :many
SELECT DISTINCT ON (tenant_id) * FROM registry.checkpoints WHERE tenant_id = ANY (@tenant_ids::uuid[]) ORDER BY tenant_id, size DESC;

-- name: DropReports :exec
-- What a set said of itself, its use and its licence included. Whose log it was, and the checkpoints of it, stay: what its people hold can be held against them.
WITH points AS (DELETE FROM registry.report_points p WHERE p.tenant_id = @tenant_id),
    uses AS (DELETE FROM registry.usage_reports u WHERE u.tenant_id = @tenant_id),
    licences AS (DELETE FROM registry.licence_reports l WHERE l.tenant_id = @tenant_id),
    components AS (DELETE FROM registry.component_reports c WHERE c.tenant_id = @tenant_id)
DELETE FROM registry.set_reports s WHERE s.tenant_id = @tenant_id;
