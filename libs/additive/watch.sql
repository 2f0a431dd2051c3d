-- What a block of code does with lock_timeout, and undoes before it ends, is seen at each statement in it that defines something.
CREATE SCHEMA a3_check;
CREATE FUNCTION a3_check.note_lock_timeout() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    present bigint := (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'lock_timeout');
    longest bigint := coalesce(nullif(pg_catalog.current_setting('a3_check.lock_timeout', true), ''), '1');
BEGIN
    -- 0 is without end.
    IF present OPERATOR(pg_catalog.=) 0 OR longest OPERATOR(pg_catalog.<>) 0 AND present OPERATOR(pg_catalog.>) longest THEN
        PERFORM pg_catalog.set_config('a3_check.lock_timeout', present::text, false);
    END IF;
END
$$;
CREATE EVENT TRIGGER a3_check ON ddl_command_start EXECUTE FUNCTION a3_check.note_lock_timeout();

-- What a transaction holds, and which lock_timeout is in force, or was the longest.
CREATE FUNCTION a3_check.seen(OUT lock_timeout bigint, OUT writing oid[], OUT holding oid[]) LANGUAGE sql SET search_path = '' AS $$
    SELECT (SELECT CASE WHEN 0 IN (s.setting::bigint, t.noted) THEN 0 ELSE greatest(s.setting::bigint, t.noted) END
            FROM pg_settings s, (SELECT coalesce(nullif(current_setting('a3_check.lock_timeout', true), ''), '1')::bigint AS noted) t WHERE s.name = 'lock_timeout'),
        -- INSERT, UPDATE, DELETE and MERGE take the one, and what takes one of the others has those wait.
        coalesce(array_agg(l.relation) FILTER (WHERE l.mode = 'RowExclusiveLock'), '{}'),
        coalesce(array_agg(l.relation) FILTER (WHERE l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')), '{}')
    FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;

-- Which versions of the catalogue's rows tables consist of: whoever changes a table changes one of them. Only a lock changes none.
CREATE FUNCTION a3_check.versions() RETURNS TABLE (relation oid, version text) LANGUAGE sql SET search_path = '' AS $$
    WITH parts (relation, part) AS (
        SELECT oid, 'class ' || xmin FROM pg_class WHERE relkind IN ('r', 'p')
        UNION ALL SELECT attrelid, concat_ws(' ', 'column', attnum, xmin) FROM pg_attribute
        UNION ALL SELECT adrelid, concat_ws(' ', 'default', oid, xmin) FROM pg_attrdef
        UNION ALL SELECT conrelid, concat_ws(' ', 'constraint', oid, xmin) FROM pg_constraint
        UNION ALL SELECT confrelid, concat_ws(' ', 'referred to', oid, xmin) FROM pg_constraint
        UNION ALL SELECT i.indrelid, concat_ws(' ', 'index', i.indexrelid, i.xmin, x.relfilenode) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        UNION ALL SELECT tgrelid, concat_ws(' ', 'trigger', oid, xmin) FROM pg_trigger
        UNION ALL SELECT ev_class, concat_ws(' ', 'rule', oid, xmin) FROM pg_rewrite
        UNION ALL SELECT polrelid, concat_ws(' ', 'policy', oid, xmin) FROM pg_policy
        -- With a part of a table its other parts change as well: what remains is less.
        UNION ALL SELECT inhparent, concat_ws(' ', 'parent', inhrelid, xmin) FROM pg_inherits
        UNION ALL SELECT sibling.inhrelid, concat_ws(' ', 'part', part.inhrelid, part.xmin) FROM pg_inherits part JOIN pg_inherits sibling USING (inhparent)
    )
    SELECT p.relation, md5(string_agg(p.part, ',' ORDER BY p.part)) FROM parts p JOIN pg_class c ON c.oid = p.relation
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace <> 'pg_catalog'::regnamespace
    GROUP BY p.relation
$$;
