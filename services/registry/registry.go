// Package registry is the control plane's memory: which tenants there are, where their sets are, and how they say they are. It
// serves operators, gateways and sets over gRPC with mutual TLS, and holds no product data and no key that a set trusts.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/credentials"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/garbage"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/pg"
	"a3os.app/libs/plane"
	"a3os.app/libs/release"
	"a3os.app/libs/rpc"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/changes"
	"a3os.app/services/registry/internal/gauges"
	"a3os.app/services/registry/internal/intake"
	"a3os.app/services/registry/internal/placement"
	"a3os.app/services/registry/internal/publish"
	"a3os.app/services/registry/internal/server"
	"a3os.app/services/registry/internal/store"
)

// Config is what the registry is told.
type Config struct {
	plane.Config

	DatabaseURL    config.Secret    `env:"DATABASE_URL" desc:"connection string of the registry's own role in its own database"`
	MarkKeys       string           `env:"MARK_KEYS" desc:"public keys that the mark of the registry's database is verified with"`
	SnapshotKey    config.Secret    `env:"SNAPSHOT_KEY" desc:"Ed25519 key that signs snapshots, PKCS #8 PEM"`
	Networks       []netip.Prefix   `env:"SET_NETWORKS" desc:"networks that sets may be in, as 127.0.0.0/8,10.20.0.0/16"`
	Zone           string           `env:"SET_ZONE" envDefault:"" desc:"zone of names that the platform keeps for sets, as a3-prod.internal; empty where it keeps none"`
	Reserved       []netip.AddrPort `env:"RESERVED_ADDRESSES" envDefault:"" desc:"addresses of the platform's own servers, which no set may name"`
	SlugQuarantine time.Duration    `env:"SLUG_QUARANTINE" envDefault:"720h" desc:"how long the slug of a tenant that left stays unused"`
	ReleaseKeys    string           `env:"RELEASE_KEYS" envDefault:"" desc:"public keys that releases are signed with; without any, none is taken"`
	Lease          time.Duration    `env:"LEASE" envDefault:"30s" desc:"how long the lease of an operation lasts that nobody renews"`
	PlanLasts      time.Duration    `env:"PLAN_LASTS" envDefault:"24h" desc:"how long a plan can be carried out after it was made"`
	LicenceKeys    string           `env:"LICENCE_KEYS" desc:"public keys that licences are signed with"`
	ReportEvery    time.Duration    `env:"REPORT_EVERY" envDefault:"10s" desc:"how often sets report; many sets less often, so that they use half of A3_REPORTS_PER_SECOND"`

	ReportsPerSecond float64 `env:"REPORTS_PER_SECOND" envDefault:"1000" desc:"how many reports are taken a second; sets beyond that are told when to come back"`
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	p, err := plane.Open(ctx, cfg.Config, "registry")
	if err != nil {
		return err
	}
	key, err := snapshot.ParsePrivateKey(cfg.SnapshotKey.Reveal())
	if err != nil {
		return fmt.Errorf("A3_SNAPSHOT_KEY: %w", err)
	}
	signer, err := snapshot.NewSigner(cfg.Plane, key)
	if err != nil {
		return err
	}
	owner, err := binding.NewOwner(cfg.MarkKeys, cfg.Plane, id.Tenant{})
	if err != nil {
		return fmt.Errorf("A3_MARK_KEYS: %w", err)
	}
	releases, err := release.NewVerifier(cfg.Plane, cfg.ReleaseKeys)
	if err != nil {
		return fmt.Errorf("A3_RELEASE_KEYS: %w", err)
	}
	licences, err := licence.NewVerifier(cfg.Plane, cfg.LicenceKeys)
	if err != nil {
		return fmt.Errorf("A3_LICENCE_KEYS: %w", err)
	}
	const conns = 8
	db, err := pg.Open(ctx, pg.Config{URL: cfg.DatabaseURL.Reveal(), Service: "registry", MaxConns: conns, Owner: owner})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := owner.Prove(ctx); err != nil {
		return err
	}
	publisher := publish.New(db, cfg.Plane, signer)
	hub := changes.New(db)
	anchors := publisher.Anchors(p.Trust)
	peers, err := workload.NewVerifier(anchors)
	if err != nil {
		return err
	}
	creds, err := workload.GRPCServerCredentials(p.Source, anchors)
	if err != nil {
		return err
	}
	reserved := cfg.Reserved
	if own, err := netip.ParseAddrPort(cfg.Listen); err == nil {
		reserved = append(reserved, own)
	}
	if err := p.Collect(gauges.New(db)); err != nil {
		return err
	}
	reports, err := intake.New(db, cfg.ReportsPerSecond) //nolint:contextcheck // what is counted is counted for as long as the process lives
	if err != nil {
		return err
	}
	serves := server.Config{
		DB: db, Publisher: publisher, Changes: hub, Plane: cfg.Plane, Lease: cfg.Lease, PlanLasts: cfg.PlanLasts,
		Placement: placement.Policy{Plane: cfg.Plane, Networks: cfg.Networks, Reserved: reserved, Zone: cfg.Zone},
		Releases:  releases, Licences: licences, SlugQuarantine: cfg.SlugQuarantine, ReportEvery: cfg.ReportEvery, Stopping: ctx.Done(),
		Intake: reports, MarkKeys: cfg.MarkKeys, Metrics: p.Metrics(),
	}
	srv, err := rpc.NewGRPCServer(rpc.GRPCConfig{Identity: p.Identity, Credentials: creds, Peer: peerOf(peers), Admit: server.Admission(serves)}, server.Register(serves))
	if err != nil {
		return err
	}
	ready := func(ctx context.Context) error { return errors.Join(publisher.Ready(), db.Ping(ctx)) }
	garbage.AsAlways()
	return p.Run(ctx, ready,
		func(ctx context.Context) error { return srv.Serve(ctx, cfg.Listen) },
		publisher.Run,
		hub.Run,
		reports.Run,
		func(ctx context.Context) error { return dropOldKeys(ctx, db) })
}

// peerOf asks the verifier anew for each call, so that a tenant's authority that was replaced ends what stood on it.
func peerOf(v *workload.Verifier) func(context.Context, credentials.AuthInfo) (workload.Identity, error) {
	return func(_ context.Context, info credentials.AuthInfo) (workload.Identity, error) {
		t, ok := info.(credentials.TLSInfo)
		if !ok {
			return workload.Identity{}, errors.New("the connection is not TLS")
		}
		return proven(v, t.State)
	}
}

func proven(v *workload.Verifier, state tls.ConnectionState) (workload.Identity, error) {
	who, ok, err := v.Peer(state)
	if err != nil {
		return workload.Identity{}, err
	}
	if !ok {
		return workload.Identity{}, errors.New("the caller showed no certificate")
	}
	return who, nil
}

// dropOldKeys removes idempotency keys that nobody comes back with.
func dropOldKeys(ctx context.Context, db *pg.DB) error {
	const every = time.Hour
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error { return store.New(tx).DropOldKeys(ctx) })
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "old idempotency keys were not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
