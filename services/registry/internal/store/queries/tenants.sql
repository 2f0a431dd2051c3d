-- name: InsertTenant :one
INSERT INTO registry.tenants (id, slug, display_name, isolation_tier, region)
VALUES (@id, @slug, @display_name, @isolation_tier, @region)
RETURNING *;

-- name: TakeSlug :execrows
INSERT INTO registry.slugs (slug, tenant_id) VALUES (@slug, @tenant_id)
ON CONFLICT (slug) DO UPDATE SET tenant_id = excluded.tenant_id, freed_at = NULL
WHERE registry.slugs.freed_at < clock_timestamp() - make_interval(secs => @quarantine_seconds::float8);

-- name: FreeSlug :exec
UPDATE registry.slugs SET freed_at = clock_timestamp() WHERE tenant_id = @tenant_id AND freed_at IS NULL;

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
