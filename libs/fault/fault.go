// Package fault is how things go wrong: an error with a kind that callers may act on, a sentence that is safe to show, and a cause
// that only the log sees. It promises that an error which was never given a kind reaches no caller but as "internal", and that
// errors.Is finds a declared error again on the other side of an RPC.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what a caller can do about an error. The kinds are the codes of gRPC, by the meaning that AIP-193 gives them.
type Kind int

// Kinds, in the order of their gRPC codes.
const (
	Internal Kind = iota
	Canceled
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	Unimplemented
	Unavailable
	Unauthenticated
)

// Error is an error that callers may see.
type Error struct {
	// Kind is what can be done about it.
	Kind Kind
	// Message is a sentence that is safe to show, with the next step in it.
	Message string
	// Reason names a declared error, upper snake case; empty for the rest.
	Reason string
	// RetryAfter is when it is worth trying again; zero where nobody knows.
	RetryAfter time.Duration
	// Details are what a program may read beside the reason, by name; none where there is no reason.
	Details map[string]string
	// Cause is for the log.
	Cause error
}

// New makes an error of a kind.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Declare makes an error that errors.Is finds again across RPC, by its reason.
func Declare(kind Kind, reason, message string) *Error {
	return &Error{Kind: kind, Reason: reason, Message: message}
}

// ErrUnchanged is a call that could not be done now and of which it is known that it was not.
var ErrUnchanged = Declare(Unavailable, "UNCHANGED", "nothing was changed; try again shortly")

// Wrap makes an error of a kind from a cause that callers do not see.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// With is a declared error with a message of this occasion.
func (e *Error) With(format string, args ...any) *Error {
	return &Error{Kind: e.Kind, Reason: e.Reason, Message: fmt.Sprintf(format, args...)}
}

// Later is a declared error with when to try again.
func (e *Error) Later(after time.Duration) *Error {
	return &Error{Kind: e.Kind, Reason: e.Reason, Message: e.Message, RetryAfter: after}
}

// Error is the safe sentence, and the cause for the log.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is holds for errors declared with the same reason.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Reason != "" && t.Reason == e.Reason
}

// KindOf is the kind of err, Internal where it has none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
