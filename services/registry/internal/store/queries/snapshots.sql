-- name: BumpSnapshot :one
-- The version is at least the time in milliseconds, so that a registry restored from a backup goes on above what gateways hold.
UPDATE registry.snapshots
SET version = greatest(version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), changed_at = clock_timestamp()
RETURNING version;

-- name: NotifySnapshot :exec
SELECT pg_notify('registry_snapshot', @version::text);

-- name: SnapshotVersion :one
SELECT version, changed_at FROM registry.snapshots;

-- name: MarkRoutesChanged :exec
UPDATE registry.tenants SET routes_version = @version WHERE id = @id;

-- name: ChangedSets :many
-- Tenants whose routes changed after a version. Without an authority is who has no set, or left.
SELECT t.id, t.slug, t.state, s.ca_certificates_pem, s.reporter
FROM registry.tenants t LEFT JOIN registry.service_sets s ON s.tenant_id = t.id AND t.state <> 'offboarded'
WHERE t.routes_version > @since ORDER BY t.id;
