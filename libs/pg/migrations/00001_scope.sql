-- +goose Up
-- What every schema of a set rests on: the function that policies call, and the keys that make deeds happen once.

-- +goose StatementBegin
CREATE FUNCTION a3.current_workspace() RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    w text := current_setting('a3.workspace_id', true);
BEGIN
    -- set_config(…, true) leaves '' behind after its transaction, which must not read as "no rows".
    IF w IS NULL OR w = '' THEN
        RAISE EXCEPTION 'no workspace is set in this transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN w::uuid;
END
$$;
-- +goose StatementEnd

CREATE TABLE a3.idempotency_keys (
    service        name        NOT NULL DEFAULT current_user,
    principal      text        NOT NULL,
    workspace      text        NOT NULL,
    method         text        NOT NULL,
    key            text        NOT NULL,
    request_digest bytea       NOT NULL,
    response       bytea,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, principal, workspace, method, key)
);
CREATE INDEX idempotency_keys_created_at ON a3.idempotency_keys (created_at);
ALTER TABLE a3.idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE a3.idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_service ON a3.idempotency_keys USING (service = current_user) WITH CHECK (service = current_user);

GRANT USAGE ON SCHEMA a3 TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant,
    role_discovery, role_discovery_tenant, role_audit;
GRANT SELECT, INSERT, DELETE, UPDATE (response) ON a3.idempotency_keys TO role_iam, role_iam_tenant, role_integrations,
    role_integrations_tenant, role_discovery, role_discovery_tenant;
REVOKE ALL ON FUNCTION a3.current_workspace() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION a3.current_workspace() TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant,
    role_discovery, role_discovery_tenant, role_audit;
