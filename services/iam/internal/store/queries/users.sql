-- name: AddUser :one
INSERT INTO iam.users (id, email, display_name, state, tenant_role) VALUES (@id, @email, @display_name, 'invited', @tenant_role)
RETURNING *;

-- name: GetUser :one
SELECT * FROM iam.users WHERE id = @id;

-- name: LockUser :one
-- Waits for whoever changes the user, and is waited for.
SELECT * FROM iam.users WHERE id = @id FOR UPDATE;

-- name: LockUserByEmail :one
SELECT * FROM iam.users WHERE email = @email FOR UPDATE;

-- name: ListUsers :many
SELECT * FROM iam.users WHERE id > @after::uuid ORDER BY id LIMIT @most;

-- name: SetUserState :one
UPDATE iam.users SET state = @state WHERE id = @id RETURNING *;

-- name: SetUserTenantRole :one
UPDATE iam.users SET tenant_role = @tenant_role WHERE id = @id RETURNING *;

-- name: InviteAgain :one
UPDATE iam.users SET state = 'invited', display_name = @display_name, tenant_role = @tenant_role WHERE id = @id RETURNING *;

-- name: CountOtherAdmins :one
-- Who could still administer the tenant without this user.
SELECT count(*) FROM iam.users WHERE tenant_role = 'admin' AND state = 'active' AND id <> @id;

-- name: AnyoneEverActive :one
SELECT EXISTS (SELECT FROM iam.users WHERE state <> 'invited');

-- name: MemberUserByID :one
-- What role_iam may see of a user.
SELECT id, email, state FROM iam.users WHERE id = @id;

-- name: MemberUserByEmail :one
SELECT id, email, state FROM iam.users WHERE email = @email;

-- name: CountSeats :one
-- Who takes a seat: those who were invited, and those who are in.
SELECT count(*) FROM iam.users WHERE state <> 'deactivated';

-- name: CountServiceAccounts :one
SELECT count(*) FROM iam.service_accounts;
