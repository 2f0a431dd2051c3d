-- +goose Up

CREATE TABLE discovery.runs (
    workspace_id     uuid        NOT NULL,
    id               uuid        NOT NULL,
    integration_id   uuid        NOT NULL,
    integration_name text        NOT NULL,
    connector        text        NOT NULL,
    state            text        NOT NULL CHECK (state IN ('queued', 'running', 'publishing', 'complete', 'partial', 'failed', 'cancelled')),
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    started_by       text        NOT NULL,
    -- The time a scheduled run was due; it starts once, however often it is claimed.
    due_at           timestamptz,
    -- Serialized integrations.v1.Source: where secret and content lie, neither of them.
    source           bytea       NOT NULL,
    slice            integer     NOT NULL DEFAULT 0,
    -- The greatest attempt that claimed the present slice: lesser ones are fenced.
    attempt          integer     NOT NULL DEFAULT 0,
    checkpoint       bytea       NOT NULL DEFAULT '',
    completed_scopes text[]      NOT NULL DEFAULT '{}',
    -- Array of {scope, reason}.
    gaps             jsonb       NOT NULL DEFAULT '[]',
    error            text        NOT NULL DEFAULT '',
    progress         text        NOT NULL DEFAULT '',
    -- How often staging was lost (it is UNLOGGED) and the run began anew.
    restarts         integer     NOT NULL DEFAULT 0,
    accounts         bigint      NOT NULL DEFAULT 0,
    groups           bigint      NOT NULL DEFAULT 0,
    resources        bigint      NOT NULL DEFAULT 0,
    entitlements     bigint      NOT NULL DEFAULT 0,
    grants           bigint      NOT NULL DEFAULT 0,
    grants_added     bigint      NOT NULL DEFAULT 0,
    grants_removed   bigint      NOT NULL DEFAULT 0,
    -- integrations was told how the run ended.
    reported         boolean     NOT NULL DEFAULT false,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);
-- One run of an integration is under way at a time.
CREATE UNIQUE INDEX runs_under_way ON discovery.runs (workspace_id, integration_id) WHERE state IN ('queued', 'running', 'publishing');
CREATE UNIQUE INDEX runs_due ON discovery.runs (workspace_id, integration_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX runs_of_integration ON discovery.runs (workspace_id, integration_id, id);
CREATE INDEX runs_published ON discovery.runs (workspace_id, integration_id, finished_at) WHERE state IN ('complete', 'partial');
CREATE INDEX runs_unfinished ON discovery.runs (state, updated_at) WHERE NOT reported;

CREATE TABLE discovery.slices (
    workspace_id uuid        NOT NULL,
    run_id       uuid        NOT NULL,
    slice        integer     NOT NULL,
    attempt      integer     NOT NULL,
    records      bigint      NOT NULL,
    sealed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, run_id, slice),
    FOREIGN KEY (workspace_id, run_id) REFERENCES discovery.runs (workspace_id, id) ON DELETE CASCADE
);

-- Staging has no workspace and no row-level security, since COPY can't enter tables that have it. Only role_discovery reads it, by
-- run. A row counts when its slice was sealed by its attempt.
CREATE UNLOGGED TABLE discovery.staged_resources (
    run_id uuid NOT NULL, slice integer NOT NULL, attempt integer NOT NULL,
    id uuid NOT NULL, type text NOT NULL, external_id text NOT NULL, display_name text NOT NULL,
    parent_id uuid, attributes jsonb NOT NULL, account boolean NOT NULL, scope text NOT NULL
);
CREATE UNLOGGED TABLE discovery.staged_entitlements (
    run_id uuid NOT NULL, slice integer NOT NULL, attempt integer NOT NULL,
    id uuid NOT NULL, resource_id uuid NOT NULL, name text NOT NULL, purpose smallint NOT NULL, description text NOT NULL, scope text NOT NULL
);
CREATE UNLOGGED TABLE discovery.staged_grants (
    run_id uuid NOT NULL, slice integer NOT NULL, attempt integer NOT NULL,
    id uuid NOT NULL, principal_id uuid NOT NULL, entitlement_id uuid NOT NULL,
    reason text NOT NULL, grantable boolean NOT NULL, not_inherited boolean NOT NULL, scope text NOT NULL
);
CREATE UNLOGGED TABLE discovery.staged_expansions (
    run_id uuid NOT NULL, slice integer NOT NULL, attempt integer NOT NULL,
    from_id uuid NOT NULL, to_id uuid NOT NULL, assumption boolean NOT NULL, reason text NOT NULL, scope text NOT NULL
);

-- The history: a row stands from `since` until `until`; NULL means that it still does. Ids are computed from what they name
-- (libs/access), so the same thing has the same id in every run.
-- What a resource is looked up by stands in columns of its own, in lower case: an expression index would be passed over, for lower()
-- is not leakproof and may not run before row-level security has.
CREATE TABLE discovery.resources (
    workspace_id uuid NOT NULL, integration_id uuid NOT NULL, id uuid NOT NULL,
    type text NOT NULL, external_id text NOT NULL, display_name text NOT NULL, parent_id uuid,
    attributes jsonb NOT NULL, account boolean NOT NULL, scope text NOT NULL,
    since timestamptz NOT NULL, since_run uuid NOT NULL, until timestamptz, until_run uuid,
    external_key text GENERATED ALWAYS AS (lower(external_id)) STORED,
    name_key     text GENERATED ALWAYS AS (lower(display_name)) STORED,
    email_key    text GENERATED ALWAYS AS (CASE WHEN account THEN nullif(lower(attributes ->> 'email'), '') END) STORED,
    login_key    text GENERATED ALWAYS AS (CASE WHEN account THEN nullif(lower(attributes ->> 'login'), '') END) STORED,
    PRIMARY KEY (workspace_id, integration_id, id, since)
);
CREATE INDEX resources_id ON discovery.resources (workspace_id, id);
CREATE INDEX resources_type ON discovery.resources (workspace_id, type, id);
CREATE INDEX resources_external_key ON discovery.resources (workspace_id, external_key);
CREATE INDEX resources_name_key ON discovery.resources (workspace_id, name_key);
CREATE INDEX resources_email_key ON discovery.resources (workspace_id, email_key) WHERE email_key IS NOT NULL;
CREATE INDEX resources_login_key ON discovery.resources (workspace_id, login_key) WHERE login_key IS NOT NULL;

CREATE TABLE discovery.entitlements (
    workspace_id uuid NOT NULL, integration_id uuid NOT NULL, id uuid NOT NULL,
    resource_id uuid NOT NULL, name text NOT NULL, purpose smallint NOT NULL, description text NOT NULL, scope text NOT NULL,
    since timestamptz NOT NULL, since_run uuid NOT NULL, until timestamptz, until_run uuid,
    PRIMARY KEY (workspace_id, integration_id, id, since)
);
CREATE INDEX entitlements_id ON discovery.entitlements (workspace_id, id);
CREATE INDEX entitlements_resource ON discovery.entitlements (workspace_id, resource_id);

CREATE TABLE discovery.grants (
    workspace_id uuid NOT NULL, integration_id uuid NOT NULL, id uuid NOT NULL,
    principal_id uuid NOT NULL, entitlement_id uuid NOT NULL,
    reason text NOT NULL, grantable boolean NOT NULL, not_inherited boolean NOT NULL, scope text NOT NULL,
    since timestamptz NOT NULL, since_run uuid NOT NULL, until timestamptz, until_run uuid,
    PRIMARY KEY (workspace_id, integration_id, id, since)
);
CREATE INDEX grants_principal ON discovery.grants (workspace_id, principal_id);
CREATE INDEX grants_entitlement ON discovery.grants (workspace_id, entitlement_id);

CREATE TABLE discovery.expansions (
    workspace_id uuid NOT NULL, integration_id uuid NOT NULL, from_id uuid NOT NULL, to_id uuid NOT NULL,
    assumption boolean NOT NULL, reason text NOT NULL, scope text NOT NULL,
    since timestamptz NOT NULL, since_run uuid NOT NULL, until timestamptz, until_run uuid,
    PRIMARY KEY (workspace_id, integration_id, from_id, to_id, since)
);
CREATE INDEX expansions_from ON discovery.expansions (workspace_id, from_id);
CREATE INDEX expansions_to ON discovery.expansions (workspace_id, to_id);

CREATE TABLE discovery.persons (
    workspace_id uuid NOT NULL, id uuid NOT NULL, display_name text NOT NULL,
    -- What the person is known by: an address in lower case.
    key text NOT NULL,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, key)
);
CREATE TABLE discovery.person_accounts (
    workspace_id uuid NOT NULL, account_id uuid NOT NULL, person_id uuid NOT NULL,
    rule text NOT NULL CHECK (rule IN ('email', 'login')),
    PRIMARY KEY (workspace_id, account_id),
    FOREIGN KEY (workspace_id, person_id) REFERENCES discovery.persons (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX person_accounts_person ON discovery.person_accounts (workspace_id, person_id);

-- Messages that a worker refused belong to no workspace: nothing they say is believed.
CREATE TABLE discovery.dead_letters (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id     bigint      NOT NULL UNIQUE,
    reason     text        NOT NULL,
    envelope   bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['runs', 'slices', 'resources', 'entitlements', 'grants', 'expansions', 'persons', 'person_accounts'] LOOP
        EXECUTE format('ALTER TABLE discovery.%I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE discovery.%I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_workspace ON discovery.%I TO role_discovery
            USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()))', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON discovery.%I TO role_discovery', t);
    END LOOP;
END
$$;
-- +goose StatementEnd
GRANT DELETE ON discovery.slices, discovery.persons, discovery.person_accounts TO role_discovery;

-- The publisher and the scheduler look out for work over all workspaces; they do it in the scope of one.
CREATE POLICY look_out ON discovery.runs FOR SELECT TO role_discovery_tenant USING (true);
GRANT SELECT (workspace_id, id, integration_id, state, started_by, reported, updated_at) ON discovery.runs TO role_discovery_tenant;

GRANT USAGE ON SCHEMA discovery TO role_discovery, role_discovery_tenant;
GRANT SELECT, INSERT, DELETE ON discovery.staged_resources, discovery.staged_entitlements, discovery.staged_grants,
    discovery.staged_expansions TO role_discovery;
GRANT SELECT, INSERT ON discovery.dead_letters TO role_discovery_tenant;
