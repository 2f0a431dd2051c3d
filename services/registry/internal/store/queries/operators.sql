-- name: PresentOperator :one
SELECT * FROM registry.operators WHERE name = @name AND removed_at IS NULL;

-- name: LastOperator :one
-- Whoever had the name last, removed or not.
SELECT * FROM registry.operators WHERE name = @name ORDER BY id DESC LIMIT 1;

-- name: PresentOperatorOfKey :one
SELECT * FROM registry.operators WHERE key_fingerprint = @key_fingerprint AND key_fingerprint <> '' AND removed_at IS NULL;

-- name: LockOperators :exec
-- One change of operators at a time. A transaction-level advisory lock: rows that are not there yet can't be locked.
SELECT pg_advisory_xact_lock(hashtextextended('registry.operators', 0));

-- name: OwnKeysKnown :one
-- Whether anybody with a key of their own ever was an operator.
SELECT EXISTS (SELECT FROM registry.operators WHERE key_fingerprint <> '' AND confirmed_at IS NOT NULL);

-- name: InsertOperator :one
INSERT INTO registry.operators (name, key_fingerprint, added_by, reason, confirmed_at)
VALUES (@name, @key_fingerprint, @added_by, @reason, CASE WHEN @at_once::boolean THEN clock_timestamp() END) RETURNING *;

-- name: ConfirmOperator :one
UPDATE registry.operators SET confirmed_by = @confirmed_by, confirmed_at = clock_timestamp() WHERE id = @id AND confirmed_at IS NULL RETURNING *;

-- name: RemoveOperator :one
UPDATE registry.operators SET removed_by = @removed_by, removed_at = clock_timestamp(), removal_reason = @removal_reason
WHERE id = @id AND removed_at IS NULL RETURNING *;

-- name: ListOperators :many
SELECT * FROM registry.operators WHERE id < @before ORDER BY id DESC LIMIT @size;
