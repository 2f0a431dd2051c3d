// Package place opens what a setting of a service names, whichever kind of place that is: a directory of the machine, or one of AWS's that the
// process reaches as its task's role. Either is opened with its owner, and refused where it carries another's mark or none. Without a place of
// AWS's nothing of AWS is asked for.
package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/awskms"
	"a3os.app/libs/awssession"
	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/blob/s3"
	"a3os.app/libs/config"
	"a3os.app/libs/queue/sqs"
	"a3os.app/libs/secret"
	"a3os.app/libs/secret/secretsmanager"
)

// What opened places are: the caller closes them.
type (
	// SecretWriterCloser writes credentials.
	SecretWriterCloser interface {
		secret.Writer
		io.Closer
	}
	// SecretReaderCloser reads credentials.
	SecretReaderCloser interface {
		secret.Reader
		io.Closer
	}
	// BlobWriterCloser writes objects.
	BlobWriterCloser interface {
		blob.Writer
		io.Closer
	}
	// BlobReaderCloser reads objects.
	BlobReaderCloser interface {
		blob.Reader
		io.Closer
	}
)

// nothing is what a place at AWS has to close.
type nothing struct{}

// Close implements io.Closer.
func (nothing) Close() error { return nil }

func session(ctx context.Context, region string, owner *binding.Owner) (aws.Config, error) {
	return awssession.Load(ctx, region, awssession.Of(owner.Plane()))
}

// open opens a place as what its form says. A scheme that isn't known is no directory's name.
func open[P any](ctx context.Context, where, scheme string, owner *binding.Owner, here func() (P, error), there func(aws.Config) (P, error)) (P, error) {
	var none P
	if !strings.HasPrefix(where, scheme) {
		if kind, _, is := strings.Cut(where, "://"); is {
			return none, fmt.Errorf("nothing is kept at a place of the kind %s:// here: it is a directory, or %s…", kind, scheme)
		}
		return here()
	}
	if owner == nil {
		return none, fmt.Errorf("%s… can't be opened without an owner", scheme)
	}
	cfg, err := session(ctx, "", owner)
	if err != nil {
		return none, fmt.Errorf("open %s…: %w", scheme, err)
	}
	return there(cfg)
}

// SecretWriter opens the store of owner's credentials for writing, with the public half of its key.
func SecretWriter(ctx context.Context, where string, owner *binding.Owner, publicKey string) (SecretWriterCloser, error) {
	return open(ctx, where, secretsmanager.Scheme, owner, func() (SecretWriterCloser, error) { //nolint:contextcheck // a directory takes no time to open
		return secret.OpenLocalWriter(where, owner, publicKey)
	}, func(cfg aws.Config) (SecretWriterCloser, error) {
		w, err := secretsmanager.OpenWriter(ctx, cfg, where, owner, publicKey)
		return struct {
			*secretsmanager.Writer
			nothing
		}{Writer: w}, err
	})
}

// SecretReader opens the store of owner's credentials for reading, with the private half of its key.
func SecretReader(ctx context.Context, where string, owner *binding.Owner, privateKey config.Secret) (SecretReaderCloser, error) {
	return open(ctx, where, secretsmanager.Scheme, owner, func() (SecretReaderCloser, error) { //nolint:contextcheck // a directory takes no time to open
		return secret.OpenLocalReader(where, owner, privateKey)
	}, func(cfg aws.Config) (SecretReaderCloser, error) {
		r, err := secretsmanager.OpenReader(ctx, cfg, where, owner, privateKey)
		return struct {
			*secretsmanager.Reader
			nothing
		}{Reader: r}, err
	})
}

// BlobWriter opens owner's objects for writing, each of at most mostBytes.
func BlobWriter(ctx context.Context, where string, owner *binding.Owner, mostBytes int64) (BlobWriterCloser, error) {
	return open(ctx, where, s3.Scheme, owner, func() (BlobWriterCloser, error) { //nolint:contextcheck // a directory takes no time to open
		return blob.OpenLocalWriter(where, owner, mostBytes)
	}, func(cfg aws.Config) (BlobWriterCloser, error) {
		w, err := s3.OpenWriter(ctx, cfg, where, owner, mostBytes)
		return struct {
			*s3.Writer
			nothing
		}{Writer: w}, err
	})
}

// BlobReader opens owner's objects for reading.
func BlobReader(ctx context.Context, where string, owner *binding.Owner) (BlobReaderCloser, error) {
	return open(ctx, where, s3.Scheme, owner, func() (BlobReaderCloser, error) { //nolint:contextcheck // a directory takes no time to open
		return blob.OpenLocalReader(where, owner)
	}, func(cfg aws.Config) (BlobReaderCloser, error) {
		r, err := s3.OpenReader(ctx, cfg, where, owner)
		return struct {
			*s3.Reader
			nothing
		}{Reader: r}, err
	})
}

// Keys are the keys of a key service at places, in their order, for owner and a purpose; none where none are named.
func Keys(ctx context.Context, places []string, owner *binding.Owner, purpose string) ([]tink.AEADWithContext, error) {
	var keys []tink.AEADWithContext
	for _, where := range places {
		region, err := awskms.Region(where)
		if err != nil {
			return nil, err
		}
		cfg, err := session(ctx, region, owner)
		if err != nil {
			return nil, err
		}
		key, err := awskms.New(cfg, where, owner.Tenant(), purpose)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Queue opens owner's queue of SQS, which where names by its URL and whose jobs stand in a schema of the tenant's database.
func Queue(ctx context.Context, where, schema string, owner *binding.Owner) (*sqs.Place, error) {
	if owner == nil {
		return nil, errors.New("a queue of SQS can't be opened without an owner")
	}
	cfg, err := session(ctx, "", owner)
	if err != nil {
		return nil, fmt.Errorf("open the queue of SQS: %w", err)
	}
	return sqs.OpenPlace(ctx, cfg, where, schema, owner)
}

// Object opens one object of a plane's, at a place of AWS's, which is opened as the process's role.
func Object(ctx context.Context, where, plane string) (*s3.Object, error) {
	cfg, err := awssession.Load(ctx, "", awssession.Of(plane))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", where, err)
	}
	return s3.OpenObject(cfg, where)
}
