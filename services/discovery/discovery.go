// Package discovery runs discovery and answers access questions. This file is the service's wiring, and nothing else.
package discovery

import (
	"context"
	"fmt"
	"time"

	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/place"
	"a3os.app/libs/queue"
	queuepg "a3os.app/libs/queue/postgres"
	queuesqs "a3os.app/libs/queue/sqs"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/letters"
	"a3os.app/services/discovery/internal/runs"
	"a3os.app/services/discovery/internal/server"
)

const (
	service = "discovery"
	// queueSchema is where the queue's tables are.
	queueSchema = "queue"
)

// Config is what the role is told.
type Config struct {
	Set               set.Config    `envPrefix:""`
	DatabaseURL       config.Secret `env:"DATABASE_URL" desc:"connection string of role discovery, which sees one workspace at a time"`
	TenantDatabaseURL config.Secret `env:"TENANT_DATABASE_URL" desc:"connection string of role discovery_tenant, which looks out over workspaces"`
	PageKey           config.Secret `env:"PAGE_KEY" desc:"secret that page tokens are sealed with, 16 bytes or more"`
	EnvelopeKey       config.Secret `env:"ENVELOPE_KEY" desc:"key that slices' envelopes are signed with"`
	Queue             string        `env:"QUEUE" envDefault:"" desc:"URL of the tenant's queue of SQS, as https://sqs.eu-central-1.amazonaws.com/…/tnt_…-queue; empty where the queue is the database's own"`
	DeadLettersKept   time.Duration `env:"DEAD_LETTERS_KEPT" envDefault:"2160h" desc:"how long a dead letter is kept; then it is deleted, on the record"`
	DeadLettersMost   int64         `env:"DEAD_LETTERS_MOST" envDefault:"10000" desc:"how many dead letters are kept, of 17 KB at most; those settled go first, then the oldest"`
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
	db, err := pg.Open(ctx, pg.Config{URL: cfg.DatabaseURL.Reveal(), Service: service, Owner: owner, Queue: queueSchema})
	if err != nil {
		return err
	}
	defer db.Close()
	wide, err := pg.Open(ctx, pg.Config{URL: cfg.TenantDatabaseURL.Reveal(), Service: service, MaxConns: 2,
		Owner: owner, Setting: "A3_TENANT_DATABASE_URL"})
	if err != nil {
		return err
	}
	defer wide.Close()
	pages, err := page.NewSealer([]byte(cfg.PageKey.Reveal()))
	if err != nil {
		return err
	}
	signer, verifier, err := envelopes(cfg)
	if err != nil {
		return err
	}
	inserter, send, err := enqueue(ctx, cfg, owner, db)
	if err != nil {
		return err
	}
	sources, err := rpc.ToWorkload(member.Transport, member.Sibling("integrations"), integrationsv1connect.NewRunSourceServiceClient)
	if err != nil {
		return err
	}
	schedules, err := rpc.ToWorkload(member.Transport, member.Sibling("integrations"), integrationsv1connect.NewScheduleServiceClient)
	if err != nil {
		return err
	}
	licensed, err := cfg.Set.Licence(db)
	if err != nil {
		return err
	}
	life := runs.New(runs.Config{Licence: licensed, Tenant: cfg.Set.Tenant, DB: db, Wide: wide, Signer: signer, Verifier: verifier, Queue: inserter, Sources: sources})
	handlers := server.NewRuns(life, pages)
	answers := server.NewAccess(answer.New(db, pages, sources))
	kept := letters.New(letters.Config{Wide: wide, Verifier: verifier, Queue: inserter, Kept: cfg.DeadLettersKept, Most: cfg.DeadLettersMost})
	dead := server.NewLetters(kept, pages)
	return member.Serve(ctx, set.Serving{
		DB: db,
		Services: []rpc.Service{
			rpc.Mount(discoveryv1connect.NewRunServiceHandler, discoveryv1connect.RunServiceHandler(handlers)),
			rpc.Mount(discoveryv1connect.NewRunWriteServiceHandler, discoveryv1connect.RunWriteServiceHandler(handlers)),
			rpc.Mount(discoveryv1connect.NewIngestServiceHandler, discoveryv1connect.IngestServiceHandler(handlers)),
			rpc.Mount(discoveryv1connect.NewAccessServiceHandler, discoveryv1connect.AccessServiceHandler(answers)),
			rpc.Mount(discoveryv1connect.NewUsageServiceHandler, discoveryv1connect.UsageServiceHandler(handlers)),
			rpc.Mount(discoveryv1connect.NewSourceServiceHandler, discoveryv1connect.SourceServiceHandler(handlers)),
			rpc.Mount(discoveryv1connect.NewDeadLetterReportServiceHandler, discoveryv1connect.DeadLetterReportServiceHandler(dead)),
			rpc.Mount(discoveryv1connect.NewDeadLetterServiceHandler, discoveryv1connect.DeadLetterServiceHandler(dead)),
			rpc.Mount(discoveryv1connect.NewAdminDeadLetterServiceHandler, discoveryv1connect.AdminDeadLetterServiceHandler(dead)),
		},
		Licence:   licensed,
		Envelopes: set.Envelopes(verifier),
		Ready:     db.Ping,
		Background: []func(context.Context) error{
			life.Publish,
			func(ctx context.Context) error { return life.Schedule(ctx, schedules) },
			send,
		},
		Upkeep: []func(context.Context) error{db.PruneKeys, kept.Prune},
	})
}

// enqueue is how slices are enqueued, and what sends them where the queue is not the database's own.
func enqueue(ctx context.Context, cfg Config, owner *binding.Owner, db *pg.DB) (queue.Inserter, func(context.Context) error, error) {
	if cfg.Queue == "" {
		inserter, err := queuepg.NewInserter(db.Queue())
		// Nothing is to be sent; but work that ends would take the process along.
		return inserter, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}, err
	}
	at, err := place.Queue(ctx, cfg.Queue, db.Queue(), owner)
	if err != nil {
		return nil, nil, err
	}
	inserter, err := queuesqs.NewInserter(db.Queue())
	sender := &queuesqs.Sender{Place: at, Pool: db.Pool()}
	return inserter, func(ctx context.Context) error {
		sender.Run(ctx)
		return nil
	}, err
}

func envelopes(cfg Config) (*queue.Signer, *queue.Verifier, error) {
	key, err := queue.ParseSigningKey(cfg.EnvelopeKey)
	if err != nil {
		return nil, nil, fmt.Errorf("A3_ENVELOPE_KEY: %w", err)
	}
	signer, err := queue.NewSigner(queue.SignerConfig{Key: key, Plane: cfg.Set.Plane, Tenant: cfg.Set.Tenant, Issuer: service})
	if err != nil {
		return nil, nil, err
	}
	verifier, err := queue.NewVerifier(queue.VerifierConfig{Keys: key.Public(), Plane: cfg.Set.Plane, Tenant: cfg.Set.Tenant, Issuer: service})
	return signer, verifier, err
}
