-- A page of types and domains by oid: those that were made, and those of the system whose ACL was changed since initdb. An array, a
-- multirange and the row of a table have no ACL that anyone grants on.
WITH page AS MATERIALIZED (
    SELECT t.oid, n.nspname, t.typname, t.typtype, t.typowner, t.typacl IS NULL AS defaulted, coalesce(t.typacl, acldefault('T', t.typowner)) AS acl
      FROM pg_type t
      JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.oid > $1
       AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
       AND t.typtype <> 'm'
       AND NOT (t.typcategory = 'A' AND t.typelem <> 0)
       AND (t.typrelid = 0 OR (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) = 'c')
       AND (t.oid >= 16384
            OR t.typacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_type'::regclass AND i.objoid = t.oid AND i.objsubid = 0 AND i.initprivs = t.typacl))
     ORDER BY t.oid
     LIMIT $2
)
SELECT p.oid, CASE p.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, ARRAY[p.nspname::text, p.typname::text], '',
       pg_get_userbyid(p.typowner)::text, p.defaulted, false, ARRAY[]::text[],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(p.acl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.oid, a.grantee, a.privilege_type
