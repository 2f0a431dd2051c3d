-- Columns with an ACL of their own, of a page of relations by oid.
WITH page AS MATERIALIZED (
    SELECT DISTINCT t.attrelid
      FROM pg_attribute t
      JOIN pg_class c ON c.oid = t.attrelid
     WHERE t.attrelid > $1
       AND NOT t.attisdropped
       AND t.attacl IS NOT NULL
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND c.relpersistence <> 't'
       AND (t.attrelid >= 16384
            OR t.attacl IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_init_privs i
                                WHERE i.classoid = 'pg_class'::regclass AND i.objoid = t.attrelid AND i.objsubid = t.attnum AND i.initprivs = t.attacl))
     ORDER BY t.attrelid
     LIMIT $2
)
SELECT p.attrelid, 'column', ARRAY[n.nspname::text, c.relname::text, t.attname::text], '', '', false, false,
       ARRAY['of', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized_view' WHEN 'f' THEN 'foreign_table' ELSE 'table' END],
       a.grantee, coalesce(g.rolname::text, ''), coalesce(a.privilege_type, ''), coalesce(a.grantable, false), coalesce(a.grantors, '')
  FROM page p
  JOIN pg_class c ON c.oid = p.attrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute t ON t.attrelid = p.attrelid AND NOT t.attisdropped AND t.attacl IS NOT NULL
  LEFT JOIN LATERAL (
      SELECT x.grantee, x.privilege_type, bool_or(x.is_grantable) AS grantable,
             left(string_agg(DISTINCT pg_get_userbyid(x.grantor)::text, ', '), 500) AS grantors
        FROM aclexplode(t.attacl) x
       GROUP BY x.grantee, x.privilege_type) a ON true
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY p.attrelid, t.attnum, a.grantee, a.privilege_type
