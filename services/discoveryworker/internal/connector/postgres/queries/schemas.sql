-- A page of schemas by oid: those that were made, `public`, and any other whose ACL was changed since initdb.
WITH page AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl, n.nspacl IS NULL AS defaulted
      FROM pg_namespace n
     WHERE n.oid > $1
       AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
       AND (n.oid >= 16384 OR n.nspname = 'public'
            OR n.nspname <> 'information_schema' AND n.nspacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_namespace'::regclass AND i.objoid = n.oid AND i.objsubid = 0 AND i.initprivs = n.nspacl))
     ORDER BY n.oid
     LIMIT $2
)
SELECT p.oid, 'schema', ARRAY[p.nspname::text], '', pg_get_userbyid(p.nspowner)::text, p.defaulted, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
