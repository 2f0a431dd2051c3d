-- Settings of one transaction: names are written the same whatever the server's defaults are, and no query may hang.
SELECT current_setting('server_version_num')::int4,
       current_setting('server_version'),
       current_database()::text,
       current_user::text,
       set_config('search_path', 'pg_catalog', true),
       set_config('datestyle', 'ISO', true),
       set_config('timezone', 'UTC', true),
       set_config('statement_timeout', $1, true),
       set_config('lock_timeout', $1, true),
       set_config('jit', 'off', true)
