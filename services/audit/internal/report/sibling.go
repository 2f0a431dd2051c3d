package report

import (
	"context"

	"connectrpc.com/connect"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"
	"a3os.app/proto/gen/go/a3os/set/v1/setv1connect"
)

// Sibling is a component that says how it is at a base URL, reached through client.
func Sibling(name string, client connect.HTTPClient, baseURL string) Component {
	status := setv1connect.NewStatusServiceClient(client, baseURL)
	return Component{Name: name, Ask: func(ctx context.Context) State {
		res, err := status.GetStatus(ctx, connect.NewRequest(&setv1.GetStatusRequest{}))
		if err != nil {
			// An error that the server itself sent shows that it runs.
			if connect.IsWireError(err) {
				return State{Health: registryv1.Health_HEALTH_NOT_SERVING}
			}
			return State{Health: registryv1.Health_HEALTH_UNREACHABLE}
		}
		return StateOf(res.Msg)
	}}
}

// StateOf is how a component is by what it says itself.
func StateOf(s *setv1.GetStatusResponse) State {
	out := State{Health: registryv1.Health_HEALTH_NOT_SERVING, Release: s.GetRelease(), StartedAt: s.GetStartedAt().AsTime(), Figures: s.GetFigures()}
	if s.GetServing() {
		out.Health = registryv1.Health_HEALTH_SERVING
	}
	return out
}
