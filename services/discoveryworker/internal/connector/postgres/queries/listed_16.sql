-- Roles that somebody is listed in by a membership without SET ROLE, and all that those roles are listed in.
WITH RECURSIVE listed (oid) AS (
    SELECT roleid FROM pg_auth_members GROUP BY roleid, member HAVING NOT bool_or(set_option)
    UNION
    SELECT m.roleid FROM pg_auth_members m JOIN listed l ON l.oid = m.member
)
SELECT r.rolname::text FROM listed l JOIN pg_roles r ON r.oid = l.oid
