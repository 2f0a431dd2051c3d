-- +goose Up
-- The record of a tenant: an inbox that deeds write to in their own transaction, and a log that only `audit` appends to.
-- No table but entries has a workspace: the tree is the tenant's, one for all of its workspaces, or it would prove nothing
-- about what was left out.

-- Bounds of the backlog. Past either one the inbox is closed, and with it every deed.
CREATE TABLE audit.settings (
    only_row         boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    max_backlog_rows bigint   NOT NULL DEFAULT 50000 CHECK (max_backlog_rows > 0),
    max_backlog_age  interval NOT NULL DEFAULT '60 seconds' CHECK (max_backlog_age > '0')
);
INSERT INTO audit.settings DEFAULT VALUES;

-- How far the inbox is drained, written by the sealer in the transaction that drains. What was recorded up to drained_seq, or
-- before drained_until, is sealed, except for transactions that were still open then: those are drained when they show.
CREATE TABLE audit.progress (
    only_row      boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    drained_seq   bigint      NOT NULL DEFAULT 0,
    drained_until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO audit.progress DEFAULT VALUES;

CREATE TABLE audit.inbox (
    seq         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          uuid        NOT NULL UNIQUE,
    body        bytea       NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 262144),
    producer    name        NOT NULL DEFAULT current_user,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Rows live for a second: vacuum by count, not by share of a table that is mostly empty.
ALTER TABLE audit.inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0);

-- Up to which seq, and until when (seconds since the epoch), the inbox is open without a closer look. The sealer moves both after
-- each batch; they are sequences because those are read without a snapshot and written without leaving old versions behind, and
-- every deed reads them.
CREATE SEQUENCE audit.open_to_seq MINVALUE 0;
CREATE SEQUENCE audit.open_until MINVALUE 0;
SELECT setval('audit.open_to_seq', 0), setval('audit.open_until', 0);

-- The closer look. It reads one row and, only when nothing was drained for as long as the bound, the oldest waiting row; it never
-- counts. The distance in seq stands for the number of rows: deeds that were rolled back count as well until the sealer has moved
-- on, which errs on the closed side.
-- +goose StatementBegin
CREATE FUNCTION audit.close_when_behind() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most_rows bigint;
    most_age  interval;
    drained   bigint;
    until     timestamptz;
    oldest    timestamptz;
BEGIN
    SELECT s.max_backlog_rows, s.max_backlog_age, p.drained_seq, p.drained_until
        INTO STRICT most_rows, most_age, drained, until
        FROM audit.settings s, audit.progress p;
    IF NEW.seq - drained > most_rows THEN
        RAISE EXCEPTION 'the audit log is behind by more than % events: see that audit runs', most_rows USING ERRCODE = 'A3001';
    END IF;
    IF until < clock_timestamp() - most_age THEN
        SELECT i.recorded_at INTO oldest FROM audit.inbox i WHERE i.seq > drained ORDER BY i.seq LIMIT 1;
        IF oldest < clock_timestamp() - most_age THEN
            RAISE EXCEPTION 'the audit log is behind by more than %: see that audit runs', most_age USING ERRCODE = 'A3001';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- New bounds hold at once: the next deed takes the closer look.
-- +goose StatementBegin
CREATE FUNCTION audit.look_closer() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM setval('audit.open_to_seq', 0), setval('audit.open_until', 0);
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.close_when_behind(), audit.look_closer() FROM PUBLIC;
CREATE TRIGGER close_when_behind BEFORE INSERT ON audit.inbox FOR EACH ROW
    WHEN (NOT coalesce(NEW.seq <= pg_sequence_last_value('audit.open_to_seq'::regclass)
        AND extract(epoch FROM clock_timestamp()) <= pg_sequence_last_value('audit.open_until'::regclass), false))
    EXECUTE FUNCTION audit.close_when_behind();
CREATE TRIGGER look_closer AFTER UPDATE ON audit.settings FOR EACH STATEMENT EXECUTE FUNCTION audit.look_closer();

-- The log itself: one row a leaf, in the order of sealing. `leaf` is what was hashed; the columns after leaf_hash repeat what is
-- in it, so that it can be searched, and prove nothing.
CREATE TABLE audit.entries (
    idx          bigint      PRIMARY KEY CHECK (idx >= 0),
    -- NULL where an id was used a second time with another body: the first keeps it, and the second is not lost.
    event_id     uuid        UNIQUE,
    leaf         bytea       NOT NULL,
    leaf_hash    bytea       NOT NULL CHECK (octet_length(leaf_hash) = 32),
    action       text        COLLATE "C" NOT NULL,
    actor        text        COLLATE "C" NOT NULL,
    target       text        COLLATE "C" NOT NULL,
    -- NULL for deeds of the whole tenant.
    workspace_id uuid,
    outcome      smallint    NOT NULL,
    recorded_at  timestamptz NOT NULL
);
CREATE INDEX entries_workspace ON audit.entries (workspace_id, idx) WHERE workspace_id IS NOT NULL;
CREATE INDEX entries_actor ON audit.entries (actor, idx);
CREATE INDEX entries_target ON audit.entries (target, idx);
CREATE INDEX entries_recorded_at ON audit.entries USING brin (recorded_at);

-- A transaction that is in a workspace sees that workspace's entries; one of the tenant sees all.
ALTER TABLE audit.entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit.entries FORCE ROW LEVEL SECURITY;
CREATE POLICY in_scope ON audit.entries FOR SELECT TO role_audit
    USING ((SELECT coalesce(current_setting('a3.workspace_id', true), '') = '')
        OR workspace_id = (SELECT nullif(current_setting('a3.workspace_id', true), '')::uuid));
CREATE POLICY append ON audit.entries FOR INSERT TO role_audit WITH CHECK (true);

-- Full tiles of the tree (C2SP tlog-tiles): 256 hashes each. Level 0 holds leaf hashes, level n+1 the roots of the tiles of level
-- n. The right edge is in entries.leaf_hash and in the roots, so that no row is ever written twice.
CREATE TABLE audit.tiles (
    level  smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    idx    bigint   NOT NULL CHECK (idx >= 0),
    hashes bytea    NOT NULL CHECK (octet_length(hashes) = 8192),
    root   bytea    NOT NULL CHECK (octet_length(root) = 32),
    PRIMARY KEY (level, idx)
);
-- Hashes don't compress.
ALTER TABLE audit.tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- Signed tree heads (C2SP tlog-checkpoint). One that stands here was committed with the entries below it, and may be published.
CREATE TABLE audit.checkpoints (
    size      bigint      PRIMARY KEY CHECK (size > 0),
    root      bytea       NOT NULL CHECK (octet_length(root) = 32),
    note      text        NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Privileges keep the set's roles from changing the log; these triggers also stop whoever has the privilege by accident. They
-- don't stop an owner who means to: that is what checkpoints held elsewhere show.
-- +goose StatementBegin
CREATE FUNCTION audit.append_only() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% on audit.% is refused: the log is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.append_only() FROM PUBLIC;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.tiles FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit.inbox FOR EACH STATEMENT EXECUTE FUNCTION audit.append_only();
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.tiles ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.checkpoints ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.inbox ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.inbox ENABLE ALWAYS TRIGGER close_when_behind;

-- Producers, `audit` itself among them (it denies calls as well), can put an event in and do nothing else with it.
GRANT USAGE ON SCHEMA audit TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant, role_discovery,
    role_discovery_tenant, role_audit;
GRANT INSERT (id, body) ON audit.inbox TO role_iam, role_iam_tenant, role_integrations, role_integrations_tenant, role_discovery,
    role_discovery_tenant, role_audit;
GRANT SELECT ON SEQUENCE audit.open_to_seq, audit.open_until TO role_iam, role_iam_tenant, role_integrations,
    role_integrations_tenant, role_discovery, role_discovery_tenant, role_audit;
GRANT UPDATE ON SEQUENCE audit.open_to_seq, audit.open_until TO role_audit;
GRANT SELECT, DELETE ON audit.inbox TO role_audit;
GRANT SELECT ON SEQUENCE audit.inbox_seq_seq TO role_audit;
GRANT SELECT ON audit.settings TO role_audit;
GRANT SELECT, UPDATE (drained_seq, drained_until) ON audit.progress TO role_audit;
GRANT SELECT, INSERT ON audit.entries, audit.tiles, audit.checkpoints TO role_audit;
