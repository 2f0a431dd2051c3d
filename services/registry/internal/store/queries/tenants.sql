-- name: InsertTenant :one
INSERT INTO registry.tenants (id, slug, display_name, isolation_tier, region, labels, account, copy_of)
VALUES (@id, @slug, @display_name, @isolation_tier, @region, @labels, @account, @copy_of)
RETURNING *;

-- name: TakeSlug :execrows
INSERT INTO registry.slugs (slug, tenant_id) VALUES (@slug, @tenant_id)
ON CONFLICT (slug) DO UPDATE SET tenant_id = excluded.tenant_id, freed_at = NULL
WHERE registry.slugs.freed_at < clock_timestamp() - make_interval(secs => @quarantine_seconds::float8);

-- name: LockSlugs :exec
-- One tenant is made at a time: whether a slug reads like another is looked at before it is taken.
SELECT pg_advisory_xact_lock(hashtextextended('registry.slugs', 0));

-- name: LookAlike :one
SELECT slug FROM registry.slugs
WHERE slug <> @slug AND (freed_at IS NULL OR freed_at >= clock_timestamp() - make_interval(secs => @quarantine_seconds::float8))
  AND (registry.slug_reading(slug, 'i') = registry.slug_reading(@slug, 'i') OR registry.slug_reading(slug, 'di') = registry.slug_reading(@slug, 'di'))
LIMIT 1;

-- name: FreeSlug :exec
UPDATE registry.slugs SET freed_at = clock_timestamp() WHERE tenant_id = @tenant_id AND freed_at IS NULL;

-- name: SlugOfAccount :one
SELECT slug FROM registry.tenants WHERE account = @account AND account <> '' AND state <> 'offboarded';

-- name: TenantByID :one
SELECT * FROM registry.tenants WHERE id = @id;

-- name: TenantBySlug :one
SELECT t.* FROM registry.tenants t JOIN registry.slugs s ON s.tenant_id = t.id AND s.slug = t.slug WHERE s.slug = @slug;

-- name: LockTenant :one
SELECT * FROM registry.tenants WHERE id = @id FOR NO KEY UPDATE;

-- name: ListTenants :many
SELECT * FROM registry.tenants WHERE sqlc.narg(after)::uuid IS NULL OR id > sqlc.narg(after)::uuid ORDER BY id LIMIT @size;

-- name: SetTenantState :one
UPDATE registry.tenants SET state = @state WHERE id = @id RETURNING *;

-- name: SetTenantLabels :one
UPDATE registry.tenants SET labels = @labels WHERE id = @id RETURNING *;

-- name: TenantsByID :many
SELECT * FROM registry.tenants WHERE id = ANY (@ids::uuid[]) ORDER BY id;

-- name: SlugHeld :one
-- Whether a slug is somebody's, or is still in its quarantine.
SELECT EXISTS (SELECT FROM registry.slugs WHERE slug = @slug
    AND (freed_at IS NULL OR freed_at >= clock_timestamp() - make_interval(secs => @quarantine_seconds::float8)))::boolean AS held;
