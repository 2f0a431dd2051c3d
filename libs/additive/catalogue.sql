-- What a database is, as far as a program can depend on it: a row each, whose id stays what it is when the thing is renamed. A row has
-- class, id, class and id of what it is a part of, name, and facts, in which `own` is what a rename changes.
WITH spaces AS (
    -- a3_check is the checker's own.
    SELECT * FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'a3_check')
), relations AS (
    SELECT c.*, s.nspname || '.' || c.relname AS name FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace
), functions AS (
    SELECT p.*, p.oid::regprocedure::text AS name FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace
), types AS (
    -- Those that stand for themselves: a table has one as well, and each type one of its arrays.
    SELECT t.*, t.oid::regtype::text AS name FROM pg_type t JOIN spaces s ON s.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r')
)
SELECT 'schema', s.oid::text, '', 'schema ' || s.nspname, jsonb_build_object('own', s.nspname, 'owner', s.nspowner::regrole::text)
FROM spaces s
UNION ALL
SELECT 'relation', oid::text, '', name,
       jsonb_build_object('own', name, 'kind', relkind, 'file', relfilenode, 'secured', relrowsecurity, 'forced', relforcerowsecurity, 'owner', relowner::regrole::text,
                          'is', CASE WHEN relkind IN ('v', 'm') THEN concat_ws(' ', pg_get_viewdef(oid), reloptions::text) END)
FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
UNION ALL
SELECT 'sequence', q.seqrelid::text, 'relation|' || q.seqrelid, r.name,
       jsonb_build_object('is', concat_ws(' ', q.seqtypid::regtype, q.seqmin, q.seqmax, q.seqincrement, q.seqcycle), 'file', r.relfilenode)
FROM pg_sequence q JOIN relations r ON r.oid = q.seqrelid
UNION ALL
-- A table of which another one is a part, by partitioning or inheritance.
SELECT 'part', h.inhrelid || '|' || h.inhparent, 'relation|' || h.inhparent, child.name || ' of ' || parent.name,
       jsonb_build_object('child', h.inhrelid::text, 'bounds', pg_get_expr(child.relpartbound, child.oid), 'pending', h.inhdetachpending,
                          'rest', (SELECT p.partdefid::text FROM pg_partitioned_table p WHERE p.partrelid = h.inhparent AND p.partdefid <> 0))
FROM pg_inherits h JOIN relations child ON child.oid = h.inhrelid JOIN relations parent ON parent.oid = h.inhparent
WHERE child.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'column', a.attrelid || '.' || a.attnum, 'relation|' || a.attrelid, r.name || '.' || a.attname,
       jsonb_build_object('own', a.attname, 'required', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated,
                          'composite', r.relkind = 'c',
                          'type', format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END)
FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
UNION ALL
SELECT 'constraint', k.oid::text, 'relation|' || k.conrelid, k.conname || ' of ' || r.name,
       jsonb_build_object('own', k.conname, 'is', pg_get_constraintdef(k.oid), 'one', k.contype IN ('p', 'u', 'x'),
                          'acts', k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')))
FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid WHERE k.contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT 'constraint', k.oid::text, 'type|' || k.contypid, k.conname || ' of ' || t.name, jsonb_build_object('own', k.conname, 'is', pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN types t ON t.oid = k.contypid WHERE k.contype = 'c'
UNION ALL
-- What made an index while others wrote did it in several transactions: it noted in the second that the index of the first can be used.
SELECT 'index', i.indexrelid::text, 'relation|' || i.indrelid, x.name || ' of ' || r.name,
       jsonb_build_object('own', x.relname, 'unique', i.indisunique, 'constrains', EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid),
                          'valid', i.indisvalid, 'file', coalesce(nullif(x.relfilenode, 0), x.oid), 'is', regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX .*? ON ', ''),
                          'stepwise', i.xmin <> (SELECT a.xmin FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum = 1))
FROM pg_index i JOIN relations r ON r.oid = i.indrelid JOIN relations x ON x.oid = i.indexrelid
UNION ALL
SELECT 'policy', p.oid::text, 'relation|' || p.polrelid, p.polname || ' of ' || r.name,
       jsonb_build_object('own', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd, 'roles', p.polroles::regrole[]::text[],
                          'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT 'trigger', t.oid::text, 'relation|' || t.tgrelid, t.tgname || ' of ' || r.name,
       jsonb_build_object('own', t.tgname, 'enabled', t.tgenabled, 'is', concat_ws(' ', t.tgtype, t.tgattr, t.tgdeferrable, t.tginitdeferred, t.tgoldtable, t.tgnewtable,
                          split_part(pg_get_triggerdef(t.oid), ' FOR EACH ', 2)))
FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'trigger', 'event ' || e.oid, '', e.evtname || ' of every statement that defines something',
       jsonb_build_object('own', e.evtname, 'enabled', e.evtenabled, 'is', concat_ws(' ', e.evtevent, e.evttags::text, e.evtfoid::regprocedure))
FROM pg_event_trigger e WHERE e.evtname <> 'a3_check'
UNION ALL
SELECT 'rule', w.oid::text, 'relation|' || w.ev_class, w.rulename || ' of ' || r.name,
       jsonb_build_object('own', w.rulename, 'enabled', w.ev_enabled, 'is', pg_get_ruledef(w.oid))
FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN' -- a view's own, of which its definition tells
UNION ALL
SELECT 'function', oid::text, '', name,
       jsonb_build_object('own', name, 'owner', proowner::regrole::text, 'result', pg_get_function_result(oid), 'arguments', pg_get_function_arguments(oid),
                          'body', md5(concat_ws(' ', prosrc, probin, pg_get_function_sqlbody(oid))), 'language', prolang, 'security', prosecdef, 'strictness', proisstrict,
                          'settings', proconfig, 'volatility', provolatile, 'parallel', proparallel, 'leakproof', proleakproof)
FROM functions
UNION ALL
SELECT 'type', oid::text, '', name,
       jsonb_build_object('own', name, 'owner', typowner::regrole::text, 'required', typnotnull, 'default', typdefault)
FROM types
UNION ALL
SELECT 'value', e.oid::text, 'type|' || e.enumtypid, e.enumlabel || ' of type ' || t.name, jsonb_build_object('own', e.enumlabel)
FROM pg_enum e JOIN types t ON t.oid = e.enumtypid
UNION ALL
-- What the server has for whoever is one of the migrations' roles, or is in their database.
SELECT 'setting', concat_ws('|', s.setdatabase, s.setrole, split_part(x, '=', 1)), '',
       split_part(x, '=', 1) || ' of ' || CASE s.setrole WHEN 0 THEN 'the database' ELSE s.setrole::regrole::text END, jsonb_build_object('is', x)
FROM pg_db_role_setting s, unnest(s.setconfig) x
WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
   OR s.setdatabase = 0 AND s.setrole IN (SELECT oid FROM pg_roles WHERE starts_with(rolname, current_database() || '_'))
UNION ALL
SELECT 'grant', concat_ws('|', 'member', m.roleid, m.member), '', 'membership in ' || m.roleid::regrole || ' of ' || m.member::regrole, '{}'
FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE starts_with(r.rolname, current_database() || '_')
UNION ALL
-- What nobody granted or took away is what PostgreSQL gives with a thing of the kind: with a function, EXECUTE to everybody.
SELECT 'grant', concat_ws('|', g.class, g.object, g.part, g.grantee, g.privilege_type), CASE g.class WHEN 'database' THEN '' ELSE g.class || '|' || g.object END,
       g.privilege_type || ' on ' || g.name || ' to ' || CASE g.grantee WHEN '0' THEN 'everybody' WHEN 'owner' THEN 'its owner' ELSE g.grantee::oid::regrole::text END, '{}'
FROM (
    SELECT o.class, o.object, o.part, o.name, CASE x.grantee WHEN o.owner THEN 'owner' ELSE x.grantee::text END AS grantee, x.privilege_type FROM (
        SELECT 'relation' AS class, oid AS object, 0 AS part, name, relowner AS owner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
        FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL
        SELECT 'relation', r.oid, a.attnum, r.name || '.' || a.attname, r.relowner, a.attacl FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid WHERE NOT a.attisdropped
        UNION ALL
        SELECT 'schema', oid, 0, 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM spaces
        UNION ALL
        SELECT 'function', oid, 0, name, proowner, coalesce(proacl, acldefault('f', proowner)) FROM functions
        UNION ALL
        SELECT 'type', oid, 0, 'type ' || name, typowner, coalesce(typacl, acldefault('T', typowner)) FROM types
        UNION ALL
        SELECT 'database', oid, 0, 'the database', datdba, coalesce(datacl, acldefault('d', datdba)) FROM pg_database WHERE datname = current_database()
    ) o, aclexplode(o.acl) x
) g
