package report

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// releaseHeader is how every server of the set says what it runs.
const releaseHeader = "A3-Release"

// Sibling is a component that answers gRPC's health protocol at a base URL, reached through client.
func Sibling(name string, client connect.HTTPClient, baseURL string) Component {
	check := connect.NewClient[healthv1.HealthCheckRequest, healthv1.HealthCheckResponse](client, baseURL+"/grpc.health.v1.Health/Check")
	return Component{Name: name, Ask: func(ctx context.Context) State {
		res, err := check.CallUnary(ctx, connect.NewRequest(&healthv1.HealthCheckRequest{}))
		if err != nil {
			// An error that the server itself sent shows that it runs.
			if ce, ok := errors.AsType[*connect.Error](err); ok && connect.IsWireError(err) {
				return State{Health: registryv1.Health_HEALTH_NOT_SERVING, Release: ce.Meta().Get(releaseHeader)}
			}
			return State{Health: registryv1.Health_HEALTH_UNREACHABLE}
		}
		s := State{Health: registryv1.Health_HEALTH_NOT_SERVING, Release: res.Header().Get(releaseHeader)}
		if res.Msg.GetStatus() == healthv1.HealthCheckResponse_SERVING {
			s.Health = registryv1.Health_HEALTH_SERVING
		}
		return s
	}}
}
