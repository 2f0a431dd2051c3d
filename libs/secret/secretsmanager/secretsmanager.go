// Package secretsmanager keeps the credentials of a tenant's integrations in AWS Secrets Manager, one secret each, under the tenant's path and
// key of KMS; it is a driver of package secret. What lies there is sealed as everywhere else, so that who may read the store without the private
// key reads nothing. A place is `secretsmanager://tenant/tnt_…/store/secrets`, and with `?key=arn:…` the key of KMS that secrets are made under.
//
// A reader asks every time, so that it notices a rotation at once; what it read it remembers, sealed, for when Secrets Manager throttles or
// fails: then the last value is good for a while. A store that says that there is nothing, or that it may not be read, is believed.
package secretsmanager

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/hashicorp/golang-lru/v2/expirable"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/secret"
)

const (
	markName = "MARK"
	// setting is the variable by which every role is told of the store.
	setting = "A3_SECRET_DIR"
	// Scheme begins a place.
	Scheme = "secretsmanager://"
)

// place is a store.
type place struct {
	client *secretsmanager.Client
	tenant id.Tenant
	// root is what names of its secrets begin with, a slash at its end.
	root string
	// key of KMS; empty for the account's standard one.
	key string
}

func at(cfg aws.Config, where string, tenant id.Tenant) (*place, error) {
	path, query, _ := strings.Cut(strings.TrimPrefix(where, Scheme), "?")
	values, err := url.ParseQuery(query)
	if err != nil || tenant.IsZero() || !strings.HasPrefix(where, Scheme) || !strings.HasPrefix(path, "tenant/"+tenant.String()+"/") || strings.Contains(path, "..") {
		return nil, fmt.Errorf("%q is not the place of the secrets of %s: it is %stenant/%s/store/secrets: check %s", where, tenant, Scheme, tenant, setting)
	}
	client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = triesForget, mostBackoff })
	})
	return &place{client: client, tenant: tenant, root: strings.TrimSuffix(path, "/") + "/", key: values.Get("key")}, nil
}

func (p *place) name(path secret.Path) *string {
	return aws.String(p.root + path.Workspace.String() + "/" + path.Integration.String())
}

func (p *place) said() string { return "secret store " + p.root }

// Create puts the tenant's mark on a place, which names the key that the store is sealed to; where it is already it changes nothing, and
// another's is refused with [binding.ErrForeign].
func Create(ctx context.Context, cfg aws.Config, where string, signer *binding.Signer, tenant id.Tenant, publicKey string) (changed bool, err error) {
	p, err := at(cfg, where, tenant)
	if err != nil {
		return false, err
	}
	key, err := secret.KeyID(publicKey)
	if err != nil {
		return false, err
	}
	mark, err := signer.Sign(binding.Mark{Tenant: tenant, Kind: binding.Secrets, Key: key})
	if err != nil {
		return false, err
	}
	found, err := p.readMark(ctx)
	switch {
	case err == nil && found == mark:
		return false, nil
	case err == nil:
		if m, bad := binding.Claimed(found); bad != nil || m.Tenant != tenant {
			return false, binding.Refuse(binding.ErrForeign, "%s carries the mark of %s, and not of %s: name another place", p.said(), m.Tenant, tenant)
		}
	case !errors.Is(err, binding.ErrUnmarked):
		return false, err
	}
	if err := p.put(ctx, aws.String(p.root+markName), []byte(mark)); err != nil {
		return false, fmt.Errorf("mark %s: %w", p.said(), err)
	}
	return true, nil
}

func (p *place) readMark(ctx context.Context) (string, error) {
	out, err := p.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(p.root + markName)})
	if absent(err) {
		return "", binding.Refuse(binding.ErrUnmarked, "%s carries no mark, so nobody knows whose it is: check %s", p.said(), setting)
	}
	if err != nil {
		return "", fmt.Errorf("read the mark of %s: %w", p.said(), err)
	}
	return string(out.SecretBinary), nil
}

// put stores a value, in a secret that is made where there is none.
func (p *place) put(ctx context.Context, name *string, value []byte) error {
	_, err := p.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: name, SecretBinary: value})
	if !absent(err) {
		return err
	}
	in := &secretsmanager.CreateSecretInput{Name: name, SecretBinary: value, Tags: []types.Tag{{Key: aws.String("tenant"), Value: aws.String(p.tenant.String())}}}
	if p.key != "" {
		in.KmsKeyId = &p.key
	}
	_, err = p.client.CreateSecret(ctx, in)
	var exists *types.ResourceExistsException
	if errors.As(err, &exists) {
		// Somebody else made it meanwhile.
		_, err = p.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: name, SecretBinary: value})
	}
	return err
}

// held is a place that is its owner's.
type held struct {
	*place
	owner *binding.Owner
	want  binding.Mark
}

// Prove implements binding.Resource.
func (h *held) Prove(ctx context.Context) error {
	mark, err := h.readMark(ctx)
	if err != nil {
		return err
	}
	return h.owner.Check(h.want, mark, binding.Place{What: h.said(), Setting: setting})
}

func open(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner, publicKey string) (*place, error) {
	if owner == nil {
		return nil, errors.New("open the secret store: it can't be opened without an owner")
	}
	key, err := secret.KeyID(publicKey)
	if err != nil {
		return nil, err
	}
	p, err := at(cfg, where, owner.Tenant())
	if err != nil {
		return nil, fmt.Errorf("open the secret store: %w", err)
	}
	h := &held{place: p, owner: owner, want: binding.Mark{Kind: binding.Secrets, Key: key}}
	if err := h.Prove(ctx); err != nil {
		return nil, fmt.Errorf("open the secret store: %w", err)
	}
	owner.Hold(h)
	return p, nil
}

// Writer implements secret.Writer. Its role need not be able to read a credential, and the mark alone.
type Writer struct {
	*place
	seal *secret.Sealer
	last atomic.Int64
}

// OpenWriter opens the secret store of owner for writing, with the public half of its key. A place without the owner's mark, or sealed to
// another key, is refused.
func OpenWriter(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner, publicKey string) (*Writer, error) {
	seal, err := secret.NewSealer(publicKey)
	if err != nil {
		return nil, err
	}
	p, err := open(ctx, cfg, where, owner, publicKey)
	if err != nil {
		return nil, err
	}
	return &Writer{place: p, seal: seal}, nil
}

// Put implements secret.Writer.
func (w *Writer) Put(ctx context.Context, path secret.Path, value config.Secret) error {
	if err := errors.Join(ctx.Err(), path.Check(w.tenant), secret.CheckValue(value)); err != nil {
		return err
	}
	sealed, err := w.seal.Seal(path, w.version(), value)
	if err != nil {
		return err
	}
	if err := w.put(ctx, w.name(path), sealed); err != nil {
		return failed("store", path, err)
	}
	return nil
}

// version grows with every Put of the process and, but for a clock turned back, between processes: a writer can't read what is there.
func (w *Writer) version() int64 {
	for {
		last := w.last.Load()
		if next := max(last+1, time.Now().UnixMicro()); w.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Delete implements secret.Writer. Nothing of it can be brought back: a credential that was taken away is not to lie around for a month.
func (w *Writer) Delete(ctx context.Context, path secret.Path) error { return w.remove(ctx, path) }

func (p *place) remove(ctx context.Context, path secret.Path) error {
	if err := errors.Join(ctx.Err(), path.Check(p.tenant)); err != nil {
		return err
	}
	_, err := p.client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: p.name(path), ForceDeleteWithoutRecovery: aws.Bool(true)})
	if err != nil && !absent(err) {
		return failed("delete", path, err)
	}
	return nil
}

// What a reader remembers, for how long, and how often it asks where it remembers something and where it doesn't.
const (
	mostRemembered = 1000
	remembered     = time.Hour
	triesRemember  = 3
	triesForget    = 8
	mostBackoff    = time.Second
)

// Reader implements secret.Reader.
type Reader struct {
	*place
	open *secret.Opener
	// known is what was read last, sealed.
	known *expirable.LRU[secret.Path, []byte]
}

// OpenReader opens the secret store of owner for reading, with the private half of its key. A place without the owner's mark, or sealed to
// another key, is refused.
func OpenReader(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner, privateKey config.Secret) (*Reader, error) {
	opener, err := secret.NewOpener(privateKey)
	if err != nil {
		return nil, err
	}
	p, err := open(ctx, cfg, where, owner, opener.PublicKey())
	if err != nil {
		return nil, err
	}
	return &Reader{place: p, open: opener, known: expirable.NewLRU[secret.Path, []byte](mostRemembered, nil, remembered)}, nil
}

// Get implements secret.Reader.
func (r *Reader) Get(ctx context.Context, path secret.Path) (config.Secret, int64, error) {
	if err := errors.Join(ctx.Err(), path.Check(r.tenant)); err != nil {
		return config.Secret{}, 0, err
	}
	last, has := r.known.Get(path)
	tries := triesForget
	if has {
		tries = triesRemember
	}
	out, err := r.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: r.name(path)}, func(o *secretsmanager.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, mostBackoff })
	})
	var exhausted *retry.MaxAttemptsError
	switch {
	case err == nil:
		last = out.SecretBinary
		r.known.Add(path, last)
	case has && errors.As(err, &exhausted) && ctx.Err() == nil:
		// It can't be asked now; what it said last is still good.
	case absent(err):
		r.known.Remove(path)
		return config.Secret{}, 0, secret.ErrNotFound
	default:
		return config.Secret{}, 0, failed("read", path, err)
	}
	return r.open.Open(path, last)
}

// failed says of a store that went on throttling or failing that it may be asked again.
func failed(what string, path secret.Path, err error) error {
	err = fmt.Errorf("%s the secret of %s: %w", what, path, err)
	if _, gaveUp := errors.AsType[*retry.MaxAttemptsError](err); gaveUp {
		return fault.Wrap(fault.Unavailable, err, "the secret store is busy; try again shortly")
	}
	return err
}

// absent says that there is no such secret, or that it is being deleted.
func absent(err error) bool {
	var missing *types.ResourceNotFoundException
	return errors.As(err, &missing)
}
