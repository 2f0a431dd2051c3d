package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/ledger"
)

// VerifyConfig is what the role verify-log is told.
type VerifyConfig struct {
	Plane          string        `env:"PLANE" desc:"plane the set lives in: dev or prod"`
	Tenant         id.Tenant     `env:"TENANT" desc:"tenant whose log it is"`
	MarkKeys       string        `env:"MARK_KEYS" desc:"public keys that the mark of the tenant's database is verified with"`
	DatabaseURL    config.Secret `env:"DATABASE_URL" desc:"connection string of role_audit"`
	LogVerifierKey string        `env:"LOG_VERIFIER_KEY" desc:"key that the log's checkpoints are signed with, <origin>+<hash>+<key>"`
	Checkpoint     string        `env:"CHECKPOINT" envDefault:"" desc:"earlier checkpoint that the log must have grown from, a signed note; none when empty"`
}

// Verified is what verify-log writes, one line of JSON.
type Verified struct {
	// Entries that were hashed, and Checkpoints that they were held against.
	Entries     uint64 `json:"entries"`
	Checkpoints int    `json:"checkpoints"`
}

// VerifyLog verifies the whole log in a database, and ends. It needs no running service: it is how a restored backup is known to hold the
// record that it was made of.
func VerifyLog(ctx context.Context, cfg VerifyConfig) error {
	verifier, err := tlog.NewVerifier(cfg.LogVerifierKey)
	if err != nil {
		return fmt.Errorf("A3_LOG_VERIFIER_KEY: %w", err)
	}
	if want := tlog.Origin(cfg.Plane, cfg.Tenant); verifier.Origin() != want {
		return fmt.Errorf("A3_LOG_VERIFIER_KEY is the key of the log %s, this set's log is %s: give it its own", verifier.Origin(), want)
	}
	db, done, err := openAlone(ctx, cfg.Plane, cfg.Tenant, cfg.MarkKeys, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer done()
	var kept []string
	if cfg.Checkpoint != "" {
		kept = append(kept, cfg.Checkpoint)
	}
	report, err := tlog.Verify(ctx, ledger.Source{Ledger: ledger.New(db.Service)}, verifier, kept...)
	if err != nil {
		return err
	}
	if !report.Whole() {
		return fault.New(fault.FailedPrecondition, "the log is not whole: %s", report.Findings[0].Text)
	}
	return json.NewEncoder(os.Stdout).Encode(Verified{Entries: report.Entries, Checkpoints: report.Checkpoints})
}

// openAlone opens the tenant's database for a program that is no member of a running set.
func openAlone(ctx context.Context, plane string, tenant id.Tenant, markKeys string, url config.Secret) (*pg.DB, func(), error) {
	owner, err := binding.NewOwner(markKeys, plane, tenant)
	if err != nil {
		return nil, nil, fmt.Errorf("A3_MARK_KEYS: %w", err)
	}
	db, err := pg.Open(ctx, pg.Config{URL: url.Reveal(), Service: Service, Owner: owner})
	if err != nil {
		return nil, nil, err
	}
	if err := owner.Prove(ctx); err != nil {
		db.Close()
		return nil, nil, err
	}
	return db, db.Close, nil
}
