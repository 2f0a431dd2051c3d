-- A page of the parameters that somebody was granted; there are no others (PostgreSQL 15 and newer).
WITH page AS MATERIALIZED (
    SELECT s.oid, s.parname, s.paracl AS acl
      FROM pg_parameter_acl s
     WHERE s.oid > $1
     ORDER BY s.oid
     LIMIT $2
)
SELECT p.oid, 'parameter', ARRAY[p.parname], '', '', false, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
