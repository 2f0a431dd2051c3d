package main

// spares takes out what keeps the database of a new tenant its own where it was made before anybody asked for it, what has a set at rest give
// its connections back, and what goes on while the registry of a plane at AWS is put back.
func spares() []mutation {
	const spare = "tools/fleet/internal/platform/local/spare.go"
	local := these("tools", "./fleet/internal/platform/local", "TestSpare")
	return []mutation{
		one("the template that a spare has to be of", spare, "shobj_description(d.oid, 'pg_database') = $1 AND starts", "shobj_description(d.oid, 'pg_database') > left($1, 8) AND starts", local),
		one("the lock of who takes a spare", spare, "SELECT pg_try_advisory_xact_lock($1)", "SELECT $1::bigint > 0", local),
		one("the door of a spare", spare, "\"ALTER DATABASE \"+quoted(name)+\" ALLOW_CONNECTIONS false\", ", "", local),
		one("the roles of a spare that log nobody in", spare, "\" NOLOGIN NOINHERIT\"", "\" LOGIN NOINHERIT\"", local),
		one("the end of connections that a burst opened", "libs/pg/pg.go", "pc.HealthCheckPeriod = 45 * time.Second", "pc.HealthCheckPeriod = 5 * time.Second", these("libs", "./pg", "TestPoolThatIsAsked")),
		one("the components that go on beside idle ones", "tools/fleet/internal/platform/aws/stack/tasks.go", "if s.running && !slices.Contains(s.idle, c.Name) {", "if s.running && len(s.idle) == 0 {",
			these("tools", "./fleet/internal/platform/aws/stack", "TestIdleComponents")),
	}
}
