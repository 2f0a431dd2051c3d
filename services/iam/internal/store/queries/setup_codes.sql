-- name: AddSetupCode :exec
INSERT INTO iam.setup_codes (code_hash, user_id, expires_at) VALUES (@code_hash, @user_id, @expires_at);

-- name: DropSetupCodesOfUser :exec
DELETE FROM iam.setup_codes WHERE user_id = @user_id;

-- name: TakeSetupCode :one
-- Of two who redeem one code, one gets the row.
DELETE FROM iam.setup_codes WHERE code_hash = @code_hash RETURNING *;

-- name: SeeBootstrapCode :execrows
-- No row: this code was taken up before.
INSERT INTO iam.bootstrap_codes (code_hash) VALUES (@code_hash) ON CONFLICT DO NOTHING;

-- name: PruneSetupCodes :execrows
DELETE FROM iam.setup_codes WHERE expires_at < @before::timestamptz;

-- name: OtherAdminAtWork :one
-- Another tenant admin with a session that was used since.
SELECT u.id, u.email FROM iam.users u JOIN iam.sessions s ON s.user_id = u.id
WHERE u.tenant_role = 'admin' AND u.state = 'active' AND u.id <> @id AND s.ended_at IS NULL AND s.expires_at > @now::timestamptz
  AND (s.started_at > @since::timestamptz OR EXISTS (SELECT FROM iam.refresh_tokens t WHERE t.session_id = s.id AND t.used_at > @since::timestamptz))
ORDER BY u.email LIMIT 1;
