package keyring

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"

	"a3os.app/services/iam/internal/store"
)

// ErrTooSoon is returned where the next key has not been published for long enough to sign.
var ErrTooSoon = fault.Declare(fault.FailedPrecondition, "NEXT_KEY_TOO_YOUNG", "the next key was published too short a time ago for everybody to know it")

// Rotate has the next key sign, in the caller's transaction; verifiers have known it since it was made. In an emergency every key is
// dropped and made anew. Call Maintain when the transaction was committed.
func (r *Ring) Rotate(ctx context.Context, tx pgx.Tx, emergency bool) (*iamv1.SigningKeySet, error) {
	q, now := store.New(tx), r.now()
	if err := q.LockSigningKeys(ctx); err != nil {
		return nil, err
	}
	rows, err := q.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	current, next := find(rows, "current"), find(rows, "next")
	if emergency {
		// The next key rested beside the others, and is no better than they are.
		if _, err := q.DropSigningKeys(ctx); err != nil {
			return nil, err
		}
		current, next = nil, nil
	} else {
		if next == nil || now.Sub(next.CreatedAt) < PublishBefore {
			return nil, ErrTooSoon.With("the next key was published less than %s ago, and not everybody may know it: try again in a minute, or rotate with --emergency", PublishBefore)
		}
		if err := r.promote(ctx, q, now); err != nil {
			return nil, err
		}
		next = nil
	}
	if err := r.fill(ctx, q, current, next, now); err != nil {
		return nil, err
	}
	if rows, err = q.SigningKeys(ctx); err != nil {
		return nil, err
	}
	return Describe(rows), nil
}

var states = map[string]iamv1.SigningKeyState{
	"next":     iamv1.SigningKeyState_SIGNING_KEY_STATE_NEXT,
	"current":  iamv1.SigningKeyState_SIGNING_KEY_STATE_CURRENT,
	"previous": iamv1.SigningKeyState_SIGNING_KEY_STATE_PREVIOUS,
}

// Describe is stored keys as the API shows them.
func Describe(rows []store.SigningKey) *iamv1.SigningKeySet {
	out := &iamv1.SigningKeySet{}
	for _, k := range rows {
		out.SigningKeys = append(out.SigningKeys, &iamv1.SigningKey{
			KeyId: k.Kid, State: states[k.State], CreatedAt: timestamppb.New(k.CreatedAt),
			ActivatedAt: timestamp(k.ActivatedAt), RetiredAt: timestamp(k.RetiredAt),
		})
	}
	return out
}

func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
