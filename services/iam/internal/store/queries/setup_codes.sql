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
