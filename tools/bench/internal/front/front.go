// Package front measures what a request costs at the door of a plane: the CPU that the gateway uses for one, TLS on both sides, client
// certificate, header policy and answer included, beside an HAProxy with the same duties in front of the same upstream. It promises that
// both get the same requests in turns, over connections that stay open, and that each request reached the upstream as it should.
package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"a3os.app/libs/rpc"
	"a3os.app/tools/bench/internal/figure"
)

// Config says how to measure.
type Config struct {
	// Root is the checkout, whose bin/accessos is the gateway.
	Root string
	// Rounds is how often each side is measured; at least figure.Rounds.
	Rounds int
	// Requests is how many a side gets in a round.
	Requests int
}

// clients are how many connections requests come over, inFlight how many are on each at once.
const clients, inFlight = 4, 2

// Measure answers the figure. Where there is no HAProxy, it is one that wasn't measured.
func Measure(ctx context.Context, cfg Config) (figure.Figure, error) {
	f := figure.Figure{
		Name: "CPU of a request at the gateway ÷ HAProxy", Unit: "µs",
		Measured: figure.Series{What: "gateway"}, Against: figure.Series{What: "HAProxy with the same duties"},
		Bound: figure.Bound{AtMost: 3},
		Note: fmt.Sprintf("%d requests a round and side over %d HTTP/2 connections, TLS 1.3 and HTTP/2 to the upstream with a client certificate, %d headers of which %d are stripped; "+
			"HAProxy also refuses ambiguous paths, holds small bodies back to send them again, counts calls and places of a tenant, and begins a trace (haproxy.cfg)",
			cfg.Requests, clients, len(sent), len(stripped)),
	}
	proxy, err := exec.LookPath("haproxy")
	if err != nil {
		f.NotMeasured = "there is no haproxy: install it, as apt-get install haproxy"
		return f, nil
	}
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return f, fmt.Errorf("make the plane that is called: %w", err)
	}
	defer w.close()
	commands := map[string]*exec.Cmd{}
	if commands["gateway"], err = w.gatewayCommand(ctx, filepath.Join(cfg.Root, "bin", "accessos")); err != nil {
		return f, err
	}
	if commands["haproxy"], err = w.haproxyCommand(ctx, proxy); err != nil {
		return f, err
	}
	sides := map[string]*side{}
	for name, cmd := range commands {
		s, err := start(ctx, name, cmd, w)
		if err != nil {
			return f, fmt.Errorf("start %s: %w", name, err)
		}
		defer s.stop()
		sides[name] = s
	}
	// The first round warms connections and the processor, and is not counted.
	var measured, against []float64
	for round := range cfg.Rounds + 1 {
		a, err := sides["gateway"].round(ctx, cfg.Requests)
		if err != nil {
			return f, err
		}
		b, err := sides["haproxy"].round(ctx, cfg.Requests)
		if err != nil {
			return f, err
		}
		if round > 0 {
			measured, against = append(measured, a), append(against, b)
		}
	}
	return f, f.Fill(measured, against)
}

// sent is what a client's request carries besides what HTTP needs; of it, stripped must not reach the upstream.
var (
	sent = map[string]string{
		"Authorization": "Bearer " + strings.Repeat("x", 600), "Content-Type": "application/json", "Connect-Protocol-Version": "1", "Accept": "*/*",
		"Accept-Language": "en", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Origin": "https://bench.localhost", "Referer": "https://bench.localhost/",
		"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "other.localhost", "X-Tenant-Id": "tnt_x", "Forwarded": "for=203.0.113.9", "X_workspace_id": "wsp_x",
	}
	stripped = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Tenant-Id", "Forwarded", "X_workspace_id"}
)

// refused are requests that neither side passes on: host and path.
var refused = [][2]string{
	{"other." + domain, "/a3os.discovery.v1.RunService/ListRuns"},
	{host, "/a3os.audit.v1.RecordService/ListEvents"},
	{host, "/a3os.discovery.v1.RunService//ListRuns"},
	{host, "/a3os.discovery.v1.RunService/../x"},
	{host, "/a3os.discovery.v1.RunService%2fListRuns"},
	{host, `/a3os.discovery.v1.RunService\ListRuns`},
}

// traceparent is a context that the request's own span is in (W3C trace context).
var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)

// body is what the upstream answers.
var body = []byte(`{"runs":[` + strings.Repeat(`{"id":"run_01h455vb4pex5vsknk084sn02q"},`, 10) + `{}]}`)

// upstream answers each request that came as it should, and counts the others.
type upstream struct{ wrong atomic.Int64 }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	good := r.Header.Get(rpc.SourceHeader) == "127.0.0.1" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.ProtoMajor == 2 &&
		traceparent.MatchString(r.Header.Get("Traceparent"))
	for _, name := range stripped {
		good = good && r.Header.Get(name) == ""
	}
	if !good {
		u.wrong.Add(1)
		http.Error(w, "not as it should be", http.StatusTeapot)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// side is a proxy and the clients that drive it.
type side struct {
	name    string
	cmd     *exec.Cmd
	clients []*http.Client
}

func start(ctx context.Context, name string, cmd *exec.Cmd, w *world) (*side, error) {
	log, err := os.Create(filepath.Join(w.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &side{name: name, cmd: cmd}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.web)
	for range clients {
		s.clients = append(s.clients, &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, w.listen[name])
			},
		}})
	}
	const most = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := request(ctx, s.clients[0])
		if err == nil {
			if err = s.refuses(ctx); err != nil {
				s.stop()
			}
			return s, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			s.stop()
			return nil, fmt.Errorf("it does not serve: %w: %s", err, text)
		}
	}
}

func (s *side) stop() {
	for _, c := range s.clients {
		c.CloseIdleConnections()
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// refuses says whether it refuses what the other side refuses: a proxy that does less would be cheaper for that.
func (s *side) refuses(ctx context.Context) error {
	for _, r := range refused {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+r[1], http.NoBody)
		if err != nil {
			return err
		}
		req.Host = r[0]
		res, err := s.clients[0].Do(req)
		if err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
		if res.StatusCode != http.StatusNotFound {
			return fmt.Errorf("%s answers %s at %s with %s: it has to refuse that", s.name, r[1], r[0], res.Status)
		}
	}
	return nil
}

// round sends requests and answers the CPU that the proxy used for each, in microseconds.
func (s *side) round(ctx context.Context, requests int) (float64, error) {
	before, err := cpu(s.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for c := range clients * inFlight {
		g.Go(func() error {
			for i := c; i < requests; i += clients * inFlight {
				if err := request(ctx, s.clients[c%clients]); err != nil {
					return fmt.Errorf("call %s: %w", s.name, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := cpu(s.cmd.Process.Pid)
	return float64(after-before) / float64(time.Microsecond) / float64(requests), err
}

func request(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/a3os.discovery.v1.RunService/ListRuns", strings.NewReader(`{"page_size":50}`))
	if err != nil {
		return err
	}
	for name, value := range sent {
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || len(got) != len(body) || res.ProtoMajor != 2 {
		return errors.New("it answered " + res.Status + " by " + res.Proto)
	}
	return nil
}

// cpu is what all threads of a process have used, by the scheduler's own count in nanoseconds (proc(5), /proc/pid/schedstat).
func cpu(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("the CPU that process %d used can't be read (%w)", pid, errors.Join(err, os.ErrNotExist))
	}
	var sum time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return 0, fmt.Errorf("read what a thread used: %w", err)
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
