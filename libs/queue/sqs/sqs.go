// Package sqs is the driver of package queue on Amazon SQS, a standard queue. SQS carries messages and wakes workers; what has to be
// exact stands in a table of the tenant's database: a message is enqueued in the transaction of the deed that it follows from, and a
// [Sender] gives SQS what was committed. Before a worker does anything with a message, it verifies its envelope and takes the message's
// job in the table, which gives the attempt that fences. So a message that SQS delivers twice is done once, one that SQS lost is sent
// again, and one that nobody enqueued, though its signature be good, is refused.
//
// A FIFO queue would not spare the table, and would hold up a workspace's other jobs behind one that fails.
package sqs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/queue"
)

// MostBody bounds a message's body, which is what SQS takes (since August 2025), and is read before anything of it is decoded.
const MostBody = 1 << 20

// body is what SQS carries; bytes are base64.
type body struct {
	Key      string `json:"key"`
	Envelope []byte `json:"envelope"`
	Payload  []byte `json:"payload"`
}

// readBody decodes a body, within bounds.
func readBody(text string) (body, error) {
	var b body
	if len(text) > MostBody {
		return b, queue.ErrMalformed.With("the message has %d bytes, at most %d are read", len(text), MostBody)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return body{}, queue.ErrMalformed.With("the message is not a key, an envelope and a payload")
	}
	return b, nil
}

// Place is a tenant's queue.
type Place struct {
	client *sqs.Client
	url    string
	jobs   string
}

// NewPlace is the queue with a URL, whose jobs stand in a schema of the database.
func NewPlace(cfg aws.Config, url, schema string) (*Place, error) {
	if url == "" || schema == "" {
		return nil, errors.New("a queue on SQS needs its URL and the schema of its jobs")
	}
	return &Place{client: sqs.NewFromConfig(cfg), url: url, jobs: table(schema)}, nil
}

// Inserter enqueues messages. The role of the transaction needs an inserter's grants ([GrantsSQL]).
type Inserter struct{ jobs string }

var _ queue.Inserter = (*Inserter)(nil)

// NewInserter makes an inserter into the jobs of a schema. What it enqueues a [Sender] sends.
func NewInserter(schema string) (*Inserter, error) {
	if schema == "" {
		return nil, errors.New("an inserter needs the schema of its queue")
	}
	return &Inserter{table(schema)}, nil
}

// InsertTx implements queue.Inserter. A key is remembered for a day past its job's end.
func (i *Inserter) InsertTx(ctx context.Context, tx pgx.Tx, m queue.Message, opts queue.InsertOpts) error {
	if err := opts.Check(m); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO `+i.jobs+` (key, envelope, payload, most_tries, before, run_at) VALUES ($1, $2, $3, $4, $5, now())
		ON CONFLICT DO NOTHING`, opts.UniqueKey, m.Envelope, append([]byte{}, m.Payload...), opts.MaxTries, opts.AfterAttempt)
	if err != nil {
		return fmt.Errorf("enqueue message %s: %w", m.ID, err)
	}
	return nil
}
