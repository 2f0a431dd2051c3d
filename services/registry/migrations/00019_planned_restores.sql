-- +goose Up
-- What a plan of a restore was used for: each restores once, and one that was interrupted is gone on with.
SET LOCAL lock_timeout = '5s';

CREATE TABLE registry.planned_restores (
    -- Of the plan as it was made last: what was begun before that is of an earlier making, and counts no more.
    plan_hash   text        NOT NULL PRIMARY KEY REFERENCES registry.plans,
    tenant_id   uuid        NOT NULL REFERENCES registry.tenants,
    -- Who began it, who had made the plan, and whose word for it counted then; empty where the plane asks for nobody's.
    actor       text        NOT NULL,
    planned_by  text        NOT NULL,
    approved_by text        NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the set had been put back; NULL until then.
    recorded_at timestamptz
);

-- The plan that was carried out, who had made it and who approved it; empty where there was none.
ALTER TABLE registry.restores ADD COLUMN plan_hash text NOT NULL DEFAULT '';
ALTER TABLE registry.restores ADD COLUMN planned_by text NOT NULL DEFAULT '';
ALTER TABLE registry.restores ADD COLUMN approved_by text NOT NULL DEFAULT '';

GRANT SELECT, INSERT, UPDATE (tenant_id, actor, planned_by, approved_by, begun_at, recorded_at) ON registry.planned_restores TO role_registry;
