// Package record puts what happened on the record: an event inserted in the deed's own transaction, so that one does not exist
// without the other. It promises that who, where from and in which workspace come from the call's scope and not from the caller's
// words, and that secrets marked in the proto don't get in. It relies on `audit`, which alone drains the inbox and seals.
package record

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/internal/deedctx"
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

// Append inserts the event into the inbox, in the deed's transaction: at once, or in a pg.Deed with the last statement before its
// commit. When it fails the deed must fail.
func Append(ctx context.Context, tx pgx.Tx, e Event) error {
	s, err := scope.From(ctx)
	if err != nil {
		return err
	}
	return Insert(ctx, tx, Build(ctx, s, e))
}

// AppendUnknown inserts an event about a caller that could not be verified, or about the service's own work: it has no scope.
func AppendUnknown(ctx context.Context, tx pgx.Tx, actor string, e Event) error {
	return Insert(ctx, tx, Build(ctx, scope.Scope{Principal: scope.Principal(actor)}, e))
}

// Count is an event about callers that could not be verified: how many came from one source in a minute.
func Count(action, source string, n int) *auditv1.Event {
	return Counted(&auditv1.Event{
		Id: id.NewEvent().String(), Action: action, Actor: "unknown", SourceAddress: source, Outcome: auditv1.Outcome_OUTCOME_DENIED}, n)
}

// Counted is an event that stands for n like it.
func Counted(e *auditv1.Event, n int) *auditv1.Event {
	e.After = &structpb.Struct{Fields: map[string]*structpb.Value{"count": structpb.NewNumberValue(float64(n))}}
	return e
}

// Build makes the event that Append would insert, for a producer that inserts it later.
func Build(ctx context.Context, s scope.Scope, e Event) *auditv1.Event {
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
		TraceId:       traceID(ctx),
		Before:        describe(e.Before),
		After:         describe(e.After),
		TransferId:    t.String(),
	}
}

const (
	// mostEncoded is the longest event that the inbox takes, in bytes: with what the database notes beside it, it still fits an entry
	// of C2SP tlog-tiles.
	mostEncoded = 65000
	// mostDescribed bounds what an event says of a thing before, and of it after, in bytes as JSON and as encoded.
	mostDescribed = 28 << 10
)

// describe is a message as a Struct, without its secrets. What is too large for the record is named by its size alone.
func describe(m proto.Message) *structpb.Struct {
	if m == nil {
		return nil
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(redact.Clear(m))
	if err != nil {
		return nil
	}
	if len(raw) > mostDescribed {
		return omitted(len(raw))
	}
	s := new(structpb.Struct)
	if err := protojson.Unmarshal(raw, s); err != nil {
		return nil
	}
	if n := proto.Size(s); n > mostDescribed {
		return omitted(n)
	}
	return s
}

func omitted(bytes int) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"omitted_bytes": structpb.NewNumberValue(float64(bytes))}}
}

// Insert inserts events that were built before, in one round trip; in a deed, with what else it writes at its end.
func Insert(ctx context.Context, tx pgx.Tx, events ...*auditv1.Event) error {
	ids, bodies := make([]id.Event, len(events)), make([][]byte, len(events))
	for i, e := range events {
		var err error
		if bodies[i], err = (proto.MarshalOptions{Deterministic: true}).Marshal(e); err != nil {
			return fmt.Errorf("encode event %s: %w", e.GetAction(), err)
		}
		if n := len(bodies[i]); n > mostEncoded {
			return fmt.Errorf("event %s has %d bytes, the record takes %d: shorten its reason or its target", e.GetAction(), n, mostEncoded)
		}
		if ids[i], err = id.ParseEvent(e.GetId()); err != nil {
			return err
		}
	}
	if pending := deedctx.From(ctx, tx); pending != nil {
		for i := range ids {
			pending.Batch.Queue(insert, ids[i], bodies[i])
		}
		return nil
	}
	if len(events) == 1 {
		if _, err := tx.Exec(ctx, insert, ids[0], bodies[0]); err != nil {
			return fmt.Errorf("put %s on the record: %w", events[0].GetAction(), err)
		}
		return nil
	}
	uuids := make([][16]byte, len(ids))
	for i := range ids {
		uuids[i] = ids[i].Bytes()
	}
	if _, err := tx.Exec(ctx, "INSERT INTO audit.inbox (id, body) SELECT * FROM unnest($1::uuid[], $2::bytea[])", uuids, bodies); err != nil {
		return fmt.Errorf("put %d events on the record: %w", len(events), err)
	}
	return nil
}

const insert = "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)"

func traceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}
