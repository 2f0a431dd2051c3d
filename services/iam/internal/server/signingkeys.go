package server

import (
	"context"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/store"
)

// SigningKeys implements SigningKeyService and AdminSigningKeyService.
type SigningKeys struct {
	rights Rights
	ring   *keyring.Ring
}

// NewSigningKeys makes it.
func NewSigningKeys(rights Rights, ring *keyring.Ring) *SigningKeys {
	return &SigningKeys{rights: rights, ring: ring}
}

// GetSigningKeySet implements SigningKeyServiceHandler.
func (s *SigningKeys) GetSigningKeySet(ctx context.Context, _ *connect.Request[iamv1.GetSigningKeySetRequest]) (*connect.Response[iamv1.SigningKeySet], error) {
	var out *iamv1.SigningKeySet
	err := s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		rows, err := q.SigningKeys(ctx)
		out = keyring.Describe(rows)
		return err
	})
	return respond(out, err)
}

// RotateSigningKeys implements AdminSigningKeyServiceHandler. When it answers, this process signs with the new key and believes no
// dropped one; the others hear of it with the revocations.
func (s *SigningKeys) RotateSigningKeys(ctx context.Context, req *connect.Request[iamv1.RotateSigningKeysRequest]) (*connect.Response[iamv1.SigningKeySet], error) {
	action := "iam.signing_keys.rotated"
	if req.Msg.GetEmergency() {
		action = "iam.signing_keys.rotated_in_emergency"
	}
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.SigningKeySet, error) {
		set, err := s.ring.Rotate(ctx, tx, req.Msg.GetEmergency())
		if err != nil {
			return nil, err
		}
		event := record.Event{Action: action, Reason: req.Msg.GetReason(), After: set}
		for _, k := range set.GetSigningKeys() {
			if k.GetState() == iamv1.SigningKeyState_SIGNING_KEY_STATE_CURRENT {
				event.Target = k.GetKeyId()
			}
		}
		return set, record.Append(ctx, tx, event)
	})
	if err != nil {
		return nil, err
	}
	// It was done, whether or not this process can read it now: the feed tries again.
	err = s.ring.Maintain(ctx)
	s.rights.Revoked()
	return respond(out, err)
}
