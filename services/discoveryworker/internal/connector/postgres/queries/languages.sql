-- A page of trusted languages by oid, except those of the system whose ACL is as initdb left it. Others only superusers can use.
WITH page AS MATERIALIZED (
    SELECT l.oid, l.lanname, l.lanowner, l.lanacl IS NULL AS defaulted, coalesce(l.lanacl, acldefault('l', l.lanowner)) AS acl
      FROM pg_language l
     WHERE l.oid > $1
       AND l.lanpltrusted
       AND (l.oid >= 16384
            OR l.lanacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_language'::regclass AND i.objoid = l.oid AND i.objsubid = 0 AND i.initprivs = l.lanacl))
     ORDER BY l.oid
     LIMIT $2
)
SELECT p.oid, 'language', ARRAY[p.lanname::text], '', pg_get_userbyid(p.lanowner)::text, p.defaulted, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
