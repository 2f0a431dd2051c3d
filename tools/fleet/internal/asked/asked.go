// Package asked says of a call of the registry that came to nothing whom it was made to, and what to look at then. It changes nothing of the call,
// nor of what kind of error it ended with.
package asked

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"a3os.app/libs/fault"
)

// Runbook is where it is said what to do about a registry that does not answer.
const Runbook = "docs/operations.md#the-registry-is-away"

// Named has unary calls over a connection to the registry fail with a sentence that names it, where it did not answer, or can't for its database.
func Named() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return named(call(ctx, method, req, reply, conn, opts...), strings.TrimPrefix(conn.Target(), "passthrough:///"))
	})
}

// databases is how the registry's own sentences about its database begin; no transport's does.
const databases = "the database "

func named(err error, address string) error {
	e, is := errors.AsType[*fault.Error](fault.FromRPC(err))
	if !is || e.Reason != "" { // what programs go by is the registry's own word
		return err
	}
	s := status.Convert(err)
	var said string
	switch {
	case e.Kind == fault.Unavailable && strings.HasPrefix(s.Message(), databases):
		said = fmt.Sprintf("the registry at %s has its database, plane/postgres, not to hand (%s)", address, s.Message())
	case e.Kind == fault.Unavailable:
		said = "the registry does not answer at " + address
	case e.Kind == fault.DeadlineExceeded:
		said = fmt.Sprintf("the registry did not answer in time at %s, for itself or its database, plane/postgres", address)
	default:
		return err
	}
	told := *e
	told.Message, told.Cause = said+": fleet plane status says how they are, "+Runbook+" what to do", err
	return &told
}
