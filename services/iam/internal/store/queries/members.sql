-- name: AddMember :one
INSERT INTO iam.members (workspace_id, user_id, service_account_id, role) VALUES (@workspace_id, @user_id, @service_account_id, @role)
ON CONFLICT (workspace_id, principal_id) DO NOTHING
RETURNING *;

-- name: GetMember :one
SELECT m.*, u.email, s.name AS service_account_name FROM iam.members m
LEFT JOIN iam.users u ON u.id = m.user_id
LEFT JOIN iam.service_accounts s ON s.id = m.service_account_id
WHERE m.workspace_id = @workspace_id AND m.principal_id = @principal_id;

-- name: ListMembers :many
SELECT m.*, u.email, s.name AS service_account_name FROM iam.members m
LEFT JOIN iam.users u ON u.id = m.user_id
LEFT JOIN iam.service_accounts s ON s.id = m.service_account_id
WHERE m.workspace_id = @workspace_id AND m.principal_id > @after::uuid
ORDER BY m.principal_id LIMIT @most;

-- name: RemoveMember :execrows
DELETE FROM iam.members WHERE workspace_id = @workspace_id AND principal_id = @principal_id AND role <> 'owner';

-- name: SetMemberRole :execrows
-- The role rests on this call from now on, and on no transfer.
UPDATE iam.members SET role = @role, transfer_id = NULL
WHERE workspace_id = @workspace_id AND principal_id = @principal_id AND role <> 'owner';

-- name: RemoveMembershipsOfUser :execrows
DELETE FROM iam.members WHERE user_id = @user_id;

-- name: MakeOwner :exec
-- The owner by a transfer, or, with none, of a workspace that is made.
INSERT INTO iam.members (workspace_id, user_id, role, transfer_id) VALUES (@workspace_id, @user_id, 'owner', @transfer_id)
ON CONFLICT (workspace_id, principal_id) DO UPDATE SET role = 'owner', transfer_id = excluded.transfer_id;

-- name: StepDown :execrows
-- The former owner stays as an admin.
UPDATE iam.members SET role = 'admin', transfer_id = @transfer_id
WHERE workspace_id = @workspace_id AND user_id = @user_id AND role = 'owner';
