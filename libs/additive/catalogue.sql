-- What a database is, as far as a program can depend on it: a row each, whose id stays what it is when the thing is renamed.
WITH spaces AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), relations AS (
    SELECT c.*, s.nspname || '.' || c.relname AS name FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace
)
SELECT 'relation', oid::text, oid, name,
       jsonb_build_object('own', name, 'kind', relkind, 'file', relfilenode, 'secured', relrowsecurity, 'forced', relforcerowsecurity)
FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S')
UNION ALL
SELECT 'column', a.attrelid || '.' || a.attnum, a.attrelid, r.name || '.' || a.attname,
       jsonb_build_object('own', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'required', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid),
                          'made', a.attidentity <> '' OR a.attgenerated <> '')
FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT 'constraint', k.oid::text, k.conrelid, k.conname || ' of ' || r.name, jsonb_build_object('own', k.conname, 'is', pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid WHERE k.contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT 'index', i.indexrelid::text, i.indrelid, x.name || ' of ' || r.name,
       jsonb_build_object('own', x.relname, 'unique', i.indisunique, 'constrains', EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid))
FROM pg_index i JOIN relations r ON r.oid = i.indrelid JOIN relations x ON x.oid = i.indexrelid
UNION ALL
SELECT 'policy', p.oid::text, p.polrelid, p.polname || ' of ' || r.name,
       jsonb_build_object('own', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd, 'roles', p.polroles::regrole[]::text[],
                          'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT 'trigger', t.oid::text, t.tgrelid, t.tgname || ' of ' || r.name, jsonb_build_object('own', t.tgname, 'is', pg_get_triggerdef(t.oid))
FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'function', p.oid::text, 0::oid, p.oid::regprocedure::text, jsonb_build_object('own', p.oid::regprocedure::text, 'result', pg_get_function_result(p.oid))
FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace
UNION ALL
SELECT 'value', e.enumtypid || '.' || e.enumlabel, 0::oid, e.enumlabel || ' of type ' || t.oid::regtype::text, '{}'
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN spaces s ON s.oid = t.typnamespace
UNION ALL
SELECT 'grant', concat_ws('|', g.class, g.object, g.part, g.grantee, g.privilege_type), CASE g.class WHEN 'schema' THEN 0::oid ELSE g.object END,
       g.privilege_type || ' on ' || g.name || ' to ' || CASE g.grantee WHEN 0 THEN 'everybody' ELSE g.grantee::regrole::text END, '{}'
FROM (
    SELECT 'relation' AS class, r.oid AS object, 0 AS part, r.name, x.grantee, x.privilege_type FROM relations r, aclexplode(r.relacl) x
    UNION ALL
    SELECT 'column', r.oid, a.attnum, r.name || '.' || a.attname, x.grantee, x.privilege_type
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid, aclexplode(a.attacl) x
    UNION ALL
    SELECT 'schema', s.oid, 0, 'schema ' || s.nspname, x.grantee, x.privilege_type FROM pg_namespace n JOIN spaces s ON s.oid = n.oid, aclexplode(n.nspacl) x
    UNION ALL
    SELECT 'function', p.oid, 0, p.oid::regprocedure::text, x.grantee, x.privilege_type FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace, aclexplode(p.proacl) x
) g
