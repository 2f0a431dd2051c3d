package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// ServeOps serves metrics and health of a process to its own machine, over plain HTTP, until ctx ends. ready says why the process
// can't serve, or nil; metrics serves Prometheus' text. Nothing of any tenant's data is in either. An empty addr serves nothing.
func ServeOps(ctx context.Context, addr string, metrics http.Handler, ready func(ctx context.Context) error) error {
	if addr == "" {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	for _, r := range []Route{
		{Pattern: "GET /metrics", Handler: metrics, Open: "figures of the process, on loopback"},
		{Pattern: "GET /healthz", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("alive\n")) }), Open: "says that the process is alive"},
		{Pattern: "GET /readyz", Handler: readiness(ready), Open: "says whether the process can serve"},
	} {
		mux.Handle(r.Pattern, r.Handler)
	}
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	return serveUntil(ctx, srv, srv.ListenAndServe)
}

func readiness(ready func(ctx context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			slog.WarnContext(r.Context(), "not ready", "error", err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
}
