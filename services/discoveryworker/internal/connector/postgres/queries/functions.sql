-- A page of functions and procedures by oid: those that were made, and those of the system whose ACL was changed since initdb.
WITH page AS MATERIALIZED (
    SELECT f.oid, n.nspname, f.proname, f.prokind, f.proowner, f.proacl IS NULL AS defaulted, f.prosecdef, oidvectortypes(f.proargtypes) AS arguments,
           coalesce(f.proacl, acldefault('f', f.proowner)) AS acl
      FROM pg_proc f
      JOIN pg_namespace n ON n.oid = f.pronamespace
     WHERE f.oid > $1
       AND n.nspname !~ '^pg_temp_'
       AND (f.oid >= 16384 OR n.nspname <> 'information_schema')
       AND (f.oid >= 16384
            OR f.proacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = f.oid AND i.objsubid = 0 AND i.initprivs = f.proacl))
     ORDER BY f.oid
     LIMIT $2
)
SELECT p.oid, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, ARRAY[p.nspname::text, p.proname::text], '(' || p.arguments || ')',
       pg_get_userbyid(p.proowner)::text, p.defaulted, false,
       CASE WHEN p.prosecdef THEN ARRAY['security_definer', 'true'] ELSE ARRAY[]::text[] END,
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
