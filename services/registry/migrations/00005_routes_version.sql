-- +goose Up
-- accepted index-holds-writers: of a table with a row a tenant
-- The version of the snapshot with which a tenant's routes changed last, so that a registry reads what changed and not what there is.
ALTER TABLE registry.tenants ADD COLUMN routes_version bigint NOT NULL DEFAULT 0;
CREATE INDEX tenants_routes_version ON registry.tenants (routes_version);
GRANT UPDATE (routes_version) ON registry.tenants TO role_registry;
