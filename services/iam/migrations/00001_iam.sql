-- +goose Up
-- People, service accounts, workspaces, members; and what the issuer keeps: sessions, setup codes, signing keys, revocations.
--
-- role_iam works in one workspace at a time and sees what row-level security shows it. role_iam_tenant is the second login role, for
-- what spans workspaces: the issuer, admin calls, retention. Tables without workspace_id say why.

-- Without workspace: a person belongs to the tenant and may be a member of many workspaces, or of none.
CREATE TABLE iam.users (
    id           uuid        PRIMARY KEY,
    email        text        NOT NULL CONSTRAINT users_email UNIQUE CHECK (email = lower(email)),
    display_name text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('invited', 'active', 'deactivated')),
    tenant_role  text        CHECK (tenant_role IN ('admin', 'auditor')),
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Without workspace: a program belongs to the tenant, as a person does.
CREATE TABLE iam.service_accounts (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL CONSTRAINT service_accounts_name UNIQUE,
    -- RFC 7638 thumbprint of the public key. One key is one account: or who signed would be anybody's guess.
    key_id      text        NOT NULL CONSTRAINT service_accounts_key UNIQUE,
    -- SubjectPublicKeyInfo, DER: ECDSA P-256.
    public_key  bytea       NOT NULL,
    tenant_role text        CHECK (tenant_role IN ('admin', 'auditor')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The workspace itself: its id is what other tables call workspace_id.
CREATE TABLE iam.workspaces (
    id            uuid        PRIMARY KEY,
    name          text        NOT NULL CONSTRAINT workspaces_name UNIQUE,
    owner_user_id uuid        NOT NULL REFERENCES iam.users (id),
    -- Part of the key below: there is a member with this role, for this user.
    owner_role    text        NOT NULL GENERATED ALWAYS AS ('owner') STORED,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workspaces_owner ON iam.workspaces (owner_user_id);

CREATE TABLE iam.transfers (
    workspace_id     uuid        NOT NULL REFERENCES iam.workspaces (id),
    id               uuid        NOT NULL,
    from_user_id     uuid        NOT NULL REFERENCES iam.users (id),
    to_user_id       uuid        NOT NULL REFERENCES iam.users (id),
    reason           text        NOT NULL CHECK (char_length(reason) BETWEEN 10 AND 500),
    transferred_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    CHECK (from_user_id <> to_user_id)
);

CREATE TABLE iam.members (
    workspace_id       uuid        NOT NULL REFERENCES iam.workspaces (id),
    user_id            uuid        REFERENCES iam.users (id),
    service_account_id uuid        REFERENCES iam.service_accounts (id),
    principal_id       uuid        NOT NULL GENERATED ALWAYS AS (coalesce(user_id, service_account_id)) STORED,
    role               text        NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    -- The transfer that gave this role, where one did.
    transfer_id        uuid,
    added_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, principal_id),
    UNIQUE (workspace_id, user_id, role),
    FOREIGN KEY (workspace_id, transfer_id) REFERENCES iam.transfers (workspace_id, id),
    CHECK (num_nonnulls(user_id, service_account_id) = 1),
    CHECK (role <> 'owner' OR user_id IS NOT NULL)
);
-- At most one owner a workspace …
CREATE UNIQUE INDEX members_one_owner ON iam.members (workspace_id) WHERE role = 'owner';
-- … and at least one, the same that the workspace names. Deferred, for a transfer moves both.
ALTER TABLE iam.workspaces ADD CONSTRAINT workspaces_owner_is_member FOREIGN KEY (id, owner_user_id, owner_role)
    REFERENCES iam.members (workspace_id, user_id, role) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX members_user ON iam.members (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX members_service_account ON iam.members (service_account_id) WHERE service_account_id IS NOT NULL;

-- Without workspace: the order of revocations is the tenant's. Whoever changes who may do what locks this one row first, so that such
-- changes happen one after the other and a sequence number is visible only when every smaller one is.
CREATE TABLE iam.revocation_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence bigint  NOT NULL DEFAULT 0
);
INSERT INTO iam.revocation_head DEFAULT VALUES;

-- Its workspace_id is empty where a revocation is about all of a principal's tokens.
CREATE TABLE iam.revocations (
    sequence     bigint      PRIMARY KEY,
    -- `usr_…` or `svc_…`: it outlives the service account it names.
    principal    text        NOT NULL,
    session_id   uuid,
    workspace_id uuid,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revocations_created_at ON iam.revocations (created_at);

-- Without workspace: sessions, codes, assertions and keys are the issuer's, and role_iam has no right to them at all.
CREATE TABLE iam.setup_codes (
    -- SHA-256 of the code.
    code_hash  bytea       PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    user_id    uuid        NOT NULL CONSTRAINT setup_codes_user UNIQUE REFERENCES iam.users (id),
    expires_at timestamptz NOT NULL
);

-- Hashes of the platform's setup codes that were taken up, so that a restart does not make an old code young again. Never pruned.
CREATE TABLE iam.bootstrap_codes (
    code_hash bytea       PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    seen_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE iam.sessions (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES iam.users (id),
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX sessions_user ON iam.sessions (user_id);
CREATE INDEX sessions_expires_at ON iam.sessions (expires_at);

CREATE TABLE iam.refresh_tokens (
    -- SHA-256 of the token.
    token_hash       bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    session_id       uuid        NOT NULL REFERENCES iam.sessions (id) ON DELETE CASCADE,
    issued_at        timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    used_at          timestamptz,
    successor_hash   bytea,
    -- The successor, sealed under a key that only a holder of this token can derive; gone once the successor was used.
    successor_sealed bytea,
    CHECK ((used_at IS NULL) = (successor_hash IS NULL))
);
CREATE INDEX refresh_tokens_session ON iam.refresh_tokens (session_id);
CREATE INDEX refresh_tokens_successor ON iam.refresh_tokens (successor_hash) WHERE successor_hash IS NOT NULL;

-- Assertions that were taken, until none with that jti could be valid.
CREATE TABLE iam.assertions (
    service_account_id uuid        NOT NULL REFERENCES iam.service_accounts (id) ON DELETE CASCADE,
    -- SHA-256 of the jti, whose length is the caller's choice.
    jti_hash           bytea       NOT NULL CHECK (octet_length(jti_hash) = 32),
    expires_at         timestamptz NOT NULL,
    PRIMARY KEY (service_account_id, jti_hash)
);
CREATE INDEX assertions_expires_at ON iam.assertions (expires_at);

CREATE TABLE iam.signing_keys (
    -- RFC 7638 thumbprint of the public key.
    kid          text        PRIMARY KEY,
    -- PKCS #8, sealed with the tenant's key-encryption key; bound to tenant and kid.
    sealed       bytea       NOT NULL,
    -- SubjectPublicKeyInfo, DER.
    public_key   bytea       NOT NULL,
    state        text        NOT NULL CHECK (state IN ('next', 'current', 'previous')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    retired_at   timestamptz
);
CREATE UNIQUE INDEX signing_keys_one_current ON iam.signing_keys (state) WHERE state = 'current';
CREATE UNIQUE INDEX signing_keys_one_next ON iam.signing_keys (state) WHERE state = 'next';

-- Row-level security: role_iam sees its workspace, role_iam_tenant the tenant.
ALTER TABLE iam.workspaces ENABLE ROW LEVEL SECURITY;
ALTER TABLE iam.workspaces FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON iam.workspaces FOR SELECT TO role_iam USING (id = (SELECT a3.current_workspace()));
CREATE POLICY whole_tenant ON iam.workspaces TO role_iam_tenant USING (true) WITH CHECK (true);

ALTER TABLE iam.members ENABLE ROW LEVEL SECURITY;
ALTER TABLE iam.members FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON iam.members TO role_iam
    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
CREATE POLICY whole_tenant ON iam.members TO role_iam_tenant USING (true) WITH CHECK (true);

ALTER TABLE iam.transfers ENABLE ROW LEVEL SECURITY;
ALTER TABLE iam.transfers FORCE ROW LEVEL SECURITY;
CREATE POLICY whole_tenant ON iam.transfers TO role_iam_tenant USING (true) WITH CHECK (true);

ALTER TABLE iam.revocations ENABLE ROW LEVEL SECURITY;
ALTER TABLE iam.revocations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON iam.revocations FOR INSERT TO role_iam WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
CREATE POLICY whole_tenant ON iam.revocations TO role_iam_tenant USING (true) WITH CHECK (true);

GRANT USAGE ON SCHEMA iam TO role_iam, role_iam_tenant;

-- role_iam: reads names, changes the members of its workspace, tells that tokens for it are void. It can't make an owner: that column
-- of workspaces is not its to write, and the key above holds the two together.
GRANT SELECT (id, email, display_name, state) ON iam.users TO role_iam;
GRANT SELECT (id, name) ON iam.service_accounts TO role_iam;
GRANT SELECT ON iam.workspaces TO role_iam;
GRANT SELECT, DELETE, INSERT (workspace_id, user_id, service_account_id, role), UPDATE (role, transfer_id) ON iam.members TO role_iam;
GRANT SELECT, UPDATE (sequence) ON iam.revocation_head TO role_iam;
GRANT INSERT ON iam.revocations TO role_iam;

GRANT SELECT, INSERT, UPDATE (display_name, state, tenant_role) ON iam.users TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE ON iam.service_accounts TO role_iam_tenant;
GRANT SELECT, INSERT, UPDATE (owner_user_id) ON iam.workspaces TO role_iam_tenant;
GRANT SELECT, INSERT ON iam.transfers TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE, UPDATE (role, transfer_id) ON iam.members TO role_iam_tenant;
GRANT SELECT, UPDATE (sequence) ON iam.revocation_head TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE ON iam.revocations TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE ON iam.setup_codes TO role_iam_tenant;
GRANT SELECT, INSERT ON iam.bootstrap_codes TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE, UPDATE (ended_at) ON iam.sessions TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE, UPDATE (used_at, successor_hash, successor_sealed) ON iam.refresh_tokens TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE ON iam.assertions TO role_iam_tenant;
GRANT SELECT, INSERT, DELETE, UPDATE (state, activated_at, retired_at) ON iam.signing_keys TO role_iam_tenant;
