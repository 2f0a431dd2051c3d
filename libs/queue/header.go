package queue

import (
	"context"
	"encoding/base64"
	"strings"
)

// EncodeHeader is the message as the value of the RPC header `A3-Envelope`: base64url of the signed envelope, a dot, base64url of the
// payload, without padding.
func EncodeHeader(m Message) string {
	return base64.RawURLEncoding.EncodeToString(m.Envelope) + "." + base64.RawURLEncoding.EncodeToString(m.Payload)
}

// Header is the message again as a header, for who presents what authorised it to the next service.
func (v Verified) Header() string { return EncodeHeader(Message{Envelope: v.raw, Payload: v.payload}) }

// ParseHeader takes the header apart into the two arguments of [Verifier.Verify]. It believes nothing. Errors: [ErrMalformed].
func ParseHeader(header string) (envelope, payload []byte, err error) {
	if len(header) > MostHeader {
		return nil, nil, ErrMalformed.With("the header has %d bytes, want at most %d", len(header), MostHeader)
	}
	first, second, two := strings.Cut(header, ".")
	if !two {
		return nil, nil, ErrMalformed.With("the header is not an envelope and a payload joined by a dot")
	}
	// Strict: of two texts for the same bytes one is refused, so that a header has one form.
	encoding := base64.RawURLEncoding.Strict()
	if envelope, err = encoding.DecodeString(first); err == nil {
		payload, err = encoding.DecodeString(second)
	}
	if err != nil || strings.ContainsAny(header, "\r\n") {
		return nil, nil, ErrMalformed.With("the header is not base64url text")
	}
	return envelope, payload, nil
}

// VerifyHeader parses and verifies.
func (v *Verifier) VerifyHeader(header string) (Verified, error) {
	envelope, payload, err := ParseHeader(header)
	if err != nil {
		return refuse(nil, err)
	}
	return v.Verify(envelope, payload)
}

type contextKey struct{}

// NewContext carries a verified message, for handlers of the RPC that presented it.
func NewContext(ctx context.Context, v Verified) context.Context {
	return context.WithValue(ctx, contextKey{}, v)
}

// FromContext is the message that NewContext put in; none is an error.
func FromContext(ctx context.Context) (Verified, error) {
	v, ok := ctx.Value(contextKey{}).(Verified)
	if !ok || v.IsZero() {
		return Verified{}, ErrForged.With("the call presents no envelope: it needs the header A3-Envelope")
	}
	return v, nil
}
