// Command minimal is the least that a server of this field is made of: one Connect handler, a pgx pool, the OpenTelemetry SDK with
// traces and metrics. Its memory is what a set's is held against.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
)

func main() {
	if err := run(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "minimal:", err)
		os.Exit(1)
	}
}

// run writes its address as a line and serves until its input ends.
func run(ctx context.Context, in io.Reader, out io.Writer) error {
	scrape, err := prometheus.New()
	if err != nil {
		return err
	}
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(scrape)))
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSampler(trace.TraceIDRatioBased(0.01))))
	// The pool connects when it is first used, and here it never is: an open connection would only make this server bigger.
	pool, err := pgxpool.New(ctx, "host=127.0.0.1 dbname=none sslmode=disable")
	if err != nil {
		return err
	}
	defer pool.Close()
	tracing, err := otelconnect.NewInterceptor()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(discoveryv1connect.NewRunServiceHandler(runs{}, connect.WithInterceptors(tracing)))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	_, _ = io.Copy(io.Discard, in)
	if err := srv.Close(); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type runs struct {
	discoveryv1connect.UnimplementedRunServiceHandler
}

// GetRun answers the run it is asked for, and nothing of it.
func (runs) GetRun(_ context.Context, req *connect.Request[discoveryv1.GetRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return connect.NewResponse(&discoveryv1.Run{Id: req.Msg.GetRunId()}), nil
}
