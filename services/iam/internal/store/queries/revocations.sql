-- name: LockRights :one
-- Changes of who may do what happen one after the other, from here to their commit.
SELECT sequence FROM iam.revocation_head FOR UPDATE;

-- name: Revoke :exec
WITH head AS (UPDATE iam.revocation_head SET sequence = sequence + 1 RETURNING sequence)
INSERT INTO iam.revocations (sequence, principal, session_id, workspace_id)
SELECT sequence, @principal, @session_id, @workspace_id FROM head;

-- name: RevocationHead :one
SELECT sequence FROM iam.revocation_head;

-- name: RevocationsAfter :many
-- Those that may still matter: a token that an older one names has expired.
SELECT * FROM iam.revocations WHERE sequence > @after AND created_at > now() - interval '15 minutes' ORDER BY sequence;

-- name: RevokedSince :one
-- Whether a revocation names a token that was issued at a sequence number.
SELECT EXISTS (
    SELECT FROM iam.revocations
    WHERE sequence > @issued_at AND principal = @principal
      AND (session_id IS NULL OR session_id = sqlc.narg(session_id)) AND (workspace_id IS NULL OR workspace_id = sqlc.narg(workspace_id)));

-- name: PruneRevocations :execrows
DELETE FROM iam.revocations WHERE created_at < now() - interval '1 hour';
