// Package postgres is the driver of package queue on PostgreSQL: River (riverqueue/river) in a schema of the tenant's database. A
// message is enqueued in the transaction of the deed that it follows from. Workers poll, so that idle ones hold few connections, and
// see to it that work of a worker that died is done: each holds an advisory lock on its own name, and whoever finds a running job
// whose worker's lock is free makes it available again, within seconds. It relies on the handlers' fencing (queue.Job.Attempt) where
// a worker lost its connection and not its life.
package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"a3os.app/libs/queue"
)

const (
	// jobKind is River's name for our one kind of job; what work it is stands in the envelope.
	jobKind = "a3os.message"
	// queueName is the one queue of a tenant.
	queueName = river.QueueDefault
	// mostArgs bounds the arguments of a job in bytes, in the table and before they are decoded.
	mostArgs = 1 << 20
	// riverTries is River's own bound on attempts, which must not be the first to be reached: River drops a job without a dead letter.
	riverTries = 32000
)

// metaUncounted is the name in a job's metadata of how many of its attempts were no try; see meta for the others.
const metaUncounted = "a3_uncounted"

// jobArgs are what River stores of a message. They decode into raw bytes alone: what they hold is looked at by the verifier.
type jobArgs struct {
	// Key is stored's own: River looks for what makes a job unique among the exported fields.
	Key string `json:"key" river:"unique"`
	// stored is what is written.
	stored stored
	// raw is the arguments as they were found.
	raw []byte
	// outcome carries what one delivery decided from Work to NextRetry, which River calls after it.
	outcome *outcome
}

// stored is the form in the table; bytes are base64.
type stored struct {
	Key      string `json:"key"`
	Envelope []byte `json:"envelope"`
	Payload  []byte `json:"payload"`
}

// Kind implements river.JobArgs.
func (jobArgs) Kind() string { return jobKind }

// MarshalJSON writes the stored form.
func (a jobArgs) MarshalJSON() ([]byte, error) { return json.Marshal(a.stored) }

// UnmarshalJSON never fails, for River would retry what can't be decoded; read decodes.
func (a *jobArgs) UnmarshalJSON(b []byte) error {
	a.raw, a.outcome = bytes.Clone(b), new(outcome)
	return nil
}

// read decodes the arguments, within bounds.
func read(raw []byte) (stored, error) {
	var s stored
	if len(raw) > mostArgs {
		return s, queue.ErrMalformed.With("the job has %d bytes, at most %d are read", len(raw), mostArgs)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return stored{}, queue.ErrMalformed.With("the job is not an envelope and a payload")
	}
	return s, nil
}

// Inserter enqueues messages. The role of the transaction needs the inserter's grants ([GrantsSQL]).
type Inserter struct{ client *river.Client[pgx.Tx] }

// NewInserter makes an inserter into the queue in a schema.
func NewInserter(schema string) (*Inserter, error) {
	if schema == "" {
		return nil, errors.New("an inserter needs the schema of its queue")
	}
	client, err := river.NewClient(riverpgxv5.New(nil), &river.Config{Schema: schema, PollOnly: true})
	if err != nil {
		return nil, fmt.Errorf("make the inserter of queue %q: %w", schema, err)
	}
	return &Inserter{client}, nil
}

// InsertTx implements queue.Inserter.
func (i *Inserter) InsertTx(ctx context.Context, tx pgx.Tx, m queue.Message, opts queue.InsertOpts) error {
	if err := opts.Check(m); err != nil {
		return err
	}
	metadata, err := json.Marshal(meta{Tries: opts.MaxTries, Before: opts.AfterAttempt})
	if err != nil {
		return fmt.Errorf("enqueue message %s: %w", m.ID, err)
	}
	args := jobArgs{Key: opts.UniqueKey, stored: stored{Key: opts.UniqueKey, Envelope: m.Envelope, Payload: m.Payload}}
	_, err = i.client.InsertTx(ctx, tx, args, &river.InsertOpts{
		MaxAttempts: riverTries,
		Metadata:    metadata,
		Queue:       queueName,
		// Every state counts: a message that ended as a dead letter does not come back by being enqueued again.
		UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: rivertype.JobStates()},
	})
	if err != nil {
		return fmt.Errorf("enqueue message %s: %w", m.ID, err)
	}
	return nil
}

var _ queue.Inserter = (*Inserter)(nil)

// Ping says whether the queue of schema is there and can be read, for a service that starts.
func Ping(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	if _, err := pool.Exec(ctx, "select 1 from "+table(schema, "river_job")+" limit 0"); err != nil {
		return fmt.Errorf("reach the queue in schema %q: %w", schema, err)
	}
	return nil
}

func table(schema, name string) string { return pgx.Identifier{schema, name}.Sanitize() }
