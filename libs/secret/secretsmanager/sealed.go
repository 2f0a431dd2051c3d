package secretsmanager

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/libs/binding"
	"a3os.app/libs/secret"
)

// Sealed are the credentials of a store as they lie there, for who backs them up or puts them back. It has no key that opens one.
type Sealed struct{ *place }

// OpenSealed opens the secret store of owner, which is sealed to a key with this public half. A place without the owner's mark, or sealed to
// another key, is refused.
func OpenSealed(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner, publicKey string) (*Sealed, error) {
	p, err := open(ctx, cfg, where, owner, publicKey)
	if err != nil {
		return nil, err
	}
	return &Sealed{p}, nil
}

// Path is that of a secret of Secrets Manager by its name; false for what is no credential of this store.
func (s *Sealed) Path(name string) (secret.Path, bool) {
	below, is := strings.CutPrefix(name, s.root)
	p, err := secret.ParsePath(s.tenant.String() + "/" + below)
	return p, is && err == nil
}

// Get answers what is sealed for a path. Errors: [secret.ErrNotFound].
func (s *Sealed) Get(ctx context.Context, path secret.Path) ([]byte, error) {
	if err := errors.Join(ctx.Err(), path.Check(s.tenant)); err != nil {
		return nil, err
	}
	out, err := s.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: s.name(path)})
	if absent(err) {
		return nil, secret.ErrNotFound
	}
	if err != nil {
		return nil, failed("read", path, err)
	}
	return out.SecretBinary, nil
}

// Put puts back what was sealed for a path.
func (s *Sealed) Put(ctx context.Context, path secret.Path, sealed []byte) error {
	if err := errors.Join(ctx.Err(), path.Check(s.tenant), secret.CheckSealed(sealed)); err != nil {
		return err
	}
	if err := s.put(ctx, s.name(path), sealed); err != nil {
		return failed("store", path, err)
	}
	return nil
}

// Delete takes a credential away, for good.
func (s *Sealed) Delete(ctx context.Context, path secret.Path) error { return s.remove(ctx, path) }
