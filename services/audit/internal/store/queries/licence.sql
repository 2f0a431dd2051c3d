-- name: LicenceWatch :one
SELECT * FROM audit.licence_watch;

-- name: LockLicenceWatch :one
SELECT * FROM audit.licence_watch FOR UPDATE;

-- name: InsertLicence :exec
INSERT INTO audit.licences (serial, file, installed_at) VALUES (@serial, @file, @installed_at);

-- name: LicenceFile :one
SELECT file, installed_at FROM audit.licences WHERE serial = @serial ORDER BY id DESC LIMIT 1;

-- name: SetSeen :exec
UPDATE audit.licence_watch SET seen_at = @seen_at;

-- name: SetTold :exec
UPDATE audit.licence_watch SET told_state = @state, told_behind = @behind, told_refusal = @refusal;

-- name: SetUsage :exec
UPDATE audit.licence_watch SET usage_note = @note, usage_at = @at;

-- name: NewestEntryAt :one
SELECT recorded_at FROM audit.entries ORDER BY idx DESC LIMIT 1;
