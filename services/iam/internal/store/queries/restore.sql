-- name: EndAllSessions :execrows
UPDATE iam.sessions SET ended_at = @now::timestamptz WHERE ended_at IS NULL;

-- name: DropRefreshTokens :execrows
DELETE FROM iam.refresh_tokens;

-- name: DropSetupCodes :execrows
DELETE FROM iam.setup_codes;

-- name: JumpRevocations :one
-- Numbers that were given out after the backup was taken are never given out again: a token that carries one of them would seem to be
-- younger than what revokes it. Nobody revokes once a millisecond for ever.
UPDATE iam.revocation_head SET sequence = greatest(sequence + 1, (extract(epoch FROM @now::timestamptz) * 1000)::bigint) RETURNING sequence;
