package queuetest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

// Bad is a message that is to be refused.
type Bad struct {
	Name              string
	Envelope, Payload []byte
	// Want is the cause.
	Want error
	// Said tells that the refusal says what the message said of itself: its signature was good.
	Said bool
}

// BadMessages are the ways in which messages must be refused.
func BadMessages(t testing.TB, p Parties) []Bad {
	t.Helper()
	good := p.Message(t)
	other := NewParties(t, p.Tenant, p.Plane)
	otherTenant := withKey(t, p, id.NewTenant(), p.Plane, "discovery")
	otherPlane := withKey(t, p, p.Tenant, "prod", "discovery")
	otherIssuer := withKey(t, p, p.Tenant, p.Plane, "integrations")
	foreign, foreignPlane, foreignIssuer, forged := otherTenant.Message(t), otherPlane.Message(t), otherIssuer.Message(t), other.Message(t)
	expired := p.MessageOf(t, Kind, time.Nanosecond)
	second := p.Message(t)

	bad := []Bad{
		{Name: "empty", Want: queue.ErrMalformed},
		{Name: "noise", Envelope: []byte("\x00\xff noise"), Payload: good.Payload, Want: queue.ErrMalformed},
		{Name: "unknown key", Envelope: forged.Envelope, Payload: forged.Payload, Want: queue.ErrForged},
		{Name: "known key id, foreign signature", Envelope: change(t, good.Envelope, func(s *queuev1.SignedEnvelope) { s.Signature = signatureOf(t, forged.Envelope) }), Payload: good.Payload, Want: queue.ErrForged},
		{Name: "no signature", Envelope: change(t, good.Envelope, func(s *queuev1.SignedEnvelope) { s.Signature = nil }), Payload: good.Payload, Want: queue.ErrForged},
		{Name: "no key id", Envelope: change(t, good.Envelope, func(s *queuev1.SignedEnvelope) { s.KeyId = "" }), Payload: good.Payload, Want: queue.ErrForged},
		{Name: "other envelope under this signature", Envelope: change(t, good.Envelope, func(s *queuev1.SignedEnvelope) { s.Envelope = envelopeOf(t, second.Envelope) }), Payload: second.Payload, Want: queue.ErrForged},
		{Name: "expired", Envelope: expired.Envelope, Payload: expired.Payload, Want: queue.ErrExpired, Said: true},
		{Name: "of another tenant", Envelope: foreign.Envelope, Payload: foreign.Payload, Want: queue.ErrForeign, Said: true},
		{Name: "of another plane", Envelope: foreignPlane.Envelope, Payload: foreignPlane.Payload, Want: queue.ErrForeign, Said: true},
		{Name: "of another issuer", Envelope: foreignIssuer.Envelope, Payload: foreignIssuer.Payload, Want: queue.ErrForeign, Said: true},
		{Name: "payload exchanged", Envelope: good.Envelope, Payload: second.Payload, Want: queue.ErrForged, Said: true},
		{Name: "payload missing", Envelope: good.Envelope, Want: queue.ErrForged, Said: true},
		{Name: "payload longer", Envelope: good.Envelope, Payload: append(bytes.Clone(good.Payload), 0), Want: queue.ErrForged, Said: true},
		{Name: "oversized envelope", Envelope: bytes.Repeat([]byte{0x0a}, queue.MostEnvelope+1), Payload: good.Payload, Want: queue.ErrMalformed},
		{Name: "oversized payload", Envelope: good.Envelope, Payload: make([]byte, queue.MostPayload+1), Want: queue.ErrMalformed},
		{Name: "100 MB claimed", Envelope: protowire.AppendVarint([]byte{0x0a}, 100<<20), Payload: good.Payload, Want: queue.ErrMalformed},
		{Name: "unknown field outside", Envelope: append(bytes.Clone(good.Envelope), protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)...), Payload: good.Payload, Want: queue.ErrMalformed},
		{Name: "nested 10,000 deep", Envelope: nested(queue.MostEnvelope), Payload: good.Payload, Want: queue.ErrMalformed},
	}
	for n := 1; n < len(good.Envelope); n += 37 {
		// Which of the two it is depends on where the cut falls; either way nobody believes it.
		bad = append(bad, Bad{Name: "cut", Envelope: good.Envelope[:n], Payload: good.Payload, Want: nil})
	}
	for bit := 0; bit < 8*len(good.Envelope); bit += 61 {
		flipped := bytes.Clone(good.Envelope)
		flipped[bit/8] ^= 1 << (bit % 8)
		bad = append(bad, Bad{Name: "bit flipped", Envelope: flipped, Payload: good.Payload, Want: nil})
	}
	return append(bad, signedButBad(t, p, good)...)
}

// signedButBad are envelopes that the right key signed and that are still not to be believed.
func signedButBad(t testing.TB, p Parties, good queue.Message) []Bad {
	t.Helper()
	var bad []Bad
	for name, spoil := range map[string]func(*queuev1.Envelope){
		"unknown version":     func(e *queuev1.Envelope) { e.Version = 2 },
		"no version":          func(e *queuev1.Envelope) { e.Version = 0 },
		"no id":               func(e *queuev1.Envelope) { e.Id = "" },
		"id of another kind":  func(e *queuev1.Envelope) { e.Id = e.GetTenantId() },
		"no workspace":        func(e *queuev1.Envelope) { e.WorkspaceId = "" },
		"no tenant":           func(e *queuev1.Envelope) { e.TenantId = "" },
		"no kind":             func(e *queuev1.Envelope) { e.Kind = "" },
		"kind of bad form":    func(e *queuev1.Envelope) { e.Kind = "../x" },
		"no principal":        func(e *queuev1.Envelope) { e.OnBehalfOf = "" },
		"unknown principal":   func(e *queuev1.Envelope) { e.OnBehalfOf = "root" },
		"no issue time":       func(e *queuev1.Envelope) { e.IssuedAt = nil },
		"no expiry":           func(e *queuev1.Envelope) { e.ExpiresAt = nil },
		"expires before":      func(e *queuev1.Envelope) { e.ExpiresAt, e.IssuedAt = e.GetIssuedAt(), e.GetExpiresAt() },
		"valid for a century": func(e *queuev1.Envelope) { e.ExpiresAt.Seconds += 100 * 365 * 24 * 3600 },
		"impossible time":     func(e *queuev1.Envelope) { e.IssuedAt.Nanos = -1 },
		"short digest":        func(e *queuev1.Envelope) { e.PayloadDigest = e.GetPayloadDigest()[:16] },
		"no digest":           func(e *queuev1.Envelope) { e.PayloadDigest = nil },
	} {
		bad = append(bad, Bad{Name: "signed, but " + name, Envelope: resign(t, p, good.Envelope, spoil), Payload: good.Payload, Want: queue.ErrMalformed, Said: true})
	}
	early := resign(t, p, good.Envelope, func(e *queuev1.Envelope) {
		e.IssuedAt.Seconds += 120
		e.ExpiresAt.Seconds += 120
	})
	unknown := resign(t, p, good.Envelope, func(e *queuev1.Envelope) {
		e.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	})
	return append(bad,
		Bad{Name: "signed, but of the future", Envelope: early, Payload: good.Payload, Want: queue.ErrExpired, Said: true},
		Bad{Name: "signed, but with an unknown field", Envelope: unknown, Payload: good.Payload, Want: queue.ErrMalformed},
	)
}

// withKey are parties of elsewhere that hold p's key: what refuses them is not the signature.
func withKey(t testing.TB, p Parties, tenant id.Tenant, plane, issuer string) Parties {
	t.Helper()
	signer, err := queue.NewSigner(queue.SignerConfig{Key: p.Key, Plane: plane, Tenant: tenant, Issuer: issuer})
	must(t, err)
	return Parties{Plane: plane, Tenant: tenant, Key: p.Key, Signer: signer}
}

// resign changes a good envelope and signs it with p's key.
func resign(t testing.TB, p Parties, raw []byte, spoil func(*queuev1.Envelope)) []byte {
	t.Helper()
	var e queuev1.Envelope
	must(t, proto.Unmarshal(envelopeOf(t, raw), &e))
	spoil(&e)
	body, err := proto.Marshal(&e)
	must(t, err)
	return change(t, raw, func(s *queuev1.SignedEnvelope) {
		s.Envelope, s.Signature = body, sign(t, p.Key, body)
	})
}

// sign signs by the letter of DSSE v1, apart from the signer under test.
func sign(t testing.TB, key queue.SigningKey, body []byte) []byte {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString(key.Secret().Reveal())
	must(t, err)
	const payloadType = "application/vnd.a3os.envelope.v1"
	return ed25519.Sign(ed25519.NewKeyFromSeed(seed), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(body), body))
}

func change(t testing.TB, raw []byte, f func(*queuev1.SignedEnvelope)) []byte {
	t.Helper()
	var s queuev1.SignedEnvelope
	must(t, proto.Unmarshal(raw, &s))
	f(&s)
	b, err := proto.Marshal(&s)
	must(t, err)
	return b
}

func envelopeOf(t testing.TB, raw []byte) []byte {
	t.Helper()
	var s queuev1.SignedEnvelope
	must(t, proto.Unmarshal(raw, &s))
	return s.GetEnvelope()
}

func signatureOf(t testing.TB, raw []byte) []byte {
	t.Helper()
	var s queuev1.SignedEnvelope
	must(t, proto.Unmarshal(raw, &s))
	return s.GetSignature()
}

// nested is groups in groups, as many as fit: what a decoder without a bound would recurse into.
func nested(n int) []byte {
	return bytes.Repeat(protowire.AppendTag(nil, 15, protowire.StartGroupType), n)
}

// Row Q30.
func refused(t *testing.T, b *bench) {
	all := BadMessages(t, b.Parties)
	want := make(map[[sha256.Size]byte]Bad)
	for _, bad := range all {
		must(t, b.Plant(t.Context(), bad.Envelope, bad.Payload))
		want[digest(bad.Envelope, bad.Payload)] = bad
	}
	b.work(t, done)
	// A letter is kept by its number: two of a number would be one, and one of two would be two.
	seen, numbers := make(map[[sha256.Size]byte]bool), make(map[int64]bool)
	for len(want) > 0 {
		l := next(t, b.letters)
		sum := digest(l.Envelope, l.Payload)
		bad, ok := want[sum]
		switch {
		case b.DeliversAgain && seen[sum]:
			continue
		case !ok:
			t.Fatalf("a dead letter that nobody planted, or that came twice: %s", l.Reason)
		case bad.Want != nil && !errors.Is(l.Err, bad.Want):
			t.Errorf("%s: refused with %v", bad.Name, l.Err)
		case l.Verified != nil || l.Reason == "" || strings.Contains(l.Reason, "%!") || l.Attempt < 1 || l.Attempt > 1 && !b.DeliversAgain:
			t.Errorf("%s: dead letter is %+v", bad.Name, l)
		case bad.Want != nil && bad.Said != (l.Said != nil):
			t.Errorf("%s: the letter says what the message said: %v", bad.Name, l.Said != nil)
		}
		if l.JobID <= 0 || numbers[l.JobID] {
			t.Errorf("%s: the letter has the number %d, of none or of another message", bad.Name, l.JobID)
		}
		seen[sum], numbers[l.JobID] = true, true
		delete(want, sum)
	}
	b.flush(t)
	if !b.DeliversAgain {
		b.noLetters(t)
	}
	t.Attr("row", fmt.Sprintf("Q30 %d", len(all)))
}

func digest(envelope, payload []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append(bytes.Clone(envelope), 0xff, 0, 0xff), payload...))
}

// SignBlindly signs an envelope over any payload, as a signer that does not look at what it signs.
func SignBlindly(t testing.TB, p Parties, workspace id.Workspace, payload []byte) []byte {
	t.Helper()
	return resign(t, p, p.Message(t).Envelope, func(e *queuev1.Envelope) {
		sum := sha256.Sum256(payload)
		e.PayloadDigest, e.WorkspaceId = sum[:], workspace.String()
	})
}

// Seal signs any bytes as an envelope, as whoever took over the signer could.
func Seal(t testing.TB, key queue.SigningKey, body []byte) []byte {
	t.Helper()
	raw, err := proto.Marshal(&queuev1.SignedEnvelope{Envelope: body, KeyId: key.ID(), Signature: sign(t, key, body)})
	must(t, err)
	return raw
}
