-- +goose Up

-- Integrations that were removed: what they showed was closed at that moment, and answers no longer wait for their runs.
CREATE TABLE discovery.retired_integrations (
    workspace_id   uuid        NOT NULL,
    integration_id uuid        NOT NULL,
    retired_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, integration_id)
);
ALTER TABLE discovery.retired_integrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE discovery.retired_integrations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON discovery.retired_integrations TO role_discovery
    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
GRANT SELECT, INSERT ON discovery.retired_integrations TO role_discovery;
