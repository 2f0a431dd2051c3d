-- name: AppendOperation :exec
INSERT INTO registry.operations_log (actor, action, target, detail) VALUES (@actor, @action, @target, @detail);

-- name: ClaimKey :execrows
INSERT INTO registry.idempotency_keys (actor, method, key, request_digest) VALUES (@actor, @method, @key, @request_digest)
ON CONFLICT DO NOTHING;

-- name: FirstResult :one
SELECT request_digest, response FROM registry.idempotency_keys WHERE actor = @actor AND method = @method AND key = @key;

-- name: KeepResult :exec
UPDATE registry.idempotency_keys SET response = @response WHERE actor = @actor AND method = @method AND key = @key;

-- name: DropOldKeys :exec
DELETE FROM registry.idempotency_keys WHERE created_at < clock_timestamp() - interval '48 hours';
