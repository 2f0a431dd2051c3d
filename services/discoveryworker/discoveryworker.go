// Package discoveryworker reads systems: it is the one service that talks to the outside world, and it has no database but its queue.
// This file is the service's wiring, and nothing else.
package discoveryworker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/pg"
	"a3os.app/libs/place"
	"a3os.app/libs/queue"
	queuepg "a3os.app/libs/queue/postgres"
	queuesqs "a3os.app/libs/queue/sqs"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/services/discoveryworker/internal/connector/all"
	"a3os.app/services/discoveryworker/internal/egress"
	"a3os.app/services/discoveryworker/internal/machine"
	"a3os.app/services/discoveryworker/internal/work"
)

const (
	service = "discovery-worker"
	// queueSchema is where the queue's tables are.
	queueSchema = "queue"
)

// Config is what the role is told.
type Config struct {
	Set              set.Config    `envPrefix:""`
	QueueURL         config.Secret `env:"QUEUE_URL" desc:"connection string of role worker, which reaches the queue and nothing else"`
	Queue            string        `env:"QUEUE" envDefault:"" desc:"URL of the tenant's queue of SQS; empty where the queue is the database's own"`
	EnvelopeKeys     string        `env:"ENVELOPE_KEYS" desc:"public keys that envelopes are verified with"`
	SecretDir        string        `env:"SECRET_DIR" desc:"directory of the tenant's secrets, or their place at AWS: secretsmanager://tenant/tnt_…/store/secrets"`
	SecretPrivateKey config.Secret `env:"SECRET_PRIVATE_KEY" desc:"key that opens the tenant's secrets"`
	BlobDir          string        `env:"BLOB_DIR" desc:"directory of the tenant's objects, or their place at AWS: s3://bucket/tnt_…"`
	AllowUnix        bool          `env:"ALLOW_UNIX" envDefault:"false" desc:"the tenant may read the machine of the plane"`
	MachineSocket    string        `env:"MACHINE_SOCKET" envDefault:"" desc:"socket of the machine reader, where the platform keeps one"`
	AllowAddresses   []string      `env:"ALLOW_ADDRESSES" envDefault:"" desc:"addresses on this machine that integrations may reach, as 127.0.0.1:5433"`
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
	policy, err := egress.Parse(cfg.AllowAddresses)
	if err != nil {
		return err
	}
	jobs, err := pg.Open(ctx, pg.Config{URL: cfg.QueueURL.Reveal(), Service: service, Owner: owner, Setting: "A3_QUEUE_URL", Queue: queueSchema})
	if err != nil {
		return err
	}
	defer jobs.Close()
	if err := jobs.Await(ctx); err != nil {
		return err
	}
	secrets, err := place.SecretReader(ctx, cfg.SecretDir, owner, cfg.SecretPrivateKey)
	if err != nil {
		return err
	}
	defer secrets.Close()
	content, err := place.BlobReader(ctx, cfg.BlobDir, owner)
	if err != nil {
		return err
	}
	defer content.Close()
	ingest, err := rpc.ToWorkload(member.Transport, member.Sibling("discovery"), discoveryv1connect.NewIngestServiceClient)
	if err != nil {
		return err
	}
	letters, err := rpc.ToWorkload(member.Transport, member.Sibling("discovery"), discoveryv1connect.NewDeadLetterReportServiceClient)
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
	host := all.Machine{Allowed: cfg.AllowUnix}
	if cfg.MachineSocket != "" {
		host.Reader = machine.Ask(cfg.MachineSocket)
	}
	w := work.New(work.Config{Ingest: ingest, Letters: letters, Secrets: secrets, Content: content, Dial: policy.Dial, Machine: host})
	consumer, err := consume(ctx, cfg, owner, jobs, verifier, w)
	if err != nil {
		return err
	}
	return member.Serve(ctx, set.Serving{
		Services: []rpc.Service{
			rpc.Mount(discoveryv1connect.NewConnectorServiceHandler, discoveryv1connect.ConnectorServiceHandler(w)),
		},
		Ready:      jobs.Ping,
		Figures:    figures(consumer),
		Background: []func(context.Context) error{consumer.Run},
	})
}

// consumer does what is in the queue.
type consumer interface {
	Run(ctx context.Context) error
	Load(ctx context.Context) (queue.Load, error)
}

func consume(ctx context.Context, cfg Config, owner *binding.Owner, jobs *pg.DB, verifier *queue.Verifier, w *work.Worker) (consumer, error) {
	handlers := map[string]queue.Handler{work.Kind: w.Slice}
	if cfg.Queue == "" {
		return queuepg.NewWorker(queuepg.WorkerConfig{Pool: jobs.Pool(), Schema: jobs.Queue(), Name: service, Verifier: verifier, Handlers: handlers, DeadLetter: w.Bury})
	}
	at, err := place.Queue(ctx, cfg.Queue, jobs.Queue(), owner)
	if err != nil {
		return nil, err
	}
	return queuesqs.NewWorker(queuesqs.WorkerConfig{Place: at, Pool: jobs.Pool(), Verifier: verifier, Handlers: handlers, DeadLetter: w.Bury})
}

// figures are those of the queue: what waits is told where the database can be asked. Nothing is not said to wait for want of an answer.
func figures(c consumer) func(context.Context, *setv1.Figures) {
	return func(ctx context.Context, f *setv1.Figures) {
		l, err := c.Load(ctx)
		if err != nil {
			slog.WarnContext(ctx, "the queue could not be measured", "error", err)
		} else {
			f.QueueDepth, f.QueueAgeSeconds = new(l.Waiting), new(int64(l.Oldest/time.Second))
		}
		f.FailedJobs, f.RetriedJobs = l.Failed, l.Retried
	}
}
