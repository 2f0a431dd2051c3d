package setup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/store"
)

// Bootstrap lets the tenant's first admin be invited by the platform: address, and the hash of the code (hex) that the platform made.
// It does nothing once anyone has ever signed in, and nothing for a code that it has seen before, so that restarts keep no code alive.
func Bootstrap(ctx context.Context, db *pg.DB, email, codeHash string, now time.Time) error {
	if email == "" && codeHash == "" {
		return nil
	}
	hash, err := hex.DecodeString(codeHash)
	if err != nil || len(hash) != len(Hash("")) || !strings.Contains(email, "@") {
		return errors.New("the first admin needs an address and the SHA-256 of a setup code in hex: check A3_BOOTSTRAP_ADMIN_EMAIL and A3_BOOTSTRAP_CODE_HASH")
	}
	err = db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return bootstrap(ctx, tx, strings.ToLower(strings.TrimSpace(email)), hash, now)
	})
	if err != nil {
		return fmt.Errorf("invite the first admin: %w", err)
	}
	return nil
}

func bootstrap(ctx context.Context, tx pgx.Tx, email string, hash []byte, now time.Time) error {
	q := store.New(tx)
	if _, err := q.LockRights(ctx); err != nil {
		return err
	}
	begun, err := q.AnyoneEverActive(ctx)
	if err != nil || begun {
		return err
	}
	fresh, err := q.SeeBootstrapCode(ctx, hash)
	if err != nil || fresh == 0 {
		return err
	}
	role := "admin"
	user, err := q.LockUserByEmail(ctx, email)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		user, err = q.AddUser(ctx, store.AddUserParams{ID: id.NewUser(), Email: email, DisplayName: email, TenantRole: &role})
	case err == nil:
		user, err = q.InviteAgain(ctx, store.InviteAgainParams{ID: user.ID, DisplayName: user.DisplayName, TenantRole: &role})
	}
	if err != nil {
		return err
	}
	if err := put(ctx, q, user.ID, hash, now.Add(Life)); err != nil {
		return err
	}
	return record.AppendUnknown(ctx, tx, "workload:iam", record.Event{Action: "iam.user.invited", Target: user.ID.String(),
		Reason: "the tenant's first admin, named by the platform", After: admin(user)})
}

// admin is a tenant admin as the record shows them.
func admin(u store.User) *iamv1.User {
	state := iamv1.UserState_USER_STATE_INVITED
	if u.State == "active" {
		state = iamv1.UserState_USER_STATE_ACTIVE
	}
	return &iamv1.User{Id: u.ID.String(), Email: u.Email, DisplayName: u.DisplayName, State: state, TenantRole: iamv1.TenantRole_TENANT_ROLE_ADMIN}
}
