package tlog

import (
	"context"
	"fmt"
	"iter"
	"math"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
)

// leavesPerStream keeps one stream short enough for any deadline on the way; the walk goes on with the next.
const leavesPerStream = 50_000

// Remote is the log behind the RPC API. Its errors have the kind that the service gave them.
func Remote(client auditv1connect.LogServiceClient) Source { return remote{client: client} }

type remote struct {
	client auditv1connect.LogServiceClient
}

func (r remote) Checkpoint(ctx context.Context) (string, error) {
	res, err := r.client.GetCheckpoint(ctx, connect.NewRequest(&auditv1.GetCheckpointRequest{}))
	if err != nil {
		return "", fault.FromRPC(err)
	}
	return res.Msg.GetCheckpoint(), nil
}

func (r remote) Checkpoints(ctx context.Context) iter.Seq2[string, error] {
	return RemoteCheckpoints(r.client)(ctx, 0)
}

// RemoteCheckpoints lists the checkpoints of the log behind the RPC API, from a size on.
func RemoteCheckpoints(client auditv1connect.LogServiceClient) func(ctx context.Context, from uint64) iter.Seq2[string, error] {
	return func(ctx context.Context, from uint64) iter.Seq2[string, error] {
		if from > math.MaxInt64 {
			from = math.MaxInt64
		}
		return checkpoints(ctx, client, int64(from))
	}
}

func checkpoints(ctx context.Context, client auditv1connect.LogServiceClient, from int64) iter.Seq2[string, error] {
	const page = 500
	return func(yield func(string, error) bool) {
		for {
			res, err := client.ListCheckpoints(ctx, connect.NewRequest(&auditv1.ListCheckpointsRequest{FromSize: from, PageSize: page}))
			if err != nil {
				yield("", fault.FromRPC(err))
				return
			}
			notes := res.Msg.GetCheckpoints()
			for _, n := range notes {
				if !yield(n, nil) {
					return
				}
			}
			next := res.Msg.GetNextFromSize()
			if next == 0 {
				return
			}
			if next <= from {
				yield("", fmt.Errorf("the list of checkpoints goes on at size %d after %d: it does not speak the protocol", next, from))
				return
			}
			from = next
		}
	}
}

func (r remote) Leaves(ctx context.Context, size uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if size > math.MaxInt64 {
			yield(Entry{}, fmt.Errorf("a log of %d entries can't be asked for", size))
			return
		}
		total := int64(size)
		for from := int64(0); from < total; from += leavesPerStream {
			if !r.stream(ctx, from, min(from+leavesPerStream, total), yield) {
				return
			}
		}
	}
}

// stream yields one range of leaves and says whether more is wanted.
func (r remote) stream(ctx context.Context, from, to int64, yield func(Entry, error) bool) bool {
	s, err := r.client.StreamLeaves(ctx, connect.NewRequest(&auditv1.StreamLeavesRequest{FromIndex: from, ToIndex: to}))
	if err != nil {
		yield(Entry{}, fault.FromRPC(err))
		return false
	}
	defer s.Close()
	for s.Receive() {
		events, hashes := s.Msg().GetEvents(), s.Msg().GetLeafHashes()
		if len(events) != len(hashes) {
			yield(Entry{}, fmt.Errorf("the log sent %d leaves and %d hashes: it does not speak the protocol", len(events), len(hashes)))
			return false
		}
		for i, e := range events {
			if e.GetIndex() < from || e.GetIndex() >= to {
				yield(Entry{}, fmt.Errorf("the log sent entry %d when asked for %d to %d: it does not speak the protocol", e.GetIndex(), from, to-1))
				return false
			}
			index := uint64(e.GetIndex()) //nolint:gosec // from is not negative
			if !yield(Entry{Index: index, Leaf: e.GetLeaf(), Hash: hashes[i]}, nil) {
				return false
			}
		}
	}
	if err := s.Err(); err != nil {
		yield(Entry{}, fault.FromRPC(err))
		return false
	}
	return true
}
