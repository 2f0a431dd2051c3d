-- +goose Up

-- What an admin may see of a message that was given up, and do about it. The release before inserts (job_id, reason, envelope) alone.
ALTER TABLE discovery.dead_letters
    ADD COLUMN public_id      uuid        NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    ADD COLUMN payload        bytea       NOT NULL DEFAULT '',
    ADD COLUMN cause          text        NOT NULL DEFAULT 'unspecified' CHECK (cause IN ('unspecified', 'malformed', 'forged', 'expired', 'foreign', 'given_up')),
    ADD COLUMN attempt        integer     NOT NULL DEFAULT 0,
    ADD COLUMN state          text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'retried', 'dropped')),
    ADD COLUMN settled_at     timestamptz,
    ADD COLUMN settled_by     text        NOT NULL DEFAULT '',
    ADD COLUMN settled_reason text        NOT NULL DEFAULT '';
CREATE INDEX dead_letters_by_state ON discovery.dead_letters (state, id);

-- Of a letter only what settles it ever changes; dropping empties its bytes.
GRANT UPDATE (state, settled_at, settled_by, settled_reason, envelope, payload) ON discovery.dead_letters TO role_discovery_tenant;
-- A message is put back on the queue only where its run still waits for its slice.
GRANT SELECT (slice, attempt) ON discovery.runs TO role_discovery_tenant;

-- The job that claimed the present slice with the present attempt: another job that carries the same message is fenced.
ALTER TABLE discovery.runs ADD COLUMN job_id bigint NOT NULL DEFAULT 0;
