-- Databases by name, whether anybody may connect, whether it is a template, and whether this role may.
SELECT d.datname::text, d.datallowconn, d.datistemplate, has_database_privilege(d.oid, 'CONNECT')
  FROM pg_database d
 WHERE d.datname::text COLLATE "C" >= $1
 ORDER BY d.datname::text COLLATE "C"
