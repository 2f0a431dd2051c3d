-- A page of tables, views and sequences by oid: those that were made, and those of the system whose ACL, or that of a column, was
-- changed since initdb. The server keeps everybody but superusers from changing catalogues (pg_class_aclmask), whatever the ACL says.
WITH page AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relowner, c.relacl IS NULL AS defaulted, c.relrowsecurity,
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid > $1
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       AND c.relpersistence <> 't'
       AND n.nspname <> 'pg_toast'
       AND (c.oid >= 16384 OR n.nspname <> 'information_schema')
       AND (c.oid >= 16384
            OR c.relacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = 0 AND i.initprivs = c.relacl)
            OR EXISTS (SELECT FROM pg_attribute t
                        WHERE t.attrelid = c.oid AND NOT t.attisdropped AND t.attacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_class'::regclass AND i.objoid = t.attrelid AND i.objsubid = t.attnum AND i.initprivs = t.attacl)))
     ORDER BY c.oid
     LIMIT $2
)
SELECT p.oid,
       CASE p.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized_view' WHEN 'f' THEN 'foreign_table' WHEN 'S' THEN 'sequence' ELSE 'table' END,
       ARRAY[p.nspname::text, p.relname::text], '', pg_get_userbyid(p.relowner)::text, p.defaulted,
       p.oid < 12000 AND p.relkind <> 'v',
       CASE WHEN p.relrowsecurity THEN ARRAY['row_security', 'true'] ELSE ARRAY[]::text[] END,
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
