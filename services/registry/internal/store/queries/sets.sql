-- name: PutSet :exec
INSERT INTO registry.service_sets (tenant_id, ca_certificates_pem, release, reporter, database_server, database_name)
VALUES (@tenant_id, @ca_certificates_pem, @release, @reporter, sqlc.narg(database_server), sqlc.narg(database_name))
ON CONFLICT (tenant_id) DO UPDATE SET ca_certificates_pem = excluded.ca_certificates_pem, release = excluded.release, reporter = excluded.reporter,
    database_server = excluded.database_server, database_name = excluded.database_name, updated_at = now();

-- name: LockServer :exec
-- Who puts a database on a server waits for who does so at the same time.
SELECT pg_advisory_xact_lock(hashtextextended(@server::text, 1));

-- name: OthersOnServer :many
SELECT t.slug, t.isolation_tier FROM registry.service_sets s JOIN registry.tenants t ON t.id = s.tenant_id
WHERE s.database_server = @server::text AND s.tenant_id <> @tenant_id LIMIT 100;

-- name: DeleteSet :exec
DELETE FROM registry.service_sets WHERE tenant_id = @tenant_id;

-- name: DeleteComponents :exec
DELETE FROM registry.components WHERE tenant_id = @tenant_id;

-- name: InsertComponent :exec
INSERT INTO registry.components (tenant_id, name, position, address, path_prefixes)
VALUES (@tenant_id, @name, @position, @address, @path_prefixes);

-- name: SetsOf :many
SELECT * FROM registry.service_sets WHERE tenant_id = ANY (@tenant_ids::uuid[]);

-- name: ComponentsOf :many
SELECT * FROM registry.components WHERE tenant_id = ANY (@tenant_ids::uuid[]) ORDER BY tenant_id, position;
