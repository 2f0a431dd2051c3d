package snapshot

import (
	"crypto/ed25519"
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
)

// ChangePayloadType is signed with each change, so that neither reads as the other.
const ChangePayloadType = "application/vnd.a3os.snapshot-change.v1"

// SignChange signs a change of a snapshot of the signer's plane.
func (s *Signer) SignChange(change *registryv1.SnapshotChange) (*registryv1.SignedSnapshotChange, error) {
	if change.GetPlane() != s.plane {
		return nil, fmt.Errorf("sign a change of plane %q with the key of %s: %w", change.GetPlane(), s.plane, ErrPlane)
	}
	if err := checkChange(change); err != nil {
		return nil, fmt.Errorf("sign a change of the snapshot: %w", err)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("encode a change of the snapshot: %w", err)
	}
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("sign a change of %d octets: %w", len(raw), ErrTooLarge)
	}
	return &registryv1.SignedSnapshotChange{Change: raw, KeyId: s.keyID, Signature: ed25519.Sign(s.key, dsse.PAE(ChangePayloadType, raw))}, nil
}

// VerifyChange answers the change that was signed, or why it is refused: one of this package's errors. One that leads to no later
// version than have is ErrOlder, one that doesn't lead from have is ErrGap.
func (v *Verifier) VerifyChange(signed *registryv1.SignedSnapshotChange, have int64) (*registryv1.SnapshotChange, error) {
	change := &registryv1.SnapshotChange{}
	if err := v.open(ChangePayloadType, signed.GetChange(), signed.GetKeyId(), signed.GetSignature(), change); err != nil {
		return nil, err
	}
	if change.GetPlane() != v.plane {
		return nil, fmt.Errorf("%w: it is of %q, this is %s", ErrPlane, change.GetPlane(), v.plane)
	}
	if err := checkChange(change); err != nil {
		return nil, err
	}
	switch {
	case change.GetVersion() <= have:
		return nil, fmt.Errorf("%w: the change leads to version %d, held is %d", ErrOlder, change.GetVersion(), have)
	case change.GetFromVersion() != have:
		return nil, fmt.Errorf("%w: it leads from version %d, held is %d", ErrGap, change.GetFromVersion(), have)
	}
	return change, nil
}

// checkChange refuses a change that two gateways could read in two ways.
func checkChange(change *registryv1.SnapshotChange) error {
	if change.GetFromVersion() <= 0 || change.GetFromVersion() >= change.GetVersion() {
		return fmt.Errorf("%w: it leads from version %d to %d", ErrMalformed, change.GetFromVersion(), change.GetVersion())
	}
	tenants, err := checkRoutes(change.GetRoutes())
	if err != nil {
		return err
	}
	if len(change.GetRemovedTenantIds()) > maxRoutes {
		return fmt.Errorf("%w: it removes %d tenants, at most %d are taken", ErrMalformed, len(change.GetRemovedTenantIds()), maxRoutes)
	}
	for _, text := range change.GetRemovedTenantIds() {
		tenant, err := id.ParseTenant(text)
		if err != nil {
			return fmt.Errorf("%w: a removed tenant: %w", ErrMalformed, err)
		}
		if _, twice := tenants[tenant]; twice {
			return fmt.Errorf("%w: tenant %s comes twice", ErrMalformed, tenant)
		}
		tenants[tenant] = struct{}{}
	}
	return nil
}
