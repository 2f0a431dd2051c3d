// Package secret keeps the credentials of a tenant's integrations so that who writes one can't read it back: a [Writer] seals
// to a public key, a [Reader] opens with the private one, and no type is both. A credential lies under a [Path] of ids, and what is
// stored opens only at the path, of the tenant, in the version it was written for. No error holds a value. It does not notice that
// an older file was put back in the place of a newer one of the same path: whoever can do that could delete it as well.
//
// The local driver keeps files in a directory that carries the tenant's mark, sealed by HPKE (RFC 9180: X25519, HKDF-SHA-256,
// AES-256-GCM; tink).
package secret

import (
	"context"
	"fmt"
	"strings"

	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// MostBytes bounds one credential. With what sealing puts around it, it is a secret of AWS Secrets Manager, which end at 64 KiB.
const MostBytes = 63 << 10

// Writer puts credentials in, and can't read them.
type Writer interface {
	// Put stores value, in the place of what was there. An empty value, or one of more than [MostBytes], is refused.
	Put(ctx context.Context, path Path, value config.Secret) error
	// Delete takes the credential away; an absent one is no error.
	Delete(ctx context.Context, path Path) error
}

// Reader reads credentials, and can't write them.
type Reader interface {
	// Get answers the credential and its version, which grows with every Put of the path. Errors: [ErrNotFound], [ErrUnreadable],
	// [ErrForeign].
	Get(ctx context.Context, path Path) (value config.Secret, version int64, err error)
}

// Errors of every driver; find them with errors.Is.
var (
	// ErrNotFound says that nothing lies at a path.
	ErrNotFound = fault.Declare(fault.NotFound, "SECRET_NOT_FOUND", "the integration has no credential: set one")
	// ErrUnreadable says that what lies at a path was not written for it, or for another key, or was changed.
	ErrUnreadable = fault.Declare(fault.FailedPrecondition, "SECRET_UNREADABLE", "the integration's credential can't be opened: set it again")
	// ErrForeign says that a path belongs to another tenant than the store.
	ErrForeign = fault.Declare(fault.PermissionDenied, "SECRET_FOREIGN", "the credential belongs to another tenant")
	// ErrInvalid says that a path or a value can't be stored.
	ErrInvalid = fault.Declare(fault.InvalidArgument, "SECRET_INVALID", "the credential can't be stored")
)

// Path is where the credential of an integration lies.
type Path struct {
	Tenant      id.Tenant
	Workspace   id.Workspace
	Integration id.Integration
}

// ParsePath reads `tnt_…/wsp_…/int_…`, the form of String, and nothing else.
func ParsePath(s string) (Path, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Path{}, ErrInvalid.With("a secret's path has the form tnt_…/wsp_…/int_…, this one has %d parts", len(parts))
	}
	var p Path
	var err error
	if p.Tenant, err = id.ParseTenant(parts[0]); err != nil {
		return Path{}, ErrInvalid.With("the tenant of a secret's path: %v", err)
	}
	if p.Workspace, err = id.ParseWorkspace(parts[1]); err != nil {
		return Path{}, ErrInvalid.With("the workspace of a secret's path: %v", err)
	}
	if p.Integration, err = id.ParseIntegration(parts[2]); err != nil {
		return Path{}, ErrInvalid.With("the integration of a secret's path: %v", err)
	}
	return p, nil
}

// String is `tnt_…/wsp_…/int_…`.
func (p Path) String() string {
	return p.Tenant.String() + "/" + p.Workspace.String() + "/" + p.Integration.String()
}

// Check refuses a path with a part missing, and one of another tenant than the store's.
func (p Path) Check(tenant id.Tenant) error {
	if p.Tenant.IsZero() || p.Workspace.IsZero() || p.Integration.IsZero() {
		return ErrInvalid.With("a secret's path needs tenant, workspace and integration, this one is %q", p)
	}
	if p.Tenant != tenant {
		return ErrForeign.With("the secret at %s is not of this store's tenant, %s", p, tenant)
	}
	return nil
}

// CheckValue refuses what can't be stored, without saying what it is.
func CheckValue(value config.Secret) error {
	switch n := len(value.Reveal()); {
	case n == 0:
		return ErrInvalid.With("an empty credential can't be stored: delete it instead")
	case n > MostBytes:
		return ErrInvalid.With("the credential has %d bytes, at most %d can be stored", n, MostBytes)
	default:
		return nil
	}
}

// contextInfo is what a sealed file is bound to. The parts have fixed lengths, so that no two paths give the same.
func contextInfo(p Path, version int64) []byte {
	return fmt.Appendf(nil, "a3os.secret.v1\x00%s\x00%020d", p, version)
}
