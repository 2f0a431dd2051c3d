-- +goose Up

CREATE TABLE integrations.integrations (
    workspace_id    uuid        NOT NULL,
    id              uuid        NOT NULL,
    name            text        NOT NULL,
    connector       text        NOT NULL CHECK (connector IN ('postgres', 'unix', 'csv')),
    -- Serialized integrations.v1.Settings; it has no place for a secret.
    settings        bytea       NOT NULL,
    has_secret      boolean     NOT NULL DEFAULT false,
    content_size    bigint      NOT NULL DEFAULT 0,
    schedule        interval    CHECK (schedule >= interval '5 minutes' AND schedule <= interval '31 days'),
    next_due_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    version         bigint      NOT NULL DEFAULT 1,
    last_run_id     uuid,
    last_run_state  text        NOT NULL DEFAULT '',
    last_run_at     timestamptz,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, name)
);
CREATE INDEX integrations_due ON integrations.integrations (next_due_at) WHERE next_due_at IS NOT NULL;

ALTER TABLE integrations.integrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE integrations.integrations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON integrations.integrations TO role_integrations
    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
-- What is due is asked over all workspaces; the scheduler learns ids and times and nothing else.
CREATE POLICY due_read ON integrations.integrations FOR SELECT TO role_integrations_tenant USING (next_due_at IS NOT NULL);
CREATE POLICY due_move ON integrations.integrations FOR UPDATE TO role_integrations_tenant USING (next_due_at IS NOT NULL) WITH CHECK (true);

GRANT USAGE ON SCHEMA integrations TO role_integrations, role_integrations_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON integrations.integrations TO role_integrations;
GRANT SELECT (workspace_id, id, schedule, next_due_at), UPDATE (next_due_at) ON integrations.integrations TO role_integrations_tenant;
