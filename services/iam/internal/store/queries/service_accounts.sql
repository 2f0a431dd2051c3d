-- name: AddServiceAccount :one
INSERT INTO iam.service_accounts (id, name, key_id, public_key, tenant_role) VALUES (@id, @name, @key_id, @public_key, @tenant_role)
RETURNING *;

-- name: GetServiceAccount :one
SELECT * FROM iam.service_accounts WHERE id = @id;

-- name: ListServiceAccounts :many
SELECT * FROM iam.service_accounts WHERE id > @after::uuid ORDER BY id LIMIT @most;

-- name: DeleteServiceAccount :one
DELETE FROM iam.service_accounts WHERE id = @id RETURNING *;

-- name: DeleteMembershipsOfServiceAccount :exec
DELETE FROM iam.members WHERE service_account_id = @service_account_id;

-- name: MemberServiceAccount :one
-- What role_iam may see of a service account.
SELECT id, name FROM iam.service_accounts WHERE id = @id;
