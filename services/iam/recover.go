package iam

import (
	"context"
	"fmt"
	"time"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"

	"a3os.app/services/iam/internal/setup"
)

// RecoverConfig is what the role recover-admin is told.
type RecoverConfig struct {
	Plane             string        `env:"PLANE" desc:"plane the set lives in: dev or prod"`
	Tenant            id.Tenant     `env:"TENANT" desc:"tenant whose admin it is"`
	MarkKeys          string        `env:"MARK_KEYS" desc:"public keys that the mark of the tenant's database is verified with"`
	TenantDatabaseURL config.Secret `env:"TENANT_DATABASE_URL" desc:"connection string of role_iam_tenant, which spans workspaces"`
	AdminEmail        string        `env:"ADMIN_EMAIL" desc:"address of the tenant admin to let in again"`
	SetupCodeHash     string        `env:"SETUP_CODE_HASH" desc:"SHA-256 in hex of the setup code that the operator hands over"`
	Reason            string        `env:"REASON" desc:"why, 10 to 500 characters, for the tenant's own record"`
}

// RecoverAdmin is the operator's way to let a tenant admin in again who has no session left, and ends. A running iam hears of it as of
// any other revocation.
func RecoverAdmin(ctx context.Context, cfg RecoverConfig) error {
	owner, err := binding.NewOwner(cfg.MarkKeys, cfg.Plane, cfg.Tenant)
	if err != nil {
		return fmt.Errorf("A3_MARK_KEYS: %w", err)
	}
	db, err := pg.Open(ctx, pg.Config{URL: cfg.TenantDatabaseURL.Reveal(), Service: Service + "_tenant", Owner: owner, Setting: "A3_TENANT_DATABASE_URL"})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := owner.Prove(ctx); err != nil {
		return err
	}
	return setup.Recover(ctx, db, setup.Recovery{Email: cfg.AdminEmail, CodeHash: cfg.SetupCodeHash, Reason: cfg.Reason}, time.Now())
}
