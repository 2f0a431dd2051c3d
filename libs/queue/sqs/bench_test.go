package sqs_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	"a3os.app/libs/queue/sqs"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

const (
	// benchMessages are enqueued in each turn, while the worker works: enough that the pauses of an idle sender do not count.
	benchMessages = 1000
	// benchAtOnce is the bound on messages at once, and the number of producers, on both sides.
	benchAtOnce = 16
)

// BenchmarkHandled puts signed messages through the driver, from signing to the handler that has read the payload, and, in turns, as many
// bodies of the same size through a bare loop of the SDK that sends, receives ten at a time and deletes: same emulator, roles and bound on
// messages at once. What differs is the envelope, the row that says what a delivery may do, and the outbox.
func BenchmarkHandled(b *testing.B) {
	server := ministacktest.Start(b)
	ours, bare := driverSide(b, newBench(b, server)), bareSide(b, newBench(b, server))
	ours()
	bare()
	var s, a time.Duration
	n := 0
	for b.Loop() {
		s += ours()
		a += bare()
		n++
	}
	per := float64(benchMessages * n)
	b.ReportMetric(per/s.Seconds(), "messages/s")
	b.ReportMetric(per/a.Seconds(), "bare-messages/s")
}

// driverSide starts a sender and a worker, and answers how long a turn takes.
func driverSide(b *testing.B, at *bench) func() time.Duration {
	b.Helper()
	p := queuetest.NewParties(b, id.NewTenant(), "dev")
	at.send(b)
	var left queuetest.Turn
	worker, err := sqs.NewWorker(sqs.WorkerConfig{
		Place: at.place(b, at.working), Pool: at.db.PoolAs(b, at.workers), Verifier: p.Verifier, Concurrency: benchAtOnce, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]queue.Handler{queuetest.Kind: func(_ context.Context, j queue.Job) error {
			defer left.Done()
			return j.Message.Decode(new(queuev1.SlicePayload))
		}},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { b.Error(l.Reason); return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	b.Cleanup(func() { stop(); <-ended })
	return func() time.Duration {
		return left.Take(b, benchMessages, benchAtOnce, func() error { return at.insert(b.Context(), p.Message(b), queue.InsertOpts{}) })
	}
}

// bareSide is the loop that somebody with nothing but the SDK would write.
func bareSide(b *testing.B, at *bench) func() time.Duration {
	b.Helper()
	var left queuetest.Turn
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	b.Cleanup(func() { stop(); running.Wait() })
	client := awssqs.NewFromConfig(at.working)
	free := make(chan struct{}, benchAtOnce)
	running.Go(func() {
		for ctx.Err() == nil {
			out, err := client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &at.url, MaxNumberOfMessages: 10, WaitTimeSeconds: 20})
			if err != nil {
				continue // the turn that waits for it ends the benchmark
			}
			for _, m := range out.Messages {
				free <- struct{}{}
				running.Go(func() {
					defer func() { <-free }()
					if _, err := client.DeleteMessage(ctx, &awssqs.DeleteMessageInput{QueueUrl: &at.url, ReceiptHandle: m.ReceiptHandle}); err == nil {
						left.Done()
					}
				})
			}
		}
	})
	sender := awssqs.NewFromConfig(at.sending)
	m := queuetest.NewParties(b, id.NewTenant(), "dev").Message(b)
	text := queue.EncodeHeader(m)
	return func() time.Duration {
		return left.Take(b, benchMessages, benchAtOnce, func() error {
			_, err := sender.SendMessage(b.Context(), &awssqs.SendMessageInput{QueueUrl: &at.url, MessageBody: aws.String(text)})
			return err
		})
	}
}
