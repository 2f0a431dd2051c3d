-- name: InsertRelease :execrows
INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor)
VALUES (@name, @version, @payload, @envelope, @key_ids, @actor)
ON CONFLICT DO NOTHING;

-- name: SignReleaseAgain :exec
UPDATE registry.releases SET envelope = @envelope, key_ids = @key_ids WHERE name = @name;

-- name: ReleaseByName :one
SELECT * FROM registry.releases WHERE name = @name;

-- name: ReleasesOfVersion :many
SELECT * FROM registry.releases WHERE version = @version ORDER BY seq DESC LIMIT 2;

-- name: ListReleases :many
SELECT * FROM registry.releases WHERE seq < @before ORDER BY seq DESC LIMIT @size;
