package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/libs/rpc"
)

// dripping is a body that begins, brings its drops, one after a while each, and ends, or, where it never does, brings nothing any more.
type dripping struct {
	begins, drop, ends string
	every              time.Duration
	times              int
	never              bool
	closed             chan struct{}
	close              func()
}

func newDripping(d dripping) *dripping {
	d.closed = make(chan struct{})
	d.close = sync.OnceFunc(func() { close(d.closed) })
	return &d
}

// Read implements io.Reader.
func (d *dripping) Read(p []byte) (n int, err error) {
	switch {
	case d.begins != "":
		n, d.begins = copy(p, d.begins), ""
	case d.times > 0:
		d.times--
		<-time.After(d.every)
		n = copy(p, d.drop)
	case d.never:
		<-d.closed
		return 0, io.ErrClosedPipe
	case d.ends != "":
		n, d.ends = copy(p, d.ends), ""
	default:
		return 0, io.EOF
	}
	return n, nil
}

// Close ends a read that waits.
func (d *dripping) Close() error {
	d.close()
	return nil
}

// http1 keeps a client from HTTP/2.
func http1(c *http.Client) *http.Client {
	tr := c.Transport.(*http.Transport)
	tr.ForceAttemptHTTP2, tr.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	return c
}

// post sends a call of GetSelf as it stands, and answers its status and what it was answered.
func (w *world) post(c *http.Client, body io.ReadCloser, length int64, headers ...string) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "https://discovery.invalid"+iamv1connect.IdentityServiceGetSelfProcedure, body)
	if err != nil {
		return 0, "", err
	}
	req.ContentLength = length
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, string(all), err
}

// each tries something over HTTP/1.1 and HTTP/2, with a length and without.
func each(t *testing.T, try func(t *testing.T, client func(*http.Client) *http.Client, length func(int64) int64)) {
	t.Helper()
	for name, client := range map[string]func(*http.Client) *http.Client{"HTTP/1.1": http1, "HTTP/2": func(c *http.Client) *http.Client { return c }} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, with a length %t", name, known), func(t *testing.T) {
				try(t, client, func(n int64) int64 {
					if known {
						return n
					}
					return -1
				})
			})
		}
	}
}

// Who begins a call and sends no more is told after a while, and holds a place that somebody else needs for no longer than a moment.
func TestCallersThatSendNothingKeepNobodyOut(t *testing.T) {
	each(t, func(t *testing.T, client func(*http.Client) *http.Client, length func(int64) int64) {
		const share = 2
		w := newWorldOf(t, func(c *rpc.ServerConfig) { c.MaxInFlight, c.UnaryTimeout = 4*share, 2*time.Second })
		began := time.Now()
		var slow sync.WaitGroup
		for range share {
			slow.Go(func() {
				status, text, err := w.post(client(w.client(nil)), newDripping(dripping{begins: "{", never: true}), length(10))
				var told struct{ Code, Message string }
				if err == nil {
					err = json.Unmarshal([]byte(text), &told)
				}
				if err != nil || status != http.StatusGatewayTimeout || told.Code != connect.CodeDeadlineExceeded.String() || !strings.Contains(told.Message, "did not come whole in time") {
					t.Errorf("it is answered %d %q, %v", status, text, err)
				}
			})
		}
		<-time.After(500 * time.Millisecond)
		for range 4 * share {
			if _, err := w.self(nil, ""); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("beside those that send nothing a caller is told %v", err)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("they were answered after %s, when the places were free anyway", took)
		}
		slow.Wait()
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the last was told after %s", took)
		}
	})
}

// A call that takes longer to come than it may take to be answered is answered, as long as it moves, and has all of its time from then on.
func TestCallThatIsSlowAndMovesIsAnswered(t *testing.T) {
	const timeout, drops = time.Second, 30
	drop := strings.Repeat(" ", 256)
	each(t, func(t *testing.T, client func(*http.Client) *http.Client, length func(int64) int64) {
		t.Parallel()
		w := newWorldOf(t, func(c *rpc.ServerConfig) { c.UnaryTimeout = timeout })
		status, text, err := w.post(client(w.client(nil)), newDripping(dripping{begins: "{", drop: drop, every: timeout / 10, times: drops, ends: "}"}),
			length(drops*int64(len(drop))+2), "Authorization", "Bearer "+w.token(w.claims(nil), nil))
		if err != nil || status != http.StatusOK || !strings.Contains(text, w.tenant.String()) {
			t.Errorf("it is answered %d %q, %v", status, text, err)
		}
	})
}

// A stream on which nothing is said for longer than a call may take goes on.
func TestSilentStreamOutlastsACall(t *testing.T) {
	const timeout = 300 * time.Millisecond
	w := newWorldOf(t, func(c *rpc.ServerConfig) { c.UnaryTimeout = timeout })
	req := connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: "run_01arz3ndektsv4rrffq69g5fav"})
	req.Header().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
	for name, c := range map[string]*http.Client{"HTTP/1.1": http1(w.client(nil)), "HTTP/2": w.client(nil)} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := discoveryv1connect.NewRunServiceClient(c, "https://discovery.invalid").WatchRun(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() {
			t.Fatalf("%s: the stream ended with %v", name, stream.Err())
		}
		over := make(chan bool, 1)
		go func() { over <- stream.Receive() }()
		select {
		case <-over:
			t.Errorf("%s: the stream ended with %v", name, stream.Err())
		case <-time.After(6 * timeout):
		}
		cancel()
		_ = stream.Close()
	}
}

// The end of a server isn't put off by callers that are slow.
func TestServerThatEndsWaitsForNoSlowCaller(t *testing.T) {
	w := newWorldOf(t, func(c *rpc.ServerConfig) { c.UnaryTimeout = time.Hour })
	told := make(chan int, 4)
	for _, client := range []*http.Client{http1(w.client(nil)), w.client(nil)} {
		for _, length := range []int64{10, -1} {
			go func() {
				status, _, _ := w.post(client, newDripping(dripping{begins: "{", never: true}), length)
				told <- status
			}()
		}
	}
	<-time.After(300 * time.Millisecond)
	began := time.Now()
	w.stop()
	if err := <-w.stopped; err != nil {
		t.Errorf("it ended with %v", err)
	}
	w.stopped <- nil // for the world's end
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it ended after %s", took)
	}
	for range cap(told) {
		if got := <-told; got != http.StatusGatewayTimeout {
			t.Errorf("a slow caller is answered %d", got)
		}
	}
}
