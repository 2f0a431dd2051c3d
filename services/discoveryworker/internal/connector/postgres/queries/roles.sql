-- A page of roles by oid. "infinity" and no limit are both no limit.
SELECT r.oid, r.rolname::text, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls,
       r.rolconnlimit,
       CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil::text ELSE '' END,
       coalesce(r.rolvaliduntil < now(), false),
       coalesce(shobj_description(r.oid, 'pg_authid'), '')
  FROM pg_roles r
 WHERE r.oid > $1
 ORDER BY r.oid
 LIMIT $2
