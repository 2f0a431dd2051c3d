package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"a3os.app/libs/fault"
)

const canary = "c4nary: dial tcp 10.1.2.3:5432"

// Each kind, and the one code that it is on either wire.
var kinds = map[fault.Kind]codes.Code{
	fault.Internal: codes.Internal, fault.Canceled: codes.Canceled, fault.InvalidArgument: codes.InvalidArgument,
	fault.DeadlineExceeded: codes.DeadlineExceeded, fault.NotFound: codes.NotFound, fault.AlreadyExists: codes.AlreadyExists,
	fault.PermissionDenied: codes.PermissionDenied, fault.ResourceExhausted: codes.ResourceExhausted,
	fault.FailedPrecondition: codes.FailedPrecondition, fault.Aborted: codes.Aborted, fault.Unimplemented: codes.Unimplemented,
	fault.Unavailable: codes.Unavailable, fault.Unauthenticated: codes.Unauthenticated,
}

// over sends an error through a real Connect server and answers what a client finds.
func over(t *testing.T, err error, options ...connect.ClientOption) error {
	t.Helper()
	const procedure = "/x.v1.Service/Do"
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure, func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
		return nil, fault.Connect(err)
	}))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](server.Client(), server.URL+procedure, options...)
	_, got := client.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	return got
}

func TestEachKindIsOneCodeOnEveryWire(t *testing.T) {
	if last := fault.Kind(len(kinds)); last.String() != "internal" || (last-1).String() != "unauthenticated" {
		t.Fatalf("there are kinds that this table lacks: after %s comes %s", last-1, last)
	}
	for kind, code := range kinds {
		err := fault.New(kind, "no such thing")
		if got := fault.Connect(err).Code(); got != connect.Code(code) {
			t.Errorf("%s is %s in Connect, want %s", kind, got, code)
		}
		if got := status.Code(fault.Status(err)); got != code {
			t.Errorf("%s is %s in gRPC, want %s", kind, got, code)
		}
		if got := fault.KindOf(fault.FromRPC(fault.Connect(err))); got != kind {
			t.Errorf("%s comes back from Connect as %s", kind, got)
		}
		if got := fault.KindOf(fault.FromRPC(fault.Status(err))); got != kind {
			t.Errorf("%s comes back from gRPC as %s", kind, got)
		}
		if kind.String() != connect.Code(code).String() {
			t.Errorf("%s is written as %s", code, kind)
		}
	}
	for _, unknown := range []fault.Kind{-1, 99} {
		if got := fault.Connect(fault.New(unknown, "x")).Code(); got != connect.CodeInternal {
			t.Errorf("kind %d is %s", unknown, got)
		}
	}
}

func TestErrorWithoutAKindSaysNothing(t *testing.T) {
	plain := errors.New(canary)
	for name, err := range map[string]error{
		"plain":               plain,
		"wrapped":             fmt.Errorf("read: %w", plain),
		"joined":              errors.Join(plain, io.EOF),
		"of grpc":             status.Error(codes.NotFound, canary),
		"of connect, unknown": connect.NewError(connect.CodeUnknown, plain),
		"of connect, data":    connect.NewError(connect.CodeDataLoss, plain),
		"of connect, inside":  connect.NewError(connect.CodeInternal, plain),
		"cause of a kind":     fault.Wrap(fault.NotFound, plain, "no such thing"),
		"called, unknown":     fault.FromRPC(status.Error(codes.Unknown, canary)),
		"called, internal":    fault.FromRPC(status.Error(codes.Internal, canary)),
		"called, data loss":   fault.FromRPC(connect.NewError(connect.CodeDataLoss, plain)),
		// What a client of ours finds where nobody listens, or the peer is too slow.
		"transport, connect":  fault.FromRPC(connect.NewError(connect.CodeUnavailable, plain)),
		"transport, as it is": connect.NewError(connect.CodeUnavailable, plain),
		"transport, deadline": connect.NewError(connect.CodeDeadlineExceeded, plain),
		"transport, grpc":     fault.FromRPC(status.Error(codes.Unavailable, canary)),
		"wrapped status":      fault.FromRPC(fmt.Errorf("%s: %w", canary, status.Error(codes.NotFound, "no such thing"))),
	} {
		ce := fault.Connect(err)
		if strings.Contains(ce.Error(), "c4nary") || len(ce.Details()) > 0 || ce.Message() == "" {
			t.Errorf("%s: Connect callers see %v", name, ce)
		}
		if s := fault.Status(err).Error(); strings.Contains(s, "c4nary") {
			t.Errorf("%s: gRPC callers see %s", name, s)
		}
		for wire, option := range map[string][]connect.ClientOption{"Connect": nil, "JSON": {connect.WithProtoJSON()}, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
			if got := over(t, err, option...); got == nil || strings.Contains(got.Error(), "c4nary") {
				t.Errorf("%s over %s: %v", name, wire, got)
			}
		}
		// Nothing is lost for the log.
		if name != "wrapped status" && !strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%s: the log sees %v", name, err)
		}
	}
	for _, err := range []error{plain, fmt.Errorf("x: %w", plain)} {
		if fault.Connect(err).Code() != connect.CodeInternal || status.Code(fault.Status(err)) != codes.Internal {
			t.Errorf("%v is %v", err, fault.Connect(err))
		}
	}
}

func TestEndOfAContextIsTold(t *testing.T) {
	for err, want := range map[error]connect.Code{
		context.Canceled:         connect.CodeCanceled,
		context.DeadlineExceeded: connect.CodeDeadlineExceeded,
		fmt.Errorf("query: %w", context.DeadlineExceeded):    connect.CodeDeadlineExceeded,
		errors.Join(context.Canceled, errors.New(canary)):    connect.CodeCanceled,
		errors.Join(errors.New(canary), context.Canceled):    connect.CodeCanceled,
		fault.Wrap(fault.NotFound, context.Canceled, "gone"): connect.CodeNotFound,
	} {
		ce := fault.Connect(err)
		if ce.Code() != want || strings.Contains(ce.Message(), "c4nary") {
			t.Errorf("%v is told as %v, want %s", err, ce, want)
		}
		if got := status.Code(fault.Status(err)); got != codes.Code(want) {
			t.Errorf("%v is %s in gRPC, want %s", err, got, want)
		}
	}
}

func TestKindIsFoundAmongJoinedAndWrappedErrors(t *testing.T) {
	declared := fault.Declare(fault.FailedPrecondition, "OWNER", "transfer first")
	for name, err := range map[string]error{
		"joined first":  errors.Join(declared, errors.New(canary)),
		"joined last":   errors.Join(errors.New(canary), declared),
		"wrapped":       fmt.Errorf("deactivate: %w", declared),
		"in a cause":    fmt.Errorf("a: %w", errors.Join(errors.New(canary), fmt.Errorf("b: %w", declared))),
		"beside an end": errors.Join(context.Canceled, declared),
	} {
		ce := fault.Connect(err)
		if ce.Code() != connect.CodeFailedPrecondition || ce.Message() != "transfer first" || fault.KindOf(err) != fault.FailedPrecondition || !errors.Is(err, declared) {
			t.Errorf("%s: %v", name, ce)
		}
	}
	if fault.KindOf(errors.New("x")) != fault.Internal || fault.KindOf(nil) != fault.Internal {
		t.Error("an error without a kind has one")
	}
}

func TestDeclaredErrorIsFoundAgainOverRPC(t *testing.T) {
	owner, other := fault.Declare(fault.FailedPrecondition, "OWNER", "transfer first"), fault.Declare(fault.FailedPrecondition, "OTHER", "transfer first")
	said := owner.With("transfer %d workspaces first", 3)
	said.Cause = errors.New(canary)
	for wire, option := range map[string][]connect.ClientOption{"Connect": nil, "JSON": {connect.WithProtoJSON()}, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
		got := fault.FromRPC(over(t, fmt.Errorf("deactivate: %w", said), option...))
		if !errors.Is(got, owner) || errors.Is(got, other) || fault.KindOf(got) != fault.FailedPrecondition {
			t.Errorf("over %s: %v", wire, got)
		}
		again := fault.Connect(got) // the service between passes it on
		if again.Message() != "transfer 3 workspaces first" || len(again.Details()) != 1 || strings.Contains(again.Error(), "c4nary") {
			t.Errorf("passed on from %s: %v with %d details", wire, again, len(again.Details()))
		}
		if twice := fault.FromRPC(got); twice != got { //nolint:errorlint // the very same is meant
			t.Errorf("asked twice, it changed to %v", twice)
		}
	}
	if got := fault.FromRPC(fault.Status(said)); !errors.Is(got, owner) || errors.Is(got, other) {
		t.Errorf("over grpc-go: %v", got)
	}
}

func TestReasonOfAnotherHouseIsNotOurs(t *testing.T) {
	ours := fault.Declare(fault.NotFound, "OWNER", "x")
	info := &errdetails.ErrorInfo{Reason: "OWNER", Domain: "googleapis.com"}
	ce := connect.NewError(connect.CodeNotFound, errors.New("x"))
	d, err := connect.NewErrorDetail(info)
	if err != nil {
		t.Fatal(err)
	}
	ce.AddDetail(d)
	st, err := status.New(codes.NotFound, "x").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{fault.FromRPC(ce), fault.FromRPC(st.Err())} {
		if errors.Is(err, ours) || fault.KindOf(err) != fault.NotFound {
			t.Errorf("error is %v", err)
		}
	}
}

func TestErrorsWithoutAReasonAreNotEachOther(t *testing.T) {
	a, b := fault.New(fault.NotFound, "no such thing"), fault.New(fault.NotFound, "no such thing")
	if errors.Is(a, b) {
		t.Error("two errors that nobody declared are one")
	}
	if fault.FromRPC(nil) != nil {
		t.Error("no error came back as one")
	}
	if plain := io.ErrUnexpectedEOF; fault.FromRPC(plain) != plain { //nolint:errorlint // the very same is meant
		t.Error("an error of no RPC was changed")
	}
}

// A service that ends while it answers leaves its caller with half an answer, which is to try again and no fault of ours to look for.
func TestAnswerThatBreaksOffIsUnavailable(t *testing.T) {
	for name, end := range map[string]func(*testing.T, net.Conn){
		"closed": func(t *testing.T, c net.Conn) { quiet(t, c.Close()) },
		"reset": func(t *testing.T, c net.Conn) {
			tcp, ok := c.(*net.TCPConn)
			if !ok {
				t.Errorf("%T is no TCP connection", c)
				return
			}
			quiet(t, tcp.SetLinger(0))
			quiet(t, tcp.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				quiet(t, err)
				_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 100\r\n\r\nhalf")
				quiet(t, err)
				end(t, c)
			}))
			t.Cleanup(server.Close)
			client := connect.NewClient[emptypb.Empty, emptypb.Empty](server.Client(), server.URL+"/x.v1.Service/Do")
			_, err := client.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
			if got := fault.FromRPC(err); fault.KindOf(got) != fault.Unavailable {
				t.Errorf("half an answer is %s: %v", fault.KindOf(got), got)
			}
			if m := fault.Connect(err).Message(); strings.Contains(m, "EOF") || strings.Contains(m, "127.0.0.1") {
				t.Errorf("half an answer is told as %q", m)
			}
		})
	}
}

func quiet(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
