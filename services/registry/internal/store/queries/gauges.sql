-- name: FleetNow :many
-- All that figures of the fleet are made of, but for tenants that are gone.
SELECT t.id, t.slug, t.state, t.isolation_tier, t.created_at, coalesce(t.labels->>'ring', '')::text AS ring, coalesce(s.release, '')::text AS release,
    (SELECT count(*) FROM registry.components c WHERE c.tenant_id = t.id) AS components, r.reported_at, r.body
FROM registry.tenants t
LEFT JOIN registry.service_sets s ON s.tenant_id = t.id
LEFT JOIN registry.set_reports r ON r.tenant_id = t.id
WHERE t.state <> 'offboarded' ORDER BY t.id;

-- name: UnfinishedOperations :many
SELECT kind, (lease_expires_at IS NULL OR lease_expires_at < clock_timestamp())::bool AS abandoned, count(*) AS operations
FROM registry.operations WHERE state = 'unfinished' GROUP BY 1, 2;
