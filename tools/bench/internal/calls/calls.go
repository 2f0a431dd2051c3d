// Package calls measures what the chain costs: the CPU that a server process uses for a fully secured unary call (mutual TLS with
// the gateway, token, revocations, scope, rule, validation, metrics, traces at 1 %), beside a process that serves the same handler
// behind the same TLS with no chain. It promises that both get the same load in turns, over connections that stay open.
package calls

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/libs/rpc"
	"a3os.app/libs/workload"
	"a3os.app/tools/bench/internal/figure"
)

// Config says how to measure.
type Config struct {
	// Rounds is how often each side is measured; at least figure.Rounds.
	Rounds int
	// Calls is how many calls a side gets in a round.
	Calls int
	// Command runs a server process: the arguments that lead to Serve, to which mode and directory are added.
	Command []string
	// Profile is a directory for a CPU profile of each server; empty writes none.
	Profile string
}

// callers are how many calls are in flight at once.
const callers = 8

// Measure answers the figure.
func Measure(ctx context.Context, cfg Config) (figure.Figure, error) {
	f := figure.Figure{
		Name: "CPU of a secured unary call ÷ bare", Unit: "µs",
		Measured: figure.Series{What: "fully secured"}, Against: figure.Series{What: "same handler and TLS, no chain"},
		Bound: figure.Bound{AtMost: 1.25},
		Note:  fmt.Sprintf("%d calls a round and side, %d in flight over one HTTP/2 connection, %d principals, %d revocations", cfg.Calls, callers, principals, revoked),
	}
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return f, fmt.Errorf("make the tenant that is called: %w", err)
	}
	sink := newSink()
	defer sink.Close()
	sides := map[string]*side{}
	for _, mode := range []string{Secured, Bare} {
		s, err := start(ctx, cfg, w, mode, sink.URL)
		if err != nil {
			return f, fmt.Errorf("start the %s server: %w", mode, err)
		}
		defer s.stop()
		sides[mode] = s
	}
	// The first round warms caches, pools and the processor, and is not counted.
	var measured, against []float64
	for round := range cfg.Rounds + 1 {
		a, err := sides[Secured].round(ctx, cfg.Calls)
		if err != nil {
			return f, err
		}
		b, err := sides[Bare].round(ctx, cfg.Calls)
		if err != nil {
			return f, err
		}
		if round > 0 {
			measured, against = append(measured, a), append(against, b)
		}
	}
	// A server that ends sends what it has.
	sides[Secured].stop()
	if sink.spans.Load() == 0 {
		return f, errors.New("no trace reached the collector: what was measured is not the whole chain")
	}
	return f, f.Fill(measured, against)
}

// sink is a collector that takes traces and forgets them.
type sink struct {
	*httptest.Server
	spans atomic.Int64
}

func newSink() *sink {
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		s.spans.Add(n)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	return s
}

// side is a server process and the client that drives it.
type side struct {
	mode    string
	cmd     *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Scanner
	clients []discoveryv1connect.RunServiceClient
	close   func()
}

func start(ctx context.Context, cfg Config, w world, mode, collector string) (*side, error) {
	args := append(append([]string{}, cfg.Command[1:]...), "--mode", mode, "--dir", w.dir)
	if cfg.Profile != "" {
		args = append(args, "--cpu-profile", filepath.Join(cfg.Profile, mode+".pprof"))
	}
	s := &side{mode: mode, cmd: exec.CommandContext(ctx, cfg.Command[0], args...)}
	// Nothing of the caller's environment reaches the servers, so that both are alike wherever this runs.
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + collector + "/v1/traces"}
	s.cmd.Stderr = os.Stderr
	var err error
	if s.ask, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.answers = bufio.NewScanner(out)
	if !s.answers.Scan() {
		return nil, errors.Join(errors.New("it ended before it said where it listens"), s.answers.Err(), s.cmd.Wait())
	}
	return s, s.connect(w, s.answers.Text())
}

// connect makes one client per principal, all over one connection, as the gateway's is.
func (s *side) connect(w world, addr string) error {
	tokens, err := w.tokens()
	if err != nil {
		return err
	}
	_, trust, err := open(w.dir)
	if err != nil {
		return err
	}
	source, err := workload.OpenSource(filepath.Join(w.dir, gatewayDir), w.gateway())
	if err != nil {
		return err
	}
	config, err := workload.ClientTLS(source, trust, w.server())
	if err != nil {
		return err
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
		},
	}
	s.close = transport.CloseIdleConnections
	for _, token := range tokens {
		s.clients = append(s.clients, discoveryv1connect.NewRunServiceClient(&http.Client{Transport: transport},
			"https://"+w.server().ServerName(), connect.WithInterceptors(bearer(token))))
	}
	return nil
}

// bearer sends a token, and what the gateway adds.
func bearer(token string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			req.Header().Set(rpc.SourceHeader, "192.0.2.17")
			return next(ctx, req)
		}
	}
}

// round makes calls and answers the CPU that the server used for each, in microseconds.
func (s *side) round(ctx context.Context, calls int) (float64, error) {
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for c := range callers {
		g.Go(func() error {
			for i := c; i < calls; i += callers {
				res, err := s.clients[i%len(s.clients)].GetRun(ctx, connect.NewRequest(&discoveryv1.GetRunRequest{RunId: runID}))
				if err != nil {
					return fmt.Errorf("call the %s server: %w", s.mode, err)
				}
				if res.Msg.GetId() != runID {
					return fmt.Errorf("the %s server answered run %q", s.mode, res.Msg.GetId())
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := s.cpu()
	if err != nil {
		return 0, err
	}
	return (after - before).Seconds() * float64(time.Second/time.Microsecond) / float64(calls), nil
}

func (s *side) cpu() (time.Duration, error) {
	if _, err := fmt.Fprintln(s.ask, "cpu"); err != nil {
		return 0, fmt.Errorf("ask the %s server for the CPU it used: %w", s.mode, err)
	}
	if !s.answers.Scan() {
		return 0, fmt.Errorf("the %s server ended", s.mode)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(s.answers.Text()), 10, 64)
	return time.Duration(ns), err
}

// stop ends the process, which ends with its input, and waits for it. It may be called again.
func (s *side) stop() {
	if s.close != nil {
		s.close()
	}
	_ = s.ask.Close()
	_ = s.cmd.Wait()
}
