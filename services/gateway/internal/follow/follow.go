// Package follow takes each new snapshot from the registry. It promises to come back whenever the registry does, without haste, and
// to ask for nothing that is held already. Whether a snapshot is any good is not its question.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/snapshot"
)

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 5 * time.Second
	jitter       = 0.2
	// steady is how long a stream must have stood for its end to count as a new beginning.
	steady = 10 * time.Second
)

// errWhole ends a stream of changes: the next one begins with the whole.
var errWhole = errors.New("the snapshot is wanted whole")

// Held is what takes snapshots.
type Held interface {
	// Version is the version held; 0 for none.
	Version() int64
	// WantsWhole says that a change would not do.
	WantsWhole() bool
	// Accept takes a snapshot up, or refuses it.
	Accept(ctx context.Context, signed *registryv1.SignedSnapshot) error
	// AcceptChange takes a change of the snapshot held up, or refuses it.
	AcceptChange(ctx context.Context, signed *registryv1.SignedSnapshotChange) error
}

// Run follows the registry at addr until ctx ends, whose error it returns.
func Run(ctx context.Context, addr string, creds credentials.TransportCredentials, held Held) error {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(snapshot.MaxBytes+1<<20), grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstBackoff, Multiplier: 1.6, Jitter: jitter, MaxDelay: mostBackoff},
			MinConnectTimeout: mostBackoff,
		}),
		grpc.WithDisableServiceConfig(),
		// A registry that is gone without a word is noticed within a minute; until then the last snapshot serves as well as a new one.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return fmt.Errorf("make the registry's client: %w", err)
	}
	defer func() { _ = conn.Close() }()
	client := registryv1.NewSnapshotServiceClient(conn)
	policy := retrypolicy.NewBuilder[any]().WithMaxRetries(math.MaxInt32).WithBackoff(firstBackoff, mostBackoff).WithJitterFactor(jitter).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[any]) {
			slog.WarnContext(ctx, "not following the registry, the last snapshot serves on", "held_version", held.Version(), "next_try_in", e.Delay, "error", e.LastError())
		}).Build()
	for ctx.Err() == nil {
		err := failsafe.With(policy).WithContext(ctx).Run(func() error {
			began := time.Now()
			err := watch(ctx, client, held)
			if time.Since(began) > steady {
				return nil
			}
			return err
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the registry: %w", err)
		}
	}
	return ctx.Err()
}

func watch(ctx context.Context, client registryv1.SnapshotServiceClient, held Held) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &registryv1.WatchSnapshotRequest{HaveVersion: held.Version(), TakesChanges: true}
	whole := held.WantsWhole()
	if whole {
		req.HaveVersion = 0
	}
	stream, err := client.WatchSnapshot(ctx, req)
	if err != nil {
		return fmt.Errorf("watch the registry's snapshots: %w", err)
	}
	for {
		res, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive a snapshot: %w", err)
		}
		// A refused snapshot was told by whoever refused it. The stream goes on: the next one may be good.
		if res.GetChange() != nil {
			err = held.AcceptChange(ctx, res.GetChange())
		} else {
			err = held.Accept(ctx, res.GetSnapshot())
		}
		if err != nil && errors.Is(err, context.Canceled) {
			return err
		}
		switch taken := err == nil && res.GetSnapshot() != nil; {
		case !held.WantsWhole():
			whole = false
		case !whole, taken: // one that was taken up, and still is wanted, could not be written
			return errWhole
		}
	}
}
