package docker_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gatewayRestarts has the gateway's container restarted, and removed and made anew, while clients ask all the while, some on connections
// that they keep and some on a new one each time: none is turned away. Who keeps its socket is killed after that, and both come back.
func (p *plane) gatewayRestarts(t *testing.T) {
	t.Helper()
	gateway, keeper := p.container(t, "-plane-gateway"), p.container(t, "-plane-front")
	before := run(t, "docker", "inspect", "--format", "{{.State.StartedAt}}", keeper)
	end := p.load(t, "acme")
	run(t, "docker", "restart", gateway)
	run(t, "docker", "stop", gateway)
	run(t, "docker", "rm", gateway)
	p.fleet("plane", "up")
	asked, failed := end()
	const least = 50
	if asked < least || len(failed) > 0 {
		t.Errorf("of %d requests during restarts of the gateway failed %d: %v", asked, len(failed), failed)
	}
	t.Logf("%d requests while the gateway's container was restarted and made anew, %d failed", asked, len(failed))
	if now := run(t, "docker", "inspect", "--format", "{{.State.StartedAt}}", keeper); now != before {
		t.Errorf("who keeps the socket was restarted: %s, %s", before, now)
	}

	pid, err := strconv.Atoi(strings.TrimSpace(run(t, "docker", "inspect", "--format", "{{.State.Pid}}", keeper)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	const most, every = time.Minute, 200 * time.Millisecond
	until := time.Now().Add(most)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for get := p.asker(t, "acme"); get(&http.Transport{DisableKeepAlives: true}) != nil; {
		if time.Now().After(until) {
			t.Fatalf("a minute after its socket's keeper was killed the gateway is not reached")
		}
		<-tick.C
	}
}

// container is the full name of the one whose name ends so.
func (p *plane) container(t *testing.T, ending string) string {
	t.Helper()
	for name := range p.containers(t) {
		if strings.HasSuffix(name, ending) {
			return name
		}
	}
	t.Fatalf("no container is called %s: %v", ending, p.containers(t))
	return ""
}

// load asks a tenant's host until end is called, which answers how often, and what failed.
func (p *plane) load(t *testing.T, slug string) (end func() (asked int64, failed []string)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var asked atomic.Int64
	var mu sync.Mutex
	var failed []string
	get := p.asker(t, slug)
	const each = 2
	for i := range 2 * each {
		clients.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i%each == 0}
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				asked.Add(1)
				if err := get(transport); err != nil {
					mu.Lock()
					failed = append(failed, err.Error())
					mu.Unlock()
				}
			}
		})
	}
	return func() (int64, []string) {
		stop()
		clients.Wait()
		return asked.Load(), failed
	}
}

// asker asks a tenant's host for its issuer's configuration.
func (p *plane) asker(t *testing.T, slug string) func(*http.Transport) error {
	t.Helper()
	at, err := url.Parse(p.urlOf(t, slug))
	if err != nil {
		t.Fatal(err)
	}
	return func(transport *http.Transport) error {
		if transport.DialContext == nil {
			transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, "127.0.0.1:"+at.Port())
			}
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13} //nolint:gosec // who answers is not what is asked
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.JoinPath(".well-known/openid-configuration").String(), http.NoBody)
		if err != nil {
			return err
		}
		const patience = 40 * time.Second
		res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	}
}
