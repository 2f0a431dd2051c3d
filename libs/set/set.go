// Package set is a service's place in its tenant's set: what each of the five does alike when it starts, serves and ends. It
// promises that a member knows who it is before it listens, that tokens are verified against its own tenant's issuer and
// revocations followed, and that its certificate renews while it serves. It relies on each service for its own wiring.
package set

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"
	"a3os.app/proto/gen/go/a3os/set/v1/setv1connect"

	"a3os.app/libs/authn"
	"a3os.app/libs/binding"
	"a3os.app/libs/garbage"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/idle"
	"a3os.app/libs/licence"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/pg"
	"a3os.app/libs/rpc"
	"a3os.app/libs/telemetry"
	"a3os.app/libs/workload"
)

// Config is what every member of a set is told.
type Config struct {
	Plane        string            `env:"PLANE" desc:"plane the set lives in: dev or prod"`
	Tenant       id.Tenant         `env:"TENANT" desc:"tenant this set serves"`
	Release      string            `env:"RELEASE" envDefault:"" desc:"release that the process is started as, version@sha256:…; it reports the digest of its own program"`
	Listen       string            `env:"LISTEN" desc:"address the API listens on, host:port"`
	OpsListen    string            `env:"OPS_LISTEN" envDefault:"" desc:"loopback address of /metrics, /healthz and /readyz; none when empty"`
	Certificates string            `env:"CERT_DIR" desc:"directory of this service's key and certificate"`
	TenantRoots  string            `env:"TENANT_ROOTS" desc:"file with the tenant's root certificates, PEM"`
	PlaneRoots   string            `env:"PLANE_ROOTS" desc:"file with the plane's root certificates, PEM"`
	MarkKeys     string            `env:"MARK_KEYS" desc:"public keys that the marks of the tenant's resources are verified with"`
	LicenceKeys  string            `env:"LICENCE_KEYS" desc:"public keys that the tenant's licence is verified with"`
	Issuer       string            `env:"ISSUER" desc:"the tenant's issuer, as https://acme.localhost:7443"`
	Peers        map[string]string `env:"PEERS" envKeyValSeparator:"=" desc:"where the set's services listen, as iam=127.0.0.1:4001,audit=127.0.0.1:4002"`
	CORSOrigins  []string          `env:"CORS_ORIGINS" envDefault:"" desc:"browser origins that may call; none when empty"`
	LogLevel     string            `env:"LOG_LEVEL" envDefault:"info" desc:"debug, info, warn or error"`
}

// Owner is whose resources a member opens: its database, queue and stores are opened with it, and nothing else opens them.
func (c Config) Owner() (*binding.Owner, error) {
	if c.Tenant.IsZero() {
		return nil, errors.New("A3_TENANT names no tenant")
	}
	o, err := binding.NewOwner(c.MarkKeys, c.Plane, c.Tenant)
	if err != nil {
		return nil, fmt.Errorf("A3_MARK_KEYS: %w", err)
	}
	return o, nil
}

// Licence is the licence that the set holds, read through a database of the service's own.
func (c Config) Licence(db *pg.DB) (*held.Licence, error) {
	v, err := licence.NewVerifier(c.Plane, c.LicenceKeys)
	if err != nil {
		return nil, fmt.Errorf("A3_LICENCE_KEYS: %w", err)
	}
	return held.New(db, v, c.Tenant, nil), nil
}

// Audience is the audience of the tenant's access tokens.
func (c Config) Audience() string { return c.Issuer + "/api" }

// Member is a service in its set.
type Member struct {
	// Config is what it was told.
	Config Config
	// Identity is who it is.
	Identity workload.Identity
	// Transport reaches the other members.
	Transport *workload.Transport
	// Source is its certificate.
	Source *workload.Source
	// Trust says whose certificates it believes.
	Trust *workload.TrustFiles
	// Tokens verifies access tokens.
	Tokens *authn.Verifier
	// Revocations is what Tokens follows.
	Revocations *authn.Revocations

	owner     *binding.Owner
	status    *status
	telemetry *telemetry.Telemetry
	peers     *workload.Verifier
	keys      *authn.RemoteKeys // nil in the issuer
}

// Join makes a member of every service but the issuer. owner is what the service opens its resources with: Serve proves them.
func Join(ctx context.Context, cfg Config, service string, owner *binding.Owner) (*Member, error) {
	m, err := join(ctx, cfg, service, owner)
	if err != nil {
		return nil, err
	}
	m.keys = authn.NewRemoteKeys(m.fetchKeys, nil)
	return m, m.verify(m.keys)
}

// JoinIssuer makes the member that is the issuer: its keys are its own, and it tells its own Revocations what was revoked.
func JoinIssuer(ctx context.Context, cfg Config, service string, owner *binding.Owner, keys authn.KeySource) (*Member, error) {
	m, err := join(ctx, cfg, service, owner)
	if err != nil {
		return nil, err
	}
	return m, m.verify(keys)
}

func join(ctx context.Context, cfg Config, service string, owner *binding.Owner) (*Member, error) {
	if owner == nil || owner.Tenant() != cfg.Tenant {
		return nil, fmt.Errorf("%s opens resources as %v, and its set is %s: take the owner from the set's own configuration", service, owner, cfg.Tenant)
	}
	m := &Member{Config: cfg, Identity: workload.Identity{Plane: cfg.Plane, Tenant: cfg.Tenant, Service: service}, owner: owner,
		status: &status{told: cfg.Release, started: time.Now()}}
	var err error
	if m.telemetry, err = telemetry.Setup(ctx, telemetry.Config{Service: service, Release: cfg.Release,
		Tenant: cfg.Tenant.String(), Level: cfg.LogLevel}); err != nil {
		return nil, err
	}
	if m.Trust, err = workload.OpenTrust(cfg.Plane, cfg.Tenant, cfg.TenantRoots, cfg.PlaneRoots); err != nil {
		return nil, err
	}
	if m.Source, err = workload.OpenSource(cfg.Certificates, m.Identity); err != nil {
		return nil, err
	}
	m.status.expires = m.Source.NotAfter
	if err := m.vouched(); err != nil {
		return nil, err
	}
	if m.peers, err = workload.NewVerifier(m.Trust); err != nil {
		return nil, err
	}
	addresses := workload.Addresses{}
	for name, addr := range cfg.Peers {
		addresses[m.Sibling(name)] = addr
	}
	m.Transport, err = workload.NewTransport(workload.TransportConfig{Source: m.Source, Anchors: m.Trust, Resolver: addresses})
	return m, err
}

// vouched fails where the roots that this process was given don't vouch for its own certificate: a set with such a member would look
// whole, and each call of that member would be refused. An expired certificate waits for a new one.
func (m *Member) vouched() error {
	if time.Now().After(m.Source.NotAfter()) {
		return nil
	}
	pair, err := m.Source.GetCertificate(nil)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("read the certificate in %s: %w", m.Config.Certificates, err)
		}
		chain = append(chain, c)
	}
	if _, _, err := workload.Peer(tls.ConnectionState{PeerCertificates: chain}, m.Trust); err != nil {
		return fmt.Errorf("the roots in %s don't vouch for the certificate in %s: %w", m.Config.TenantRoots, m.Config.Certificates, err)
	}
	return nil
}

// Sibling is the identity of another service of the set.
func (m *Member) Sibling(service string) workload.Identity {
	return workload.Identity{Plane: m.Identity.Plane, Tenant: m.Identity.Tenant, Service: service}
}

func (m *Member) verify(keys authn.KeySource) error {
	m.Revocations = authn.NewRevocations(nil)
	var err error
	m.Tokens, err = authn.NewVerifier(authn.Config{Issuer: m.Config.Issuer, Audience: m.Config.Audience(),
		Tenant: m.Config.Tenant, Keys: keys, Revocations: m.Revocations})
	return err
}

func (m *Member) fetchKeys(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.Sibling("iam").ServerName()+"/oauth2/keys", nil)
	if err != nil {
		return nil, err
	}
	res, err := m.Transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the issuer's keys: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the issuer's keys: it answered %s", res.Status)
	}
	const most = 64 << 10
	return io.ReadAll(io.LimitReader(res.Body, most))
}

// Serving is what a member serves.
type Serving struct {
	// DB is the database that denials and reads are recorded through; nil records none (the worker has no database).
	DB *pg.DB
	// Services are its RPCs.
	Services []rpc.Service
	// Routes are its plain HTTP routes.
	Routes []rpc.Route
	// Licence says whether licensed methods may go on; nil where the service has none.
	Licence *held.Licence
	// Envelopes verifies what workloads present; nil means that none is believed.
	Envelopes func(header string) (rpc.Presented, error)
	// Ready says why it can't serve, or nil.
	Ready func(ctx context.Context) error
	// Figures adds to the process's figures what only this service knows; nil adds nothing.
	Figures func(ctx context.Context, f *setv1.Figures)
	// Background runs beside the server until ctx ends; an error ends the process.
	Background []func(ctx context.Context) error
	// Upkeep is that too, from a while after the start on: it tidies up, and nobody waits for it, as people do for a set that starts.
	Upkeep []func(ctx context.Context) error
}

// Serve proves that all the service works with is its tenant's, serves until ctx ends, and then drains. Before that proof nothing is
// listened on.
func (m *Member) Serve(ctx context.Context, what Serving) error {
	defer func() {
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = m.telemetry.Close(fctx)
	}()
	if err := m.owner.Prove(ctx); err != nil {
		return err
	}
	serverTLS, err := workload.ServerTLS(m.Source, m.Trust)
	if err != nil {
		return err
	}
	var recorder *rpc.Recorder
	if what.DB != nil {
		recorder = rpc.NewRecorder(what.DB)
	}
	m.status.ready, m.status.more = what.Ready, what.Figures
	services := append(slices.Clone(what.Services), rpc.Mount(setv1connect.NewStatusServiceHandler, setv1connect.StatusServiceHandler(m.status)))
	cfg := rpc.ServerConfig{
		Identity: m.Identity, TLS: serverTLS, Peer: m.peers.Peer,
		Tokens: m.Tokens, Revocations: m.Revocations, Envelopes: what.Envelopes,
		Recorder: recorder, CORSOrigins: m.Config.CORSOrigins,
	}
	if what.Licence != nil {
		cfg.Licence = what.Licence // a nil pointer in the interface would pass for a licence
	}
	server, err := rpc.NewServer(cfg, services, what.Routes)
	if err != nil {
		return err
	}
	m.status.tally.Store(server.Tally())
	// Background work goes on while requests drain, since they may wait for it.
	bctx, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	bg, bctx := errgroup.WithContext(bctx)
	sctx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	run := func(fn func(context.Context) error) {
		bg.Go(func() error {
			err := fn(bctx)
			if bctx.Err() != nil || errors.Is(err, context.Canceled) {
				return nil //nolint:nilerr // it was told to end
			}
			// What ended by itself takes the process along: a supervisor starts it anew, whole.
			stopServing()
			return err
		})
	}
	if recorder != nil {
		run(func(ctx context.Context) error { recorder.Run(ctx); return nil })
	}
	if m.keys != nil {
		run(m.followRevocations)
		run(func(ctx context.Context) error { m.keys.Follow(ctx); return nil })
	}
	run(m.renewCertificate)
	run(m.Trust.Follow)
	run(func(ctx context.Context) error { idle.GiveBack(ctx); return nil })
	run(collectAsAlways)
	for _, fn := range what.Background {
		run(fn)
	}
	for _, fn := range what.Upkeep {
		run(func(ctx context.Context) error { return afterAWhile(ctx, fn) })
	}
	m.awaitIssuer(sctx)
	// Whoever hears from it that this process serves sends people here: not before it listens.
	run(func(ctx context.Context) error {
		return rpc.ServeOps(ctx, m.Config.OpsListen, m.telemetry.Metrics, what.Ready)
	})
	slog.InfoContext(ctx, "serving", "address", m.Config.Listen, "release", m.Config.Release)
	err = server.Serve(sctx, m.Config.Listen)
	stopBackground()
	return errors.Join(err, bg.Wait())
}

// collectAsAlways has garbage collected as always once the others of the set have started, too, who have more use of the processor until then.
// It lasts as long as the process does.
func collectAsAlways(ctx context.Context) error {
	return afterAWhile(ctx, func(ctx context.Context) error {
		garbage.AsAlways()
		<-ctx.Done()
		return nil
	})
}

// afterAWhile does something once the set has started, and not in the same moment in which all others of a machine do.
func afterAWhile(ctx context.Context, do func(ctx context.Context) error) error {
	const while = 5 * time.Second
	t := time.NewTimer(while + rand.N(while)) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-t.C:
		return do(ctx)
	case <-ctx.Done():
		return nil
	}
}

// awaitIssuer waits for the issuer's first word, for a while: asked before it, a service that was started again would refuse what the
// process before it served. Without an issuer it serves all the same, and says to each caller why it can't.
func (m *Member) awaitIssuer(ctx context.Context) {
	const most = 2 * time.Second
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-m.Revocations.Heard():
	case <-t.C:
		slog.WarnContext(ctx, "the issuer is not heard of yet, serving without", "waited", most)
	case <-ctx.Done():
	}
}

func (m *Member) followRevocations(ctx context.Context) error {
	client, err := rpc.ToWorkload(m.Transport, m.Sibling("iam"), iamv1connect.NewRevocationServiceClient)
	if err != nil {
		return err
	}
	m.Revocations.Follow(ctx, func(ctx context.Context, after int64, apply func([]*iamv1.Revocation, int64)) error {
		// A stream that says nothing for longer than three heartbeats is dead, whatever TCP believes.
		const silence = 6 * time.Second
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		quiet := time.AfterFunc(silence, cancel)
		defer quiet.Stop()
		stream, err := client.WatchRevocations(ctx, connect.NewRequest(&iamv1.WatchRevocationsRequest{AfterSequence: after}))
		if err != nil {
			return err
		}
		defer stream.Close()
		for stream.Receive() {
			quiet.Reset(silence)
			apply(stream.Msg().GetRevocations(), stream.Msg().GetHeadSequence())
			if m.keys.Announced(stream.Msg().GetKeyIds()) {
				m.Revocations.LookAgain()
			}
		}
		return stream.Err()
	})
	return nil
}

func (m *Member) renewCertificate(ctx context.Context) error {
	client, err := rpc.ToWorkload(m.Transport, m.Sibling("iam"), iamv1connect.NewCertificateServiceClient)
	if err != nil {
		return err
	}
	return workload.Renewer{Source: m.Source, Anchors: m.Trust, Log: slog.Default(),
		Renew: func(ctx context.Context, csr []byte) ([]byte, error) {
			res, err := client.IssueCertificate(ctx, connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: csr}))
			if err != nil {
				return nil, err
			}
			return []byte(res.Msg.GetCertificateChainPem()), nil
		}}.Run(ctx)
}
