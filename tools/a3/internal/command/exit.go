package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/tools/internal/show"
)

// Exit codes that scripts rely on.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitDenied
	exitNotFound
)

// wrongUse is an error of what was asked for, found after the work began.
type wrongUse struct{ error }

func (w wrongUse) Unwrap() error { return w.error }

func usage(err error) error { return wrongUse{err} }

// report tells an error in one sentence and answers its exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if !a.began {
		fmt.Fprintf(a.Err, "a3: %s; see %s --help\n", show.Text(strings.TrimSuffix(err.Error(), ".")), cmd.CommandPath())
		return exitUsage
	}
	if bad, ok := errors.AsType[wrongUpload](err); ok {
		for i, line := range bad.lines() {
			if i == 0 {
				line = "a3: " + line
			}
			fmt.Fprintln(a.Err, show.Text(line))
		}
		return code(err)
	}
	fmt.Fprintf(a.Err, "a3: %s%s\n", show.Text(sentence(err)), trail(err))
	return code(err)
}

func code(err error) int {
	if _, ok := errors.AsType[wrongUse](err); ok {
		return exitUsage
	}
	if cause, ok := inner(err); ok {
		err = cause
	}
	switch fault.KindOf(err) {
	case fault.PermissionDenied, fault.Unauthenticated:
		return exitDenied
	case fault.NotFound:
		return exitNotFound
	case fault.InvalidArgument:
		return exitUsage
	case fault.Internal, fault.Canceled, fault.DeadlineExceeded, fault.AlreadyExists, fault.ResourceExhausted, fault.FailedPrecondition,
		fault.Aborted, fault.Unimplemented, fault.Unavailable:
	}
	return exitFailed
}

// nextSteps are the commands that lead on from an error of the API, by its reason.
var nextSteps = map[string]string{
	"NO_RESOURCE":    "look for it with `a3 access list --search WORD`",
	"NO_PERSON":      "look for an account with `a3 access list --accounts --search WORD`",
	"NO_RUN":         "look at `a3 discovery list`",
	"NO_INTEGRATION": "look at `a3 integration list`",
	"NO_DEAD_LETTER": "look at `a3 dead-letter list`",
}

// sentence is what went wrong, without the layers it came through.
func sentence(err error) string {
	if errors.Is(err, context.Canceled) || fault.KindOf(err) == fault.Canceled {
		return "interrupted"
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err.Error()
	}
	if cause, ok := inner(err); ok {
		return sentence(cause)
	}
	message := f.Message
	if step := nextSteps[f.Reason]; step != "" {
		message += ": " + step
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok && !connect.IsWireError(ce) {
		message = unreached(ce)
	}
	// What is said around the fault stays, its cause goes.
	return strings.Replace(err.Error(), f.Error(), message, 1)
}

// inner is the fault that a client took for one of the network: that no token was to be had for a call.
func inner(err error) (*fault.Error, bool) {
	if ce, ok := errors.AsType[*connect.Error](err); ok && !connect.IsWireError(ce) {
		return errors.AsType[*fault.Error](ce.Unwrap())
	}
	return nil, false
}

// unreached is why no answer came, with what to look at.
func unreached(ce *connect.Error) string {
	err := error(ce)
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("the tenant's certificate is not trusted, give its authority with `a3 login --url URL --ca-cert FILE`: %v", bad.Err)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("the host %s is not known, check the profile's URL (`a3 profile list`)", dns.Name)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Sprintf("nobody answers at %s, is the plane up? (%v)", op.Addr, op.Err)
	}
	if ce.Code() == connect.CodeDeadlineExceeded {
		return "no answer came in time: try again"
	}
	return ce.Message()
}

// trail is how an operator finds the request, where the server said.
func trail(err error) string {
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		if r := ce.Meta().Get(rpcclient.RequestIDHeader); r != "" {
			return " (request " + r + ")"
		}
	}
	return ""
}
