-- name: FleetNow :many
-- All that figures of the fleet are made of, but for tenants that are gone.
SELECT t.id, t.slug, t.state, t.isolation_tier, t.created_at, coalesce(t.labels->>'ring', '')::text AS ring, coalesce(s.release, '')::text AS release,
    ARRAY(SELECT c.name FROM registry.components c WHERE c.tenant_id = t.id)::text[] AS components, r.reported_at, r.body,
    coalesce(l.state, '')::text AS licence, (coalesce(l.refused, '') <> '')::bool AS licence_refused, coalesce(l.clock_behind, false)::bool AS clock_behind,
    coalesce((SELECT g.taken_at FROM registry.backups g WHERE g.tenant_id = t.id AND g.verified_at IS NOT NULL AND g.taken_at < now() + interval '10 minutes' ORDER BY g.taken_at DESC LIMIT 1), t.created_at)::timestamptz AS backed_up_at,
    coalesce((SELECT n.failure <> '' FROM registry.backups n WHERE n.tenant_id = t.id AND n.taken_at < now() + interval '10 minutes' ORDER BY n.taken_at DESC, n.id DESC LIMIT 1), false)::bool AS backup_failed
FROM registry.tenants t
LEFT JOIN registry.service_sets s ON s.tenant_id = t.id
LEFT JOIN registry.set_reports r ON r.tenant_id = t.id
LEFT JOIN registry.licence_reports l ON l.tenant_id = t.id
WHERE t.state <> 'offboarded' ORDER BY t.id;

-- name: UnfinishedOperations :many
-- One that waits, as its plan has it wait, is not abandoned.
SELECT o.kind, ((o.lease_expires_at IS NULL OR o.lease_expires_at < clock_timestamp()) AND NOT EXISTS (
        SELECT FROM registry.operation_steps s WHERE s.operation_id = o.id AND s.name = 'export' AND s.state = 'done'
            AND s.ended_at + make_interval(secs => o.wait_seconds) > clock_timestamp()))::bool AS abandoned, count(*) AS operations
FROM registry.operations o WHERE o.state = 'unfinished' GROUP BY 1, 2;

-- name: OwnBackupsNow :one
-- The same of the registry itself, which has something to lose since the first tenant was made.
SELECT coalesce((SELECT g.taken_at FROM registry.backups g WHERE g.tenant_id IS NULL AND g.verified_at IS NOT NULL AND g.taken_at < now() + interval '10 minutes' ORDER BY g.taken_at DESC LIMIT 1),
        (SELECT min(t.created_at) FROM registry.tenants t), clock_timestamp())::timestamptz AS backed_up_at,
    coalesce((SELECT n.failure <> '' FROM registry.backups n WHERE n.tenant_id IS NULL AND n.taken_at < now() + interval '10 minutes' ORDER BY n.taken_at DESC, n.id DESC LIMIT 1), false)::bool AS backup_failed;
