-- +goose Up

-- Each upload lies under a key of its own, so that a run under way goes on reading the one it began with. An empty key is that of the
-- releases before: one place an integration.
ALTER TABLE integrations.integrations ADD COLUMN content_key text NOT NULL DEFAULT '';

-- Uploads that were replaced, until no run can be reading them any more.
CREATE TABLE integrations.replaced_contents (
    workspace_id   uuid        NOT NULL,
    integration_id uuid        NOT NULL,
    content_key    text        NOT NULL,
    replaced_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace_id, integration_id, content_key),
    FOREIGN KEY (workspace_id, integration_id) REFERENCES integrations.integrations (workspace_id, id) ON DELETE CASCADE
);
ALTER TABLE integrations.replaced_contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE integrations.replaced_contents FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON integrations.replaced_contents TO role_integrations
    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
GRANT SELECT, INSERT, DELETE ON integrations.replaced_contents TO role_integrations;
