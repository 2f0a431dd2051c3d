// Package record puts what happened on the record: an event inserted in the deed's own transaction, so that one does not exist
// without the other. It promises that who, where from and in which workspace come from the call's scope and not from the caller's
// words, and that secrets marked in the proto don't get in. It relies on `audit`, which alone drains the inbox and seals.
package record

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/redact"
	"a3os.app/libs/scope"
)

// Event is what a producer says of a deed; the rest comes from the scope and the call.
type Event struct {
	// Action is what was done, as `iam.workspace.owner_transferred`.
	Action string
	// Target is what it was done to.
	Target string
	// Workspace is where, for a deed that reaches into a workspace from a tenant-wide scope; zero means the scope's.
	Workspace id.Workspace
	// Reason is why, where one was demanded.
	Reason string
	// Outcome is how it ended; unspecified means that it succeeded.
	Outcome auditv1.Outcome
	// Before and After are the thing before and after, secrets removed here; nil where there is nothing to say.
	Before, After proto.Message
	// Transfer is the transfer of ownership that the deed rests on; zero means the scope's.
	Transfer id.Transfer
}

// Append inserts the event into the inbox, in the deed's transaction. When it fails the deed must fail.
func Append(ctx context.Context, tx pgx.Tx, e Event) error {
	s, err := scope.From(ctx)
	if err != nil {
		return err
	}
	return insert(ctx, tx, build(ctx, s, e))
}

// AppendUnknown inserts an event about a caller that could not be verified, or about the service's own work: it has no scope.
func AppendUnknown(ctx context.Context, tx pgx.Tx, actor string, e Event) error {
	return insert(ctx, tx, build(ctx, scope.Scope{Principal: scope.Principal(actor)}, e))
}

func build(ctx context.Context, s scope.Scope, e Event) *auditv1.Event {
	call := callctx.From(ctx)
	w := e.Workspace
	if w.IsZero() {
		w = s.Workspace
	}
	t := e.Transfer
	if t.IsZero() {
		t = s.Transfer
	}
	outcome := e.Outcome
	if outcome == auditv1.Outcome_OUTCOME_UNSPECIFIED {
		outcome = auditv1.Outcome_OUTCOME_SUCCEEDED
	}
	return &auditv1.Event{
		Id:            id.NewEvent().String(),
		Action:        e.Action,
		Actor:         string(s.Principal),
		OnBehalfOf:    string(s.OnBehalfOf),
		Target:        e.Target,
		WorkspaceId:   w.String(),
		Reason:        e.Reason,
		Outcome:       outcome,
		SourceAddress: call.SourceAddress,
		RequestId:     call.RequestID,
		TraceId:       call.TraceID,
		Before:        describe(e.Before),
		After:         describe(e.After),
		TransferId:    t.String(),
	}
}

// describe is a message as a Struct, without its secrets.
func describe(m proto.Message) *structpb.Struct {
	if m == nil {
		return nil
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(redact.Clear(m))
	if err != nil {
		return nil
	}
	s := new(structpb.Struct)
	if err := protojson.Unmarshal(raw, s); err != nil {
		return nil
	}
	return s
}

func insert(ctx context.Context, tx pgx.Tx, e *auditv1.Event) error {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.GetAction(), err)
	}
	eid, err := id.ParseEvent(e.GetId())
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body); err != nil {
		return fmt.Errorf("put %s on the record: %w", e.GetAction(), err)
	}
	return nil
}
