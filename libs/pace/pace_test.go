package pace_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"a3os.app/libs/pace"
)

const within = 400 * time.Millisecond

var errLate = errors.New("the client is late")

// server serves requests that a watch looks after. Their header Stream says that they are streams, Source where they come from, Answer that the answer begins
// before the body is read and goes on for so long.
type server struct {
	*httptest.Server
	t     *testing.T
	watch *pace.Watch[string]
	// came is told of each request, over what came of its body, and yielded from where those came that were ended.
	came    chan struct{}
	over    chan error
	yielded chan string
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, watch: pace.New[string](within, errLate), came: make(chan struct{}, 64), over: make(chan error, 64), yielded: make(chan string, 64)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	c := s.watch.Follow(w, r, r.Header.Get("Stream") != "")
	defer c.Done()
	c.Holds(r.URL.Path, r.Header.Get("Source")+":1")
	s.came <- struct{}{}
	if long, err := time.ParseDuration(r.Header.Get("Answer")); err == nil {
		c.Answered()
		to := c.Writer()
		for until := time.Now().Add(long); time.Now().Before(until); <-time.After(20 * time.Millisecond) {
			if _, err := to.Write([]byte("answer\n")); err != nil {
				s.over <- err
				return
			}
			_ = http.NewResponseController(to).Flush()
		}
		if r.ProtoMajor == 1 {
			return // the rest was read before
		}
	}
	n, err := io.Copy(io.Discard, c.Body())
	if errors.Is(err, errLate) != c.Late() {
		s.t.Errorf("the body ended with %v, the client is late: %t", err, c.Late())
	}
	if s.over <- err; err != nil {
		if c.Late() {
			s.yielded <- r.Header.Get("Source")
		}
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		http.Error(w, err.Error(), http.StatusRequestTimeout)
		return
	}
	fmt.Fprintf(w, "%d", n)
}

// client speaks HTTP/1.1 or 2.
func (s *server) client(http1 bool) *http.Client {
	tr := s.Client().Transport.(*http.Transport).Clone()
	if tr.ForceAttemptHTTP2 = !http1; http1 {
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// sending is a body that brings its parts, each after a while, and then ends, or with no end brings nothing any more.
type sending struct {
	part    string
	every   time.Duration
	times   int
	endless bool
	closed  chan struct{}
	close   func()
}

// Close ends a read that waits.
func (s *sending) Close() error {
	s.close()
	return nil
}

func (s *sending) Read(p []byte) (int, error) {
	if s.times--; s.times < 0 {
		if !s.endless {
			return 0, io.EOF
		}
		<-s.closed
		return 0, io.ErrClosedPipe
	}
	<-time.After(s.every)
	return copy(p, s.part), nil
}

// send sends a body of a length, or of none that is said where that is negative, and answers the status and body of what it was answered.
func (s *server) send(http1 bool, path string, length int64, body sending, headers ...string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	body.closed = make(chan struct{})
	body.close = sync.OnceFunc(func() { close(body.closed) })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, &body)
	if err != nil {
		return 0, "", err
	}
	req.ContentLength = length
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.client(http1).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(all)), err
}

// both tries something over HTTP/1.1 and HTTP/2, each with a length and without.
func both(t *testing.T, try func(t *testing.T, s *server, http1 bool, length func(int64) int64)) {
	t.Helper()
	for _, http1 := range []bool{true, false} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("HTTP/1 %t, with a length %t", http1, known), func(t *testing.T) {
				t.Parallel()
				try(t, serve(t), http1, func(n int64) int64 {
					if known {
						return n
					}
					return -1
				})
			})
		}
	}
}

func TestClientThatKeepsTheServerWaitingIsTold(t *testing.T) {
	for name, body := range map[string]sending{
		"nothing comes":      {endless: true},
		"one octet comes":    {part: "{", times: 1, endless: true},
		"hardly any come":    {part: "{", every: within / 8, times: 1000},
		"much came at first": {part: strings.Repeat("x", 32<<10), times: 32, endless: true},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, s *server, http1 bool, length func(int64) int64) {
				began := time.Now()
				status, text, err := s.send(http1, "/", length(2<<20), body)
				if err != nil || status != http.StatusRequestTimeout || text != errLate.Error() {
					t.Errorf("it is answered %d %q, %v", status, text, err)
				}
				if took := time.Since(began); took < within || took > 3*within+time.Second {
					t.Errorf("it is answered after %s", took)
				}
				if err := <-s.over; !errors.Is(err, errLate) {
					t.Errorf("the body ended with %v", err)
				}
			})
		})
	}
}

func TestClientThatIsSlowAndMovesIsServed(t *testing.T) {
	both(t, func(t *testing.T, s *server, http1 bool, length func(int64) int64) {
		const part, times = 256, 30
		status, text, err := s.send(http1, "/", length(part*times), sending{part: strings.Repeat("x", part), every: within / 8, times: times})
		if err != nil || status != http.StatusOK || text != fmt.Sprint(part*times) {
			t.Errorf("it is answered %d %q, %v", status, text, err)
		}
	})
}

func TestStreamMayBeSilent(t *testing.T) {
	both(t, func(t *testing.T, s *server, http1 bool, length func(int64) int64) {
		status, text, err := s.send(http1, "/", length(2), sending{part: "x", every: 3 * within, times: 2}, "Stream", "yes")
		if err != nil || status != http.StatusOK || text != "2" {
			t.Errorf("it is answered %d %q, %v", status, text, err)
		}
	})
}

// What is answered before it has come whole, and takes its time, is not cut by what was allowed the rest of the body; and on HTTP/1.1, where the
// rest must come before the answer, that doesn't wait for ever, of a stream either.
func TestAnswerMayTakeItsTime(t *testing.T) {
	both(t, func(t *testing.T, s *server, http1 bool, length func(int64) int64) {
		status, text, err := s.send(http1, "/", length(2), sending{part: "x", every: 20 * time.Millisecond, times: 2}, "Answer", (3 * within).String())
		if err != nil || status != http.StatusOK || strings.Count(text, "answer") < 10 {
			t.Errorf("it is answered %d %q, %v", status, text, err)
		}
		if !http1 {
			return
		}
		began := time.Now()
		status, text, err = s.send(true, "/", length(2), sending{part: "x", times: 1, endless: true}, "Answer", "50ms", "Stream", "yes")
		if took := time.Since(began); status != http.StatusOK || !strings.HasPrefix(text, "answer") || took > 3*within {
			t.Errorf("one that never comes whole is answered %d %q, %v after %s", status, text, err, took)
		}
	})
}

// What is refused without being read waits no longer either.
func TestWhatIsDismissedIsReadForALittleWhile(t *testing.T) {
	watch := pace.New[string](within, errLate)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch.Dismiss(w, r)
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer s.Close()
	for name, sent := range map[string]string{"length": "Content-Length: 10\r\n\r\n{", "chunked": "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s", sent)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Contains(got, []byte("403")) || time.Since(began) > 3*within {
			t.Errorf("%s: answered %q, %v after %s", name, got, err, time.Since(began))
		}
	}
}

// waitFor waits until so many requests came.
func (s *server) waitFor(n int) {
	s.t.Helper()
	for range n {
		select {
		case <-s.came:
		case <-time.After(10 * time.Second):
			s.t.Fatal("a request never came")
		}
	}
}

// next is from where one came that was ended.
func (s *server) next() string {
	s.t.Helper()
	select {
	case source := <-s.yielded:
		return source
	case <-time.After(10 * time.Second):
		s.t.Fatal("nobody was ended")
		return ""
	}
}

// Of those that keep the server waiting the source with the most of them yields, the longest first; nobody else does, and nobody who is answered.
func TestSourceWithTheMostSlowClientsYields(t *testing.T) {
	s := serve(t)
	// Streams, for the others end by themselves before long.
	begin := func(path, source string, times int, headers ...string) {
		for range times {
			go func() {
				_, _, _ = s.send(false, path, -1, sending{part: "x", times: 1, endless: true}, append(headers, "Source", source, "Stream", "yes")...)
			}()
		}
		s.waitFor(times)
	}
	const many = 12
	begin("/a", "192.0.2.1", many)
	begin("/a", "192.0.2.2", 2)
	begin("/b", "192.0.2.3", many+4)
	begin("/a", "192.0.2.4", many+4, "Answer", "1ms")
	in := func(path string) func(string) bool { return func(held string) bool { return held == path } }
	<-time.After(time.Second) // all have waited long enough
	// As long as the first has most, only its own go: two of twelve, two of ten, and one at a time of fewer.
	of := map[string]int{}
	for of["192.0.2.1"] < many-3 {
		if !s.watch.Yield(in("/a")) {
			t.Fatalf("when %v have yielded none does", of)
		}
		of[s.next()]++
		for len(s.yielded) > 0 {
			of[s.next()]++
		}
	}
	if len(of) != 1 {
		t.Errorf("while one source has most of what waits, %v yield", of)
	}
	for s.watch.Yield(in("/a")) {
		of[s.next()]++
	}
	for len(of) == 2 && of["192.0.2.1"]+of["192.0.2.2"] < many+2 {
		of[s.next()]++
	}
	if want := map[string]int{"192.0.2.1": many, "192.0.2.2": 2}; !maps.Equal(of, want) {
		t.Errorf("%v have yielded, want %v: nobody else holds what is needed, or is not answered", of, want)
	}
	if s.watch.Yield(in("/c")) {
		t.Error("where nobody holds anything somebody yields")
	}
	s.CloseClientConnections()
}

// A client that takes nothing of its answer yields as well, and one that reads doesn't.
func TestClientThatTakesNothingYields(t *testing.T) {
	s := serve(t)
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // httptest's certificate
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/a"}, {":authority", "x"}, {"answer", "1h"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	s.waitFor(1)
	var reading sync.WaitGroup
	reading.Go(func() {
		if status, _, err := s.send(false, "/a", 1, sending{part: "x", times: 1}, "Answer", "3s"); status != http.StatusOK || err != nil {
			t.Errorf("one that reads is answered %d, %v", status, err)
		}
	})
	s.waitFor(1)
	deadline := time.Now().Add(10 * time.Second)
	for !s.watch.Yield(func(string) bool { return true }) {
		if time.Now().After(deadline) {
			t.Fatal("it does not yield")
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := <-s.over; err == nil {
		t.Error("its answer was written")
	}
	if s.watch.Yield(func(string) bool { return true }) {
		t.Error("one that reads yields as well")
	}
	reading.Wait()
}

func TestServerThatEndsWaitsForNobodyForLong(t *testing.T) {
	const patient = time.Hour
	watch, over := pace.New[string](patient, errLate), make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := watch.Follow(w, r, false)
		defer c.Done()
		_, err := io.Copy(io.Discard, c.Body())
		over <- err
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
	select {
	case err := <-over:
		t.Fatalf("the body ended with %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	watch.Hurry()
	select {
	case err := <-over:
		if !errors.Is(err, errLate) {
			t.Errorf("the body ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
}

func TestSourceIsAHostOrItsNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "192.0.2.1": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "": "invalid Prefix", "pipe": "invalid Prefix",
	} {
		if got := pace.Source(address).String(); got != want {
			t.Errorf("%q is of %s, want %s", address, got, want)
		}
	}
}
