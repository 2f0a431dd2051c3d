package fault

import (
	"context"
	"errors"
	"io"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// domain marks error details that this house wrote.
const domain = "a3os.app"

// opaque is all that a caller learns of an error without a kind.
const opaque = "something went wrong on our side; the request id leads to the cause"

// What a caller learns when time ran out.
const (
	gaveUp  = "the caller gave up"
	tooLate = "the request took longer than its deadline allows"
)

// code is the one mapping from kinds to codes; gRPC's and Connect's are the same numbers.
func (k Kind) code() connect.Code {
	switch k {
	case Canceled:
		return connect.CodeCanceled
	case InvalidArgument:
		return connect.CodeInvalidArgument
	case DeadlineExceeded:
		return connect.CodeDeadlineExceeded
	case NotFound:
		return connect.CodeNotFound
	case AlreadyExists:
		return connect.CodeAlreadyExists
	case PermissionDenied:
		return connect.CodePermissionDenied
	case ResourceExhausted:
		return connect.CodeResourceExhausted
	case FailedPrecondition:
		return connect.CodeFailedPrecondition
	case Aborted:
		return connect.CodeAborted
	case Unimplemented:
		return connect.CodeUnimplemented
	case Unavailable:
		return connect.CodeUnavailable
	case Unauthenticated:
		return connect.CodeUnauthenticated
	case Internal:
		return connect.CodeInternal
	}
	return connect.CodeInternal
}

// String is the code's name, as `not_found`.
func (k Kind) String() string { return k.code().String() }

// classify gives every error a kind: its own, or that of the context's end, or Internal with an opaque message.
func classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		return fromConnect(ce)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &Error{Kind: Canceled, Message: gaveUp, Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: DeadlineExceeded, Message: tooLate, Cause: err}
	}
	return &Error{Kind: Internal, Message: opaque, Cause: err}
}

// Connect is err as a caller may see it.
func Connect(err error) *connect.Error {
	e := classify(err)
	ce := connect.NewError(e.Kind.code(), errors.New(e.Message))
	for _, m := range e.details() {
		if d, derr := connect.NewErrorDetail(m); derr == nil {
			ce.AddDetail(d)
		}
	}
	return ce
}

// Status is err as a grpc-go caller may see it.
func Status(err error) error {
	e := classify(err)
	s := status.New(codes.Code(e.Kind.code()), e.Message)
	for _, m := range e.details() {
		if d, derr := s.WithDetails(protoadapt.MessageV1Of(m)); derr == nil {
			s = d
		}
	}
	return s.Err()
}

// details are what goes along for programs (google/rpc/error_details.proto).
func (e *Error) details() []proto.Message {
	var out []proto.Message
	if e.Reason != "" {
		out = append(out, &errdetails.ErrorInfo{Reason: e.Reason, Domain: domain, Metadata: e.Details})
	}
	if e.RetryAfter > 0 {
		out = append(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return out
}

// learn takes from a detail what was put there.
func (e *Error) learn(detail any) {
	switch d := detail.(type) {
	case *errdetails.ErrorInfo:
		if d.GetDomain() == domain {
			e.Reason, e.Details = d.GetReason(), d.GetMetadata()
		}
	case *errdetails.RetryInfo:
		e.RetryAfter = d.GetRetryDelay().AsDuration()
	}
}

// FromRPC is the error of a call to another service, with its kind and reason; nil stays nil.
func FromRPC(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		return fromConnect(ce)
	}
	var answered interface{ GRPCStatus() *status.Status }
	if errors.As(err, &answered) && answered.GRPCStatus().Code() != codes.Unknown {
		return fromStatus(answered.GRPCStatus(), err)
	}
	return err
}

func fromStatus(s *status.Status, cause error) *Error {
	e := &Error{Kind: kindOf(connect.Code(s.Code())), Message: s.Message(), Cause: cause}
	for _, d := range s.Details() {
		e.learn(d)
	}
	// grpc-go does not tell what a server said from what its own transport did.
	if e.Reason == "" {
		e.Message = transportSafe(e.Kind, e.Message)
	}
	return e
}

// transportSafe is the message of an error that the transport may have written, with addresses and paths in it.
func transportSafe(k Kind, message string) string {
	switch k { //nolint:exhaustive // a transport writes no other kinds
	case Internal:
		return opaque
	case Unavailable:
		return "a service that this call needs can't be reached; try again shortly"
	case Canceled:
		return gaveUp
	case DeadlineExceeded:
		return tooLate
	}
	return message
}

func fromConnect(ce *connect.Error) *Error {
	e := &Error{Kind: kindOf(ce.Code()), Message: ce.Message(), Cause: ce}
	if broke(ce) {
		e.Kind = Unavailable
	}
	if e.Kind == Internal || !connect.IsWireError(ce) {
		e.Message = transportSafe(e.Kind, e.Message)
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		e.learn(v)
	}
	return e
}

// broke says whether a connection ended in the middle of an answer. Connect calls that unknown where it was closed and canceled where
// it was reset; for who called it is a service that is gone.
func broke(ce *connect.Error) bool {
	told := ce.Code() == connect.CodeUnknown || ce.Code() == connect.CodeInternal || ce.Code() == connect.CodeCanceled
	return told && !connect.IsWireError(ce) &&
		(errors.Is(ce, io.ErrUnexpectedEOF) || errors.Is(ce, syscall.ECONNRESET) || errors.Is(ce, syscall.EPIPE))
}

func kindOf(c connect.Code) Kind {
	for k := Internal; k <= Unauthenticated; k++ {
		if k.code() == c {
			return k
		}
	}
	return Internal
}
