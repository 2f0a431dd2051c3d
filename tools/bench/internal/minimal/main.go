// Command minimal is the least that a server of this field is made of: one Connect handler, a pgx pool, the OpenTelemetry SDK with
// traces and metrics. Its memory is what a set's is held against. Where MINIMAL_DATABASE_URL names a database it is what a set's start is
// held against: it makes itself a key, serves TLS, and answers from that database.
package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
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
	// The pool connects when it is first used. Without a database it never is: an open connection would only make this server bigger.
	database := os.Getenv("MINIMAL_DATABASE_URL")
	pool, err := pgxpool.New(ctx, cmp.Or(database, "host=127.0.0.1 dbname=none sslmode=disable"))
	if err != nil {
		return err
	}
	defer pool.Close()
	tracing, err := otelconnect.NewInterceptor()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	handler := runs{}
	if database != "" {
		handler.pool = pool
	}
	mux.Handle(discoveryv1connect.NewRunServiceHandler(handler, connect.WithInterceptors(tracing)))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if database == "" {
		fmt.Fprintln(out, l.Addr())
	} else {
		cert, err := selfSigned()
		if err != nil {
			return err
		}
		fmt.Fprintln(out, l.Addr(), base64.StdEncoding.EncodeToString(cert.Certificate[0]))
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	}
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

// selfSigned is a certificate of 127.0.0.1 with a key that was made this moment.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

type runs struct {
	discoveryv1connect.UnimplementedRunServiceHandler
	// pool that answers are read through; nil for none.
	pool *pgxpool.Pool
}

// GetRun answers the run it is asked for, and nothing of it.
func (r runs) GetRun(ctx context.Context, req *connect.Request[discoveryv1.GetRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	if r.pool != nil {
		if err := r.pool.Ping(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&discoveryv1.Run{Id: req.Msg.GetRunId()}), nil
}
