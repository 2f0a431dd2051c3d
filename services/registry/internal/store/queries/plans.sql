-- name: InsertPlan :execrows
INSERT INTO registry.plans (hash, document, actor, expires_at)
VALUES (@hash, @document, @actor, clock_timestamp() + make_interval(secs => @lasts_seconds::float8))
ON CONFLICT DO NOTHING;

-- name: RenewPlan :execrows
-- A plan that expired, or whose restore was carried out, and is made again is a new one: whoever makes it now is its maker, and earlier approvals
-- are of the earlier one.
UPDATE registry.plans SET actor = @actor, created_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => @lasts_seconds::float8)
WHERE hash = @hash AND (expires_at < clock_timestamp()
    OR EXISTS (SELECT FROM registry.planned_restores r WHERE r.plan_hash = @hash AND r.begun_at >= plans.created_at AND r.recorded_at IS NOT NULL));

-- name: LockPlan :one
SELECT sqlc.embed(p), (p.expires_at < clock_timestamp())::boolean AS expired FROM registry.plans p WHERE p.hash = @hash FOR NO KEY UPDATE;

-- name: PlansByPrefix :many
SELECT * FROM registry.plans WHERE starts_with(hash, @prefix::text) ORDER BY hash LIMIT 2;

-- name: ListPlans :many
SELECT * FROM registry.plans
WHERE expires_at >= clock_timestamp()
  AND (sqlc.narg(before_time)::timestamptz IS NULL OR (created_at, hash) < (sqlc.narg(before_time)::timestamptz, @before_hash::text))
ORDER BY created_at DESC, hash DESC LIMIT @size;

-- name: CarriedOut :many
-- How many operations of each plan have ended, or whether its restore is on record, and whether a rollout that it began has ended.
SELECT p.hash, ((SELECT count(*) FROM registry.operations o WHERE o.plan_hash = p.hash AND o.state <> 'unfinished')
           + (SELECT count(*) FROM registry.planned_restores r WHERE r.plan_hash = p.hash AND r.begun_at >= p.created_at AND r.recorded_at IS NOT NULL))::bigint AS ended,
       EXISTS (SELECT FROM registry.rollouts r WHERE r.begun_by = p.hash AND r.ended_at IS NOT NULL) AS rolled_out
FROM registry.plans p WHERE p.hash = ANY (@hashes::text[]);

-- name: ApprovalsOf :many
-- Approvals of the plan as it was made last, each with the record that it was given by, where there is one.
SELECT sqlc.embed(a), coalesce(o.key_fingerprint, '') AS key_fingerprint, o.removed_at
FROM registry.plan_approvals a
JOIN registry.plans p ON p.hash = a.plan_hash
LEFT JOIN registry.operators o ON o.id = a.operator_id
WHERE a.plan_hash = ANY (@hashes::text[]) AND a.approved_at >= p.created_at ORDER BY a.plan_hash, a.approved_at;

-- name: Approve :exec
-- An approval stands as it was given, but for one of an earlier making of the plan, or by an earlier record of the operator.
INSERT INTO registry.plan_approvals (plan_hash, actor, reason, operator_id) VALUES (@plan_hash, @actor, @reason, sqlc.narg(operator_id))
ON CONFLICT (plan_hash, actor) DO UPDATE SET reason = excluded.reason, approved_at = clock_timestamp(), operator_id = excluded.operator_id
WHERE registry.plan_approvals.approved_at < (SELECT created_at FROM registry.plans WHERE hash = @plan_hash)
   OR registry.plan_approvals.operator_id IS DISTINCT FROM excluded.operator_id;
