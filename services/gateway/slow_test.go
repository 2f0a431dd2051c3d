package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// stalling is a body that begins and then brings nothing until it is closed.
type stalling struct {
	begins io.Reader
	closed chan struct{}
	close  func()
}

func newStalling(begins string) *stalling {
	s := &stalling{begins: strings.NewReader(begins), closed: make(chan struct{})}
	s.close = sync.OnceFunc(func() { close(s.closed) })
	return s
}

// Read implements io.Reader.
func (s *stalling) Read(p []byte) (int, error) {
	if n, _ := s.begins.Read(p); n > 0 {
		return n, nil
	}
	<-s.closed
	return 0, io.ErrClosedPipe
}

// Close ends a read that waits.
func (s *stalling) Close() error {
	s.close()
	return nil
}

// stall sends a request whose body never comes whole, of a length or, where that is negative, of none that is said, and tells what it is answered.
func (p *process) stall(c *http.Client, contentType string, length int64, told chan<- answer) {
	p.h.t.Helper()
	req := request(p.h.t, http.MethodPost, "https://acme."+domain+"/a3os.iam.v1.SetupService/RedeemSetupCode", "")
	req.Header.Set("Content-Type", contentType)
	req.Body, req.ContentLength = newStalling("{"), length
	go func() {
		res, err := c.Do(req)
		if err != nil {
			told <- answer{body: err.Error(), Response: &http.Response{}}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			body = []byte(err.Error())
		}
		told <- answer{Response: res, body: string(body)}
	}()
}

// waiting has a service whose requests wait for their bodies, and tells of each that reaches it.
func waiting(reached chan<- struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			reached <- struct{}{}
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprint(w, n)
	})
}

// Who sends the beginning of a request and no more is told after a while, and holds a place that somebody else needs for no longer than a moment:
// the whole of a service's places can't be had for a few connections that say nothing.
func TestClientsThatSendNothingKeepNobodyOut(t *testing.T) {
	const places = 8
	for _, c := range []struct {
		http1       bool
		contentType string
		length      int64
		status      int
	}{
		{true, "application/json", 10, http.StatusRequestTimeout},
		{true, "application/json", -1, http.StatusRequestTimeout},
		{true, "text/plain", 1 << 20, http.StatusRequestTimeout},
		{false, "application/json", 10, http.StatusRequestTimeout},
		{false, "application/json", -1, http.StatusRequestTimeout},
		{false, "application/proto", 1 << 20, http.StatusRequestTimeout},
		// Those that say that they are streams may be silent, unless somebody needs the place: what gRPC's refusals are is in their trailers.
		{false, "application/grpc", -1, http.StatusOK},
		{true, "application/connect+json", -1, http.StatusOK},
	} {
		t.Run(fmt.Sprintf("HTTP/1 %t, %s of length %d", c.http1, c.contentType, c.length), func(t *testing.T) {
			h := newHarness(t)
			acme := h.tenant("acme")
			reached := make(chan struct{}, 64)
			acme.serve("iam", waiting(reached), "/")
			h.publish(acme)
			ops := freeAddress(t)
			p := h.start(fmt.Sprintf("A3_MAX_IN_FLIGHT_PER_TENANT=%d", 2*places), "A3_BODY_TIMEOUT=2s", "A3_OPS_LISTEN="+ops)
			p.until("acme", "/", http.StatusOK, "0")
			told := make(chan answer, 64)
			client := p.client(c.http1)
			began := time.Now()
			for range places {
				p.stall(client, c.contentType, c.length, told)
			}
			// Other than the service's own half of the places, nothing of the tenant's is taken.
			<-time.After(500 * time.Millisecond)
			others := p.client(false)
			for range 3 * places {
				if a := do(t, others, request(t, http.MethodPost, "https://acme.a3.test/", "body")); a.StatusCode != http.StatusOK || a.body != "4" {
					t.Fatalf("beside clients that send nothing a request is answered %d %q", a.StatusCode, a.body)
				}
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("they were answered after %s, when the places were free anyway", took)
			}
			if c.status != http.StatusOK {
				for range places {
					a := <-told
					if a.StatusCode != c.status || !strings.Contains(a.body, "did not come whole in time") {
						t.Errorf("a client that sends nothing is answered %d %q", a.StatusCode, a.body)
					}
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("they were told after %s", took)
				}
			} else if a := <-told; a.StatusCode != c.status {
				t.Errorf("a stream whose place was needed is answered %d %q", a.StatusCode, a.body)
			}
			// Whoever looks after the plane sees it.
			if n := figure(scrape(t, ops), "gateway_clients_slow_total", "tenant", acme.id.String()); n < 1 || c.status != http.StatusOK && n != places {
				t.Errorf("%v slow clients are told of, there were %d", n, places)
			}
		})
	}
}

// scrape is all that a process tells at /metrics, from when it listens there on, which may be a moment later than where clients come.
func scrape(t *testing.T, ops string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		c, err := net.Dial("tcp", ops)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return do(t, http.DefaultClient, request(t, http.MethodGet, "http://"+ops+"/metrics", "")).body
}

// figure is the one whose label has a value, of all that a process tells; -1 where it tells none.
func figure(figures, name, label, value string) float64 {
	for line := range strings.Lines(figures) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label+`="`+value+`"`) {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]), 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// An upload may take its time, as long as it moves.
func TestUploadThatIsSlowAndMovesPasses(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", waiting(make(chan struct{}, 64)), "/")
	h.publish(acme)
	p := h.start("A3_BODY_TIMEOUT=400ms")
	p.until("acme", "/", http.StatusOK, "0")
	const part, times = 8 << 10, 12
	for _, http1 := range []bool{true, false} {
		for _, length := range []int64{part * times, -1} {
			t.Run(fmt.Sprintf("HTTP/1 %t, length %d", http1, length), func(t *testing.T) {
				t.Parallel()
				in, out := io.Pipe()
				req := request(t, http.MethodPost, "https://acme.a3.test/", "")
				req.Body, req.ContentLength = in, length
				go func() {
					for range times {
						<-time.After(150 * time.Millisecond)
						if _, err := out.Write(bytes.Repeat([]byte("x"), part)); err != nil {
							return
						}
					}
					_ = out.Close()
				}()
				if a := do(t, p.client(http1), req); a.StatusCode != http.StatusOK || a.body != fmt.Sprint(part*times) {
					t.Errorf("it is answered %d %q", a.StatusCode, a.body)
				}
			})
		}
	}
}

// A stream may be silent for longer than a body may keep the gateway waiting, from either side.
func TestSilentStreamGoesOn(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	const silent = time.Second
	mux := http.NewServeMux()
	mux.Handle("/", rpcHandler())
	mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3 {
			fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
			<-time.After(silent)
		}
	})
	acme.serve("iam", mux, "/")
	h.publish(acme)
	p := h.start("A3_BODY_TIMEOUT=200ms")
	p.until("acme", "/grpc.", http.StatusNotFound, "404 page not found\n")
	var all sync.WaitGroup
	for _, http1 := range []bool{true, false} {
		for _, contentType := range []string{"application/json", "application/connect+json"} {
			all.Go(func() {
				req := request(t, http.MethodPost, "https://acme.a3.test/events", "{}")
				req.Header.Set("Content-Type", contentType)
				if a := do(t, p.client(http1), req); a.body != "012" {
					t.Errorf("HTTP/1 %t, %s: a stream of answers is %q", http1, contentType, a.body)
				}
			})
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(p.grpcTo("acme")).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-time.After(silent)
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatalf("a stream on which nothing was said for a while: %v", err)
		}
	}
	all.Wait()
}

// A client that takes nothing of its answer holds its place only until somebody needs it.
func TestClientsThatTakeNothingKeepNobodyOut(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 16<<10))
		_ = http.NewResponseController(w).Flush()
	}), "/")
	h.publish(acme)
	const places = 8
	ops := freeAddress(t)
	p := h.start(fmt.Sprintf("A3_MAX_IN_FLIGHT_PER_TENANT=%d", 2*places), "A3_OPS_LISTEN="+ops)
	p.until("acme", "/", http.StatusOK, "")
	conn := p.rawHTTP2()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range places {
		block.Reset()
		for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "acme.a3.test"}} {
			if err := enc.WriteField(field); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil { //nolint:gosec // a small number
			t.Fatal(err)
		}
	}
	others, deadline := p.client(false), time.Now().Add(20*time.Second)
	get := func() int { return do(t, others, request(t, http.MethodGet, "https://acme.a3.test/", "")).StatusCode }
	// They hold all places, until they have taken nothing for so long that each of the others has one of them ended.
	ended := func() bool {
		return figure(scrape(t, ops), "gateway_clients_slow_total", "tenant", acme.id.String()) > 0
	}
	for get() != http.StatusTooManyRequests && !ended() {
		if time.Now().After(deadline) {
			t.Fatal("clients that take nothing hold no places, and this tries nothing")
		}
	}
	for get() != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("beside clients that take nothing nobody is answered")
		}
		<-time.After(50 * time.Millisecond)
	}
	for range 3 * places {
		if got := get(); got != http.StatusOK {
			t.Errorf("a request is answered %d", got)
		}
	}
}

// The end of a gateway isn't put off by clients that are slow, and those that move are waited for.
func TestGatewayThatEndsWaitsForNoSlowClient(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	reached := make(chan struct{}, 64)
	acme.serve("iam", waiting(reached), "/")
	h.publish(acme)
	p := h.start("A3_BODY_TIMEOUT=1h", "A3_DRAIN_WITHIN=1h")
	p.until("acme", "/", http.StatusOK, "0")
	told := make(chan answer, 64)
	for _, http1 := range []bool{true, false} {
		p.stall(p.client(http1), "application/json", 10, told)
		p.stall(p.client(http1), "application/json", -1, told)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in, out := io.Pipe()
	req := request(t, http.MethodPost, "https://acme.a3.test/", "").WithContext(ctx)
	req.Body, req.ContentLength = in, -1
	moved := make(chan string, 1)
	go func() {
		res, err := p.client(false).Do(req)
		if err != nil {
			moved <- err.Error()
			return
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		moved <- res.Status + " " + string(body)
	}()
	const part, times = 4 << 10, 40
	go func() {
		for range times {
			<-time.After(100 * time.Millisecond)
			if _, err := out.Write(bytes.Repeat([]byte("x"), part)); err != nil {
				return
			}
		}
		_ = out.Close()
	}()
	for range 3 { // two of unknown length, and the one that moves
		<-reached
	}
	began := time.Now()
	if err := p.stop(); err != nil {
		t.Errorf("the gateway ended with %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it ended after %s", took)
	}
	if got := <-moved; got != fmt.Sprintf("200 OK %d", part*times) {
		t.Errorf("the one that moves is answered %s", got)
	}
	for range 4 {
		if a := <-told; a.StatusCode != http.StatusRequestTimeout {
			t.Errorf("a slow one is answered %d %q", a.StatusCode, a.body)
		}
	}
}
