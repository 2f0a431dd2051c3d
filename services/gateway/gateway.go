// Package gateway is the door of a plane: it terminates TLS, finds the set that a host names in the registry's signed snapshot, and
// passes the request on over mutual TLS. It decides nothing about access, and it serves on from the last good snapshot for as long
// as the registry is away, cold starts included.
package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"a3os.app/libs/drain"
	"a3os.app/libs/garbage"
	"a3os.app/libs/place"
	"a3os.app/libs/plane"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
	"a3os.app/services/gateway/internal/certificate"
	"a3os.app/services/gateway/internal/door"
	"a3os.app/services/gateway/internal/follow"
	"a3os.app/services/gateway/internal/held"
	"a3os.app/services/gateway/internal/proxy"
	"a3os.app/services/gateway/internal/routes"
	"a3os.app/services/gateway/internal/turns"
)

// Config is what the gateway is told.
type Config struct {
	plane.Config

	Domain       string   `env:"DOMAIN" desc:"name below which tenants have their hosts, as a3os.app"`
	ApexSlug     string   `env:"GATEWAY_APEX_SLUG" envDefault:"" desc:"slug that the bare domain leads to, for one company under its own host name; none when empty"`
	ListenFD     int      `env:"LISTEN_FD" envDefault:"0" desc:"descriptor of a socket at A3_LISTEN that whoever started it keeps open, so that clients wait while it restarts; 0: it opens one itself"`
	ListenFrom   string   `env:"LISTEN_FROM" envDefault:"" desc:"unix socket where such a socket is handed over, by who keeps it open for a process that it doesn't start; empty: nobody does"`
	TLSCert      string   `env:"TLS_CERT" desc:"file with the certificate that clients see, PEM, leaf first"`
	TLSKey       string   `env:"TLS_KEY" desc:"file with that certificate's key, PEM"`
	Registry     string   `env:"REGISTRY" desc:"address of the registry, host:port"`
	Snapshot     string   `env:"SNAPSHOT" desc:"file that the last good snapshot is kept in"`
	SnapshotCopy string   `env:"SNAPSHOT_COPY" envDefault:"" desc:"object that a copy of it is kept in, as s3://bucket/key, where that file ends with the task; none when empty"`
	SnapshotKeys []string `env:"SNAPSHOT_KEYS" desc:"public keys that sign snapshots, base64; several while one replaces another"`

	MaxConnections int           `env:"MAX_CONNECTIONS" envDefault:"10000" desc:"open connections at most"`
	MaxInFlight    int64         `env:"MAX_IN_FLIGHT" envDefault:"8192" desc:"requests in flight at most"`
	MaxPerTenant   int64         `env:"MAX_IN_FLIGHT_PER_TENANT" envDefault:"1024" desc:"requests in flight at most for one tenant"`
	TenantRate     float64       `env:"TENANT_RATE" envDefault:"0" desc:"requests of one tenant that begin in a second while other tenants call too; what comes faster waits for its turn; 0: 50 for each processor"`
	TenantBurst    int           `env:"TENANT_BURST" envDefault:"20" desc:"of those, how many begin at once"`
	TurnWithin     time.Duration `env:"TURN_WITHIN" envDefault:"2s" desc:"how long a request waits for its turn; it is refused after that"`
	MaxHeaderBytes int           `env:"MAX_HEADER_BYTES" envDefault:"32768" desc:"octets of a request's headers at most"`
	HeaderTimeout  time.Duration `env:"HEADER_TIMEOUT" envDefault:"10s" desc:"how long a handshake, or reading a request's headers, may take"`
	BodyTimeout    time.Duration `env:"BODY_TIMEOUT" envDefault:"10s" desc:"how long a client may keep the gateway waiting for its request's body, of which each 512 octets give it a second again; streams of gRPC and Connect excepted"`
	IdleTimeout    time.Duration `env:"IDLE_TIMEOUT" envDefault:"2m" desc:"how long a connection may stand without a request"`
	Patience       time.Duration `env:"PATIENCE" envDefault:"25s" desc:"how long requests wait for a service that does not listen, from when it was first missed: as long as it may take to end and start"`
	SlowAnswer     time.Duration `env:"SLOW_ANSWER" envDefault:"10s" desc:"how long an answer may take to begin; a service most of whose answers take longer is not asked for a while"`
	AnswerWithin   time.Duration `env:"ANSWER_WITHIN" envDefault:"40s" desc:"when a request whose answer did not begin is given up; above what services give their calls"`
	LeaveWithin    time.Duration `env:"LEAVE_WITHIN" envDefault:"1s" desc:"at the end: how long clients are asked to leave before idle connections are closed"`
	DrainWithin    time.Duration `env:"DRAIN_WITHIN" envDefault:"20s" desc:"at the end: how long requests in flight may take after that"`
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	// Also while it serves: what each request leaves is many times what the gateway keeps. By Go's own choice it would collect after every few
	// hundred requests, and spend a tenth of its time on that.
	garbage.Seldom()
	p, err := plane.Open(ctx, cfg.Config, "gateway")
	if err != nil {
		return err
	}
	verifier, err := cfg.verifier()
	if err != nil {
		return err
	}
	domain, err := routes.NewDomain(cfg.Domain, cfg.ApexSlug)
	if err != nil {
		return fmt.Errorf("A3_DOMAIN, A3_GATEWAY_APEX_SLUG: %w", err)
	}
	cert, err := certificate.Open(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return fmt.Errorf("A3_TLS_CERT, A3_TLS_KEY: %w", err)
	}
	if err := p.CollectExpiry("web", cert.NotAfter); err != nil {
		return err
	}
	snap, err := held.Open(ctx, cfg.Snapshot, verifier)
	if err != nil {
		return err
	}
	transport, err := workload.NewTransport(workload.TransportConfig{Source: p.Source, Anchors: anchors(p, snap), Resolver: snap})
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	if cfg.BodyTimeout <= 0 {
		return fmt.Errorf("A3_BODY_TIMEOUT is %s: it must be more than 0, for nothing else ends a request that never comes whole", cfg.BodyTimeout)
	}
	share, err := cfg.share()
	if err != nil {
		return err
	}
	handler, err := proxy.New(proxy.Config{Domain: domain, Table: snap.Table, Transport: transport,
		Turns: share, Handshakes: cfg.handshakes(share.Rate),
		MaxInFlight: cfg.MaxInFlight, MaxPerTenant: cfg.MaxPerTenant, BodyTimeout: cfg.BodyTimeout, Patience: cfg.Patience, SlowAnswer: cfg.SlowAnswer, AnswerWithin: cfg.AnswerWithin})
	if err != nil {
		return err
	}
	creds, err := workload.GRPCClientCredentials(p.Source, p.Trust, workload.Identity{Plane: cfg.Plane, Service: "registry"})
	if err != nil {
		return err
	}
	l, err := cfg.listen(ctx)
	if err != nil {
		return err
	}
	ready := func(context.Context) error {
		if ctx.Err() != nil {
			return errors.New("the gateway is draining")
		}
		return snap.Ready()
	}
	background := []func(context.Context) error{cert.Follow, func(ctx context.Context) error { return follow.Run(ctx, cfg.Registry, creds, snap) }}
	if cfg.SnapshotCopy != "" {
		background = append(background, func(ctx context.Context) error { return snap.KeepCopy(ctx, cfg.copy) })
	}
	return p.Run(ctx, ready,
		func(ctx context.Context) error {
			return door.Serve(ctx, l, door.Config{Handler: handler, Certificate: cert.GetCertificate, Welcome: handler.Welcome, Connection: handler.Connection,
				MaxConnections: cfg.MaxConnections, MaxHeaderBytes: cfg.MaxHeaderBytes, HeaderTimeout: cfg.HeaderTimeout,
				IdleTimeout: cfg.IdleTimeout, LeaveWithin: cfg.LeaveWithin, DrainWithin: cfg.DrainWithin})
		},
		background...)
}

// copy opens where a copy of the snapshot is kept.
func (c Config) copy(ctx context.Context) (held.Copy, error) {
	object, err := place.Object(ctx, c.SnapshotCopy, c.Plane)
	if err != nil {
		return nil, fmt.Errorf("A3_SNAPSHOT_COPY: %w", err)
	}
	return object, nil
}

// share is what one tenant may take of the gateway while others call.
func (c Config) share() (turns.Config, error) {
	// Those that wait take places that others of the tenant's calls need.
	const ofEachProcessor, ofPlaces, readsOfRate = 50, 4, 4
	t := turns.Config{Rate: c.TenantRate, Burst: c.TenantBurst, Within: c.TurnWithin, Waiting: int(max(1, c.MaxPerTenant/ofPlaces))}
	if t.Rate == 0 {
		t.Rate = float64(ofEachProcessor * runtime.GOMAXPROCS(0))
	}
	t.Reads = readsOfRate * t.Rate
	if t.Rate < 0 || t.Burst < 1 || t.Within <= 0 {
		return t, fmt.Errorf("A3_TENANT_RATE is %v, A3_TENANT_BURST %d, A3_TURN_WITHIN %s: the first must not be negative, the second at least 1, and the third more than 0", c.TenantRate, c.TenantBurst, c.TurnWithin)
	}
	return t, nil
}

// handshakes is how many connections may come for one tenant while others call: as many in a second as calls, and many more at once, for all of
// its people come back when a gateway starts anew. What is left of the time for a handshake when it has waited is for the handshake.
func (c Config) handshakes(rate float64) turns.Config {
	return turns.Config{Rate: rate, Burst: int(max(1, c.MaxPerTenant)), Within: c.HeaderTimeout / 2, Waiting: int(max(1, c.MaxPerTenant))}
}

func (c Config) listen(ctx context.Context) (net.Listener, error) {
	if c.ListenFD != 0 {
		l, err := drain.Inherit(c.ListenFD)
		if err != nil {
			return nil, fmt.Errorf("A3_LISTEN_FD: %w", err)
		}
		return l, nil
	}
	if c.ListenFrom != "" {
		l, err := drain.Take(ctx, c.ListenFrom)
		if err != nil {
			return nil, fmt.Errorf("A3_LISTEN_FROM: %w", err)
		}
		return l, nil
	}
	l, err := drain.Listen(ctx, c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another with A3_LISTEN, or stop what listens there", c.Listen, err)
	}
	return l, nil
}

func (c Config) verifier() (*snapshot.Verifier, error) {
	var keys []ed25519.PublicKey
	for _, text := range c.SnapshotKeys {
		k, err := snapshot.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("A3_SNAPSHOT_KEYS: %w", err)
		}
		keys = append(keys, k)
	}
	return snapshot.NewVerifier(c.Plane, keys...)
}

// anchors trusts the plane's services by the plane's roots, and each tenant's by that tenant's in the snapshot.
func anchors(p *plane.Process, snap *held.Snapshot) workload.Anchors {
	own := p.Trust
	return workload.AnchorsFunc(func(d workload.TrustDomain) (*x509.CertPool, error) {
		if d.Tenant.IsZero() {
			return own.Roots(d)
		}
		return snap.Roots(d)
	})
}
