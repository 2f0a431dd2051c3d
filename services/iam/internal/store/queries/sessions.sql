-- name: AddSession :exec
INSERT INTO iam.sessions (id, user_id, expires_at) VALUES (@id, @user_id, @expires_at);

-- name: EndSession :execrows
UPDATE iam.sessions SET ended_at = @now::timestamptz WHERE id = @id AND ended_at IS NULL;

-- name: EndSessionsOfUser :execrows
UPDATE iam.sessions SET ended_at = @now::timestamptz WHERE user_id = @user_id AND ended_at IS NULL;

-- name: GetSession :one
SELECT * FROM iam.sessions WHERE id = @id;

-- name: AddRefreshToken :exec
INSERT INTO iam.refresh_tokens (token_hash, session_id, expires_at) VALUES (@token_hash, @session_id, @expires_at);

-- name: LockRefreshToken :one
-- The token with its session. Two refreshes with one token happen one after the other.
SELECT t.token_hash, t.session_id, t.expires_at, t.used_at, t.successor_hash, t.successor_sealed,
       s.user_id, s.expires_at AS session_expires_at, s.ended_at AS session_ended_at
FROM iam.refresh_tokens t JOIN iam.sessions s ON s.id = t.session_id
WHERE t.token_hash = @token_hash
FOR UPDATE OF t;

-- name: UseRefreshToken :exec
UPDATE iam.refresh_tokens SET used_at = @now::timestamptz, successor_hash = @successor_hash, successor_sealed = @successor_sealed
WHERE token_hash = @token_hash;

-- name: ForgetSuccessor :exec
-- Once a token was used, whoever holds the one before it gets it no more.
UPDATE iam.refresh_tokens SET successor_sealed = NULL WHERE successor_hash = @token_hash;

-- name: SuccessorUnused :one
SELECT EXISTS (SELECT FROM iam.refresh_tokens WHERE token_hash = @token_hash AND used_at IS NULL AND expires_at > @now::timestamptz);

-- name: UserAccess :one
-- What a person's token may say, in one snapshot: roles and the revocation sequence number that belongs to them.
SELECT h.sequence, u.state, u.tenant_role, m.role AS workspace_role, m.transfer_id
FROM iam.users u
JOIN iam.sessions s ON s.user_id = u.id AND s.id = @session_id AND s.ended_at IS NULL AND s.expires_at > @now::timestamptz
CROSS JOIN iam.revocation_head h
LEFT JOIN iam.members m ON m.user_id = u.id AND m.workspace_id = sqlc.narg(workspace_id)
WHERE u.id = @user_id;

-- name: ServiceAccountAccess :one
SELECT h.sequence, a.tenant_role, m.role AS workspace_role, m.transfer_id
FROM iam.service_accounts a
CROSS JOIN iam.revocation_head h
LEFT JOIN iam.members m ON m.service_account_id = a.id AND m.workspace_id = sqlc.narg(workspace_id)
WHERE a.id = @id;

-- name: TakeAssertion :execrows
-- No row: this jti was taken before.
INSERT INTO iam.assertions (service_account_id, jti_hash, expires_at) VALUES (@service_account_id, @jti_hash, @expires_at)
ON CONFLICT DO NOTHING;

-- name: PruneSessions :execrows
DELETE FROM iam.sessions WHERE expires_at < @before::timestamptz OR ended_at < @before::timestamptz;

-- name: PruneRefreshTokens :execrows
DELETE FROM iam.refresh_tokens WHERE used_at < @before::timestamptz;

-- name: PruneAssertions :execrows
DELETE FROM iam.assertions WHERE expires_at < @before::timestamptz;
