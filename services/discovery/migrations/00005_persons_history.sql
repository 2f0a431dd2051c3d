-- +goose Up

-- Since when an account has been its person's, and whose it was before: answers as of a time name the persons of that time. What was
-- joined before this migration counts as joined always. The release before deletes what it ends, and leaves no history for that.
ALTER TABLE discovery.person_accounts ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE discovery.person_accounts ALTER COLUMN since SET DEFAULT now();

CREATE TABLE discovery.former_person_accounts (
    workspace_id uuid NOT NULL, account_id uuid NOT NULL, person_id uuid NOT NULL,
    display_name text NOT NULL, key text NOT NULL, rule text NOT NULL,
    since timestamptz NOT NULL, until timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, account_id, until)
);
CREATE INDEX former_person_accounts_person ON discovery.former_person_accounts (workspace_id, person_id);
CREATE INDEX former_person_accounts_key ON discovery.former_person_accounts (workspace_id, key);
ALTER TABLE discovery.former_person_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE discovery.former_person_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON discovery.former_person_accounts TO role_discovery
    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
GRANT SELECT, INSERT ON discovery.former_person_accounts TO role_discovery;

-- Publications of a workspace come one after the other, each with a time after the one before: LastChangedAt.
CREATE INDEX runs_published_at ON discovery.runs (workspace_id, finished_at) WHERE state IN ('complete', 'partial');
