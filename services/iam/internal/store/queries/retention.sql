-- name: PruneIdempotencyKeys :execrows
-- Row-level security leaves this role its own.
DELETE FROM a3.idempotency_keys WHERE created_at < now() - interval '25 hours';
