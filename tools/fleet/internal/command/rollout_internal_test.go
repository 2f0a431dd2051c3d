package command

import (
	"context"
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

// restarted is a registry that is started anew while a rollout is watched, or that refuses it; a stream of it ends with an error once it has sent what
// there is.
type restarted struct {
	registryv1.RolloutServiceClient
	streams []*sent
}

type sent struct {
	grpc.ServerStreamingClient[registryv1.WatchRolloutResponse]
	states []registryv1.RolloutState
	err    error
}

func (r *restarted) WatchRollout(context.Context, *registryv1.WatchRolloutRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchRolloutResponse], error) {
	s := r.streams[0]
	r.streams = r.streams[1:]
	if len(s.states) == 0 {
		return nil, s.err
	}
	return s, nil
}

func (s *sent) Recv() (*registryv1.WatchRolloutResponse, error) {
	if len(s.states) == 0 {
		return nil, s.err
	}
	r := &registryv1.Rollout{Id: "rol_1", State: s.states[0]}
	if s.states = s.states[1:]; r.GetState() == registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		r.EndedAt = timestamppb.Now()
	}
	return &registryv1.WatchRolloutResponse{Rollout: r}, nil
}

// Who watches a rollout goes on to watch it when the registry was started anew, and is told of what the registry refuses.
func TestWatchingOutlivesARestartOfTheRegistry(t *testing.T) {
	const running, succeeded = registryv1.RolloutState_ROLLOUT_STATE_RUNNING, registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED
	away, none := status.Error(codes.Unavailable, "the registry is stopping"), status.Error(codes.NotFound, "there is no such rollout")
	for name, c := range map[string]struct {
		streams []*sent
		shown   int
		said    bool
		fails   string
	}{
		"restarted":            {[]*sent{{states: []registryv1.RolloutState{running}, err: away}, {err: away}, {states: []registryv1.RolloutState{running, succeeded}}}, 3, true, ""},
		"never restarted":      {[]*sent{{states: []registryv1.RolloutState{running, succeeded}}}, 2, false, ""},
		"one that there isn't": {[]*sent{{err: none}}, 0, false, "there is no such rollout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out, said strings.Builder
				a := &app{out: &out, errOut: &said, raw: io.Discard}
				err := a.watchRollout(t.Context(), &restarted{streams: c.streams}, "rol_1")
				if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
					t.Errorf("it ended with %v", err)
				}
				if n := strings.Count(out.String(), "rol_1 to"); n != c.shown || strings.Contains(said.String(), "the registry does not answer") != c.said {
					t.Errorf("it is shown %d times, and said %q", n, said.String())
				}
			})
		})
	}
}
