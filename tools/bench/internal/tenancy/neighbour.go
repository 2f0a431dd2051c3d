package tenancy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/tools/bench/internal/figure"
)

const (
	// share is what a tenant's neighbour sends each second, times what it floods with, and asked how often it is asked in a round.
	share = 20
	times = 100
	asked = 100
)

// MeasureNeighbour answers the figure of a tenant whose neighbour, of one tier or the other, sends a hundred times its own share.
func MeasureNeighbour(ctx context.Context, cfg Config, tier string) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: "a tenant's p99 while its neighbour of tier " + tier + " sends a hundred times its share ÷ without", Unit: "ms",
		Measured: figure.Series{What: "p99 with the flood"}, Against: figure.Series{What: "p99 without"},
		Bound: figure.Bound{AtMost: 1.2},
	}
	if tier != "dedicated" {
		// Who shares a server is promised no figure, which is shown: this one says that the neighbour does not queue behind the flood.
		f.Bound.AtMost = 20
	}
	p, err := newPlane(ctx, cfg.Root)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	quiet, err := p.caller(ctx, "quiet", "database")
	if err != nil {
		return f, err
	}
	loud, err := p.caller(ctx, "loud", tier)
	if err != nil {
		return f, err
	}
	var measured, against []float64
	var all flooded
	for range cfg.Rounds {
		without, err := quiet.asks(ctx, cfg.Self)
		if err != nil {
			return f, err
		}
		stop, err := loud.flood(ctx, cfg.Self)
		if err != nil {
			return f, err
		}
		with, err := quiet.asks(ctx, cfg.Self)
		one, stopped := stop()
		if err := errors.Join(err, stopped); err != nil {
			return f, err
		}
		all.add(one)
		measured, against = append(measured, with), append(against, without)
	}
	if err := all.enough(); err != nil {
		f.NotMeasured = err.Error()
		return f, nil
	}
	f.Note = fmt.Sprintf("platform local; the tenant asks %d times a second who it is, its neighbour %.0f times, over %d connections: %.0f of these were answered and %.0f refused; callers are processes that stand for machines elsewhere, the tenant's of the highest priority and its neighbour's of the lowest; none of the tenant's own calls failed",
		share, all.perSecond(all.Sent), connections, all.perSecond(all.Served), all.perSecond(all.Refused))
	return f, f.Fill(measured, against)
}

// caller asks a tenant of a plane who it is.
type caller struct {
	URL, Token, CA, Dial string

	client *http.Client
}

// caller makes a tenant, and its first admin a caller.
func (p *plane) caller(ctx context.Context, slug, tier string) (*caller, error) {
	if _, err := p.create(ctx, slug, "--tier", tier); err != nil {
		return nil, err
	}
	token, err := p.run(ctx, "a3", "--profile", slug, "token")
	if err != nil {
		return nil, err
	}
	c := &caller{URL: fmt.Sprintf("https://%s.localhost:%s%s", slug, p.port, iamv1connect.IdentityServiceGetSelfProcedure), Token: strings.TrimSpace(token),
		CA: filepath.Join(p.home, "web", "ca.pem"), Dial: net.JoinHostPort("127.0.0.1", p.port)}
	return c, c.open()
}

func (c *caller) open() error {
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	c.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
		// One connection: what has no stream of it waits here, and costs the gateway no handshake.
		HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, c.Dial)
		},
	}}
	return nil
}

// ask asks once, and answers the status.
func (c *caller) ask(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := c.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// asks starts a process that asks, and answers the 99th percentile that it saw.
func (c *caller) asks(ctx context.Context, program string) (float64, error) {
	out, err := c.command(ctx, program, "ask").Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return 0, fmt.Errorf("ask: %w: %s", err, failed.Stderr)
	}
	if err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

func (c *caller) command(ctx context.Context, program string, does string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, does, c.URL, c.CA, c.Dial) //nolint:gosec // it is this program
	cmd.Env = []string{tokenVariable + "=" + c.Token}
	return cmd
}

// Ask is the life of the process that asks, as often as is measured, and says what the 99th percentile was, in milliseconds. What it waits for
// a processor itself would be counted as the tenant's, so it takes the highest priority, where it may.
func Ask(ctx context.Context, url, ca, dial string, out io.Writer) error {
	const highest, warm = -20, 10
	if err := priority(highest); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	c := &caller{URL: url, Token: os.Getenv(tokenVariable), CA: ca, Dial: dial}
	if err := c.open(); err != nil {
		return err
	}
	for range warm {
		if _, err := c.ask(ctx); err != nil {
			return err
		}
	}
	p99, err := c.ninetyNinth(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, p99)
	return err
}

// priority gives all threads of this process the same, and through them those that they start: setpriority(2) of a process is that of
// one thread alone. Where each session has a turn of its own among all (sched(7), autogroup) it has one, of that priority: beside the plane, which is
// a session, that of a process counts for nothing.
func priority(nice int) error {
	if _, err := syscall.Setsid(); err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	if err := syscall.Setpriority(syscall.PRIO_PGRP, 0, nice); err != nil {
		return fmt.Errorf("take the priority %d: %w", nice, err)
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("give the session the priority %d: %w", nice, err)
	}
	return nil
}

// ninetyNinth is the 99th percentile, in milliseconds, of calls that begin at their times whether or not those before were answered: the second
// slowest of a hundred. Each begins at a random moment of its time, so that no beat of the flood falls on all of them, or on none. One that
// fails is a failure of all.
func (c *caller) ninetyNinth(ctx context.Context) (float64, error) {
	var mu sync.Mutex
	var calls sync.WaitGroup
	var latencies []float64
	var failed error
	const slot = time.Second / share
	start := time.Now()
	for n := range asked {
		moment := time.Duration(n)*slot + rand.N(slot) //nolint:gosec // nobody guesses it
		<-time.After(time.Until(start.Add(moment)))
		calls.Go(func() {
			began := time.Now()
			status, err := c.ask(ctx)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("the tenant is answered %d", status)
			}
			mu.Lock()
			defer mu.Unlock()
			latencies, failed = append(latencies, float64(time.Since(began).Microseconds())/1000), errors.Join(failed, err)
		})
	}
	calls.Wait()
	slices.Sort(latencies)
	return latencies[asked-2], failed
}
