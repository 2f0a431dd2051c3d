-- +goose Up
-- Releases on their way to many tenants: rollouts, and where each of their tenants stands.
SET LOCAL lock_timeout = '5s';

CREATE TABLE registry.rollouts (
    id               uuid        PRIMARY KEY,
    -- The plan that it was begun by, once; and the one that it carries out, which another target replaces.
    begun_by         text        NOT NULL UNIQUE REFERENCES registry.plans,
    plan_hash        text        NOT NULL REFERENCES registry.plans,
    release          text        NOT NULL REFERENCES registry.releases,
    -- Serialized RolloutPolicy, as the plan has it.
    policy           bytea       NOT NULL,
    state            text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'halted', 'succeeded', 'aborted')),
    detail           text        NOT NULL DEFAULT '',
    actor            text        NOT NULL,
    reason           text        NOT NULL,
    waits_for        text        NOT NULL DEFAULT '',
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at         timestamptz,
    lease_holder     text        NOT NULL DEFAULT '',
    lease_place      text        NOT NULL DEFAULT '',
    lease_expires_at timestamptz,
    lease_fence      bigint      NOT NULL DEFAULT 0,
    -- SHA-256 of the lease's token; NULL where nobody holds it.
    lease_token_hash bytea       CHECK (length(lease_token_hash) = 32),
    CHECK ((state IN ('succeeded', 'aborted')) = (ended_at IS NOT NULL))
);

CREATE TABLE registry.rollout_tenants (
    rollout_id   uuid        NOT NULL REFERENCES registry.rollouts,
    tenant_id    uuid        NOT NULL REFERENCES registry.tenants,
    wave         integer     NOT NULL,
    position     integer     NOT NULL,
    state        text        NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'changing', 'baking', 'passed', 'failed', 'rolling_back', 'rolled_back', 'skipped')),
    release_from text        NOT NULL,
    operation_id uuid,
    attempts     integer     NOT NULL DEFAULT 0,
    since        timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at   timestamptz,
    samples      bigint      NOT NULL DEFAULT 0,
    probes       bigint      NOT NULL DEFAULT 0,
    detail       text        NOT NULL DEFAULT '',
    -- Whether the rollout still has the tenant in hand.
    open         boolean     NOT NULL DEFAULT true,
    PRIMARY KEY (rollout_id, tenant_id)
);
-- A tenant is in one rollout at a time.
CREATE UNIQUE INDEX rollout_tenants_open ON registry.rollout_tenants (tenant_id) WHERE open;

-- What happened in a rollout, for those who watch it; the operations log has the same, for ever.
CREATE TABLE registry.rollout_events (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rollout_id uuid        NOT NULL REFERENCES registry.rollouts,
    tenant_id  uuid,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text        NOT NULL,
    action     text        NOT NULL,
    reason     text        NOT NULL DEFAULT ''
);
CREATE INDEX rollout_events_of ON registry.rollout_events (rollout_id, id);

GRANT SELECT, INSERT, UPDATE (plan_hash, release, policy, state, detail, waits_for, ended_at, lease_holder, lease_place, lease_expires_at, lease_fence, lease_token_hash)
    ON registry.rollouts TO role_registry;
GRANT SELECT, INSERT, UPDATE (wave, position, state, release_from, operation_id, attempts, since, changed_at, samples, probes, detail, open)
    ON registry.rollout_tenants TO role_registry;
GRANT SELECT, INSERT (rollout_id, tenant_id, actor, action, reason) ON registry.rollout_events TO role_registry;
