package upstream_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/libs/upstream"
)

// place is an address on which nothing listens yet.
func place(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0") // whose ports no outgoing connection is given
	if err != nil {
		t.Skipf("a service that does not listen is not tested, this system has one loopback address: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

func listen(t *testing.T, addr string) *http.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("served"))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func post(t *testing.T, p *upstream.Patient, addr string) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.RoundTrip(r)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// leaving is a transport that has read the body for a connection that was closing, and then finds nobody on another one: made by hand,
// for the moment can't be had of a real one at will.
type leaving struct {
	left   int
	bodies []string
}

func (l *leaving) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	l.bodies = append(l.bodies, string(body))
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestBodyIsWholeInEveryTry(t *testing.T) {
	next := &leaving{left: 2}
	if err := post(t, upstream.NewPatient(next, time.Minute), "service"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"body", "body", "body"}; !slices.Equal(next.bodies, want) {
		t.Errorf("the tries had the bodies %q", next.bodies)
	}
}

func TestServiceThatStartsIsWaitedFor(t *testing.T) {
	addr := place(t)
	p := upstream.NewPatient(&http.Transport{DisableKeepAlives: true}, time.Minute)
	const waiting = 20
	answers := make(chan error, waiting)
	for range waiting {
		go func() { answers <- post(t, p, addr) }()
	}
	select {
	case err := <-answers:
		t.Fatalf("where nothing listens a request ended with %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s := listen(t, addr)
	for range waiting {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	// The next absence has its own clock.
	_ = s.Close()
	go func() { answers <- post(t, p, addr) }()
	select {
	case err := <-answers:
		t.Fatalf("where nothing listens any more a request ended with %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	listen(t, addr)
	if err := <-answers; err != nil {
		t.Error(err)
	}
}

func TestServiceThatStaysAwayCostsNobodyTime(t *testing.T) {
	addr := place(t)
	const patience = 300 * time.Millisecond
	p := upstream.NewPatient(&http.Transport{DisableKeepAlives: true}, patience)
	if err := post(t, p, addr); !upstream.IsAbsent(err) {
		t.Fatalf("error is %v", err)
	}
	begun := time.Now()
	const requests = 50
	for range requests {
		if err := post(t, p, addr); !upstream.IsAbsent(err) {
			t.Fatalf("error is %v", err)
		}
	}
	if took := time.Since(begun); took > requests*patience/2 {
		t.Errorf("%d requests to a service known to be away took %s", requests, took)
	}
	listen(t, addr)
	if err := post(t, p, addr); err != nil {
		t.Errorf("when it was back: %v", err)
	}
}

func TestBreakerOpensWhileCallsAreSlowAndClosesAfterAQuickOne(t *testing.T) {
	const slow = 20 * time.Millisecond
	b := upstream.NewBreaker("iam", slow)
	var under []func()
	until := time.After(20 * time.Second)
	for {
		done, err := b.Enter()
		if err != nil {
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("refused with %v", err)
			}
			break
		}
		under = append(under, done)
		select {
		case <-until:
			t.Fatalf("%d calls are too slow and the next is let in", len(under))
		case <-time.After(slow):
		}
	}
	if len(under) > 20 {
		t.Errorf("%d calls were let in before it opened", len(under))
	}
	for _, done := range under {
		done()
	}
	for {
		done, err := b.Enter()
		if err == nil {
			done()
			break
		}
		select {
		case <-until:
			t.Fatal("it never closed again")
		case <-time.After(slow):
		}
	}
	for range 20 {
		done, err := b.Enter()
		if err != nil {
			t.Fatal(err)
		}
		done()
	}
}
