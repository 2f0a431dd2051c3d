package iam

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/transparency-dev/formats/log"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"

	"a3os.app/services/iam/internal/restore"
)

// RestoredConfig is what the role restored is told.
type RestoredConfig struct {
	Plane             string        `env:"PLANE" desc:"plane the set lives in: dev or prod"`
	Tenant            id.Tenant     `env:"TENANT" desc:"tenant whose set was restored"`
	MarkKeys          string        `env:"MARK_KEYS" desc:"public keys that the mark of the tenant's database is verified with"`
	TenantDatabaseURL config.Secret `env:"TENANT_DATABASE_URL" desc:"connection string of role_iam_tenant, which spans workspaces"`
	Backup            string        `env:"BACKUP" desc:"name of the backup"`
	TakenAt           time.Time     `env:"TAKEN_AT" desc:"moment that the database is as of, RFC 3339"`
	Checkpoint        string        `env:"CHECKPOINT" envDefault:"" desc:"newest checkpoint of the log at that moment; empty where there was none"`
	Operator          string        `env:"OPERATOR" desc:"plane identity of who restores"`
	Reason            string        `env:"REASON" desc:"why, 10 to 500 characters, for the tenant's own record"`
}

// Restored is run on a database that was put back to an earlier moment, before any service uses it, and ends.
func Restored(ctx context.Context, cfg RestoredConfig) error {
	owner, err := binding.NewOwner(cfg.MarkKeys, cfg.Plane, cfg.Tenant)
	if err != nil {
		return fmt.Errorf("A3_MARK_KEYS: %w", err)
	}
	r := restore.Restore{Backup: cfg.Backup, TakenAt: cfg.TakenAt, Operator: cfg.Operator, Reason: strings.TrimSpace(cfg.Reason), Target: cfg.Tenant.String()}
	if cfg.Checkpoint != "" {
		var c log.Checkpoint
		if _, err := c.Unmarshal([]byte(cfg.Checkpoint)); err != nil {
			return fmt.Errorf("A3_CHECKPOINT is no checkpoint: %w", err)
		}
		r.Entries = c.Size
	}
	db, err := pg.Open(ctx, pg.Config{URL: cfg.TenantDatabaseURL.Reveal(), Service: Service + "_tenant", Owner: owner, Setting: "A3_TENANT_DATABASE_URL"})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := owner.Prove(ctx); err != nil {
		return err
	}
	return restore.Finish(ctx, db, r, time.Now())
}
