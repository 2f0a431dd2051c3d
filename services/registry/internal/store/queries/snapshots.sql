-- name: BumpSnapshot :one
-- The version is at least the time in milliseconds, so that a registry restored from a backup goes on above what gateways hold.
UPDATE registry.snapshots
SET version = greatest(version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), changed_at = clock_timestamp()
RETURNING version;

-- name: NotifySnapshot :exec
SELECT pg_notify('registry_snapshot', @version::text);

-- name: SnapshotVersion :one
SELECT version, changed_at FROM registry.snapshots;

-- name: KnownSets :many
SELECT t.id, t.slug, t.state, s.ca_certificates_pem
FROM registry.tenants t JOIN registry.service_sets s ON s.tenant_id = t.id
WHERE t.state <> 'offboarded' ORDER BY t.id;

-- name: ActiveComponents :many
SELECT c.* FROM registry.components c JOIN registry.tenants t ON t.id = c.tenant_id
WHERE t.state = 'active' ORDER BY c.tenant_id, c.position;
