-- +goose Up
-- Who operates the plane. A name that was removed may come again, as another record: what was approved under the earlier one stays that one's.
SET LOCAL lock_timeout = '5s';

CREATE TABLE registry.operators (
    -- Of the record, and not of who is on it; later ones are larger.
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,21}[a-z0-9])?$'),
    -- SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal; empty where the plane's machine holds the key.
    key_fingerprint text        NOT NULL CHECK (key_fingerprint ~ '^([0-9a-f]{64})?$'),
    added_by        text        NOT NULL,
    added_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason          text        NOT NULL,
    -- Empty where it took nobody's word; confirmed_at is NULL while another operator's is waited for.
    confirmed_by    text        NOT NULL DEFAULT '',
    confirmed_at    timestamptz,
    removed_by      text        NOT NULL DEFAULT '',
    removed_at      timestamptz,
    removal_reason  text        NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX operators_present ON registry.operators (name) WHERE removed_at IS NULL;
-- Two names of one key would be one person who counts as two.
CREATE UNIQUE INDEX operators_present_key ON registry.operators (key_fingerprint) WHERE removed_at IS NULL AND key_fingerprint <> '';

-- By what record an approval was given; NULL for one of the plane's first operator, and of before there were records.
-- accepted new-constraint: the column is new and empty, and the release before writes none of it.
ALTER TABLE registry.plan_approvals ADD COLUMN operator_id bigint REFERENCES registry.operators;

-- Who was an operator stays on record, with the key: nothing is deleted.
GRANT SELECT, INSERT, UPDATE (confirmed_by, confirmed_at, removed_by, removed_at, removal_reason) ON registry.operators TO role_registry;
GRANT UPDATE (operator_id) ON registry.plan_approvals TO role_registry;
