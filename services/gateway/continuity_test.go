package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// load is clients that ask without a pause until they are told to end.
type load struct {
	done    atomic.Uint64
	each    []atomic.Uint64
	mu      sync.Mutex
	faults  []string
	stopped func()
}

// begin starts clients, half of them over HTTP/1.1. What counts as a fault is any answer but want, and any error that leave doesn't
// excuse.
func begin(clients []*http.Client, slug string, want string, leave func(error) bool) *load {
	l := &load{each: make([]atomic.Uint64, len(clients))}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := once(c, slug, want)
				l.done.Add(1)
				l.each[i].Add(1)
				if err == nil {
					continue
				}
				if leave != nil && leave(err) {
					return
				}
				l.mu.Lock()
				l.faults = append(l.faults, err.Error())
				l.mu.Unlock()
			}
		})
	}
	l.stopped = sync.OnceFunc(func() { close(stop); wg.Wait() })
	return l
}

func once(c *http.Client, slug, want string) error { return onceAt(c, slug, "/x", want) }

func onceAt(c *http.Client, slug, path, want string) error {
	res, err := c.Post("https://"+slug+"."+domain+path, "text/plain", strings.NewReader("body"))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || string(body) != want {
		return fmt.Errorf("answered %d %q", res.StatusCode, body)
	}
	return nil
}

// after waits until so many more requests were answered.
func (l *load) after(n uint64) {
	for until := l.done.Load() + n; l.done.Load() < until; {
		<-time.After(time.Millisecond)
	}
}

// afterEach waits until each client was answered so many times more.
func (l *load) afterEach(n uint64) {
	until := make([]uint64, len(l.each))
	for i := range l.each {
		until[i] = l.each[i].Load() + n
	}
	for i := range l.each {
		for l.each[i].Load() < until[i] {
			<-time.After(time.Millisecond)
		}
	}
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stopped()
	if len(l.faults) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(l.faults), l.done.Load(), l.faults[0])
	}
}

func (p *process) clients(n int) (all []*http.Client) {
	for i := range n {
		all = append(all, p.client(i%2 == 0))
	}
	return all
}

func echo(word string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, word)
	})
}

// Fault row F19.
func TestRoutesEditedUnderLoadFailNoRequest(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", echo("acme"), "/")
	globex.serve("iam", echo("globex"), "/")
	// The same service at another address, to which the route moves and back.
	twin := acme.serve("iam", echo("acme"), "/")
	acme.services = acme.services[:1]
	h.publish(acme, globex)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	l := begin(p.clients(4), "acme", "acme", nil)
	home := acme.services[0].addr
	for i := range 30 {
		acme.services[0].addr = home
		if i%2 == 1 {
			acme.services[0].addr = twin.addr
		}
		if i%3 == 0 {
			h.publish(acme)
		} else {
			h.publish(acme, globex)
		}
		l.after(20)
	}
	l.end(t)
	t.Attr("row", fmt.Sprint("F19 ", l.done.Load()))
}

// Fault rows F16 and F17.
func TestGatewayServesOnAndStartsWhileTheRegistryIsAway(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", echo("acme"), "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	l := begin(p.clients(2), "acme", "acme", nil)
	h.registry.stop()
	l.after(50)
	l.end(t)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	l = begin(p.clients(2), "acme", "acme", nil)
	l.after(50)
	l.end(t)

	// It comes back with something new, at the same address.
	globex := h.tenant("globex")
	globex.serve("iam", echo("globex"), "/")
	h.registry = h.startRegistry(h.registry.addr)
	h.publish(acme, globex)
	p.until("globex", "/", http.StatusOK, "globex")
	t.Attr("row", fmt.Sprint("F17 ", l.done.Load()))
}

func TestGatewayThatNeverHeldASnapshotSaysSo(t *testing.T) {
	h := newHarness(t)
	h.registry.stop()
	p := h.start()
	p.until("acme", "/", http.StatusServiceUnavailable, "")
}

// Attack rows C46 and C47.
func TestBadSnapshotChangesNothing(t *testing.T) {
	h := newHarness(t)
	acme, globex, evil := h.tenant("acme"), h.tenant("globex"), h.tenant("evil")
	acme.serve("iam", echo("acme"), "/")
	globex.serve("iam", echo("globex"), "/")
	evil.serve("iam", echo("evil"), "/")
	old := h.publish(evil)
	good := h.publish(acme)
	ops := freeAddress(t)
	p := h.start("A3_OPS_LISTEN=" + ops)
	p.until("acme", "/", http.StatusOK, "acme")
	// The alarm is made of it, and what isn't told from the start on never grew.
	refused := func(reason string) float64 {
		return figure(scrape(t, ops), "gateway_snapshot_refused_total", "reason", reason)
	}
	for _, reason := range []string{"too_large", "unknown_key", "bad_signature", "wrong_plane", "older", "malformed", "unreadable"} {
		if n := refused(reason); n != 0 {
			t.Errorf("before any was refused it is told that %v were, for they were %s", n, reason)
		}
	}
	other := newHarness(t) // a registry with another key
	other.version = 100
	h.version += 10
	bad := map[string]*registryv1.SignedSnapshot{
		"older":       old,
		"another key": other.sign(evil),
		"empty":       {},
	}
	truncated := h.sign(evil)
	truncated.Snapshot = truncated.GetSnapshot()[:len(truncated.GetSnapshot())/2]
	bad["truncated"] = truncated
	flipped := h.sign(evil)
	flipped.Signature[7] ^= 1
	bad["bad signature"] = flipped
	swapped := h.sign(evil)
	swapped.Signature = good.GetSignature()
	bad["another's signature"] = swapped
	reasons := map[string]string{"older": "older", "another key": "unknown_key", "empty": "unknown_key", "truncated": "bad_signature", "bad signature": "bad_signature", "another's signature": "bad_signature"}
	for name, s := range bad {
		before := refused(reasons[name])
		h.registry.send(s)
		// The stream keeps order: when globex comes and goes, the bad one was looked at.
		h.publish(acme, globex)
		p.until("globex", "/", http.StatusOK, "globex")
		h.registry.send(s)
		h.publish(acme)
		p.until("globex", "/", http.StatusNotFound, "")
		if a := do(t, p.client(false), request(t, "GET", "https://evil.a3.test/", "")); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: evil is served: %d %q", name, a.StatusCode, a.body)
		}
		if a := do(t, p.client(false), request(t, "GET", "https://acme.a3.test/", "")); a.body != "acme" {
			t.Errorf("%s: acme answered %d %q", name, a.StatusCode, a.body)
		}
		if n := refused(reasons[name]) - before; n != 2 {
			t.Errorf("%s: it was sent twice, and %v refusals are told", name, n)
		}
	}

	// The same on disk, with the registry away: nothing forged is served, and a good one is.
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	h.registry.stop()
	onDisk, err := os.ReadFile(h.snapshotFile)
	if err != nil {
		t.Fatal(err)
	}
	delete(bad, "older") // signed and whole: with nothing else held, it is the last good one
	for name, s := range bad {
		raw, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		write(t, h.snapshotFile, raw)
		q := h.start("A3_OPS_LISTEN=" + ops)
		q.until("evil", "/", http.StatusServiceUnavailable, "")
		if n := refused(reasons[name]); n != 1 {
			t.Errorf("%s: on disk %v refusals are told", name, n)
		}
		if err := q.stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for raw, reason := range map[string]string{"": "unknown_key", "\xff": "malformed", string(onDisk[:len(onDisk)-1]): "malformed"} {
		write(t, h.snapshotFile, []byte(raw))
		q := h.start("A3_OPS_LISTEN=" + ops)
		q.until("evil", "/", http.StatusServiceUnavailable, "")
		if n := refused(reason); n != 1 {
			t.Errorf("of a file that is %s %v refusals are told", reason, n)
		}
		_ = q.stop()
	}
	write(t, h.snapshotFile, onDisk)
	h.start().until("acme", "/", http.StatusOK, "acme")
	t.Attr("row", "C46 1")
	t.Attr("row", fmt.Sprintf("C47 %d", 2*len(bad)+3))
}

// Two alarms are made of which version is routed by and which is on disk.
func TestFiguresTellOfRoutesThatAreNotKept(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	acme.serve("iam", echo("acme"), "/")
	globex.serve("iam", echo("globex"), "/")
	h.publish(acme)
	ops := freeAddress(t)
	p := h.start("A3_OPS_LISTEN=" + ops)
	tell := func(when string, version, kept float64) {
		t.Helper()
		var got [2]float64
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
			told := scrape(t, ops)
			for i, name := range []string{"gateway_snapshot_version", "gateway_snapshot_kept_version"} {
				got[i] = figure(told, name, "otel_scope_name", "a3os.app/services/gateway/held")
			}
			if got == [2]float64{version, kept} {
				return
			}
		}
		t.Errorf("%s it is told that version %v is routed by and %v on disk, want %v and %v", when, got[0], got[1], version, kept)
	}
	p.until("acme", "/", http.StatusOK, "acme")
	tell("at first", 1, 1)
	// Nothing can be put where a directory is.
	if err := errors.Join(os.Remove(h.snapshotFile), os.Mkdir(h.snapshotFile, 0o700)); err != nil {
		t.Fatal(err)
	}
	h.publish(acme, globex)
	p.until("globex", "/", http.StatusOK, "globex")
	tell("while nothing can be written", 2, 1)
	if err := os.Remove(h.snapshotFile); err != nil {
		t.Fatal(err)
	}
	h.publish(globex)
	tell("afterwards", 3, 3)
}

// Fault row F20, for the gateway itself.
func TestGatewayThatIsToldToEndDropsNoRequest(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", echo("acme"), "/")
	h.publish(acme)
	p := h.start("A3_LEAVE_WITHIN=700ms")
	p.until("acme", "/", http.StatusOK, "acme")
	// Where nothing listens any more a client goes elsewhere; any other failure is a request that was dropped.
	gone := func(err error) bool {
		op, ok := errors.AsType[*net.OpError](err)
		return ok && op.Op == "dial"
	}
	l := begin(p.clients(8), "acme", "acme", gone)
	l.after(200)
	before := l.done.Load()
	if err := p.stop(); err != nil {
		t.Errorf("the gateway ended with %v", err)
	}
	l.end(t)
	if l.done.Load() == before {
		t.Error("no request came while it drained")
	}
	t.Attr("row", fmt.Sprint("F20 ", l.done.Load()))
}

// Fault row F20, for a service behind the gateway: a restart takes as long as what is in flight, and the next start.
func TestServiceRestartedUnderLoadFailsNoRequest(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	s := acme.restartable("iam", "/")
	held, release := make(chan struct{}, 1), make(chan struct{})
	handler := echo("acme")
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			held <- struct{}{}
			<-release
		}
		handler.ServeHTTP(w, r)
	})
	end := acme.run(s, slow)
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	l := begin(p.clients(4), "acme", "acme", nil)
	const restarts = 5
	for i := range restarts {
		// Whoever waited for the last start has been served.
		l.afterEach(3)
		answered := make(chan error, 1)
		if i == 0 {
			go func() { answered <- onceAt(p.client(false), "acme", "/held", "acme") }()
			<-held
			time.AfterFunc(4*time.Second, func() { close(release) })
		} else {
			answered <- nil
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		if err := <-answered; err != nil {
			t.Errorf("the request that was in flight: %v", err)
		}
		end = acme.run(s, slow)
	}
	l.afterEach(3)
	l.end(t)
	t.Attr("row", fmt.Sprint("F20 ", l.done.Load()))
}
