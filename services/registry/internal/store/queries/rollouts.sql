-- name: InsertRollout :execrows
INSERT INTO registry.rollouts (id, begun_by, plan_hash, release, policy, actor, reason)
VALUES (@id, @plan_hash, @plan_hash, @release, @policy, @actor, @reason)
ON CONFLICT (begun_by) DO NOTHING;

-- name: RolloutOfPlan :one
SELECT id FROM registry.rollouts WHERE begun_by = @plan_hash;

-- name: InsertRolloutTenant :exec
INSERT INTO registry.rollout_tenants (rollout_id, tenant_id, wave, position, release_from)
VALUES (@rollout_id, @tenant_id, @wave, @position, @release_from);

-- name: RolloutByID :one
SELECT * FROM registry.rollouts WHERE id = @id;

-- name: LockRollout :one
SELECT sqlc.embed(r), coalesce(r.lease_expires_at > clock_timestamp(), false)::boolean AS leased, clock_timestamp()::timestamptz AS now
FROM registry.rollouts r WHERE r.id = @id FOR NO KEY UPDATE;

-- name: RolloutTenants :many
SELECT sqlc.embed(t), n.slug FROM registry.rollout_tenants t JOIN registry.tenants n ON n.id = t.tenant_id
WHERE t.rollout_id = @rollout_id ORDER BY t.wave, t.position;

-- name: ListRollouts :many
SELECT * FROM registry.rollouts WHERE id < @before ORDER BY id DESC LIMIT @size;

-- name: SetRolloutState :exec
UPDATE registry.rollouts SET state = @state, detail = @detail, waits_for = '',
    ended_at = CASE WHEN @state::text IN ('succeeded', 'aborted') THEN clock_timestamp() END
WHERE id = @id;

-- name: CloseRolloutTenants :exec
UPDATE registry.rollout_tenants SET open = false WHERE rollout_id = @rollout_id;

-- name: MoveRolloutTenant :exec
UPDATE registry.rollout_tenants
SET state = @state, detail = @detail, samples = @samples, probes = @probes,
    operation_id = CASE WHEN @with_operation::boolean THEN @operation_id ELSE operation_id END,
    since = CASE WHEN state = @state THEN since ELSE clock_timestamp() END,
    changed_at = CASE WHEN @state::text IN ('changing', 'rolling_back') AND state <> @state THEN clock_timestamp() ELSE changed_at END,
    first_changed_at = CASE WHEN @state::text = 'changing' THEN coalesce(first_changed_at, clock_timestamp()) ELSE first_changed_at END,
    attempts = attempts + CASE WHEN @state::text = 'changing' AND state <> @state THEN 1 ELSE 0 END
WHERE rollout_id = @rollout_id AND tenant_id = @tenant_id;

-- name: BeginRolloutPart :exec
UPDATE registry.rollout_tenants SET operation_id = @operation_id WHERE rollout_id = @rollout_id AND tenant_id = @tenant_id;

-- name: RetryRolloutTenants :execrows
-- Those that failed or went back are as if they had not been begun.
UPDATE registry.rollout_tenants SET state = 'pending', since = clock_timestamp(), detail = '', samples = 0, probes = 0, operation_id = NULL
WHERE rollout_id = @rollout_id AND state IN ('failed', 'rolled_back');

-- name: SkipRolloutTenant :exec
UPDATE registry.rollout_tenants SET state = 'skipped', since = clock_timestamp(), detail = @detail WHERE rollout_id = @rollout_id AND tenant_id = @tenant_id;

-- name: RetargetRollout :exec
UPDATE registry.rollouts SET plan_hash = @plan_hash, release = @release, policy = @policy, state = 'paused', detail = @detail, waits_for = '' WHERE id = @id;

-- name: RetargetRolloutTenant :execrows
UPDATE registry.rollout_tenants
SET wave = @wave, position = @position, release_from = @release_from, state = 'pending', since = clock_timestamp(), detail = '', samples = 0, probes = 0,
    operation_id = NULL
WHERE rollout_id = @rollout_id AND tenant_id = @tenant_id;

-- name: TakeRolloutLease :exec
UPDATE registry.rollouts
SET lease_holder = @holder, lease_place = @place, lease_fence = lease_fence + 1, lease_token_hash = @token_hash,
    lease_expires_at = clock_timestamp() + make_interval(secs => @lasts_seconds::float8)
WHERE id = @id;

-- name: RenewRolloutLease :exec
UPDATE registry.rollouts SET lease_expires_at = clock_timestamp() + make_interval(secs => @lasts_seconds::float8), waits_for = @waits_for WHERE id = @id;

-- name: ReleaseRolloutLease :exec
UPDATE registry.rollouts SET lease_expires_at = clock_timestamp(), lease_token_hash = NULL WHERE id = @id;

-- name: AppendRolloutEvent :exec
INSERT INTO registry.rollout_events (rollout_id, tenant_id, actor, action, reason) VALUES (@rollout_id, @tenant_id, @actor, @action, @reason);

-- name: RolloutEvents :many
SELECT * FROM (SELECT * FROM registry.rollout_events WHERE rollout_id = @rollout_id ORDER BY id DESC LIMIT @most) newest ORDER BY id;
