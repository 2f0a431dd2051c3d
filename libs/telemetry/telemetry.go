// Package telemetry is what a process says of itself: logs (slog, JSON lines), traces and metrics (OpenTelemetry). It promises that
// messages are logged without the fields their proto marks as secret, and that a collector which is down or slow has no effect on
// requests: spans and points are dropped instead. Where and what is exported is said by the standard OTEL_* variables; figures can
// always be scraped in Prometheus' format.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Config says who speaks.
type Config struct {
	// Service is the role.
	Service string
	// Release is version and digest.
	Release string
	// Tenant is `tnt_…`; empty in the control plane.
	Tenant string
	// Level is `debug`, `info`, `warn` or `error`; empty means info.
	Level string
}

// sampled is the share of traces that is kept unless OTEL_TRACES_SAMPLER says otherwise.
const sampled = 0.01

// Telemetry is what was set up.
type Telemetry struct {
	// Metrics serves the process's figures in Prometheus' format.
	Metrics  http.Handler
	registry *prometheus.Registry
	stop     []func(context.Context) error
}

// Collect has a collector's figures told with the process's own, for figures that are read when they are asked for.
func (t *Telemetry) Collect(c prometheus.Collector) error { return t.registry.Register(c) }

// Setup sets up the process's default logger, tracer and meter. Close flushes them.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	logger, err := NewLogger(os.Stderr, cfg)
	if err != nil {
		return nil, err
	}
	slog.SetDefault(logger)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { slog.Debug("telemetry was dropped", "error", err) }))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	res := resource.NewSchemaless(attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Release), attribute.String("a3os.tenant", cfg.Tenant))
	registry := prometheus.NewRegistry()
	t := &Telemetry{registry: registry}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape, err := promexporter.New(promexporter.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("make the Prometheus exporter: %w", err)
	}
	readers := []metric.Option{metric.WithResource(res), metric.WithReader(scrape)}
	if exported("METRICS") {
		r, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the metric exporter that OTEL_METRICS_EXPORTER names: %w", err)
		}
		readers = append(readers, metric.WithReader(r))
	}
	mp := metric.NewMeterProvider(readers...)
	otel.SetMeterProvider(mp)
	t.stop = append(t.stop, mp.Shutdown)
	if exported("TRACES") {
		e, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the trace exporter that OTEL_TRACES_EXPORTER names: %w", err)
		}
		opts := []trace.TracerProviderOption{trace.WithBatcher(e), trace.WithResource(res)}
		if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
			opts = append(opts, trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(sampled))))
		}
		tp := trace.NewTracerProvider(opts...)
		otel.SetTracerProvider(tp)
		t.stop = append(t.stop, tp.Shutdown)
	} else {
		// Traces have ids all the same: events on the record and lines of the log name them, and whoever called may export theirs.
		otel.SetTracerProvider(trace.NewTracerProvider(trace.WithResource(res), trace.WithSampler(trace.ParentBased(trace.NeverSample()))))
	}
	t.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
	return t, nil
}

// exported says whether OTEL_* variables ask for a signal.
func exported(signal string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	if e := os.Getenv("OTEL_" + signal + "_EXPORTER"); e != "" {
		return e != "none"
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// Close flushes what is left.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	for _, stop := range t.stop {
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}

var levels = map[string]slog.Level{
	"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// NewLogger makes a logger of JSON lines that never writes a secret field of a message.
func NewLogger(w io.Writer, cfg Config) (*slog.Logger, error) {
	level, known := levels[strings.ToLower(cfg.Level)]
	if !known {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", cfg.Level)
	}
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: replace})
	l := slog.New(h).With("service", cfg.Service)
	if cfg.Tenant != "" {
		l = l.With("tenant", cfg.Tenant)
	}
	return l, nil
}
