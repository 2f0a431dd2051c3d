-- name: PutSet :exec
INSERT INTO registry.service_sets (tenant_id, ca_certificates_pem, release) VALUES (@tenant_id, @ca_certificates_pem, @release)
ON CONFLICT (tenant_id) DO UPDATE SET ca_certificates_pem = excluded.ca_certificates_pem, release = excluded.release, updated_at = now();

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
