-- +goose Up
-- The licence that a set has for later: the next one is issued beyond it, also where the registry, restored from a backup, doesn't know of it.
SET LOCAL lock_timeout = '5s';

ALTER TABLE registry.licence_reports ADD COLUMN next_serial bigint NOT NULL DEFAULT 0;

-- What a set said of its licence and of its use goes with its tenant, as its other reports do.
GRANT DELETE ON registry.licence_reports, registry.usage_reports TO role_registry;
