-- name: LockSigningKeys :exec
-- Two processes that start at once make keys one after the other.
SELECT pg_advisory_xact_lock(hashtext('iam.signing_keys'));

-- name: SigningKeys :many
SELECT * FROM iam.signing_keys ORDER BY created_at, kid;

-- name: AddSigningKey :exec
INSERT INTO iam.signing_keys (kid, sealed, public_key, state, activated_at) VALUES (@kid, @sealed, @public_key, @state, @activated_at);

-- name: RetireCurrentKey :exec
UPDATE iam.signing_keys SET state = 'previous', retired_at = @now::timestamptz WHERE state = 'current';

-- name: ActivateNextKey :execrows
UPDATE iam.signing_keys SET state = 'current', activated_at = @now::timestamptz WHERE state = 'next';

-- name: DropSigningKeys :execrows
DELETE FROM iam.signing_keys;

-- name: SealAgain :exec
UPDATE iam.signing_keys SET sealed = @sealed WHERE kid = @kid;

-- name: SigningKeyIDs :many
SELECT kid FROM iam.signing_keys ORDER BY kid;

-- name: DropRetiredKeys :execrows
DELETE FROM iam.signing_keys WHERE state = 'previous' AND retired_at < @before::timestamptz;
