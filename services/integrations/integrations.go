// Package integrations keeps a workspace's connections to systems. This file is the service's wiring, and nothing else.
package integrations

import (
	"context"
	"fmt"

	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/config"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/place"
	"a3os.app/libs/queue"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/services/integrations/internal/server"
)

const (
	service = "integrations"
	// mostContent bounds an upload; the message around it is a little larger.
	mostContent = 16 << 20
	mostMessage = mostContent + 1<<20
)

// Config is what the role is told.
type Config struct {
	Set               set.Config    `envPrefix:""`
	DatabaseURL       config.Secret `env:"DATABASE_URL" desc:"connection string of role integrations, which sees one workspace at a time"`
	TenantDatabaseURL config.Secret `env:"TENANT_DATABASE_URL" desc:"connection string of role integrations_tenant, which claims what is due"`
	PageKey           config.Secret `env:"PAGE_KEY" desc:"secret that page tokens are sealed with, 16 bytes or more"`
	EnvelopeKeys      string        `env:"ENVELOPE_KEYS" desc:"public keys that envelopes are verified with"`
	SecretDir         string        `env:"SECRET_DIR" desc:"directory of the tenant's secrets, or their place at AWS: secretsmanager://tenant/tnt_…/store/secrets"`
	SecretPublicKey   string        `env:"SECRET_PUBLIC_KEY" desc:"key that secrets are sealed to; only discovery-worker can open them"`
	BlobDir           string        `env:"BLOB_DIR" desc:"directory of the tenant's objects, or their place at AWS: s3://bucket/tnt_…"`
	AllowUnix         bool          `env:"ALLOW_UNIX" envDefault:"false" desc:"the tenant may read the machine of the plane"`
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	owner, err := cfg.Set.Owner()
	if err != nil {
		return err
	}
	member, err := set.Join(ctx, cfg.Set, service, owner)
	if err != nil {
		return err
	}
	db, err := pg.Open(ctx, pg.Config{URL: cfg.DatabaseURL.Reveal(), Service: service, Owner: owner})
	if err != nil {
		return err
	}
	defer db.Close()
	wide, err := pg.Open(ctx, pg.Config{URL: cfg.TenantDatabaseURL.Reveal(), Service: service, MaxConns: 1,
		Owner: owner, Setting: "A3_TENANT_DATABASE_URL"})
	if err != nil {
		return err
	}
	defer wide.Close()
	pages, err := page.NewSealer([]byte(cfg.PageKey.Reveal()))
	if err != nil {
		return err
	}
	secrets, err := place.SecretWriter(ctx, cfg.SecretDir, owner, cfg.SecretPublicKey)
	if err != nil {
		return err
	}
	defer secrets.Close()
	content, err := place.BlobWriter(ctx, cfg.BlobDir, owner, mostContent)
	if err != nil {
		return err
	}
	defer content.Close()
	tester, err := rpc.ToWorkload(member.Transport, member.Sibling("discovery-worker"), discoveryv1connect.NewConnectorServiceClient)
	if err != nil {
		return err
	}
	retirer, err := rpc.ToWorkload(member.Transport, member.Sibling("discovery"), discoveryv1connect.NewSourceServiceClient)
	if err != nil {
		return err
	}
	keys, err := queue.ParseVerifyingKeys(cfg.EnvelopeKeys)
	if err != nil {
		return fmt.Errorf("A3_ENVELOPE_KEYS: %w", err)
	}
	verifier, err := queue.NewVerifier(queue.VerifierConfig{Keys: keys, Plane: cfg.Set.Plane, Tenant: cfg.Set.Tenant, Issuer: "discovery"})
	if err != nil {
		return err
	}
	licensed, err := cfg.Set.Licence(db)
	if err != nil {
		return err
	}
	h := server.New(server.Config{Licence: licensed, DB: db, Wide: wide, Pages: pages, Secrets: secrets, Content: content, Tester: tester, Retirer: retirer, AllowUnix: cfg.AllowUnix})
	return member.Serve(ctx, set.Serving{
		DB: db,
		Services: []rpc.Service{
			rpc.Mount(integrationsv1connect.NewIntegrationServiceHandler, integrationsv1connect.IntegrationServiceHandler(h)),
			rpc.Mount(integrationsv1connect.NewIntegrationWriteServiceHandler, integrationsv1connect.IntegrationWriteServiceHandler(h)).MaxBytes(mostMessage),
			rpc.Mount(integrationsv1connect.NewRunSourceServiceHandler, integrationsv1connect.RunSourceServiceHandler(h)),
			rpc.Mount(integrationsv1connect.NewUsageServiceHandler, integrationsv1connect.UsageServiceHandler(h)),
			rpc.Mount(integrationsv1connect.NewScheduleServiceHandler, integrationsv1connect.ScheduleServiceHandler(h)),
		},
		Licence:   licensed,
		Envelopes: set.Envelopes(verifier),
		Ready:     db.Ping,
		Upkeep:    []func(context.Context) error{db.PruneKeys},
	})
}
