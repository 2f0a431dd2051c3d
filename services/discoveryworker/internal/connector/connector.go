// Package connector is the interface that every connector stands behind: it reads a system in slices, says what it found, what it
// has read completely and what it could not read. A connector knows nothing of tenants, workspaces, queues or databases; it is
// given a source and a sink. It promises to end a slice soon after the sink says that it is due, and never to declare a scope
// complete that it has not read to the end.
package connector

import (
	"context"
	"io"
	"net"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// Source is what a connector reads.
type Source struct {
	// Name of the integration, for words.
	Name string
	// Settings of the connector's own kind.
	Settings *integrationsv1.Settings
	// Secret fetches the system's credential when it is needed; an empty secret is no error. A connector that is refused with it
	// calls again once: it may have been rotated.
	Secret func(ctx context.Context) (string, error)
	// Content opens the uploaded content; it is an error when there is none.
	Content func(ctx context.Context) (io.ReadCloser, error)
	// Dial reaches out to a system; nil is a plain net.Dialer. The worker's own refuses addresses that no integration has business at.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sink takes what a connector finds.
type Sink interface {
	// Emit hands over records. It blocks while the receiver is busy and keeps nothing of the slice after it returns. An error ends
	// the read.
	Emit(ctx context.Context, records ...*discoveryv1.Record) error
	// Complete declares that everything of a scope has been emitted, in this slice or an earlier one.
	Complete(scope string)
	// Gap names something that could not be read. A scope with a gap is never complete.
	Gap(scope, reason string)
	// Progress says in words what is being read.
	Progress(words string)
	// Due says that the slice should end: the connector returns a checkpoint as soon as it can.
	Due() bool
}

// Connector reads one kind of system. Its methods are safe for concurrent use.
type Connector interface {
	// Read goes on from checkpoint (nil at the start) and returns where the next slice goes on, or nil when everything was read.
	// Killed anywhere and called again with the same checkpoint, it emits the same. Errors are sentences about the system without
	// secrets; one wrapped in Permanent is not tried again.
	Read(ctx context.Context, source Source, checkpoint []byte, sink Sink) (next []byte, err error)
	// Test reaches the system once, with the stored secret.
	Test(ctx context.Context, source Source) (TestResult, error)
}

// TestResult is what a system said to Test.
type TestResult struct {
	// OK says that it answered and what is needed can be read.
	OK bool
	// Message is one sentence without secrets.
	Message string
	// Missing names what can't be read.
	Missing []string
}

// PermanentError is one that trying again won't mend: a wrong password, a malformed upload.
type PermanentError struct{ Err error }

// Permanent marks err as one that trying again won't mend.
func Permanent(err error) error { return &PermanentError{Err: err} }

// Error is the cause's sentence.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *PermanentError) Unwrap() error { return e.Err }
