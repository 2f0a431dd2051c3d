-- A removed integration's access is closed, for all of its scopes at once.

-- name: InsertRetired :execrows
INSERT INTO discovery.retired_integrations (workspace_id, integration_id, retired_at) VALUES (a3.current_workspace(), $1, $2) ON CONFLICT DO NOTHING;

-- name: IsRetired :one
SELECT EXISTS (SELECT FROM discovery.retired_integrations i WHERE i.workspace_id = a3.current_workspace() AND i.integration_id = $1);

-- name: RetireGrants :execrows
UPDATE discovery.grants SET until = $2 WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND until IS NULL;

-- name: RetireExpansions :exec
UPDATE discovery.expansions SET until = $2 WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND until IS NULL;

-- name: RetireEntitlements :exec
UPDATE discovery.entitlements SET until = $2 WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND until IS NULL;

-- name: RetireResources :exec
UPDATE discovery.resources SET until = $2 WHERE workspace_id = a3.current_workspace() AND integration_id = $1 AND until IS NULL;

-- name: ScopesSeen :many
-- The workspace is asked for once, and not for every row.
SELECT g.scope FROM discovery.grants g WHERE g.workspace_id = (SELECT a3.current_workspace()) AND g.integration_id = $1 AND g.until IS NULL
UNION SELECT x.scope FROM discovery.expansions x WHERE x.workspace_id = (SELECT a3.current_workspace()) AND x.integration_id = $1 AND x.until IS NULL
UNION SELECT e.scope FROM discovery.entitlements e WHERE e.workspace_id = (SELECT a3.current_workspace()) AND e.integration_id = $1 AND e.until IS NULL
UNION SELECT r.scope FROM discovery.resources r WHERE r.workspace_id = (SELECT a3.current_workspace()) AND r.integration_id = $1 AND r.until IS NULL;
