-- Members of these roles, from PostgreSQL 16 on: each membership says for itself whether it is inherited and allows SET ROLE.
SELECT m.roleid, u.rolname::text, bool_or(m.admin_option), bool_or(m.inherit_option), bool_or(m.set_option),
       left(string_agg(DISTINCT pg_get_userbyid(m.grantor)::text, ', '), 500)
  FROM pg_auth_members m
  JOIN pg_roles u ON u.oid = m.member
 WHERE m.roleid = ANY ($1)
 GROUP BY m.roleid, u.oid, u.rolname
 ORDER BY m.roleid, u.oid
