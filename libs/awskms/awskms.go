// Package awskms encrypts data at rest by envelope encryption (tink's): each ciphertext has a data key of its own, which a key wraps that never leaves
// AWS KMS. Wrapping names the tenant and what it is for as the encryption context, so that a data key of one tenant, or
// of another purpose, never unwraps as another's, whatever a policy lets a role call; and CloudTrail says of each call whose it was. A place is
// `awskms://arn:aws:kms:…:key/…`. tink's own binding (tink-go-awskms) has no encryption context within an envelope.
//
// It promises nothing of who may use the key: that is the key's policy. KMS rotates a key's material by itself, and unwraps what older wrapped.
package awskms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/id"
)

// Scheme begins the place of a key.
const Scheme = "awskms://"

// ErrNotUnder says that something was not wrapped by this key for this tenant and purpose, or was changed since.
var ErrNotUnder = errors.New("it was not encrypted under this key of KMS for this tenant")

// Bounds of asking: KMS throttles by account and Region, and who asks it starts.
const (
	tries      = 8
	mostPause  = 2 * time.Second
	mostWait   = 30 * time.Second
	contextKey = "tenant"
	purposeKey = "purpose"
)

// Region is that of a place, and the error of what is none.
func Region(where string) (string, error) {
	a, err := parse(where)
	return a.Region, err
}

func parse(where string) (arn.ARN, error) {
	text, is := strings.CutPrefix(where, Scheme)
	a, err := arn.Parse(text)
	// An alias may be led to another key; what rests under a key is to name that key.
	if !is || err != nil || a.Service != "kms" || a.Region == "" || !strings.HasPrefix(a.Resource, "key/") {
		return arn.ARN{}, fmt.Errorf("%q is not the place of a key of KMS: it is %sarn:aws:kms:REGION:ACCOUNT:key/ID", where, Scheme)
	}
	return a, nil
}

// New is the key of a tenant for a purpose. It calls nothing.
func New(cfg aws.Config, where string, tenant id.Tenant, purpose string) (tink.AEADWithContext, error) {
	a, err := parse(where)
	if err != nil {
		return nil, err
	}
	if tenant.IsZero() || purpose == "" {
		return nil, errors.New("a key of KMS is used for a tenant and a purpose: name both")
	}
	cfg.Region = a.Region
	client := kms.NewFromConfig(cfg, func(o *kms.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, mostPause })
	})
	key := &wrapper{client: client, key: a.String(), context: map[string]string{contextKey: tenant.String(), purposeKey: purpose}}
	envelope, err := aead.NewKMSEnvelopeAEADWithContext(aead.AES256GCMKeyTemplate(), key)
	if err != nil {
		return nil, fmt.Errorf("make the envelope of %s: %w", where, err)
	}
	return &sealed{envelope}, nil
}

// sealed tells what can't be opened from what could not be asked.
type sealed struct{ envelope tink.AEADWithContext }

// EncryptWithContext implements tink.AEADWithContext.
func (s *sealed) EncryptWithContext(ctx context.Context, plaintext, bound []byte) ([]byte, error) {
	return s.envelope.EncryptWithContext(ctx, plaintext, bound)
}

// DecryptWithContext implements tink.AEADWithContext. Errors: [ErrNotUnder], and those of KMS.
func (s *sealed) DecryptWithContext(ctx context.Context, ciphertext, bound []byte) ([]byte, error) {
	plain, err := s.envelope.DecryptWithContext(ctx, ciphertext, bound)
	if _, asked := errors.AsType[*failed](err); err == nil || asked {
		return plain, err
	}
	return nil, ErrNotUnder
}

// failed is KMS's own answer, or that it gave none.
type failed struct {
	what string
	err  error
}

// Error implements error.
func (f *failed) Error() string { return f.what + ": " + f.err.Error() }

// Unwrap implements errors.Unwrap.
func (f *failed) Unwrap() error { return f.err }

// wrapper wraps data keys. It is the key-encryption key of an envelope, whose associated data are always empty.
type wrapper struct {
	client  *kms.Client
	key     string
	context map[string]string
}

// EncryptWithContext implements tink.AEADWithContext.
func (w *wrapper) EncryptWithContext(ctx context.Context, plaintext, _ []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, mostWait)
	defer cancel()
	out, err := w.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &w.key, Plaintext: plaintext, EncryptionContext: w.context})
	if err != nil {
		return nil, &failed{"wrap a data key by " + w.key, err}
	}
	return out.CiphertextBlob, nil
}

// DecryptWithContext implements tink.AEADWithContext. The key is named, so that no other one that the role may use is taken by what the
// ciphertext says of itself.
func (w *wrapper) DecryptWithContext(ctx context.Context, ciphertext, _ []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, mostWait)
	defer cancel()
	out, err := w.client.Decrypt(ctx, &kms.DecryptInput{KeyId: &w.key, CiphertextBlob: ciphertext, EncryptionContext: w.context})
	if err == nil {
		return out.Plaintext, nil
	}
	_, invalid := errors.AsType[*types.InvalidCiphertextException](err)
	_, other := errors.AsType[*types.IncorrectKeyException](err)
	if invalid || other {
		return nil, ErrNotUnder
	}
	return nil, &failed{"unwrap a data key by " + w.key, err}
}
