-- name: AddWorkspace :one
INSERT INTO iam.workspaces (id, name, owner_user_id) VALUES (@id, @name, @owner_user_id) RETURNING *;

-- name: GetWorkspace :one
-- A workspace with its owner's address and the role that a principal has in it, if any.
SELECT w.id, w.name, w.owner_user_id, w.created_at, u.email AS owner_email, m.role AS your_role
FROM iam.workspaces w
JOIN iam.users u ON u.id = w.owner_user_id
LEFT JOIN iam.members m ON m.workspace_id = w.id AND m.principal_id = @principal_id
WHERE w.id = @id;

-- name: ListWorkspaces :many
SELECT w.id, w.name, w.owner_user_id, w.created_at, u.email AS owner_email, m.role AS your_role
FROM iam.workspaces w
JOIN iam.users u ON u.id = w.owner_user_id
LEFT JOIN iam.members m ON m.workspace_id = w.id AND m.principal_id = @principal_id
WHERE w.id > @after::uuid AND (@every_one::boolean OR m.role IS NOT NULL)
ORDER BY w.id LIMIT @most;

-- name: LockWorkspace :one
SELECT w.*, u.email AS owner_email FROM iam.workspaces w JOIN iam.users u ON u.id = w.owner_user_id
WHERE w.id = @id FOR UPDATE OF w;

-- name: SetWorkspaceOwner :exec
UPDATE iam.workspaces SET owner_user_id = @owner_user_id WHERE id = @id;

-- name: WorkspacesOwnedBy :many
SELECT id, name FROM iam.workspaces WHERE owner_user_id = @owner_user_id ORDER BY id LIMIT @most;

-- name: CountWorkspacesOwnedBy :one
SELECT count(*) FROM iam.workspaces WHERE owner_user_id = @owner_user_id;

-- name: AddTransfer :one
INSERT INTO iam.transfers (workspace_id, id, from_user_id, to_user_id, reason)
VALUES (@workspace_id, @id, @from_user_id, @to_user_id, @reason) RETURNING transferred_at;
