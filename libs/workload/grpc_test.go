package workload_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"a3os.app/libs/workload"
)

// grpcServer runs a real grpc-go server that answers health checks as `who`.
func grpcServer(t testing.TB, source *workload.Source, anchors workload.Anchors, seen func(context.Context)) (addr string) {
	t.Helper()
	secured, err := workload.GRPCServerCredentials(source, anchors)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(secured), grpc.UnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			seen(ctx)
			return next(ctx, request)
		}))
	healthv1.RegisterHealthServer(server, health.NewServer())
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String()
}

func check(ctx context.Context, addr string, secured credentials.TransportCredentials) error {
	connection, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(secured))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	_, err = healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func TestGRPCCredentialsKeepTheSamePromises(t *testing.T) {
	w := newWorld(t)
	registry := w.control.source(t, "registry")
	fleet := w.fleet(t)
	var caller atomic.Value
	addr := grpcServer(t, registry, fleet, func(ctx context.Context) {
		p, _ := peer.FromContext(ctx)
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok {
			t.Errorf("the connection is authenticated by %T", p.AuthInfo)
			return
		}
		who, _, err := workload.Peer(info.State, fleet)
		if err != nil {
			t.Error(err)
		}
		caller.Store(who)
	})
	audit := w.mine.source(t, "audit")
	secured, err := workload.GRPCClientCredentials(audit, w.trust, registry.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), addr, secured); err != nil {
		t.Fatal(err)
	}
	if caller.Load() != audit.Identity() {
		t.Errorf("the registry takes the caller for %v", caller.Load())
	}

	stranger := hold(t, w.mine.root.TrustDomain()).source(t, "audit")
	for name, c := range map[string]struct {
		addr string
		make func() (credentials.TransportCredentials, error)
	}{
		"no certificate": {addr, func() (credentials.TransportCredentials, error) {
			return credentials.NewTLS(&tls.Config{RootCAs: w.trust.PlaneRoots, ServerName: registry.Identity().ServerName(), MinVersion: tls.VersionTLS13}), nil
		}},
		"a certificate of a root of the same name": {addr, func() (credentials.TransportCredentials, error) {
			return workload.GRPCClientCredentials(stranger, w.trust, registry.Identity())
		}},
		"another service where the registry was": {grpcServer(t, w.control.source(t, "gateway"), fleet, func(context.Context) { t.Error("the gateway was called") }),
			func() (credentials.TransportCredentials, error) {
				return workload.GRPCClientCredentials(audit, w.trust, registry.Identity())
			}},
		"a tenant where the registry was": {grpcServer(t, w.mine.source(t, "registry"), w.trust, func(context.Context) { t.Error("the tenant was called") }),
			func() (credentials.TransportCredentials, error) {
				return workload.GRPCClientCredentials(audit, w.trust, registry.Identity())
			}},
	} {
		t.Run(name, func(t *testing.T) {
			caller.Store(workload.Identity{})
			secured, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			if err := check(t.Context(), c.addr, secured); status.Code(err) != codes.Unavailable {
				t.Errorf("the call ended with %v", err)
			}
			if caller.Load() != (workload.Identity{}) {
				t.Error("the handler was reached")
			}
		})
	}
}
