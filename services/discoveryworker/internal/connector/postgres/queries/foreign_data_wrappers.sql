-- A page of foreign-data wrappers by oid.
WITH page AS MATERIALIZED (
    SELECT f.oid, f.fdwname, f.fdwowner, f.fdwacl IS NULL AS defaulted, coalesce(f.fdwacl, acldefault('F', f.fdwowner)) AS acl
      FROM pg_foreign_data_wrapper f
     WHERE f.oid > $1
     ORDER BY f.oid
     LIMIT $2
)
SELECT p.oid, 'foreign_data_wrapper', ARRAY[p.fdwname::text], '', pg_get_userbyid(p.fdwowner)::text, p.defaulted, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
