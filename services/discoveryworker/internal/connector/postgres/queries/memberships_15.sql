-- Members of these roles, to PostgreSQL 15: the member decides whether it inherits, and every membership allows SET ROLE.
SELECT m.roleid, u.rolname::text, bool_or(m.admin_option), u.rolinherit, true,
       left(string_agg(DISTINCT pg_get_userbyid(m.grantor)::text, ', '), 500)
  FROM pg_auth_members m
  JOIN pg_roles u ON u.oid = m.member
 WHERE m.roleid = ANY ($1)
 GROUP BY m.roleid, u.oid, u.rolname, u.rolinherit
 ORDER BY m.roleid, u.oid
