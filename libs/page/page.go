// Package page makes page tokens: opaque, and worthless to anyone but the caller they were made for, in the same workspace, at the
// same method, with the same filters. It promises that a cursor can neither be read nor changed by callers; it relies on the key,
// which the processes of a service share.
package page

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"a3os.app/libs/fault"
	"a3os.app/libs/scope"
)

// ErrToken is returned for a token that isn't one of ours for this caller, method and filter.
var ErrToken = fault.Declare(fault.InvalidArgument, "PAGE_TOKEN",
	"the page token does not belong to this request: leave it empty to begin again, and keep filters the same from page to page")

// Sealer seals cursors into tokens.
type Sealer struct{ aead *subtle.AESGCM }

// NewSealer makes a sealer from a secret of at least 16 bytes that the service's processes share.
func NewSealer(secret []byte) (*Sealer, error) {
	const least = 16
	if len(secret) < least {
		return nil, fmt.Errorf("the page key has %d bytes, at least %d are needed", len(secret), least)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "a3os page tokens v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the page key: %w", err)
	}
	a, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, fmt.Errorf("make the page cipher: %w", err)
	}
	return &Sealer{aead: a}, nil
}

// Seal makes a token of a cursor, bound to the caller's scope, the method and the filter. The filter is anything that
// encoding/json writes the same each time.
func (s *Sealer) Seal(ctx context.Context, method string, filter, cursor any) (string, error) {
	bound, err := binding(ctx, method, filter)
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(cursor)
	if err != nil {
		return "", fmt.Errorf("encode the cursor: %w", err)
	}
	sealed, err := s.aead.Encrypt(raw, bound)
	if err != nil {
		return "", fmt.Errorf("seal the cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open reads a token into cursor, a pointer. An empty token leaves it as it is: the first page. Fails with ErrToken.
func (s *Sealer) Open(ctx context.Context, method string, filter any, token string, cursor any) error {
	if token == "" {
		return nil
	}
	bound, err := binding(ctx, method, filter)
	if err != nil {
		return err
	}
	// Strict, and without the line ends that the decoder passes over: a token has one form.
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || strings.ContainsAny(token, "\r\n") {
		return ErrToken
	}
	raw, err := s.aead.Decrypt(sealed, bound)
	if err != nil {
		return ErrToken
	}
	if err := json.Unmarshal(raw, cursor); err != nil {
		return ErrToken
	}
	return nil
}

// Size is how many rows a page has: what was asked for, or 100.
func Size(asked int32) int32 {
	if asked <= 0 {
		return 100
	}
	return asked
}

func binding(ctx context.Context, method string, filter any) ([]byte, error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal([]any{sc.Plane, sc.Tenant, sc.Workspace, sc.Principal, method, filter})
	if err != nil {
		return nil, fmt.Errorf("encode the filter: %w", err)
	}
	return raw, nil
}
