-- +goose Up
-- What the tenant has licensed, and the newest time that the set has seen. `audit` takes licences from the control plane; whoever
-- enforces one reads it here and verifies it by itself, so that a row which somebody else wrote is worth nothing.

-- Every licence that was taken, so that one which is damaged leaves the one before.
CREATE TABLE audit.licences (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    serial       bigint      NOT NULL CHECK (serial > 0),
    file         bytea       NOT NULL CHECK (octet_length(file) BETWEEN 1 AND 65536),
    installed_at timestamptz NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.licences FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
ALTER TABLE audit.licences ENABLE ALWAYS TRIGGER append_only;

CREATE TABLE audit.licence_watch (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The newest time that was seen; a licence is judged by it where the clock is behind it.
    seen_at     timestamptz NOT NULL DEFAULT to_timestamp(0),
    -- What went on the record last.
    told_state  text        NOT NULL DEFAULT '',
    told_behind boolean     NOT NULL DEFAULT false,
    told_refusal bytea      NOT NULL DEFAULT '',
    -- The last report of use, and when it was made.
    usage_note  text        NOT NULL DEFAULT '',
    usage_at    timestamptz
);
INSERT INTO audit.licence_watch DEFAULT VALUES;

GRANT SELECT ON audit.licences TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant, role_discovery,
    role_discovery_tenant, role_audit;
GRANT SELECT (only_row, seen_at) ON audit.licence_watch TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant,
    role_discovery, role_discovery_tenant;
GRANT INSERT (serial, file, installed_at) ON audit.licences TO role_audit;
GRANT SELECT, UPDATE (seen_at, told_state, told_behind, told_refusal, usage_note, usage_at) ON audit.licence_watch TO role_audit;
