package queue

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"a3os.app/libs/dsse"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

// mostSkew is how far ahead of this clock an issuer's may be.
const mostSkew = time.Minute

// mostDepth bounds the nesting that a decoder follows; an envelope nests once.
const mostDepth = 8

// Why a message is refused; find them with errors.Is.
var (
	// ErrMalformed says that bytes are not a message: too large, not decodable, of an unknown version, with a part missing.
	ErrMalformed = fault.Declare(fault.InvalidArgument, "MESSAGE_MALFORMED", "the message is malformed")
	// ErrForged says that no key that is believed signed a message, or that its payload was exchanged.
	ErrForged = fault.Declare(fault.PermissionDenied, "MESSAGE_FORGED", "the message was not signed by a key that is believed here")
	// ErrExpired says that a message is not valid now.
	ErrExpired = fault.Declare(fault.PermissionDenied, "MESSAGE_EXPIRED", "the message is not valid at this time")
	// ErrForeign says that a message belongs to another plane, tenant, issuer or workspace.
	ErrForeign = fault.Declare(fault.PermissionDenied, "MESSAGE_FOREIGN", "the message belongs elsewhere")
)

// Refusal is why a message is refused. It unwraps to one of the errors of this package.
type Refusal struct {
	Err error
	// Envelope is what the message says of itself, where its signature was good and something else was not; else nil.
	Envelope *queuev1.Envelope
}

// Error says why.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// VerifierConfig says whose messages are believed.
type VerifierConfig struct {
	Keys   VerifyingKeys
	Plane  string
	Tenant id.Tenant
	// Issuer is the one service whose messages are believed.
	Issuer string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verifier tells messages that are to be believed from those that aren't. It is safe for use by many goroutines.
type Verifier struct{ cfg VerifierConfig }

// NewVerifier makes a verifier; all of cfg but the clock is required.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if len(cfg.Keys) == 0 || cfg.Plane == "" || cfg.Tenant.IsZero() || cfg.Issuer == "" {
		return nil, errors.New("a verifier of messages needs keys, a plane, a tenant and an issuer")
	}
	for name, key := range cfg.Keys {
		if len(key) != ed25519.PublicKeySize {
			return nil, errors.New("key " + name + " can't verify messages: it is not an Ed25519 public key")
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg}, nil
}

// Verified is a message that is to be believed: scope for the work comes from it. Only a [Verifier] makes one; the zero Verified is
// none, which IsZero says.
type Verified struct {
	envelope     envelope
	raw, payload []byte
}

// envelope is a3os.queue.v1.Envelope with its parts parsed.
type envelope struct {
	id                   id.Message
	plane                string
	tenant               id.Tenant
	workspace            id.Workspace
	kind, issuer, behalf string
	issued, expires      time.Time
	digest               [sha256.Size]byte
}

// Verify believes a message, or says in a [*Refusal] why not. The payload is not decoded before the envelope is believed, and bound
// to it by its digest.
func (v *Verifier) Verify(raw, payload []byte) (Verified, error) {
	switch {
	case len(raw) == 0 || len(raw) > MostEnvelope:
		return refuse(nil, ErrMalformed.With("the envelope has %d bytes, want 1 to %d", len(raw), MostEnvelope))
	case len(payload) > MostPayload:
		return refuse(nil, ErrMalformed.With("the payload has %d bytes, want at most %d", len(payload), MostPayload))
	}
	var signed queuev1.SignedEnvelope
	if err := decode(raw, &signed); err != nil {
		return refuse(nil, ErrMalformed.With("the signed envelope can't be decoded"))
	}
	key, known := v.cfg.Keys[signed.GetKeyId()]
	if !known {
		return refuse(nil, ErrForged.With("no key with this id is believed here: was it exchanged?"))
	}
	if len(signed.GetSignature()) != ed25519.SignatureSize || !ed25519.Verify(key, dsse.PAE(payloadType, signed.GetEnvelope()), signed.GetSignature()) {
		return refuse(nil, ErrForged.With("the signature is not of key %s over this envelope", signed.GetKeyId()))
	}
	var said queuev1.Envelope
	if err := decode(signed.GetEnvelope(), &said); err != nil {
		return refuse(nil, ErrMalformed.With("the envelope can't be decoded"))
	}
	e, err := readEnvelope(&said)
	if err == nil {
		err = v.accept(e)
	}
	if err == nil {
		if digest := sha256.Sum256(payload); subtle.ConstantTimeCompare(digest[:], e.digest[:]) != 1 {
			err = ErrForged.With("the payload is not the one that was signed")
		}
	}
	if err != nil {
		return refuse(&said, err)
	}
	return Verified{envelope: e, raw: raw, payload: payload}, nil
}

// accept refuses an envelope that was made for elsewhere or for another time.
func (v *Verifier) accept(e envelope) error {
	switch now := v.cfg.Now(); {
	case e.plane != v.cfg.Plane:
		return ErrForeign.With("the message is of plane %q, this is %q", e.plane, v.cfg.Plane)
	case e.tenant != v.cfg.Tenant:
		return ErrForeign.With("the message is of tenant %s, this is %s", e.tenant, v.cfg.Tenant)
	case e.issuer != v.cfg.Issuer:
		return ErrForeign.With("the message was issued by %q, only %q is believed here", e.issuer, v.cfg.Issuer)
	case !now.Before(e.expires):
		return ErrExpired.With("the message expired at %s", e.expires.UTC().Format(time.RFC3339))
	case e.issued.Sub(now) > mostSkew:
		return ErrExpired.With("the message was issued at %s, which is yet to come: compare the clocks", e.issued.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// readEnvelope parses an envelope's parts; each is required.
func readEnvelope(said *queuev1.Envelope) (envelope, error) {
	if said.GetVersion() != version {
		return envelope{}, ErrMalformed.With("the envelope's version is %d, this release reads %d", said.GetVersion(), version)
	}
	e := envelope{plane: said.GetPlane(), kind: said.GetKind(), issuer: said.GetIssuer(), behalf: said.GetOnBehalfOf()}
	var errs [3]error
	e.id, errs[0] = id.ParseMessage(said.GetId())
	e.tenant, errs[1] = id.ParseTenant(said.GetTenantId())
	e.workspace, errs[2] = id.ParseWorkspace(said.GetWorkspaceId())
	if err := errors.Join(errs[:]...); err != nil {
		return envelope{}, ErrMalformed.With("the envelope names no message, tenant or workspace: %v", err)
	}
	if !kindForm.MatchString(e.kind) {
		return envelope{}, ErrMalformed.With("the envelope's kind has not the form of one")
	}
	if !isPrincipal(e.behalf) {
		return envelope{}, ErrMalformed.With("the envelope is on behalf of no user, service account or %s", BySchedule)
	}
	if said.GetIssuedAt().CheckValid() != nil || said.GetExpiresAt().CheckValid() != nil {
		return envelope{}, ErrMalformed.With("the envelope's times are none")
	}
	e.issued, e.expires = said.GetIssuedAt().AsTime(), said.GetExpiresAt().AsTime()
	if ttl := e.expires.Sub(e.issued); ttl <= 0 || ttl > MostTTL {
		return envelope{}, ErrMalformed.With("the envelope is valid for %s, want up to %s", ttl, MostTTL)
	}
	if len(said.GetPayloadDigest()) != sha256.Size {
		return envelope{}, ErrMalformed.With("the envelope's payload digest has %d bytes, want %d", len(said.GetPayloadDigest()), sha256.Size)
	}
	e.digest = [sha256.Size]byte(said.GetPayloadDigest())
	return e, nil
}

func isPrincipal(s string) bool {
	if s == BySchedule {
		return true
	}
	if _, err := id.ParseUser(s); err == nil {
		return true
	}
	_, err := id.ParseServiceAccount(s)
	return err == nil
}

// decode reads bytes into m, and refuses nesting and fields that m does not know: what is signed is read whole.
func decode(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{RecursionLimit: mostDepth}).Unmarshal(b, m); err != nil {
		return err
	}
	unknown := len(m.ProtoReflect().GetUnknown()) > 0
	if e, ok := m.(*queuev1.Envelope); ok {
		unknown = unknown || len(e.GetIssuedAt().ProtoReflect().GetUnknown()) > 0 || len(e.GetExpiresAt().ProtoReflect().GetUnknown()) > 0
	}
	if unknown {
		return errors.New("it has fields that this version does not know")
	}
	return nil
}

func refuse(said *queuev1.Envelope, err error) (Verified, error) {
	return Verified{}, &Refusal{Err: err, Envelope: said}
}

// Decode reads the payload into its message. Tenant and workspace in it must equal the envelope's; fields that a later release added
// are left out. Errors: [ErrMalformed], [ErrForeign].
func (v Verified) Decode(into proto.Message) error {
	if v.IsZero() {
		return &Refusal{Err: ErrForged.With("there is no verified message to decode")}
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: mostDepth, DiscardUnknown: true}).Unmarshal(v.payload, into); err != nil {
		return &Refusal{Err: ErrMalformed.With("the payload is not a %s", into.ProtoReflect().Descriptor().Name())}
	}
	if err := checkPayload(into, v.envelope.tenant, v.envelope.workspace); err != nil {
		return &Refusal{Err: err}
	}
	return nil
}

// IsZero says that nothing was verified.
func (v Verified) IsZero() bool { return v.envelope.id.IsZero() }

// ID of the message.
func (v Verified) ID() id.Message { return v.envelope.id }

// Plane the tenant lives in.
func (v Verified) Plane() string { return v.envelope.plane }

// Tenant the work belongs to.
func (v Verified) Tenant() id.Tenant { return v.envelope.tenant }

// Workspace the work belongs to.
func (v Verified) Workspace() id.Workspace { return v.envelope.workspace }

// Kind of work.
func (v Verified) Kind() string { return v.envelope.kind }

// Issuer is the service that signed.
func (v Verified) Issuer() string { return v.envelope.issuer }

// OnBehalfOf is `usr_…`, `svc_…` or [BySchedule].
func (v Verified) OnBehalfOf() string { return v.envelope.behalf }

// IssuedAt is when it was signed, by the signer's clock.
func (v Verified) IssuedAt() time.Time { return v.envelope.issued }

// Message is the message again, bytes and all, to be enqueued once more.
func (v Verified) Message() Message {
	return Message{ID: v.envelope.id, Kind: v.envelope.kind, Envelope: v.raw, Payload: v.payload}
}

// ExpiresAt is when the message stops being valid.
func (v Verified) ExpiresAt() time.Time { return v.envelope.expires }
