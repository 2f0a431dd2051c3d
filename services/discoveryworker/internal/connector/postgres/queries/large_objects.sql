-- A page of large objects by oid.
WITH page AS MATERIALIZED (
    SELECT l.oid, l.lomowner, l.lomacl IS NULL AS defaulted, coalesce(l.lomacl, acldefault('L', l.lomowner)) AS acl
      FROM pg_largeobject_metadata l
     WHERE l.oid > $1
     ORDER BY l.oid
     LIMIT $2
)
SELECT p.oid, 'large_object', ARRAY[p.oid::text], '', pg_get_userbyid(p.lomowner)::text, p.defaulted, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
