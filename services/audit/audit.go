// Package audit keeps the tenant's record: it drains the inbox that deeds write to, seals events in a hash tree under signed
// checkpoints, and answers who may read or verify it. It also reports the set to the control plane. This file wires it.
package audit

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/config"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/libs/tlog"
	"a3os.app/libs/workload"

	"a3os.app/services/audit/internal/ledger"
	"a3os.app/services/audit/internal/licensing"
	"a3os.app/services/audit/internal/report"
	"a3os.app/services/audit/internal/seal"
	"a3os.app/services/audit/internal/server"
)

// Service is the name of this service in its set.
const Service = "audit"

// Config is what audit is told.
type Config struct {
	Set         set.Config
	DatabaseURL config.Secret `env:"DATABASE_URL" desc:"connection string of role_audit"`
	LogKey      config.Secret `env:"LOG_KEY" desc:"key that signs checkpoints, a signed-note key named a3os.app/<plane>/<tenant id>/audit"`
	LicencePath string        `env:"LICENCE_PATH" envDefault:"" desc:"file with the tenant's licence, where it need not come from the registry; it need not be there"`
	UsageEvery  time.Duration `env:"USAGE_EVERY" envDefault:"1h" desc:"how often the set reports how much it uses"`
	Registry    string        `env:"REGISTRY" envDefault:"" desc:"where the registry listens, host:port; the set reports to nobody when empty"`
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	signer, err := logKey(cfg)
	if err != nil {
		return err
	}
	pages, err := pageSealer(cfg.LogKey)
	if err != nil {
		return err
	}
	owner, err := cfg.Set.Owner()
	if err != nil {
		return err
	}
	db, err := pg.Open(ctx, pg.Config{URL: cfg.DatabaseURL.Reveal(), Service: Service, Owner: owner})
	if err != nil {
		return err
	}
	defer db.Close()
	member, err := set.Join(ctx, cfg.Set, Service, owner)
	if err != nil {
		return err
	}
	sealer := seal.New(db, signer)
	keeper, err := licenceOf(cfg, db)
	if err != nil {
		return err
	}
	ready := func(ctx context.Context) error { return errors.Join(db.Ping(ctx), sealer.Err(), keeper.Ready()) }
	counts, err := counters(member)
	if err != nil {
		return err
	}
	usage := &licensing.Usage{Keeper: keeper, Plane: cfg.Set.Plane, Tenant: cfg.Set.Tenant, Counts: counts, Signer: signer, Every: cfg.UsageEvery}
	background := []func(context.Context) error{
		func(ctx context.Context) error { sealer.Run(ctx); return nil },
		keeper.Run,
	}
	if cfg.Registry != "" {
		link := &report.Link{}
		conn, err := dialRegistry(cfg, member, link)
		if err != nil {
			return err
		}
		defer conn.Close()
		self := report.Component{Name: Service, Ask: func(ctx context.Context) report.State {
			s, err := member.Status(ctx)
			if err != nil {
				return report.State{Health: registryv1.Health_HEALTH_NOT_SERVING}
			}
			return report.StateOf(s)
		}}
		// The reporter's reads are the service's own work: no caller asked for them.
		reporter := report.New(registryv1.NewReportServiceClient(conn), link, ledger.New(db.Service), signer.Verifier(),
			append(siblings(cfg, member), self))
		reporter.Licence, reporter.Usage = keeper, usage
		background = append(background, reporter.Run)
	}
	srv := server.New(db, pages, signer.Verifier())
	return member.Serve(ctx, set.Serving{
		DB: db,
		Services: []rpc.Service{
			rpc.Mount(auditv1connect.NewAuditServiceHandler, auditv1connect.AuditServiceHandler(srv)),
			rpc.Mount(auditv1connect.NewLogServiceHandler, auditv1connect.LogServiceHandler(srv)),
			rpc.Mount(auditv1connect.NewLicenceServiceHandler, auditv1connect.LicenceServiceHandler(server.NewLicence(keeper, usage))),
		},
		Routes:     srv.Routes(),
		Ready:      ready,
		Background: background,
	})
}

// logKey reads the key and sees that it is this tenant's: a log signed with another's key would be another's log.
func logKey(cfg Config) (*tlog.Signer, error) {
	signer, err := tlog.NewSigner(cfg.LogKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("A3_LOG_KEY: %w", err)
	}
	if want := tlog.Origin(cfg.Set.Plane, cfg.Set.Tenant); signer.Verifier().Origin() != want {
		return nil, fmt.Errorf("A3_LOG_KEY is the key of the log %s, this set's log is %s: give it its own", signer.Verifier().Origin(), want)
	}
	return signer, nil
}

// pageSealer seals page tokens under a key derived from the log's, which the processes of this service share.
func pageSealer(key config.Secret) (*page.Sealer, error) {
	secret, err := hkdf.Key(sha256.New, []byte(key.Reveal()), nil, "a3os audit pages", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the page key: %w", err)
	}
	return page.NewSealer(secret)
}

// dialRegistry makes the connection that the set reports over. It connects when there is something to say, so that the set starts
// while the control plane is away.
func dialRegistry(cfg Config, m *set.Member, link *report.Link) (*grpc.ClientConn, error) {
	creds, err := workload.GRPCClientCredentials(m.Source, m.Trust, workload.Identity{Plane: cfg.Set.Plane, Service: "registry"})
	if err != nil {
		return nil, err
	}
	// A registry that was away for a day is found again within seconds, and not by all sets in the same one.
	again := backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 15 * time.Second}
	conn, err := grpc.NewClient("passthrough:///"+cfg.Registry, grpc.WithTransportCredentials(creds), grpc.WithContextDialer(link.Dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 20 * time.Second}))
	if err != nil {
		return nil, fmt.Errorf("A3_REGISTRY: %w", err)
	}
	return conn, nil
}

// siblings are the other services of the set, asked over its own mutual TLS.
func siblings(cfg Config, m *set.Member) []report.Component {
	client := &http.Client{Transport: m.Transport}
	var out []report.Component
	for _, name := range slices.Sorted(maps.Keys(cfg.Set.Peers)) {
		if name != Service {
			out = append(out, report.Sibling(name, client, "https://"+m.Sibling(name).ServerName()))
		}
	}
	return out
}
