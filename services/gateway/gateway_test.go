package gateway_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"a3os.app/libs/workload"
)

func TestRequestReachesTheComponentOfItsHostAndPath(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", nil, "/", "/a3os.iam.v1.")
	audit := acme.serve("audit", nil, "/a3os.audit.v1.")
	globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme/iam")
	for _, http1 := range []bool{true, false} {
		c := p.client(http1)
		for url, want := range map[string]string{
			"https://acme.a3.test/a3os.iam.v1.UserService/GetUser":     "acme/iam",
			"https://acme.a3.test/a3os.audit.v1.LogService/List":       "acme/audit",
			"https://ACME.a3.test:7443/x":                              "acme/iam",
			"https://globex.a3.test/a3os.audit.v1.LogService/List?a=b": "globex/iam",
		} {
			if a := do(t, c, request(t, "POST", url, "body")); a.body != want || a.StatusCode != http.StatusOK || a.Header.Get("X-Seen-Body") != "body" {
				t.Errorf("HTTP/1 %v: %s answered %d %q, want %s", http1, url, a.StatusCode, a.body, want)
			}
		}
	}
	seen := <-audit.seen
	if seen.ProtoMajor != 2 || seen.Host != "acme.a3.test" || seen.Header.Get("A3-Source-Address") != "127.0.0.1" {
		t.Errorf("the service saw %s, host %s, source %q", seen.Proto, seen.Host, seen.Header.Get("A3-Source-Address"))
	}
	who, err := workload.FromCertificate(seen.TLS.PeerCertificates[0])
	if err != nil || who.String() != "spiffe://plane.dev.a3os/gateway" {
		t.Errorf("the service was called by %s, %v", who, err)
	}
}

// Attack row H14.
func TestNoClientSpeaksInTheGatewaysName(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	iam := acme.serve("iam", nil, "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/ready", http.StatusOK, "")
	for len(iam.seen) > 0 {
		<-iam.seen
	}
	names := []string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-For", "X-Tenant-Id", "X-Workspace-Id", "A3-Source-Address", "A3-Envelope", "X-Real-Ip"}
	for _, http1 := range []bool{true, false} {
		req := request(t, "GET", "https://acme.a3.test/", "")
		for _, name := range names {
			req.Header.Set(name, "globex")
		}
		req.Header.Set("Idempotency-Key", "k")
		if http1 {
			// What Connection names is removed on the way; what the gateway says must not be removable.
			req.Header.Set("Connection", "A3-Source-Address, X-Keep")
		}
		do(t, p.client(http1), req)
		seen := <-iam.seen
		for name, values := range seen.Header {
			if strings.Contains(strings.Join(values, " "), "globex") {
				t.Errorf("%s came through as %q", name, values)
			}
		}
		if seen.Header.Get("A3-Source-Address") != "127.0.0.1" || seen.Header.Get("Idempotency-Key") != "k" {
			t.Errorf("the service saw %v", seen.Header)
		}
	}
	t.Attr("row", fmt.Sprintf("H14 %d", 2*len(names)))
}

// Attack row H15.
func TestHostsWithoutATenantAreOneAnswer(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", nil, "/a3os.")
	globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	p := h.start()
	p.until("globex", "/", http.StatusOK, "globex/iam")
	h.publish(acme) // globex is suspended, or gone: the snapshot holds active tenants only
	p.until("globex", "/", http.StatusNotFound, "")
	cases := 0
	for _, http1 := range []bool{true, false} {
		var first string
		for _, c := range []struct{ host, path string }{
			{"globex.a3.test", "/"}, {"nobody.a3.test", "/"}, {"nobody.a3.test", "/a3os.iam.v1.UserService/GetUser"}, {"a3.test", "/"}, {"a.b.a3.test", "/"},
			{"acme.a3.test.evil.example", "/"}, {"evil.example", "/"}, {"127.0.0.1", "/"}, {"acme.a3.test", "/elsewhere"}, {"acme.a3.test", "/a3os.x/../y"},
			{"acme.a3.test", "//a3os.x"}, {"acme.a3.test", "/a3os.x%2fy"}, {"", "/"},
		} {
			for _, method := range []string{"GET", "POST"} {
				req := request(t, method, "https://acme.a3.test"+c.path, "")
				req.Host = c.host
				if c.host == "" {
					req.Host = "xn--nobody-.a3.test"
				}
				a := do(t, p.client(http1), req)
				a.Header.Del("Date")
				got := fmt.Sprint(a.StatusCode, a.Header, a.body)
				cases++
				if first == "" {
					first = got
				}
				if got != first || a.StatusCode != http.StatusNotFound {
					t.Errorf("HTTP/1 %v: %s %s%s answered\n%s, want\n%s", http1, method, c.host, c.path, got, first)
				}
			}
		}
	}
	t.Attr("row", fmt.Sprintf("H15 %d", cases))
}

func TestBareDomainServesTheOneCompany(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", nil, "/")
	h.publish(acme)
	p := h.start("A3_GATEWAY_APEX_SLUG=acme")
	p.until("acme", "/", http.StatusOK, "acme/iam")
	if a := do(t, p.client(false), request(t, "GET", "https://a3.test/", "")); a.body != "acme/iam" {
		t.Errorf("the bare domain answered %d %q", a.StatusCode, a.body)
	}
}

func TestAddressThatIsNowAnothersIsAClosedDoor(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", nil, "/")
	victim := globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	p := h.start()
	p.until("globex", "/", http.StatusOK, "globex/iam")
	<-victim.seen
	// The registry, a port that was given away, or whoever: acme's route leads to globex's service.
	acme.services[0].addr = victim.addr
	h.publish(acme)
	p.until("acme", "/", http.StatusServiceUnavailable, "")
	if a := do(t, p.client(false), request(t, "POST", "https://acme.a3.test/", "secret")); a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("answered %d %q", a.StatusCode, a.body)
	}
	if len(victim.seen) != 0 {
		t.Error("globex saw acme's request")
	}
}

func TestNewCertificateIsTakenUpWithoutARestart(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", nil, "/")
	h.publish(acme)
	ops := freeAddress(t)
	p := h.start("A3_OPS_LISTEN=" + ops)
	p.until("acme", "/", http.StatusOK, "")
	// An alarm is made of when they end.
	ends := func(use string, within time.Duration) {
		t.Helper()
		if at := figure(scrape(t, ops), "a3_certificate_expires_timestamp_seconds", "use", use); (time.Until(time.Unix(int64(at), 0)) - within).Abs() > 10*time.Minute {
			t.Errorf("of the certificate for %s it is told that it ends at %v, it does in about %s", use, at, within)
		}
	}
	ends("web", time.Hour)
	ends("workload", workload.LeafLife)
	write(t, h.certFile, []byte("broken")) // half-way, or by mistake: the old one goes on
	p.until("acme", "/", http.StatusOK, "")
	want := h.newCertificate(2 * time.Hour)
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		conn, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: h.clientRoots, ServerName: "acme.a3.test", MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		got := conn.ConnectionState().PeerCertificates[0].SerialNumber
		conn.Close()
		if got.Cmp(want) == 0 {
			ends("web", 2*time.Hour)
			return
		}
	}
	t.Error("the new certificate was never shown")
}

func TestGreedyAndSlowClientsAreBounded(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	entered, hold := make(chan struct{}, 2), make(chan struct{})
	still := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-hold })
	acme.serve("iam", still, "/")
	acme.serve("discovery", still, "/discovery/")
	globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	p := h.start("A3_MAX_IN_FLIGHT_PER_TENANT=2", "A3_HEADER_TIMEOUT=300ms")
	p.until("globex", "/", http.StatusOK, "")
	c := p.client(false)
	held := make(chan error, 2)
	for _, path := range []string{"/", "/discovery/"} {
		req := request(t, "GET", "https://acme.a3.test"+path, "")
		go func() {
			res, err := c.Do(req)
			if err == nil {
				res.Body.Close()
			}
			held <- err
		}()
	}
	<-entered
	<-entered
	if a := do(t, c, request(t, "GET", "https://acme.a3.test/", "")); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a request above the tenant's bound answered %d", a.StatusCode)
	}
	if a := do(t, c, request(t, "GET", "https://globex.a3.test/", "")); a.StatusCode != http.StatusOK {
		t.Errorf("with acme at its bound globex answered %d", a.StatusCode)
	}
	close(hold)
	for range 2 {
		if err := <-held; err != nil {
			t.Error(err)
		}
	}

	req := request(t, "GET", "https://globex.a3.test/", "")
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	if a := do(t, p.client(true), req); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of headers answered %d", a.StatusCode)
	}
	conn := p.raw()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: globex.a3.test\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if raw, err := io.ReadAll(conn); err != nil {
		t.Errorf("a client that never ends its headers is still connected: %v, %q", err, raw)
	}
}

// Row F24, at the gateway: a service of a set that answers nobody fills its half of the tenant's places, and the rest stays fast.
func TestServiceThatStandsStillLeavesTheOthersFast(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	const most = 8
	entered, hold := make(chan struct{}, most), make(chan struct{})
	acme.serve("discovery", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-hold }), "/discovery/")
	acme.serve("iam", nil, "/")
	h.publish(acme)
	p := h.start(fmt.Sprintf("A3_MAX_IN_FLIGHT_PER_TENANT=%d", most))
	p.until("acme", "/", http.StatusOK, "")
	c := p.client(true)
	answers := make(chan int, most)
	for range most {
		req := request(t, "GET", "https://acme.a3.test/discovery/", "")
		go func() {
			res, err := c.Do(req)
			if err != nil {
				answers <- 0
				return
			}
			answers <- res.StatusCode
			res.Body.Close()
		}()
	}
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	answer := func() int {
		t.Helper()
		select {
		case got := <-answers:
			return got
		case <-time.After(20 * time.Second):
			t.Fatal("nobody was answered: the whole share waits for one service")
			return 0
		}
	}
	for range most / 2 {
		<-entered
		if got := answer(); got != http.StatusTooManyRequests {
			t.Errorf("a request to a service that stands still, above its half, answered %d", got)
		}
	}
	served := 0
	for range 20 {
		if a := do(t, c, request(t, "GET", "https://acme.a3.test/", "")); a.StatusCode != http.StatusOK {
			t.Errorf("beside a service that stands still another answered %d", a.StatusCode)
		}
		served++
	}
	release()
	for range most / 2 {
		if got := answer(); got != http.StatusOK {
			t.Errorf("when it goes on, a request that waited answered %d", got)
		}
	}
	t.Attr("row", fmt.Sprint("F24 ", served))
}

// Row F24, at the gateway: a service that begins no answer in time is asked no more for a while, so that its callers are told at once,
// and is asked again when it is well. One that does so for ever doesn't keep its callers for ever. A stream may take its time.
func TestServiceThatDoesNotAnswerInTimeIsLeftAlone(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	var hung atomic.Bool
	var asked atomic.Int64
	hold := make(chan struct{})
	acme.serve("discovery", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if hung.Load() || strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	}), "/discovery/")
	acme.serve("iam", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "/")
	h.publish(acme)
	const slow, late = 200 * time.Millisecond, 2 * time.Second
	p := h.start(fmt.Sprintf("A3_SLOW_ANSWER=%s", slow), fmt.Sprintf("A3_ANSWER_WITHIN=%s", late))
	p.until("acme", "/discovery/", http.StatusOK, "")
	c := p.client(false)
	get := func(path string) (status int, took time.Duration) {
		begun := time.Now()
		res, err := c.Do(request(t, "POST", "https://acme.a3.test"+path, "{}"))
		if err != nil {
			t.Error(err)
			return 0, 0
		}
		_ = res.Body.Close()
		return res.StatusCode, time.Since(begun)
	}
	// Streams that stand open say nothing against a service.
	const many = 16
	var streams sync.WaitGroup
	for range many {
		req := request(t, "POST", "https://acme.a3.test/discovery/", "stream")
		req.Header.Set("Content-Type", "application/grpc+proto")
		streams.Go(func() {
			if res, err := c.Do(req); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("a stream that took its time: %v, %v", res, err)
			} else {
				_ = res.Body.Close()
			}
		})
	}
	for end := time.Now().Add(3 * slow); time.Now().Before(end) || asked.Load() < many; {
		if status, _ := get("/discovery/"); status != http.StatusOK {
			t.Fatalf("beside streams that stand open the service answers %d", status)
		}
		<-time.After(slow / 2)
	}
	hung.Store(true)
	var refused, given atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range many {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				switch status, took := get("/discovery/"); {
				case status == http.StatusServiceUnavailable && took < slow:
					refused.Add(1)
				case status == http.StatusServiceUnavailable && took >= late:
					given.Add(1)
				case status != http.StatusServiceUnavailable:
					t.Errorf("a service that hangs answers %d", status)
				}
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	wait := func(what string, until func() bool) {
		t.Helper()
		for !until() {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
			if status, took := get("/"); status != http.StatusOK || took > late {
				t.Errorf("the rest is answered with %d after %s", status, took)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	wait("callers still wait for a service that doesn't answer", func() bool { return refused.Load() > 10*many })
	wait("nobody was told that the answer didn't come", func() bool { return given.Load() > 0 })
	before, at := asked.Load(), refused.Load()
	wait("callers wait again", func() bool { return refused.Load() > at+10*many })
	if got := asked.Load() - before; got > many/2 {
		t.Errorf("%d requests reached a service that is to be left alone", got)
	}
	hung.Store(false)
	close(stop)
	callers.Wait()
	close(hold)
	streams.Wait()
	wait("it was not asked again once it was well", func() bool { status, _ := get("/discovery/"); return status == http.StatusOK })
	t.Attr("row", fmt.Sprint("F24 ", refused.Load()))
}

// raw is a TLS connection that speaks HTTP/1.1.
func (p *process) raw() *tls.Conn { return p.dial("http/1.1") }

// rawHTTP2 is a TLS connection that speaks HTTP/2.
func (p *process) rawHTTP2() *tls.Conn { return p.dial("h2") }

func (p *process) dial(protocol string) *tls.Conn {
	p.h.t.Helper()
	conn, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: p.h.clientRoots, ServerName: "acme." + domain, MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}})
	if err != nil {
		p.h.t.Fatal(err)
	}
	p.h.t.Cleanup(func() { conn.Close() })
	return conn
}
