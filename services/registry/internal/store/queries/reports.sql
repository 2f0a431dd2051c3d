-- name: PutSetReport :exec
INSERT INTO registry.set_reports (tenant_id, audit_backlog, reported_at) VALUES (@tenant_id, @audit_backlog, clock_timestamp())
ON CONFLICT (tenant_id) DO UPDATE SET audit_backlog = excluded.audit_backlog, reported_at = excluded.reported_at;

-- name: PutComponentReports :exec
INSERT INTO registry.component_reports (tenant_id, name, health, release, started_at, reported_at)
SELECT @tenant_id, unnest(@names::text[]), unnest(@healths::text[]), unnest(@releases::text[]), nullif(unnest(@started_ats::timestamptz[]), '0001-01-01T00:00:00Z'), clock_timestamp()
ON CONFLICT (tenant_id, name) DO UPDATE
    SET health = excluded.health, release = excluded.release, started_at = excluded.started_at, reported_at = excluded.reported_at;

-- name: DropOtherComponentReports :exec
DELETE FROM registry.component_reports WHERE tenant_id = @tenant_id AND NOT name = ANY (@names::text[]);

-- name: ReportsOf :many
SELECT * FROM registry.component_reports WHERE tenant_id = ANY (@tenant_ids::uuid[]) ORDER BY tenant_id, name;

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
WITH components AS (DELETE FROM registry.component_reports c WHERE c.tenant_id = @tenant_id)
DELETE FROM registry.set_reports s WHERE s.tenant_id = @tenant_id;
