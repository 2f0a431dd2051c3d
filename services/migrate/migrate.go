// Package migrate is the role that runs DDL: with the owner's credentials, before a release starts, and then ends. Services hold no
// DDL of their own.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"a3os.app/libs/config"
	"a3os.app/libs/pg"
	queuepg "a3os.app/libs/queue/postgres"
	queuesqs "a3os.app/libs/queue/sqs"
	"a3os.app/services/audit"
	"a3os.app/services/discovery"
	"a3os.app/services/iam"
	"a3os.app/services/integrations"
	"a3os.app/services/registry"
)

// Config is what the role is told.
type Config struct {
	OwnerDatabaseURL config.Secret     `env:"OWNER_DATABASE_URL" desc:"connection string of the database's owner"`
	Schemas          string            `env:"SCHEMAS" desc:"which database it is: set (a tenant's) or registry"`
	Roles            map[string]string `env:"ROLES" envKeyValSeparator:"=" desc:"real names of the roles, as iam=tnt_x_iam,iam_tenant=tnt_x_iam_tenant"`
}

// queueSchema is where River's tables are.
const queueSchema = "queue"

// Run migrates, once.
func Run(ctx context.Context, cfg Config) error {
	roles := pg.Roles{}
	for name, real := range cfg.Roles {
		roles["role_"+name] = real
	}
	switch cfg.Schemas {
	case "registry":
		return pg.Migrate(ctx, cfg.OwnerDatabaseURL.Reveal(), roles, registry.Schema())
	case "set":
		return migrateSet(ctx, cfg, roles)
	}
	return fmt.Errorf("A3_SCHEMAS is %q: it is set or registry", cfg.Schemas)
}

// Set is the schemas of a tenant's database, in the order in which they rest on each other.
func Set() []pg.Migration {
	return []pg.Migration{pg.Base(), audit.Schema(), iam.Schema(), integrations.Schema(), discovery.Schema()}
}

func migrateSet(ctx context.Context, cfg Config, roles pg.Roles) error {
	if err := pg.Migrate(ctx, cfg.OwnerDatabaseURL.Reveal(), roles, Set()...); err != nil {
		return err
	}
	pool, err := pg.OwnerPool(ctx, cfg.OwnerDatabaseURL.Reveal())
	if err != nil {
		return fmt.Errorf("the owner's database URL: %w: check A3_OWNER_DATABASE_URL", err)
	}
	defer pool.Close()
	if err := queuepg.Migrate(ctx, pool, queueSchema); err != nil {
		return fmt.Errorf("migrate the queue: %w", err)
	}
	// Every set has it, also where its queue is the database's own: a set that moves to SQS starts with its next release, not with another.
	if err := queuesqs.Migrate(ctx, pool, queueSchema); err != nil {
		return err
	}
	inserter, retrier, worker := roles["role_discovery"], roles["role_discovery_tenant"], roles["role_worker"]
	if inserter == "" || retrier == "" || worker == "" {
		return errors.New("A3_ROLES names no discovery or no worker")
	}
	if _, err := pool.Exec(ctx, queuepg.GrantsSQL(queueSchema, worker, inserter, retrier)); err != nil {
		return fmt.Errorf("grant the queue: %w", err)
	}
	if _, err := pool.Exec(ctx, queuesqs.GrantsSQL(queueSchema, worker, inserter, retrier)); err != nil {
		return fmt.Errorf("grant the jobs of SQS: %w", err)
	}
	slog.InfoContext(ctx, "migrated", "schemas", strings.Join([]string{"a3", "audit", "iam", "integrations", "discovery", queueSchema}, " "))
	return nil
}
