package queue_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

// FuzzSigned tries the decoder behind the signature: whatever the right key signs is believed only where it is of this tenant, valid for
// no longer than any message may be, and bound to its payload; and what is read of it is what protobuf itself reads.
func FuzzSigned(f *testing.F) {
	p := queuetest.NewParties(f, id.NewTenant(), "dev")
	for _, bad := range append(queuetest.BadMessages(f, p), queuetest.Bad{Envelope: p.Message(f).Envelope, Payload: p.Message(f).Payload}) {
		var signed queuev1.SignedEnvelope
		if proto.Unmarshal(bad.Envelope, &signed) == nil {
			f.Add(signed.GetEnvelope(), bad.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, body, payload []byte) {
		v, err := p.Verifier.Verify(queuetest.Seal(t, p.Key, body), payload)
		if err != nil {
			if refusal, ok := errors.AsType[*queue.Refusal](err); !ok || !v.IsZero() || len(refusal.Error()) > 4096 {
				t.Fatalf("refused as %v", err)
			}
			return
		}
		var said queuev1.Envelope
		if err := proto.Unmarshal(body, &said); err != nil {
			t.Fatalf("believed, and protobuf can't read it: %v", err)
		}
		if v.Tenant() != p.Tenant || v.Plane() != "dev" || v.Issuer() != "discovery" || v.ID().String() != said.GetId() || v.Workspace().String() != said.GetWorkspaceId() {
			t.Fatalf("believed as %+v, and says %v", v, &said)
		}
		if left := time.Until(v.ExpiresAt()); left <= 0 || left > queue.MostTTL+time.Minute || v.ExpiresAt().Sub(v.IssuedAt()) > queue.MostTTL {
			t.Fatalf("believed until %s, issued at %s", v.ExpiresAt(), v.IssuedAt())
		}
		into := new(queuev1.SlicePayload)
		if err := v.Decode(into); err == nil && (into.GetTenantId() != p.Tenant.String() || into.GetWorkspaceId() != v.Workspace().String()) {
			t.Fatalf("a body of elsewhere is read: %v", into)
		}
	})
}

// FuzzBounded holds that no bytes make the verifier take much more memory than they have themselves.
func FuzzBounded(f *testing.F) {
	p := queuetest.NewParties(f, id.NewTenant(), "dev")
	for _, bad := range queuetest.BadMessages(f, p) {
		f.Add(bad.Envelope)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		const bound = 1 << 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = p.Verifier.Verify(raw, nil)
		_, _ = p.Verifier.Verify(queuetest.Seal(t, p.Key, raw), nil)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > bound+64*uint64(len(raw)) {
			t.Fatalf("%d bytes made it allocate %d", len(raw), grown)
		}
	})
}
