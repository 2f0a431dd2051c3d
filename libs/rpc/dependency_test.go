package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc"
	"a3os.app/libs/workload"
)

// dependency is a service that others need, as good as a test lets it be.
type dependency struct {
	iamv1connect.UnimplementedUsageServiceHandler
	calls atomic.Int64
	check atomic.Pointer[func(context.Context) error]
}

func (d *dependency) is(check func(context.Context) error) { d.check.Store(&check) }

func (d *dependency) CountUsage(ctx context.Context, _ *connect.Request[iamv1.CountUsageRequest]) (*connect.Response[iamv1.CountUsageResponse], error) {
	d.calls.Add(1)
	if err := (*d.check.Load())(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&iamv1.CountUsageResponse{}), nil
}

func (d *dependency) mounted() rpc.Service {
	return rpc.Mount(iamv1connect.NewUsageServiceHandler, iamv1connect.UsageServiceHandler(d))
}

func well(context.Context) error { return nil }

// serve runs a server as services are run, and answers where.
func (w *world) serve(service string, mounted []rpc.Service, routes ...rpc.Route) string {
	w.t.Helper()
	var err error
	cfg := rpc.ServerConfig{Identity: workload.Identity{Plane: "dev", Tenant: w.tenant, Service: service}}
	if cfg.TLS, err = workload.ServerTLS(w.source(w.issuing, cfg.Identity), w.trust); err != nil {
		w.t.Fatal(err)
	}
	cfg.Peer = func(state tls.ConnectionState) (workload.Identity, bool, error) { return workload.Peer(state, w.trust) }
	s, err := rpc.NewServer(cfg, mounted, routes)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeListener(ctx, l) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

// to is the client that services have of one another.
func (w *world) to(service, addr string) iamv1connect.UsageServiceClient {
	w.t.Helper()
	target := workload.Identity{Plane: "dev", Tenant: w.tenant, Service: service}
	transport, err := workload.NewTransport(workload.TransportConfig{
		Source:  w.source(w.issuing, workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "audit"}),
		Anchors: w.trust, Resolver: workload.Addresses{target: addr}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	c, err := rpc.ToWorkload(transport, target, iamv1connect.NewUsageServiceClient)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func ask(ctx context.Context, c iamv1connect.UsageServiceClient) error {
	_, err := c.CountUsage(ctx, connect.NewRequest(&iamv1.CountUsageRequest{Since: timestamppb.Now()}))
	return err
}

// Fault row F23: whatever way a dependency fails, what reaches it is what was asked, and at most a tenth more.
func TestFailingDependencyIsNotAskedMoreOften(t *testing.T) {
	w := newWorld(t)
	d := &dependency{}
	c := w.to("iam", w.serve("iam", []rpc.Service{d.mounted()}))
	const offered = 200
	cases := 0
	for name, check := range map[string]func(context.Context) error{
		"unavailable":      func(context.Context) error { return fault.New(fault.Unavailable, "down") },
		"overloaded":       func(context.Context) error { return fault.New(fault.ResourceExhausted, "busy") },
		"aborted":          func(context.Context) error { return fault.New(fault.Aborted, "conflict") },
		"internal":         func(context.Context) error { return errors.New("broken") },
		"resets its calls": func(context.Context) error { panic(http.ErrAbortHandler) },
	} {
		d.is(check)
		before := d.calls.Load()
		var all sync.WaitGroup
		const callers = 8
		for range callers {
			all.Go(func() {
				for range offered / callers {
					if err := ask(t.Context(), c); err == nil {
						t.Errorf("%s: a call that failed is told as done", name)
					}
				}
			})
		}
		all.Wait()
		if got := d.calls.Load() - before; got > offered*11/10 || got == 0 {
			t.Errorf("%s: of %d calls %d reached the dependency", name, offered, got)
		}
		cases += offered
	}
	t.Attr("row", fmt.Sprint("F23 ", cases))
}

// Fault row F24: a service that needs a slow one refuses soon rather than wait with it, answers everything else as fast as before,
// and asks again once the other is well.
func TestSlowDependencyIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	d := &dependency{}
	d.is(well)
	c := w.to("iam", w.serve("iam", []rpc.Service{d.mounted()}))
	answer := func(err error) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			if err != nil {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}
	front := w.serve("discovery", nil,
		rpc.Route{Pattern: "GET /needs", Open: "a test's", Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			answer(ask(r.Context(), c))(rw, r)
		})},
		rpc.Route{Pattern: "GET /rest", Open: "a test's", Handler: answer(nil)})
	w.addr = front
	client := w.client(nil)
	get := func(path string) (int, time.Duration) {
		begun := time.Now()
		res, err := client.Get("https://discovery.invalid" + path)
		if err != nil {
			return 0, time.Since(begun)
		}
		_ = res.Body.Close()
		return res.StatusCode, time.Since(begun)
	}
	if status, _ := get("/needs"); status != http.StatusOK {
		t.Fatalf("while the dependency is well: %d", status)
	}
	release := make(chan struct{})
	d.is(func(ctx context.Context) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	})
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var quick atomic.Int64 // refused while the breaker is open
	const many, soon = 16, time.Second
	for range many {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if status, took := get("/needs"); status == http.StatusServiceUnavailable && took < soon {
					quick.Add(1)
				}
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for quick.Load() < 10*many {
		if time.Now().After(deadline) {
			t.Fatal("callers still wait for a dependency that is slow")
		}
		if status, took := get("/rest"); status != http.StatusOK || took > 2*soon {
			t.Errorf("the rest is answered with %d after %s", status, took)
		}
	}
	// While it is open, next to nothing reaches the dependency: the looks whether it is well again.
	before, refused := d.calls.Load(), quick.Load()
	for quick.Load() < refused+10*many {
		if time.Now().After(deadline) {
			t.Fatal("callers wait again")
		}
		<-time.After(10 * time.Millisecond)
	}
	if got := d.calls.Load() - before; got > many {
		t.Errorf("%d calls reached the dependency behind an open breaker", got)
	}
	close(release)
	d.is(well)
	for {
		if status, _ := get("/needs"); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it was not asked again once it was well")
		}
		<-time.After(50 * time.Millisecond)
	}
	close(stop)
	callers.Wait()
	t.Attr("row", fmt.Sprint("F24 ", quick.Load()))
}
