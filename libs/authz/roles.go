package authz

import (
	"fmt"
	"slices"
)

// Self is the permission that every verified principal has.
const Self = "self"

// Roles as they stand in tokens.
const (
	TenantAdmin     = "tenant:admin"
	TenantAuditor   = "tenant:auditor"
	WorkspaceOwner  = "workspace:owner"
	WorkspaceAdmin  = "workspace:admin"
	WorkspaceMember = "workspace:member"
	WorkspaceViewer = "workspace:viewer"
)

var (
	tenantReads = []string{"iam.users.read", "iam.service_accounts.read", "iam.workspaces.read", "iam.signing_keys.read", "audit.read", "audit.verify", "licence.read", "queue.dead_letters.read"}
	viewer      = []string{"iam.workspace.read", "iam.members.read", "integrations.read", "discovery.runs.read", "discovery.access.read"}
	member      = append(slices.Clone(viewer), "discovery.runs.start")
	admin       = append(slices.Clone(member), "iam.members.write", "integrations.write", "audit.read")
)

// roles is which permissions a role carries, and nothing else does.
var roles = map[string][]string{
	TenantAdmin: append(slices.Clone(tenantReads),
		"iam.users.write", "iam.service_accounts.write", "iam.workspaces.create", "iam.workspaces.transfer", "iam.signing_keys.rotate", "queue.dead_letters.settle"),
	TenantAuditor:   tenantReads,
	WorkspaceOwner:  admin,
	WorkspaceAdmin:  admin,
	WorkspaceMember: member,
	WorkspaceViewer: viewer,
}

// Permissions are those of the roles, sorted, with Self. An unknown role is refused.
func Permissions(names []string) ([]string, error) {
	out := []string{Self}
	for _, n := range names {
		ps, ok := roles[n]
		if !ok {
			return nil, fmt.Errorf("unknown role %q", n)
		}
		out = append(out, ps...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Carried says whether any role carries a permission: a rule that names another would let nobody in.
func Carried(p string) bool {
	for _, ps := range roles {
		if slices.Contains(ps, p) {
			return true
		}
	}
	return false
}
