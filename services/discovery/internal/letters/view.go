package letters

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/services/discovery/internal/store"
)

// words are an enum's values as the table has them: `DEAD_LETTER_CAUSE_GIVEN_UP` is `given_up`.
type words struct{ prefix string }

var (
	causes = words{"DEAD_LETTER_CAUSE_"}
	states = words{"DEAD_LETTER_STATE_"}
)

func (w words) word(v interface{ String() string }) string {
	return strings.ToLower(strings.TrimPrefix(v.String(), w.prefix))
}

// number is the value that a word means; 0 where this release knows none.
func (w words) number(values protoreflect.EnumValueDescriptors, word string) protoreflect.EnumNumber {
	if v := values.ByName(protoreflect.Name(w.prefix + strings.ToUpper(word))); v != nil {
		return v.Number()
	}
	return 0
}

// view is a letter as it is shown. What the message says is read from it anew: with the keys of now.
func (l *Letters) view(row store.DeadLetter) *discoveryv1.DeadLetter {
	sum := sha256.Sum256(append(append([]byte{}, row.Envelope...), row.Payload...))
	v := &discoveryv1.DeadLetter{
		Id:     row.PublicID.String(),
		State:  discoveryv1.DeadLetterState(states.number(discoveryv1.DeadLetterState(0).Descriptor().Values(), row.State)),
		Cause:  discoveryv1.DeadLetterCause(causes.number(discoveryv1.DeadLetterCause(0).Descriptor().Values(), row.Cause)),
		Reason: row.Reason, JobId: row.JobID, Attempt: uint32(row.Attempt), //nolint:gosec // was one before it was stored
		CreatedAt: timestamppb.New(row.CreatedAt), EnvelopeBytes: int64(len(row.Envelope)), PayloadBytes: int64(len(row.Payload)),
		Digest: hex.EncodeToString(sum[:]), SettledBy: row.SettledBy, SettledReason: row.SettledReason,
	}
	if row.SettledAt != nil {
		v.SettledAt = timestamppb.New(*row.SettledAt)
	}
	verified, err := l.cfg.Verifier.Verify(row.Envelope, row.Payload)
	if err == nil {
		v.Believed, v.Message = true, believed(verified)
	} else if refusal, ok := errors.AsType[*queue.Refusal](err); ok && refusal.Envelope != nil {
		v.Message = said(refusal.Envelope)
	}
	return v
}

func believed(v queue.Verified) *discoveryv1.DeadLetterMessage {
	m := &discoveryv1.DeadLetterMessage{Id: v.ID().String(), Kind: v.Kind(), WorkspaceId: v.Workspace().String(), Issuer: v.Issuer(),
		OnBehalfOf: v.OnBehalfOf(), IssuedAt: timestamppb.New(v.IssuedAt()), ExpiresAt: timestamppb.New(v.ExpiresAt())}
	var p queuev1.SlicePayload
	if v.Decode(&p) == nil {
		m.RunId, m.Slice = p.GetRunId(), p.GetSlice()
	}
	return m
}

// said is what a message that our key signed says of itself, though it is not believed.
func said(e *queuev1.Envelope) *discoveryv1.DeadLetterMessage {
	return &discoveryv1.DeadLetterMessage{Id: e.GetId(), Kind: e.GetKind(), WorkspaceId: e.GetWorkspaceId(), Issuer: e.GetIssuer(),
		OnBehalfOf: e.GetOnBehalfOf(), IssuedAt: instant(e.GetIssuedAt()), ExpiresAt: instant(e.GetExpiresAt())}
}

// instant leaves out a time that is none: no letter with one could be written as JSON.
func instant(t *timestamppb.Timestamp) *timestamppb.Timestamp {
	if t.CheckValid() != nil {
		return nil
	}
	return t
}

// workspaceOf is the workspace that a good signature names, of this tenant or not: an event is shown where it happened.
func workspaceOf(v *discoveryv1.DeadLetter) id.Workspace {
	if !v.GetBelieved() {
		return id.Workspace{}
	}
	w, err := id.ParseWorkspace(v.GetMessage().GetWorkspaceId())
	if err != nil {
		return id.Workspace{}
	}
	return w
}
