package gateway_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// rpcHandler serves two standard services by Connect: unary calls, a server stream and a stream both ways.
func rpcHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker("a3os.known")))
	mux.Handle(reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
		connect.NewBidiStreamHandler(reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName, listOne))
	return mux
}

// listOne answers each question with one service.
func listOne(_ context.Context, stream *connect.BidiStream[reflectionpb.ServerReflectionRequest, reflectionpb.ServerReflectionResponse]) error {
	for {
		_, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		list := &reflectionpb.ListServiceResponse{Service: []*reflectionpb.ServiceResponse{{Name: "grpc.health.v1.Health"}}}
		if err := stream.Send(&reflectionpb.ServerReflectionResponse{MessageResponse: &reflectionpb.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list}}); err != nil {
			return err
		}
	}
}

// grpcTo is a grpc-go client of a tenant, through the gateway.
func (p *process) grpcTo(slug string) *grpc.ClientConn {
	p.h.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+slug+"."+domain,
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(p.h.clientRoots, "")),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
		}))
	if err != nil {
		p.h.t.Fatal(err)
	}
	p.h.t.Cleanup(func() { conn.Close() })
	return conn
}

func TestGRPCPassesWithItsTrailersAndStreams(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", rpcHandler(), "/grpc.")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/grpc.", http.StatusNotFound, "404 page not found\n")
	conn := p.grpcTo("acme")

	res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "a3os.known"})
	if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("unary: %v, %v", res, err)
	}
	// The code of an error comes in the trailers.
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("the code came through as %v", err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // one answer for each question, while the stream stays open
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || len(got.GetListServicesResponse().GetService()) != 1 {
			t.Fatalf("stream: %v, %v", got, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if _, err := healthpb.NewHealthClient(p.grpcTo("nobody")).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a host of no tenant: %v", err)
	}
}

func TestConnectAndJSONPass(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", rpcHandler(), "/grpc.")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/grpc.", http.StatusNotFound, "404 page not found\n")
	for _, http1 := range []bool{true, false} {
		req := request(t, "POST", "https://acme.a3.test/grpc.health.v1.Health/Check", `{"service":"a3os.known"}`)
		req.Header.Set("Content-Type", "application/json")
		if a := do(t, p.client(http1), req); a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("HTTP/1 %v: JSON answered %d %q", http1, a.StatusCode, a.body)
		}
	}
}

func TestServiceThatIsAwayIsToldInTheCallersProtocol(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	s := acme.serve("iam", nil, "/")
	h.publish(acme)
	p := h.start("A3_PATIENCE=300ms")
	p.until("acme", "/", http.StatusOK, "")
	_ = s.server.Close()
	_, err := healthpb.NewHealthClient(p.grpcTo("acme")).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("gRPC: %v", err)
	}
	req := request(t, "POST", "https://acme.a3.test/grpc.health.v1.Health/Check", `{}`)
	req.Header.Set("Content-Type", "application/json")
	a := do(t, p.client(false), req)
	if a.StatusCode != http.StatusServiceUnavailable || !bytes.Contains([]byte(a.body), []byte(`"code":"`+connect.CodeUnavailable.String()+`"`)) {
		t.Errorf("JSON: %d %q", a.StatusCode, a.body)
	}
}

func TestBytesFlowBothWaysAtOnce(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("echo", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		sum, buf, control := sha256.New(), make([]byte, 1024), http.NewResponseController(w)
		_ = control.Flush() // the answer begins before the question ends
		for {
			n, err := r.Body.Read(buf)
			sum.Write(buf[:n])
			_, _ = w.Write(buf[:n])
			_ = control.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
	}), "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "")
	in, out := io.Pipe()
	req := request(t, "POST", "https://acme.a3.test/", "")
	req.Body = in
	res, err := p.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sum, piece, back := sha256.New(), make([]byte, 700), make([]byte, 700)
	for range 200 {
		_, _ = rand.Read(piece)
		sum.Write(piece)
		if _, err := out.Write(piece); err != nil {
			t.Fatal(err)
		}
		// It is back before the next is sent: nothing on the way waits for more.
		if _, err := io.ReadFull(res.Body, back); err != nil || !bytes.Equal(piece, back) {
			t.Fatalf("another piece came back: %v", err)
		}
	}
	out.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	if got := res.Trailer.Get("X-Sum"); got != fmt.Sprintf("%x", sum.Sum(nil)) {
		t.Errorf("the trailer is %q", got)
	}
}

func TestLargeBodiesPassInBoundedMemoryAndUnchanged(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("sum", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x", n, sum.Sum(nil))
	}), "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "")
	for _, http1 := range []bool{true, false} {
		for _, size := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 8 << 20} {
			body := make([]byte, size)
			_, _ = rand.Read(body)
			for _, known := range []bool{true, false} {
				req := request(t, "POST", "https://acme.a3.test/", "")
				req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(size)
				if !known {
					req.ContentLength = -1
				}
				if a := do(t, p.client(http1), req); a.body != fmt.Sprintf("%d %x", size, sha256.Sum256(body)) {
					t.Errorf("HTTP/1 %v, %d octets, known length %v: answered %d %s", http1, size, known, a.StatusCode, a.body)
				}
			}
		}
	}
}
