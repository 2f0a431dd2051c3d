-- +goose Up
-- What the control plane knows: which tenants there are, where their sets are, and how they say they are. No product data.
-- Tables have no workspace and no row-level security: they hold metadata of all tenants, and only `registry` may log in here.

CREATE TABLE registry.tenants (
    id             uuid        PRIMARY KEY,
    slug           text        NOT NULL CHECK (slug ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'),
    display_name   text        NOT NULL,
    state          text        NOT NULL DEFAULT 'provisioning' CHECK (state IN ('provisioning', 'active', 'suspended', 'offboarded')),
    isolation_tier text        NOT NULL CHECK (isolation_tier IN ('dedicated', 'database')),
    region         text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tenants_slug ON registry.tenants (slug);

-- Whose a slug is. A freed one stays with its last tenant for the quarantine, so that old cookies and bookmarks lead nowhere.
CREATE TABLE registry.slugs (
    slug      text        PRIMARY KEY,
    tenant_id uuid        NOT NULL REFERENCES registry.tenants,
    freed_at  timestamptz
);

CREATE TABLE registry.service_sets (
    tenant_id           uuid        PRIMARY KEY REFERENCES registry.tenants,
    ca_certificates_pem text        NOT NULL,
    release             text        NOT NULL,
    updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE registry.components (
    tenant_id     uuid     NOT NULL REFERENCES registry.service_sets ON DELETE CASCADE,
    name          text     NOT NULL,
    position      smallint NOT NULL,
    address       text     NOT NULL,
    path_prefixes text[]   NOT NULL,
    PRIMARY KEY (tenant_id, name),
    -- Addresses are stored in one spelling, so that this constraint is what keeps two sets from one address.
    CONSTRAINT components_address UNIQUE (address)
);

-- What a set said last; reported_at is the registry's clock.
CREATE TABLE registry.set_reports (
    tenant_id     uuid        PRIMARY KEY REFERENCES registry.tenants,
    audit_backlog bigint      NOT NULL,
    reported_at   timestamptz NOT NULL
);
CREATE TABLE registry.component_reports (
    tenant_id   uuid        NOT NULL REFERENCES registry.tenants,
    name        text        NOT NULL,
    health      text        NOT NULL CHECK (health IN ('unspecified', 'serving', 'not_serving', 'unreachable')),
    release     text        NOT NULL,
    started_at  timestamptz,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- The witness: the key that a tenant's log was first seen with, and the checkpoints held (the newest, and the last of each hour).
CREATE TABLE registry.witnessed_logs (
    tenant_id    uuid PRIMARY KEY REFERENCES registry.tenants,
    verifier_key text NOT NULL
);
CREATE TABLE registry.checkpoints (
    tenant_id    uuid        NOT NULL REFERENCES registry.witnessed_logs,
    size         bigint      NOT NULL CHECK (size >= 0),
    root_hash    bytea       NOT NULL CHECK (length(root_hash) = 32),
    note         text        NOT NULL,
    witnessed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, size)
);

-- The version of what gateways route by. One row, whose lock puts changes into one order.
CREATE TABLE registry.snapshots (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    version    bigint      NOT NULL,
    changed_at timestamptz NOT NULL
);
INSERT INTO registry.snapshots (version, changed_at)
    VALUES ((extract(epoch FROM clock_timestamp()) * 1000)::bigint, clock_timestamp());

-- First results of creating calls.
CREATE TABLE registry.idempotency_keys (
    actor          text        NOT NULL,
    method         text        NOT NULL,
    key            text        NOT NULL,
    request_digest bytea       NOT NULL,
    response       bytea,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, method, key)
);
CREATE INDEX idempotency_keys_created_at ON registry.idempotency_keys (created_at);

-- What was changed, by whom. It commits with the change, and the service can only add to it.
CREATE TABLE registry.operations_log (
    id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor  text        NOT NULL,
    action text        NOT NULL,
    target text        NOT NULL,
    detail text        NOT NULL DEFAULT ''
);
CREATE INDEX operations_log_target ON registry.operations_log (target, id);

GRANT USAGE ON SCHEMA registry TO role_registry;
-- Tenants and slugs are never deleted: an id is never used twice.
GRANT SELECT, INSERT, UPDATE (state) ON registry.tenants TO role_registry;
GRANT SELECT, INSERT, UPDATE (tenant_id, freed_at) ON registry.slugs TO role_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.service_sets, registry.components TO role_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON registry.set_reports, registry.component_reports TO role_registry;
GRANT SELECT, INSERT ON registry.witnessed_logs TO role_registry;
GRANT SELECT, INSERT, DELETE ON registry.checkpoints TO role_registry;
GRANT SELECT, UPDATE (version, changed_at) ON registry.snapshots TO role_registry;
GRANT SELECT, INSERT, DELETE, UPDATE (response) ON registry.idempotency_keys TO role_registry;
GRANT SELECT, INSERT (actor, action, target, detail) ON registry.operations_log TO role_registry;
