-- name: InsertLicence :one
INSERT INTO registry.licences (tenant_id, serial, file, actor, reason) VALUES (@tenant_id, @serial, @file, @actor, @reason)
RETURNING *;

-- name: NewestLicence :one
SELECT * FROM registry.licences WHERE tenant_id = @tenant_id ORDER BY serial DESC LIMIT 1;

-- name: LicenceAfter :one
-- The newest licence of a tenant whose set holds an older one.
SELECT file FROM registry.licences WHERE tenant_id = @tenant_id AND serial > @serial ORDER BY serial DESC LIMIT 1;

-- name: ListLicences :many
SELECT * FROM registry.licences WHERE tenant_id = @tenant_id AND serial < @before ORDER BY serial DESC LIMIT @size;

-- name: PutLicenceReport :exec
INSERT INTO registry.licence_reports AS r (tenant_id, serial, state, valid_until, clock_behind, refused, next_serial)
VALUES (@tenant_id, @serial, @state, @valid_until, @clock_behind, @refused, @next_serial)
ON CONFLICT (tenant_id) DO UPDATE SET serial = excluded.serial, state = excluded.state, valid_until = excluded.valid_until,
    clock_behind = excluded.clock_behind, refused = excluded.refused, next_serial = excluded.next_serial, changed_at = excluded.changed_at
WHERE (r.serial, r.state, r.valid_until, r.clock_behind, r.refused, r.next_serial)
    IS DISTINCT FROM (excluded.serial, excluded.state, excluded.valid_until, excluded.clock_behind, excluded.refused, excluded.next_serial);

-- name: LicenceReportsOf :many
SELECT * FROM registry.licence_reports WHERE tenant_id = ANY (@tenant_ids::uuid[]);

-- name: KeepUsage :one
-- Whether it is kept: one that is already, or the first of its tenant in a while. Nobody deletes any as long as the tenant is there, so what comes sooner
-- waits at the set.
WITH added AS (
    INSERT INTO registry.usage_reports (tenant_id, until, note)
    SELECT @tenant_id, @until, @note WHERE NOT EXISTS (SELECT FROM registry.usage_reports u
        WHERE u.tenant_id = @tenant_id AND u.heard_at > now() - make_interval(secs => @pace_seconds::float8))
    ON CONFLICT DO NOTHING RETURNING until
)
SELECT (EXISTS (SELECT FROM added) OR EXISTS (SELECT FROM registry.usage_reports k WHERE k.tenant_id = @tenant_id AND k.until = @until))::boolean AS kept;

-- name: NewestUsage :one
-- By the registry's clock: a set whose own ran ahead once said so of a time that is still to come.
SELECT * FROM registry.usage_reports WHERE tenant_id = @tenant_id ORDER BY heard_at DESC, until DESC LIMIT 1;
