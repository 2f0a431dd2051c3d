package authn

import (
	"time"

	"github.com/golang-jwt/jwt/v5"

	"a3os.app/libs/id"
	"a3os.app/libs/scope"
)

// MaxLifetime is the longest an access token may live; the issuer gives no longer one, and a verifier accepts none.
const MaxLifetime = 10 * time.Minute

// TokenType is the `typ` of access tokens (RFC 9068 §2.1). Nothing else is accepted as one.
const TokenType = "at+jwt"

// Claims is what a verified access token says.
type Claims struct {
	// Principal is `usr_…` or `svc_…`.
	Principal scope.Principal
	// Tenant is the tenant that issued it.
	Tenant id.Tenant
	// Workspace is the one workspace it is for; zero for a tenant-wide token.
	Workspace id.Workspace
	// Permissions are those of its roles, sorted.
	Permissions []string
	// Session is the person's session; zero for service accounts.
	Session id.Session
	// Revision is the issuer's revocation sequence number when it was issued.
	Revision int64
	// Transfer is the transfer of ownership its role rests on, if any.
	Transfer id.Transfer
	// ExpiresAt is when it ends.
	ExpiresAt time.Time
}

// TokenClaims is an access token as it is written (RFC 9068, and claims of ours).
type TokenClaims struct {
	jwt.RegisteredClaims
	// TenantID is `tid`.
	TenantID string `json:"tid"`
	// WorkspaceID is `wid`; absent for a tenant-wide token.
	WorkspaceID string `json:"wid,omitempty"`
	// Roles are names of libs/authz.
	Roles []string `json:"roles"`
	// SessionID is `sid`; absent for service accounts.
	SessionID string `json:"sid,omitempty"`
	// Revision is `rev`, the revocation sequence number at issue.
	Revision int64 `json:"rev"`
	// TransferID is `xfr`; absent where the role rests on no transfer.
	TransferID string `json:"xfr,omitempty"`
}
