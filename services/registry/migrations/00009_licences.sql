-- +goose Up
-- Licences as they were signed, what sets say of the one they hold, and what they say of its use: numbers, never what was counted.

CREATE TABLE registry.licences (
    tenant_id uuid        NOT NULL REFERENCES registry.tenants,
    serial    bigint      NOT NULL CHECK (serial > 0),
    file      bytea       NOT NULL CHECK (octet_length(file) BETWEEN 1 AND 65536),
    actor     text        NOT NULL,
    reason    text        NOT NULL,
    put_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, serial)
);

-- Written when it changes and not with each report.
CREATE TABLE registry.licence_reports (
    tenant_id    uuid        PRIMARY KEY REFERENCES registry.tenants,
    serial       bigint      NOT NULL,
    state        text        NOT NULL,
    valid_until  timestamptz,
    clock_behind boolean     NOT NULL,
    refused      text        NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE registry.usage_reports (
    tenant_id uuid        NOT NULL REFERENCES registry.tenants,
    until     timestamptz NOT NULL,
    note      text        NOT NULL,
    heard_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, until)
);

GRANT SELECT, INSERT ON registry.licences, registry.usage_reports TO role_registry;
GRANT SELECT, INSERT, UPDATE ON registry.licence_reports TO role_registry;
