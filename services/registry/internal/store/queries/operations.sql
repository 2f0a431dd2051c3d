-- name: InsertOperation :one
INSERT INTO registry.operations (id, tenant_id, kind, plan_hash, plan_target, actor, reason, release_from, release_to, state_to, rollout_id, wait_seconds)
VALUES (@id, @tenant_id, @kind, @plan_hash, @plan_target, @actor, @reason, @release_from, @release_to, @state_to, @rollout_id, @wait_seconds)
RETURNING *;

-- name: InsertSteps :exec
INSERT INTO registry.operation_steps (operation_id, position, name)
SELECT @operation_id, s.position - 1, s.name FROM unnest(@names::text[]) WITH ORDINALITY AS s (name, position);

-- name: OperationByID :one
SELECT * FROM registry.operations WHERE id = @id;

-- name: LockOperation :one
SELECT sqlc.embed(o), coalesce(o.lease_expires_at > clock_timestamp(), false)::boolean AS leased FROM registry.operations o WHERE o.id = @id FOR NO KEY UPDATE;

-- name: OperationOfPlan :one
SELECT * FROM registry.operations WHERE plan_hash = @plan_hash AND plan_target = @plan_target;

-- name: UnfinishedOperation :one
SELECT * FROM registry.operations WHERE tenant_id = @tenant_id AND state = 'unfinished';

-- name: LastOperations :many
SELECT DISTINCT ON (tenant_id) tenant_id, id AS operation_id FROM registry.operations WHERE tenant_id = ANY (@tenant_ids::uuid[]) ORDER BY tenant_id, created_at DESC;

-- name: LastOperationOfSlug :one
SELECT o.id FROM registry.operations o JOIN registry.tenants t ON t.id = o.tenant_id WHERE t.slug = @slug ORDER BY o.created_at DESC LIMIT 1;

-- name: ListOperations :many
SELECT * FROM registry.operations
WHERE id < @before
  AND (sqlc.narg(tenant)::uuid IS NULL OR tenant_id = sqlc.narg(tenant)::uuid)
  AND (NOT @unfinished::boolean OR state = 'unfinished')
  AND (@plan_hash::text = '' OR plan_hash = @plan_hash::text)
ORDER BY id DESC LIMIT @size;

-- name: StepsBetween :many
-- Steps of a page of operations, in which these are the lowest and the highest id.
SELECT s.* FROM registry.operation_steps s JOIN registry.operations o ON o.id = s.operation_id
WHERE s.operation_id >= @lowest AND s.operation_id <= @highest AND (sqlc.narg(tenant)::uuid IS NULL OR o.tenant_id = sqlc.narg(tenant)::uuid)
  AND (@plan_hash::text = '' OR o.plan_hash = @plan_hash::text)
ORDER BY s.operation_id, s.position;

-- name: TakeLease :one
UPDATE registry.operations
SET lease_holder = @holder, lease_place = @place, lease_fence = lease_fence + 1, lease_token_hash = @token_hash,
    lease_expires_at = clock_timestamp() + make_interval(secs => @lasts_seconds::float8)
WHERE id = @id RETURNING *;

-- name: RenewLease :one
UPDATE registry.operations SET lease_expires_at = clock_timestamp() + make_interval(secs => @lasts_seconds::float8) WHERE id = @id RETURNING *;

-- name: ReleaseLease :exec
UPDATE registry.operations SET lease_expires_at = clock_timestamp(), lease_token_hash = NULL WHERE id = @id;

-- name: WaitsUntil :one
-- Until when an operation waits now; no row where it waits for nothing.
SELECT (s.ended_at + make_interval(secs => o.wait_seconds))::timestamptz AS waits_until
FROM registry.operations o JOIN registry.operation_steps s ON s.operation_id = o.id AND s.name = 'export' AND s.state = 'done'
WHERE o.id = @id AND s.ended_at + make_interval(secs => o.wait_seconds) > clock_timestamp();

-- name: BeginStep :exec
UPDATE registry.operation_steps SET state = 'begun', attempts = attempts + 1, fence = @fence, begun_at = clock_timestamp(), ended_at = NULL, detail = @detail
WHERE operation_id = @operation_id AND name = @name;

-- name: EndStep :exec
UPDATE registry.operation_steps SET state = @state, ended_at = clock_timestamp(), detail = @detail WHERE operation_id = @operation_id AND name = @name;

-- name: EndOperation :one
UPDATE registry.operations
SET state = @state, ended_at = clock_timestamp(), aborted_by = @aborted_by, abort_reason = @abort_reason, lease_expires_at = NULL
WHERE id = @id RETURNING *;

-- name: SetRelease :exec
UPDATE registry.service_sets SET release = @release, updated_at = now() WHERE tenant_id = @tenant_id AND release <> @release;

-- name: NotifyChange :exec
SELECT pg_notify('registry_changes', @what::text);
