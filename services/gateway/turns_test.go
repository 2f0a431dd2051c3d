package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Row F25, at the gateway: what a tenant sends beyond its share waits, or is refused with when to come back, and its neighbour is answered
// meanwhile. What has begun holds no turn, and stands open as long as it likes.
func TestNeighbourIsAnsweredWhileAFloodWaits(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	const burst, waiting, flood = 20, 30, 100
	var open atomic.Int64
	hold := make(chan struct{})
	acme.serve("iam", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			return
		}
		open.Add(1)
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}), "/")
	globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	// One turn in two seconds: all but the burst waits for as long as this takes, or is refused.
	ops := freeAddress(t)
	p := h.start("A3_TENANT_RATE=0.5", "A3_TENANT_BURST=20", "A3_TURN_WITHIN=1m", "A3_MAX_IN_FLIGHT_PER_TENANT=120", "A3_OPS_LISTEN="+ops)
	c := p.client(false)
	p.until("acme", "/", http.StatusOK, "")
	p.until("globex", "/", http.StatusOK, "globex/iam") // from now on two tenants call

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var callers sync.WaitGroup
	var answered, refused, crowded, gone atomic.Int64
	for range flood {
		callers.Go(func() {
			res, err := c.Do(request(t, "POST", "https://acme.a3.test/stream", "{}").WithContext(ctx))
			switch {
			case err != nil:
				gone.Add(1)
				return
			case res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "1":
				// Some find no place to wait at either, which is told otherwise.
				if said, _ := io.ReadAll(res.Body); strings.Contains(string(said), "share") {
					crowded.Add(1)
				}
				refused.Add(1)
			case res.StatusCode == http.StatusOK:
				answered.Add(1)
			default:
				t.Errorf("the flood is answered %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
			}
			_ = res.Body.Close()
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for refused.Load() < flood-burst-waiting-10 || open.Load() < burst-5 {
		if time.Now().After(deadline) {
			t.Fatalf("of %d calls %d began and %d were refused, want about %d and %d", flood, open.Load(), refused.Load(), burst, flood-burst-waiting)
		}
		<-time.After(5 * time.Millisecond)
	}
	for range burst / 2 {
		if a := do(t, p.client(false), request(t, "POST", "https://globex.a3.test/", "{}")); a.StatusCode != http.StatusOK {
			t.Errorf("the neighbour of a flood is answered %d", a.StatusCode)
		}
	}
	if stay := flood - refused.Load() - open.Load() - answered.Load(); stay < waiting/2 {
		t.Errorf("%d calls of the flood wait, want about %d", stay, waiting)
	}
	// Those that began are answered though others wait behind them; those whose callers go away are not heard of again.
	close(hold)
	for answered.Load() < burst-5 && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	leave()
	callers.Wait()
	if answered.Load() < burst-5 || gone.Load() < waiting/2 || answered.Load()+refused.Load()+gone.Load() != flood {
		t.Errorf("of %d calls %d were answered, %d refused and %d left", flood, answered.Load(), refused.Load(), gone.Load())
	}
	if n := open.Load(); n > answered.Load()+1 {
		t.Errorf("%d calls reached the service, %d were answered", n, answered.Load())
	}
	// Whoever looks after the plane sees it, and of whom: an alert is made of it.
	if crowded.Load() == 0 {
		t.Errorf("of %d refusals none was for the tenant's share", refused.Load())
	}
	counted(t, ops, map[*tenant]int64{acme: crowded.Load(), globex: 0})
	t.Attr("row", fmt.Sprint("F25 ", refused.Load()+gone.Load()))
}

// Row F25: a connection over which calls are refused is looked at a few times in a second, so that what a flood costs doesn't grow with the flood. How
// long that takes at least is what is looked at: a machine that is slow takes longer.
func TestConnectionOverWhichCallsAreRefusedIsLookedAtNowAndThen(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", nil, "/")
	globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	// A turn in two seconds, for which one waits, and others are refused; four looks in that time.
	p := h.start("A3_TENANT_RATE=0.5", "A3_TENANT_BURST=1", "A3_TURN_WITHIN=1m", "A3_MAX_IN_FLIGHT_PER_TENANT=7")
	p.until("globex", "/", http.StatusOK, "globex/iam")
	p.until("acme", "/", http.StatusOK, "acme/iam")
	ctx, leave := context.WithCancel(t.Context())
	var waits sync.WaitGroup
	defer func() {
		leave()
		waits.Wait()
	}()
	waits.Go(func() {
		c := p.client(true)
		for ctx.Err() == nil {
			if res, err := c.Do(request(t, "POST", "https://acme.a3.test/", "{}").WithContext(ctx)); err == nil {
				_ = res.Body.Close()
			}
		}
	})
	flood := p.client(true)
	// refused calls until so many calls were refused: it may have been given the place to wait for a turn at, now and then.
	refused := func(calls int) (took time.Duration) {
		began := time.Now()
		for calls > 0 {
			if do(t, flood, request(t, "POST", "https://acme.a3.test/", "{}")).StatusCode == http.StatusTooManyRequests {
				calls--
			}
		}
		return time.Since(began)
	}
	const apart, many = 500 * time.Millisecond, 6
	refused(1)
	if took := refused(many); took < (many-2)*apart {
		t.Errorf("%d calls over a connection on which one was refused were refused in %s: it was looked at more often than each %s", many, took, apart)
	}
	if a := do(t, p.client(true), request(t, "POST", "https://globex.a3.test/", "{}")); a.StatusCode != http.StatusOK {
		t.Errorf("the neighbour of a flood is answered %d", a.StatusCode)
	}
	t.Attr("row", fmt.Sprint("F25 ", many))
}

// counted sees that a gateway tells of so many calls and handshakes of tenants that they were refused, or of a few more, whose clients had left by then.
func counted(t *testing.T, ops string, refused map[*tenant]int64) {
	t.Helper()
	told := scrape(t, ops)
	for of, want := range refused {
		if got := figure(told, "gateway_turns_refused_total", "tenant", of.id.String()); got < float64(want) || want == 0 && got != 0 {
			t.Errorf("it is told that %v of %s were refused, %d were", got, of.slug, want)
		}
	}
}

// Row F25, before any call: who makes connections without end, to a tenant's host or to nobody's, has them wait or fail, and whoever comes to
// another tenant meanwhile is let in and answered. Rows H15, F25: among those that are kept out nobody can tell a tenant that is suspended from one that
// never was.
func TestNeighbourIsAnsweredWhileHandshakesWait(t *testing.T) {
	h := newHarness(t)
	acme, globex, suspended := h.tenant("acme"), h.tenant("globex"), h.tenant("suspended")
	acme.serve("iam", nil, "/")
	globex.serve("iam", nil, "/")
	suspended.serve("iam", nil, "/")
	h.publish(acme, globex, suspended)
	const places, flood = 40, 120 // as many are let in at once, and as many wait
	ops := freeAddress(t)
	p := h.start("A3_TENANT_RATE=0.5", "A3_TENANT_BURST=20", "A3_TURN_WITHIN=1m", "A3_HEADER_TIMEOUT=2m", "A3_MAX_IN_FLIGHT_PER_TENANT=40", "A3_OPS_LISTEN="+ops)
	p.until("acme", "/", http.StatusOK, "")
	p.until("globex", "/", http.StatusOK, "globex/iam") // from now on two tenants call
	p.until("suspended", "/", http.StatusOK, "suspended/iam")
	h.publish(acme, globex) // the snapshot holds active tenants only
	p.until("suspended", "/", http.StatusNotFound, "")
	dial := func(ctx context.Context, name string) error {
		dialer := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: h.clientRoots, MinVersion: tls.VersionTLS13}}
		c, err := dialer.DialContext(ctx, "tcp", p.addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	held, told := 0, map[bool][]string{}
	for _, name := range []string{"acme." + domain, "nobody." + domain} {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var clients sync.WaitGroup
		var in, refused, gone atomic.Int64
		for range flood {
			clients.Go(func() {
				err := dial(ctx, name)
				switch {
				case err == nil:
					in.Add(1)
				case ctx.Err() != nil:
					gone.Add(1)
				default:
					refused.Add(1)
				}
			})
		}
		deadline := time.Now().Add(30 * time.Second)
		for refused.Load() < flood-2*places-10 || in.Load() < places-10 {
			if time.Now().After(deadline) {
				t.Fatalf("of %d handshakes with %s %d ended well and %d were refused, want about %d and %d", flood, name, in.Load(), refused.Load(), places, flood-2*places)
			}
			<-time.After(5 * time.Millisecond)
		}
		if a := do(t, p.client(false), request(t, "POST", "https://globex.a3.test/", "{}")); a.StatusCode != http.StatusOK {
			t.Errorf("who comes to the neighbour of a flood is answered %d", a.StatusCode)
		}
		if stay := flood - in.Load() - refused.Load(); stay < places/2 {
			t.Errorf("%d handshakes with %s wait, want about %d", stay, name, places)
		}
		// Of acme's flood its own people alone know; of nobody's all do who come to no tenant.
		full := name != "acme."+domain
		for _, none := range []string{"suspended." + domain, "never." + domain, domain} {
			told[full] = append(told[full], reason(dial(t.Context(), none)))
		}
		leave()
		clients.Wait()
		held += int(refused.Load() + gone.Load())
		if !full {
			counted(t, ops, map[*tenant]int64{acme: refused.Load(), globex: 0})
		}
	}
	for full, all := range told {
		if some := slices.Compact(slices.Clone(all)); len(some) != 1 || (some[0] == "") == full {
			t.Errorf("where the way in for hosts of no tenant is full (%t), they are told %q, want all the same", full, all)
		}
	}
	t.Attr("row", fmt.Sprint("F25 ", held))
	t.Attr("row", fmt.Sprint("H15 ", len(told[true])+len(told[false])))
}

// reason is why a handshake failed, without what differs from one connection to the next; empty where it didn't.
func reason(err error) string {
	if op, is := errors.AsType[*net.OpError](err); is {
		err = op.Err
	}
	if err == nil {
		return ""
	}
	return err.Error()
}
