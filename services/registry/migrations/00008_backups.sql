-- +goose Up
-- Which backups were made, and whether each could be restored. One without a name is an attempt that came to nothing.
SET LOCAL lock_timeout = '5s';

CREATE TABLE registry.backups (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- NULL for the plane's own registry.
    tenant_id       uuid        REFERENCES registry.tenants,
    name            text,
    taken_at        timestamptz NOT NULL,
    size_bytes      bigint      NOT NULL CHECK (size_bytes >= 0),
    release         text        NOT NULL,
    took_ms         bigint      NOT NULL,
    verified_at     timestamptz,
    restore_took_ms bigint      NOT NULL,
    failure         text        NOT NULL,
    CONSTRAINT backups_name UNIQUE NULLS DISTINCT (name)
);
CREATE INDEX backups_newest ON registry.backups (tenant_id, taken_at DESC);

-- What was restored, and what the witness held of the log until then. Nothing of it is deleted.
CREATE TABLE registry.restores (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id         uuid        NOT NULL REFERENCES registry.tenants,
    backup            text        NOT NULL,
    taken_at          timestamptz NOT NULL,
    actor             text        NOT NULL,
    reason            text        NOT NULL,
    -- Size of the log that was restored, and the newest checkpoint that the witness held before.
    size              bigint      NOT NULL CHECK (size >= 0),
    witnessed_size    bigint      NOT NULL CHECK (witnessed_size >= 0),
    witnessed_note    text        NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT, DELETE, UPDATE (verified_at, restore_took_ms, failure) ON registry.backups TO role_registry;
GRANT SELECT, INSERT ON registry.restores TO role_registry;
