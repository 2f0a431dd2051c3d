package asked_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/asked"
)

// failing is a registry that fails with one error; without one it never answers.
type failing struct {
	registryv1.UnimplementedTenantServiceServer
	with error
}

func (f failing) GetTenant(ctx context.Context, _ *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	if f.with == nil {
		<-ctx.Done()
	}
	return nil, fault.Status(f.with)
}

func TestWhoDidNotAnswerIsNamed(t *testing.T) {
	declared := fault.Declare(fault.Unavailable, "DRAINING", "the service restarts")
	for name, c := range map[string]struct {
		with error
		kind fault.Kind
		says string // of what is named besides the address; empty where the registry's own word is to stand
	}{
		"its database":      {fault.New(fault.Unavailable, "the database can't be reached; try again shortly"), fault.Unavailable, "database, plane/postgres"},
		"the registry":      {fault.New(fault.Unavailable, "gone"), fault.Unavailable, "the registry does not answer at"},
		"one that hangs":    {nil, fault.DeadlineExceeded, "the registry did not answer in time at"},
		"one with a reason": {declared, fault.Unavailable, ""},
		"one that says no":  {fault.New(fault.NotFound, "there is no tenant"), fault.NotFound, ""},
		"one that is wrong": {errors.New("broken"), fault.Internal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, failing{with: c.with})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			err := fault.FromRPC(get(ctx, t, address))
			e, _ := errors.AsType[*fault.Error](err)
			if e == nil || e.Kind != c.kind {
				t.Fatalf("%v, want the kind %s", err, c.kind)
			}
			for _, part := range []string{c.says, address, "fleet plane status", asked.Runbook} {
				if strings.Contains(e.Message, part) != (c.says != "") && part != "" {
					t.Errorf("it says %q: %q", e.Message, part)
				}
			}
			if errors.Is(c.with, declared) && !errors.Is(err, declared) {
				t.Errorf("%v is not what the registry declared", err)
			}
		})
	}
	err := fault.FromRPC(get(t.Context(), t, "127.0.0.1:1"))
	if e, _ := errors.AsType[*fault.Error](err); e == nil || e.Kind != fault.Unavailable || !strings.Contains(e.Message, "the registry does not answer at 127.0.0.1:1") {
		t.Errorf("where nobody listens: %v", err)
	}
}

func serve(t *testing.T, tenants registryv1.TenantServiceServer) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	registryv1.RegisterTenantServiceServer(srv, tenants)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

func get(ctx context.Context, t *testing.T, address string) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, asked.Named(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: "acme"})
	return err
}
