-- A page of databases by oid, with their ACLs.
WITH page AS MATERIALIZED (
    SELECT d.oid, d.datname, d.datdba, coalesce(d.datacl, acldefault('d', d.datdba)) AS acl, d.datacl IS NULL AS defaulted,
           d.datallowconn, d.datistemplate
      FROM pg_database d
     WHERE d.oid > $1
     ORDER BY d.oid
     LIMIT $2
)
SELECT p.oid, 'database', ARRAY[p.datname::text], '', pg_get_userbyid(p.datdba)::text, p.defaulted, false,
       ARRAY['allow_connections', p.datallowconn::text, 'template', p.datistemplate::text]
         || CASE WHEN EXISTS (SELECT FROM pg_roles r WHERE r.oid = p.datdba AND NOT r.rolinherit) THEN ARRAY['owner_inherits', 'false'] ELSE ARRAY[]::text[] END,
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
