package queue

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

const (
	// payloadType is what DSSE binds a signature to, so that one made for something else is none here.
	payloadType = "application/vnd.a3os.envelope.v1"
	// version is the envelope's format.
	version = 1
	// MostTTL bounds how long an envelope can be valid.
	MostTTL = 7 * 24 * time.Hour
	// BySchedule is on whose behalf work is done that no person asked for.
	BySchedule = "schedule"
)

var kindForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}(\.[a-z][a-z0-9_]{0,30}){0,3}$`)

// SignerConfig says who signs and for whom.
type SignerConfig struct {
	Key    SigningKey
	Plane  string
	Tenant id.Tenant
	// Issuer is the service that signs.
	Issuer string
}

// Signer makes messages of one tenant. It is safe for use by many goroutines.
type Signer struct{ cfg SignerConfig }

// NewSigner makes a signer; all of cfg is required.
func NewSigner(cfg SignerConfig) (*Signer, error) {
	if cfg.Key.private == nil || cfg.Plane == "" || cfg.Tenant.IsZero() || cfg.Issuer == "" {
		return nil, errors.New("a signer of messages needs a key, a plane, a tenant and an issuer")
	}
	return &Signer{cfg}, nil
}

// Sign makes a message for a workspace. The payload must be of a type that [CheckPayload] accepts, and name the same tenant and
// workspace. Kind is words joined by dots, as `discovery.slice`; onBehalfOf is `usr_…`, `svc_…` or [BySchedule]; ttl is at most
// [MostTTL].
func (s *Signer) Sign(payload proto.Message, workspace id.Workspace, kind, onBehalfOf string, ttl time.Duration) (Message, error) {
	if workspace.IsZero() {
		return Message{}, fmt.Errorf("sign a %s message: it needs a workspace", kind)
	}
	if ttl <= 0 || ttl > MostTTL {
		return Message{}, fmt.Errorf("sign a %s message: valid for %s, want up to %s", kind, ttl, MostTTL)
	}
	if err := checkPayload(payload, s.cfg.Tenant, workspace); err != nil {
		return Message{}, fmt.Errorf("sign a %s message: %w", kind, err)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(payload)
	if err != nil {
		return Message{}, fmt.Errorf("sign a %s message: %w", kind, err)
	}
	if len(body) > MostPayload {
		return Message{}, fmt.Errorf("sign a %s message: its payload has %d bytes, at most %d are carried", kind, len(body), MostPayload)
	}
	now, message := time.Now(), id.NewMessage()
	digest := sha256.Sum256(body)
	envelope := &queuev1.Envelope{
		Version: version, Id: message.String(), Plane: s.cfg.Plane, TenantId: s.cfg.Tenant.String(), WorkspaceId: workspace.String(),
		Kind: kind, Issuer: s.cfg.Issuer, OnBehalfOf: onBehalfOf, IssuedAt: timestamppb.New(now), ExpiresAt: timestamppb.New(now.Add(ttl)),
		PayloadDigest: digest[:],
	}
	if _, err := readEnvelope(envelope); err != nil {
		return Message{}, fmt.Errorf("sign a %s message: %w", kind, err)
	}
	raw, err := seal(s.cfg.Key, envelope)
	if err != nil {
		return Message{}, fmt.Errorf("sign a %s message: %w", kind, err)
	}
	return Message{ID: message, Kind: kind, Envelope: raw, Payload: body}, nil
}

// seal serializes and signs an envelope.
func seal(key SigningKey, envelope *queuev1.Envelope) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(envelope)
	if err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&queuev1.SignedEnvelope{
		Envelope: body, KeyId: key.id, Signature: ed25519.Sign(key.private, dsse.PAE(payloadType, body)),
	})
	if err != nil {
		return nil, err
	}
	if len(raw) > MostEnvelope {
		return nil, fmt.Errorf("the envelope has %d bytes, at most %d are carried", len(raw), MostEnvelope)
	}
	return raw, nil
}
