package rpc

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

// heldOpen holds its streams open, and answers calls.
type heldOpen struct {
	registryv1.UnimplementedTenantServiceServer
	registryv1.UnimplementedRolloutServiceServer
}

// ListTenants implements registryv1.TenantServiceServer.
func (heldOpen) ListTenants(context.Context, *registryv1.ListTenantsRequest) (*registryv1.ListTenantsResponse, error) {
	return &registryv1.ListTenantsResponse{}, nil
}

// WatchRollout implements registryv1.RolloutServiceServer.
func (heldOpen) WatchRollout(_ *registryv1.WatchRolloutRequest, s grpc.ServerStreamingServer[registryv1.WatchRolloutResponse]) error {
	if err := s.Send(&registryv1.WatchRolloutResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// Who is proven and not admitted calls nothing, and is told why; the stream of somebody who is not admitted any more ends with the same words,
// and doesn't where it could not be asked.
func TestWhoIsNotAdmittedCallsNothing(t *testing.T) {
	refused := fault.New(fault.PermissionDenied, "ann is nobody here: ask for a record")
	var answer atomic.Pointer[fault.Error]
	asked := make(chan error, 64)
	g, err := NewGRPCServer(GRPCConfig{Credentials: insecure.NewCredentials(),
		Peer: func(context.Context, credentials.AuthInfo) (workload.Identity, error) {
			return workload.Identity{Plane: "dev", Service: "operator-ann"}, nil
		},
		Admit: func(_ context.Context, who workload.Identity, info credentials.AuthInfo) error {
			if who.Service != "operator-ann" || info == nil {
				t.Errorf("asked for %v, by %v", who, info)
			}
			var err error
			if e := answer.Load(); e != nil {
				err = e
			}
			asked <- err
			return err
		},
	}, func(r grpc.ServiceRegistrar) {
		registryv1.RegisterTenantServiceServer(r, heldOpen{})
		registryv1.RegisterRolloutServiceServer(r, heldOpen{})
	})
	if err != nil {
		t.Fatal(err)
	}
	const buffer = 1 << 20
	l := bufconn.Listen(buffer)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.ServeListener(ctx, l) }()
	defer func() { stop(); <-served }()
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := func() error {
		_, err := registryv1.NewTenantServiceClient(conn).ListTenants(t.Context(), &registryv1.ListTenantsRequest{})
		return fault.FromRPC(err)
	}
	watch := func() (grpc.ServerStreamingClient[registryv1.WatchRolloutResponse], error) {
		s, err := registryv1.NewRolloutServiceClient(conn).WatchRollout(t.Context(), &registryv1.WatchRolloutRequest{RolloutId: "rol_01h455vb4pex5vsknk084sn02q"})
		if err == nil {
			_, err = s.Recv()
		}
		return s, fault.FromRPC(err)
	}
	told := func(what string, err error) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != refused.Kind || f.Message != refused.Message {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	stream, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	// That the database doesn't answer ends no stream.
	answer.Store(fault.New(fault.Unavailable, "the database is away"))
	for err := range asked {
		if err != nil {
			break
		}
	}
	answer.Store(refused)
	told("a call", call())
	_, err = watch()
	told("a stream that begins", err)
	_, err = stream.Recv()
	told("a stream that was open", fault.FromRPC(err))
}
