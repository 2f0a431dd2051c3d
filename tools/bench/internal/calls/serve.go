package calls

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc"
	"a3os.app/libs/telemetry"
	"a3os.app/libs/workload"
)

// Modes of a server process.
const (
	Secured = "secured"
	Bare    = "bare"
)

// Options of Serve.
type Options struct {
	// Mode is Secured or Bare.
	Mode string
	// Dir holds the files of the world.
	Dir string
	// Profile is a file that a CPU profile of the whole life is written to, with one of allocations beside it; empty writes none.
	Profile string
}

// Serve is one server process. It writes its address as a line, then answers every line that it reads with the CPU it has used so
// far, in nanoseconds, and ends with its input: a driver that dies leaves no server.
func Serve(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	if o.Profile != "" {
		done, err := profile(o.Profile)
		if err != nil {
			return err
		}
		defer done()
	}
	w, trust, err := open(o.Dir)
	if err != nil {
		return fmt.Errorf("read the files of the world: %w", err)
	}
	source, err := workload.OpenSource(filepath.Join(o.Dir, serverDir), w.server())
	if err != nil {
		return err
	}
	serve := bare
	switch o.Mode {
	case Secured:
		serve = secured
	case Bare:
	default:
		return fmt.Errorf("mode %q is neither %s nor %s", o.Mode, Secured, Bare)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	ctx, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- serve(ctx, l, w, source, trust) }()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		used, err := cpu()
		if err != nil {
			stop()
			return err
		}
		fmt.Fprintln(out, used.Nanoseconds())
	}
	stop()
	return errors.Join(lines.Err(), <-failed)
}

// profile writes a CPU profile until done is called, and then what was allocated.
func profile(file string) (done func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
		if f, err := os.Create(file + ".allocs"); err == nil {
			_ = pprof.Lookup("allocs").WriteTo(f, 0)
			_ = f.Close()
		}
	}, nil
}

// cpu is what all threads of this process have used.
func cpu() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("ask for the CPU used: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// runs is the one handler that both servers carry.
type runs struct {
	discoveryv1connect.UnimplementedRunServiceHandler
	at *timestamppb.Timestamp
}

// GetRun answers a run that has ended, made anew for every call as one from a database would be.
func (r runs) GetRun(_ context.Context, req *connect.Request[discoveryv1.GetRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return connect.NewResponse(&discoveryv1.Run{
		Id: req.Msg.GetRunId(), IntegrationId: integration, IntegrationName: "warehouse", Connector: "postgres",
		State: integrationsv1.RunState_RUN_STATE_COMPLETE, CreatedAt: r.at, StartedAt: r.at, FinishedAt: r.at, StartedBy: "schedule",
		Counts: &discoveryv1.Counts{Accounts: 412, Groups: 96, Resources: 20_480, Entitlements: 81_920, Grants: 1_048_576},
		Slices: 7, GrantsAdded: 12, GrantsRemoved: 3,
	}), nil
}

// compressFrom is libs/rpc's: a server that compressed every small answer would be no fair comparison.
const compressFrom = 1024

// bare serves the handler as Connect's documentation does, behind the same TLS and the same http.Server.
func bare(ctx context.Context, l net.Listener, _ world, source *workload.Source, trust workload.Trust) error {
	config, err := workload.ServerTLS(source, trust)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(discoveryv1connect.NewRunServiceHandler(runs{at: timestamppb.Now()}, connect.WithCompressMinBytes(compressFrom)))
	srv := &http.Server{
		Handler: mux, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		HTTP2:    &http.HTTP2Config{MaxEncoderHeaderTableSize: 1},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// secured serves the handler as a service of a set does.
func secured(ctx context.Context, l net.Listener, w world, source *workload.Source, trust workload.Trust) error {
	t, err := telemetry.Setup(ctx, telemetry.Config{Service: service, Release: "bench", Tenant: w.tenant.String()})
	if err != nil {
		return err
	}
	defer func() {
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = t.Close(fctx)
	}()
	config, err := workload.ServerTLS(source, trust)
	if err != nil {
		return err
	}
	peers, err := workload.NewVerifier(trust)
	if err != nil {
		return err
	}
	revocations := authn.NewRevocations(nil)
	keys := authn.NewRemoteKeys(func(context.Context) ([]byte, error) { return os.ReadFile(filepath.Join(w.dir, keySetFile)) }, nil)
	tokens, err := authn.NewVerifier(authn.Config{Issuer: issuer, Audience: issuer + "/api", Tenant: w.tenant, Keys: keys, Revocations: revocations})
	if err != nil {
		return err
	}
	go heartbeat(ctx, revocations)
	s, err := rpc.NewServer(rpc.ServerConfig{
		Identity: w.server(), TLS: config, Peer: peers.Peer, Tokens: tokens, Revocations: revocations,
	}, []rpc.Service{rpc.Mount(discoveryv1connect.NewRunServiceHandler, discoveryv1connect.RunServiceHandler(runs{at: timestamppb.Now()}))}, nil)
	if err != nil {
		return err
	}
	return s.ServeListener(ctx, l)
}

// heartbeat tells what was revoked, and that the issuer is there, as its stream does.
func heartbeat(ctx context.Context, r *authn.Revocations) {
	var gone []*iamv1.Revocation
	for i := range int64(revoked) {
		gone = append(gone, &iamv1.Revocation{Sequence: i + 1, PrincipalId: id.NewUser().String(), SessionId: id.NewSession().String()})
	}
	r.Apply(gone, revoked)
	const every = 2 * time.Second
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			r.Apply(nil, revoked)
		case <-ctx.Done():
			return
		}
	}
}
