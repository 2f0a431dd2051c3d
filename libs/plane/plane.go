// Package plane is a service's place in the control plane: what `registry` and `gateway` do alike when they start, serve and end.
// It promises that a process knows who it is before it listens, that it takes up a new certificate without a restart, and that what
// it runs beside its server ends with it. It relies on `fleet` to issue certificates of the plane: there is nobody to ask for one.
package plane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"a3os.app/libs/id"
	"a3os.app/libs/internal/idle"
	"a3os.app/libs/rpc"
	"a3os.app/libs/telemetry"
	"a3os.app/libs/workload"
)

// Config is what every service of the control plane is told.
type Config struct {
	Plane        string `env:"PLANE" desc:"plane the process belongs to: dev or prod"`
	Release      string `env:"RELEASE" envDefault:"" desc:"version and digest that the process reports"`
	Listen       string `env:"LISTEN" desc:"address it listens on, host:port"`
	OpsListen    string `env:"OPS_LISTEN" envDefault:"" desc:"loopback address of /metrics, /healthz and /readyz; none when empty"`
	Certificates string `env:"CERT_DIR" desc:"directory of this service's key and certificate in the plane"`
	Roots        string `env:"PLANE_ROOTS" desc:"file with the plane's root certificates, PEM"`
	LogLevel     string `env:"LOG_LEVEL" envDefault:"info" desc:"debug, info, warn or error"`
}

// Process is a service of the control plane.
type Process struct {
	// Config is what it was told.
	Config Config
	// Identity is who it is.
	Identity workload.Identity
	// Source is its certificate.
	Source *workload.Source
	// Trust is whom it believes: the plane's own services and no tenant's.
	Trust *workload.TrustFiles

	telemetry *telemetry.Telemetry
}

// Open makes the process of a service. It fails where the plane, the roots or the certificate are not this service's.
func Open(ctx context.Context, cfg Config, service string) (*Process, error) {
	p := &Process{Config: cfg, Identity: workload.Identity{Plane: cfg.Plane, Service: service}}
	if err := p.Identity.Validate(); err != nil {
		return nil, fmt.Errorf("A3_PLANE: %w", err)
	}
	var err error
	if p.telemetry, err = telemetry.Setup(ctx, telemetry.Config{Service: service, Release: cfg.Release, Level: cfg.LogLevel}); err != nil {
		return nil, err
	}
	if p.Trust, err = workload.OpenTrust(cfg.Plane, id.Tenant{}, "", cfg.Roots); err != nil {
		return nil, err
	}
	if p.Source, err = workload.OpenSource(cfg.Certificates, p.Identity); err != nil {
		return nil, err
	}
	return p, p.CollectExpiry("workload", p.Source.NotAfter)
}

// CollectExpiry has it told at /metrics when a certificate of the process ends. use says which.
func (p *Process) CollectExpiry(use string, notAfter func() time.Time) error {
	return p.Collect(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "a3_certificate_expires_timestamp_seconds",
		Help: "when a certificate of the process ends, in seconds since 1970", ConstLabels: prometheus.Labels{"use": use},
	}, func() float64 { return float64(notAfter().Unix()) }))
}

// Collect has a collector's figures told at /metrics.
func (p *Process) Collect(c prometheus.Collector) error { return p.telemetry.Collect(c) }

// Metrics answers what is told at /metrics.
func (p *Process) Metrics() http.Handler { return p.telemetry.Metrics }

// Run runs serve until ctx ends, and background work until serve has drained. ready says why the process can't serve, or nil. What
// ends by itself takes the process along: a supervisor starts it anew, whole.
func (p *Process) Run(ctx context.Context, ready func(context.Context) error, serve func(context.Context) error, background ...func(context.Context) error) error {
	defer func() {
		const flush = 3 * time.Second
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flush)
		defer cancel()
		_ = p.telemetry.Close(fctx)
	}()
	bctx, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	bg, bctx := errgroup.WithContext(bctx)
	sctx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	background = append(background, p.followCertificate, p.Trust.Follow, func(ctx context.Context) error {
		return rpc.ServeOps(ctx, p.Config.OpsListen, p.telemetry.Metrics, ready)
	}, func(ctx context.Context) error { idle.GiveBack(ctx); return nil })
	for _, fn := range background {
		bg.Go(func() error {
			defer stopServing()
			if err := fn(bctx); bctx.Err() == nil {
				return err
			}
			return nil // asked to end
		})
	}
	slog.InfoContext(ctx, "serving", "address", p.Config.Listen, "release", p.Config.Release)
	err := serve(sctx)
	stopBackground()
	return errors.Join(err, bg.Wait())
}

// followCertificate takes up the keypair that `fleet` put in the place of the present one, and warns while there is time.
func (p *Process) followCertificate(ctx context.Context) error {
	const (
		lookEvery = time.Minute
		// onceExpired is how soon a process that nobody believes any more is back when fleet has issued it a certificate.
		onceExpired = time.Second
		warnBefore  = 48 * time.Hour
	)
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	warned := time.Time{}
	for {
		if changed, err := p.Source.Reload(); err != nil {
			slog.WarnContext(ctx, "the certificate on disk is not usable, the present one stays", "error", err)
		} else if changed {
			slog.InfoContext(ctx, "certificate taken up", "expires_at", p.Source.NotAfter())
		}
		left := time.Until(p.Source.NotAfter())
		if left < warnBefore && time.Since(warned) >= lookEvery {
			warned = time.Now()
			slog.WarnContext(ctx, "the certificate expires soon, or has expired: issue a new one with `fleet plane up`", "expires_at", p.Source.NotAfter())
		}
		look.Reset(lookEvery)
		if left < 0 {
			look.Reset(onceExpired)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}
