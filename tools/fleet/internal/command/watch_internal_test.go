package command

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// streams are those that a registry answers who watches, one after the other: one that is started anew meanwhile, or that refuses. A stream ends with an
// error once it has sent what there is.
type streams []stream

type stream struct {
	// ended is whether what is watched has ended, at each change of it.
	ended []bool
	err   error
}

// next answers the stream that comes next, or the error that it begins with.
func next[M any](all *streams, message func(ended bool) *M) (grpc.ServerStreamingClient[M], error) {
	s := (*all)[0]
	if *all = (*all)[1:]; len(s.ended) == 0 {
		return nil, s.err
	}
	return &sent[M]{stream: s, message: message}, nil
}

type sent[M any] struct {
	grpc.ServerStreamingClient[M]
	stream
	message func(ended bool) *M
}

func (s *sent[M]) Recv() (*M, error) {
	if len(s.ended) == 0 {
		return nil, s.err
	}
	ended := s.ended[0]
	s.ended = s.ended[1:]
	return s.message(ended), nil
}

type rollouts struct {
	registryv1.RolloutServiceClient
	streams
}

func (r *rollouts) WatchRollout(context.Context, *registryv1.WatchRolloutRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchRolloutResponse], error) {
	return next(&r.streams, func(ended bool) *registryv1.WatchRolloutResponse {
		x := &registryv1.Rollout{Id: "rol_1"}
		if ended {
			x.EndedAt = timestamppb.Now()
		}
		return &registryv1.WatchRolloutResponse{Rollout: x}
	})
}

type operations struct {
	registryv1.OperationServiceClient
	streams
}

func (o *operations) WatchOperation(context.Context, *registryv1.WatchOperationRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchOperationResponse], error) {
	return next(&o.streams, func(ended bool) *registryv1.WatchOperationResponse {
		x := &registryv1.Operation{Id: "opr_1"}
		if ended {
			x.EndedAt = timestamppb.Now()
		}
		return &registryv1.WatchOperationResponse{Operation: x}
	})
}

// Who watches a rollout, or an operation, goes on to watch it when the registry was started anew, and is told of what the registry refuses.
func TestWatchingOutlivesARestartOfTheRegistry(t *testing.T) {
	away, none := status.Error(codes.Unavailable, "the registry is stopping"), status.Error(codes.NotFound, "there is no such thing")
	for name, c := range map[string]struct {
		streams streams
		shown   int
		said    bool
		fails   string
	}{
		"restarted":            {streams{{ended: []bool{false}, err: away}, {err: away}, {ended: []bool{false, true}}}, 3, true, ""},
		"never restarted":      {streams{{ended: []bool{false, true}, err: errors.New("read on after its end")}}, 2, false, ""},
		"one that there isn't": {streams{{err: none}}, 0, false, "there is no such thing"},
	} {
		// By the head of the table that each is shown in.
		for head, watch := range map[string]func(*testing.T, *app) error{
			"WAVE": func(t *testing.T, a *app) error {
				return a.watchRollout(t.Context(), &rollouts{streams: c.streams}, "rol_1")
			},
			"STEP": func(t *testing.T, a *app) error {
				return a.watchOperation(t.Context(), &operations{streams: c.streams}, "opr_1")
			},
		} {
			t.Run(head+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var out, said strings.Builder
					err := watch(t, &app{out: &out, errOut: &said, raw: io.Discard})
					if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
						t.Errorf("it ended with %v", err)
					}
					if n := strings.Count(out.String(), head); n != c.shown || strings.Contains(said.String(), "the registry does not answer") != c.said {
						t.Errorf("it is shown %d times, and said %q", n, said.String())
					}
				})
			})
		}
	}
}
