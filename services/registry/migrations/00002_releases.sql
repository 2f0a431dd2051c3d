-- +goose Up
-- Releases: what was signed, as it was signed. They are never changed and never removed; a set somewhere may run one.

CREATE TABLE registry.releases (
    -- version@sha256:…
    name          text        PRIMARY KEY,
    version       text        NOT NULL,
    -- The manifest's signed bytes, and the envelope around them.
    payload       bytea       NOT NULL,
    envelope      bytea       NOT NULL,
    key_ids       text[]      NOT NULL,
    actor         text        NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE
);
-- A version names one release, but for what was built and never released.
CREATE UNIQUE INDEX releases_version ON registry.releases (version) WHERE version <> '0.0.0-dev';

GRANT SELECT, INSERT ON registry.releases TO role_registry;
