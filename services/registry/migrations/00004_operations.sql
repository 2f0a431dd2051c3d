-- +goose Up
-- What is to be done, and what is being done: plans with their approvals, operations with their steps and leases.
SET LOCAL lock_timeout = '5s';

ALTER TABLE registry.tenants ADD COLUMN labels jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object');

-- How a slug reads: two slugs are look-alikes when they are one word in either of the two readings. Each folds what a reader takes for
-- the same in most typefaces (after Unicode Technical Standard 39, of which slugs need the ASCII part alone); hyphens are passed over.
-- There are two because cl reads as d, and i as l, but ci doesn't read as d.
-- +goose StatementBegin
CREATE FUNCTION registry.slug_reading(slug text, fold text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE fold
        WHEN 'i' THEN replace(base, 'i', 'l')
        WHEN 'd' THEN replace(base, 'cl', 'd')
    END FROM (SELECT replace(replace(translate(slug, '01-', 'ol'), 'rn', 'm'), 'vv', 'w') AS base) AS folded
$$;
-- +goose StatementEnd
CREATE INDEX slugs_reading_i ON registry.slugs (registry.slug_reading(slug, 'i'));
CREATE INDEX slugs_reading_d ON registry.slugs (registry.slug_reading(slug, 'd'));

-- Where a set's database is; NULL where the platform did not say.
ALTER TABLE registry.service_sets
    ADD COLUMN database_server text,
    ADD COLUMN database_name   text,
    ADD CONSTRAINT service_sets_database_whole CHECK ((database_server IS NULL) = (database_name IS NULL));
-- One database for two tenants is refused everywhere.
CREATE UNIQUE INDEX service_sets_database ON registry.service_sets (database_server, database_name);

CREATE TABLE registry.plans (
    hash       text        PRIMARY KEY CHECK (hash ~ '^sha256:[0-9a-f]{64}$'),
    document   bytea       NOT NULL,
    actor      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX plans_created_at ON registry.plans (created_at, hash);

CREATE TABLE registry.plan_approvals (
    plan_hash   text        NOT NULL REFERENCES registry.plans,
    actor       text        NOT NULL,
    reason      text        NOT NULL,
    approved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plan_hash, actor)
);

CREATE TABLE registry.operations (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES registry.tenants,
    kind             text        NOT NULL CHECK (kind IN ('provision', 'upgrade', 'downgrade', 'suspend', 'resume', 'offboard')),
    state            text        NOT NULL DEFAULT 'unfinished' CHECK (state IN ('unfinished', 'succeeded', 'aborted')),
    plan_hash        text        NOT NULL REFERENCES registry.plans,
    -- The tenant as the plan names it: its id, or the slug of one that the plan makes.
    plan_target      text        NOT NULL,
    actor            text        NOT NULL,
    reason           text        NOT NULL,
    release_from     text        NOT NULL,
    release_to       text        NOT NULL,
    state_to         text        NOT NULL CHECK (state_to IN ('active', 'suspended', 'offboarded')),
    rollout_id       uuid,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at         timestamptz,
    aborted_by       text        NOT NULL DEFAULT '',
    abort_reason     text        NOT NULL DEFAULT '',
    lease_holder     text        NOT NULL DEFAULT '',
    lease_place      text        NOT NULL DEFAULT '',
    lease_expires_at timestamptz,
    lease_fence      bigint      NOT NULL DEFAULT 0,
    -- SHA-256 of the lease's token; NULL where nobody holds it.
    lease_token_hash bytea       CHECK (length(lease_token_hash) = 32),
    CHECK ((state = 'unfinished') = (ended_at IS NULL)),
    -- A plan is carried out once for each of its tenants.
    CONSTRAINT operations_of_plan UNIQUE (plan_hash, plan_target)
);
-- What is done to a tenant is done one thing after the other.
CREATE UNIQUE INDEX operations_unfinished ON registry.operations (tenant_id) WHERE state = 'unfinished';
CREATE INDEX operations_of_tenant ON registry.operations (tenant_id, created_at);
CREATE INDEX operations_of_rollout ON registry.operations (rollout_id, id) WHERE rollout_id IS NOT NULL;

CREATE TABLE registry.operation_steps (
    operation_id uuid        NOT NULL REFERENCES registry.operations,
    position     smallint    NOT NULL,
    name         text        NOT NULL,
    state        text        NOT NULL DEFAULT 'unspecified' CHECK (state IN ('unspecified', 'begun', 'done', 'failed')),
    attempts     integer     NOT NULL DEFAULT 0,
    -- Fence of the lease that it was begun under last.
    fence        bigint      NOT NULL DEFAULT 0,
    begun_at     timestamptz,
    ended_at     timestamptz,
    detail       text        NOT NULL DEFAULT '',
    PRIMARY KEY (operation_id, position),
    UNIQUE (operation_id, name)
);

GRANT EXECUTE ON FUNCTION registry.slug_reading(text, text) TO role_registry;
GRANT UPDATE (labels) ON registry.tenants TO role_registry;
-- What was planned, approved and done stays: nothing is deleted, and a plan's document never changes.
GRANT SELECT, INSERT, UPDATE (actor, created_at, expires_at) ON registry.plans TO role_registry;
GRANT SELECT, INSERT, UPDATE (reason, approved_at) ON registry.plan_approvals TO role_registry;
GRANT SELECT, INSERT, UPDATE (state, ended_at, aborted_by, abort_reason, lease_holder, lease_place, lease_expires_at, lease_fence, lease_token_hash)
    ON registry.operations TO role_registry;
GRANT SELECT, INSERT, UPDATE (state, attempts, fence, begun_at, ended_at, detail) ON registry.operation_steps TO role_registry;
